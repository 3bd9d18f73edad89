//! What may be asked for: the fields of a request, each checked, every fault of a request named at once.

use std::collections::BTreeMap;

use bowerbird_nats::{
    Code, Problem,
    download::{Algorithm, Checksum, CreateDownload},
    problem::FieldError,
};
use bowerbird_outbound::header;

/// Longest URL that is taken, in characters.
const MAX_URL_CHARACTERS: usize = 4096;
/// Longest text that a list can be searched for.
const MAX_SEARCH_CHARACTERS: usize = 200;
/// How deep folders may lie.
const MAX_FOLDER_DEPTH: usize = 32;

/// Collects what is wrong with a request.
#[derive(Default)]
pub(crate) struct Faults(Vec<FieldError>);

impl Faults {
    /// This field has this fault.
    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    /// This field has a fault unless the condition holds.
    pub(crate) fn unless(&mut self, holds: bool, field: &str, message: &str) {
        if !holds {
            self.add(field, message);
        }
    }

    /// Nothing, or the problem that names every field at fault.
    pub(crate) fn into_result(self) -> Result<(), Problem> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let detail = match self.0.len() {
            1 => format!("{}: {}", first.field, first.message),
            more => format!("{more} fields are at fault; the first is {}: {}", first.field, first.message),
        };
        let mut problem = Problem::new(Code::InvalidValue, detail);
        problem.errors = self.0;
        Err(problem)
    }
}

/// Everything about a new download but whether its URL may be dialled.
pub(crate) fn create(request: &CreateDownload) -> Result<(), Problem> {
    let mut faults = Faults::default();
    url(&mut faults, &request.url);
    if let Some(name) = &request.file_name {
        file_name(&mut faults, "file_name", name);
    }
    if let Some(path) = &request.folder {
        folder(&mut faults, "folder", path);
    }
    headers(&mut faults, &request.headers);
    if let Some(checksum) = &request.checksum {
        faults.unless(
            digest(checksum).is_some(),
            "checksum.value",
            "must be the digest in hexadecimal: 64 digits for sha256, 128 for sha512",
        );
    }
    faults.unless(request.max_connections.is_none_or(|n| (1..=64).contains(&n)), "max_connections", "must be from 1 to 64");
    faults.unless(request.priority.is_none_or(|n| n <= 9), "priority", "must be from 0 (low) to 9 (high)");
    faults.unless(request.max_attempts.is_none_or(|n| (1..=100).contains(&n)), "max_attempts", "must be from 1 to 100");
    faults.into_result()
}

/// A URL, as far as its text goes; what it points at is the address guard's business.
pub(crate) fn url(faults: &mut Faults, text: &str) {
    faults.unless(!text.is_empty(), "url", "must not be empty");
    faults.unless(text.chars().count() <= MAX_URL_CHARACTERS, "url", "must be at most 4096 characters");
    faults.unless(!text.chars().any(char::is_control), "url", "must not hold control characters");
}

/// A name without a path.
pub(crate) fn file_name(faults: &mut Faults, field: &str, name: &str) {
    faults.unless((1..=255).contains(&name.len()), field, "must be from 1 to 255 bytes of UTF-8");
    faults.unless(!name.contains(['/', '\\']), field, "must not hold a slash: the folder is a field of its own");
    faults.unless(
        !name.chars().any(is_deceiving),
        field,
        "must not hold control characters or marks that turn the direction of text",
    );
    faults.unless(name != "." && name != "..", field, "must not be . or ..");
    faults.unless(name.trim() == name, field, "must not begin or end with white space");
}

/// A folder: `/`, `/films/2026`.
pub(crate) fn folder(faults: &mut Faults, field: &str, path: &str) {
    let rest = path.strip_prefix('/');
    faults.unless(rest.is_some(), field, "must begin with /");
    faults.unless(path.len() <= 1024, field, "must be at most 1024 bytes of UTF-8");
    faults.unless(
        !path.contains('\\') && !path.chars().any(is_deceiving),
        field,
        "must not hold backslashes, control characters or marks that turn the direction of text",
    );
    let named = rest.is_none_or(|rest| {
        rest.is_empty()
            || rest.split('/').all(|name| (1..=255).contains(&name.len()) && name != "." && name != ".." && name.trim() == name)
    });
    faults.unless(
        named,
        field,
        "each part must be a name of 1 to 255 bytes, not . or .., without white space around it; no slash at the end",
    );
    faults.unless(path.matches('/').count() <= MAX_FOLDER_DEPTH, field, "must be at most 32 folders deep");
}

/// The digest that was given, as bytes.
pub(crate) fn digest(checksum: &Checksum) -> Option<Vec<u8>> {
    let length = match checksum.algorithm {
        Algorithm::Sha256 => 32,
        Algorithm::Sha512 => 64,
    };
    let text = checksum.value.as_bytes();
    if text.len() != 2 * length || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    text.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What is searched for in a list.
pub(crate) fn search(text: Option<&str>) -> Result<(), Problem> {
    let mut faults = Faults::default();
    if let Some(text) = text {
        faults.unless(text.chars().count() <= MAX_SEARCH_CHARACTERS, "q", "must be at most 200 characters");
        faults.unless(!text.contains('\0'), "q", "must not hold NUL");
    }
    faults.into_result()
}

/// A pattern for LIKE that matches what contains this text, whatever is in it.
pub(crate) fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

fn headers(faults: &mut Faults, headers: &BTreeMap<String, String>) {
    let mut fine = true;
    for (name, value) in headers {
        if let Err(refused) = header::check([(name.as_str(), value.as_str())]) {
            faults.add(format!("headers.{}", refused.name), refused.reason);
            fine = false;
        }
    }
    if fine && let Err(refused) = header::check(headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        faults.add("headers", format!("{}: {}", refused.name, refused.reason));
    }
}

/// Not to be seen, or makes a name look like another one.
pub(crate) fn is_deceiving(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// It was changed since the caller looked.
pub(crate) fn changed(asked: i64, found: i64) -> Problem {
    Problem::new(
        Code::VersionMismatch,
        format!("it has version {found} by now, not {asked}; look at it again and decide whether the change still makes sense"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateDownload {
        CreateDownload {
            url: "https://example.org/a".to_owned(),
            file_name: None,
            folder: None,
            headers: BTreeMap::new(),
            checksum: None,
            max_connections: None,
            priority: None,
            start_at: None,
            max_attempts: None,
        }
    }

    #[test]
    fn every_field_at_fault_is_named_at_once() {
        let mut wrong = request();
        wrong.url = String::new();
        wrong.file_name = Some("../passwd".to_owned());
        wrong.folder = Some("films".to_owned());
        wrong.headers = BTreeMap::from([("Range".to_owned(), "bytes=0-".to_owned()), ("x".to_owned(), "a\r\nb".to_owned())]);
        wrong.checksum = Some(Checksum { algorithm: Algorithm::Sha256, value: "abc".to_owned() });
        wrong.max_connections = Some(65);
        wrong.priority = Some(10);
        wrong.max_attempts = Some(0);
        let problem = create(&wrong).unwrap_err();
        let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "url",
                "file_name",
                "folder",
                "headers.Range",
                "headers.x",
                "checksum.value",
                "max_connections",
                "priority",
                "max_attempts"
            ]
        );
        assert_eq!(problem.code, Code::InvalidValue);
        assert!(create(&request()).is_ok());
    }

    #[test]
    fn names_and_folders_are_taken_as_people_write_them_and_not_as_attackers_do() {
        let name_is_fine = |name: &str| {
            let mut faults = Faults::default();
            file_name(&mut faults, "file_name", name);
            faults.into_result().is_ok()
        };
        assert!(["a", "Füße (2).tar.gz", "日本語.txt", ".profile", "a b"].into_iter().all(name_is_fine));
        let long = "x".repeat(256);
        assert!(!["", ".", "..", "a/b", "a\\b", "a\0", " a", "a\u{202e}gpj.exe", &long].into_iter().any(name_is_fine));

        let folder_is_fine = |path: &str| {
            let mut faults = Faults::default();
            folder(&mut faults, "folder", path);
            faults.into_result().is_ok()
        };
        assert!(["/", "/films", "/films/2026", "/日本語"].into_iter().all(folder_is_fine));
        assert!(!["", "films", "//", "/a/", "/a//b", "/a/../b", "/.", "/a\\b", "/a\n"].into_iter().any(folder_is_fine));
    }

    #[test]
    fn what_is_searched_for_is_not_a_pattern() {
        assert_eq!(containing(r"100%_\x"), r"%100\%\_\\x%");
    }

    #[test]
    fn a_digest_has_its_algorithms_length() {
        let checksum = |algorithm, value: String| Checksum { algorithm, value };
        assert_eq!(digest(&checksum(Algorithm::Sha256, "aB".repeat(32))), Some(vec![0xab; 32]));
        assert_eq!(digest(&checksum(Algorithm::Sha512, "00".repeat(64))), Some(vec![0; 64]));
        assert_eq!(digest(&checksum(Algorithm::Sha512, "00".repeat(32))), None);
        assert_eq!(digest(&checksum(Algorithm::Sha256, "+a".repeat(32))), None);
    }
}
