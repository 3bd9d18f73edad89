//! A safe name for a file, from what a server or a user says. For display only: never a key, never a path.

use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode_str;
use unicode_normalization::UnicodeNormalization;
use url::Url;

/// Longest name, in bytes of UTF-8.
pub const MAX_BYTES: usize = 255;

/// The name that the headers of an answer give (RFC 6266), else the last segment of the URL, else none.
pub fn from_answer(headers: &HeaderMap, url: &Url) -> Option<String> {
    headers.get(header::CONTENT_DISPOSITION).and_then(from_content_disposition).or_else(|| from_url(url))
}

/// The name in a `Content-Disposition`: `filename*` before `filename`.
pub fn from_content_disposition(value: &HeaderValue) -> Option<String> {
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let (mut plain, mut extended) = (None, None);
    for (name, value) in parameters(&text) {
        match name.as_str() {
            "filename" if plain.is_none() => plain = Some(value),
            "filename*" if extended.is_none() => extended = decode_extended(&value),
            _ => {}
        }
    }
    extended.as_deref().and_then(safe).or_else(|| plain.as_deref().and_then(safe))
}

/// The last segment of the path, decoded once.
pub fn from_url(url: &Url) -> Option<String> {
    let segment = url.path_segments()?.next_back()?;
    safe(&percent_decode_str(segment).decode_utf8_lossy())
}

/// The name without everything that could make it more than a name; `None` if nothing is left. Applying it again changes
/// nothing.
pub fn safe(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.nfc().filter(|character| !is_invisible(*character)).collect();
    // Normalisation makes no separator that was not there, but it costs nothing to be sure.
    let kept = kept.replace(['/', '\\'], "_");
    let mut end = kept.len().min(MAX_BYTES);
    while !kept.is_char_boundary(end) {
        end -= 1;
    }
    let kept = kept[..end].trim_matches(|character: char| character == '.' || character.is_whitespace());
    let stem = kept.split('.').next().unwrap_or_default().trim_end();
    if kept.is_empty() || is_device(stem) { None } else { Some(kept.to_owned()) }
}

/// Controls, and what changes the direction or the look of a text without being seen.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Names that Windows takes for devices.
fn is_device(stem: &str) -> bool {
    let stem = stem.to_ascii_uppercase();
    let numbered = ["COM", "LPT"].iter().any(|device| {
        stem.strip_prefix(device).is_some_and(|rest| {
            rest.chars().count() == 1 && rest.chars().all(|digit| digit.is_ascii_digit() || "¹²³".contains(digit))
        })
    });
    numbered || ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str())
}

/// `name=value` pairs behind the disposition type; a quoted value is unquoted.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, behind)) = rest.split_once('=') {
        let name = name.trim_matches(|character: char| character == ';' || character.is_whitespace()).to_ascii_lowercase();
        let behind = behind.trim_start();
        let value;
        (value, rest) = if let Some(quoted) = behind.strip_prefix('"') {
            unquote(quoted)
        } else {
            let (value, rest) = behind.split_once(';').unwrap_or((behind, ""));
            (value.trim().to_owned(), rest)
        };
        found.push((name, value));
        if found.len() == 16 {
            break;
        }
    }
    found
}

fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return (value, quoted[position + 1..].split_once(';').map_or("", |(_, rest)| rest)),
            // Browsers take `\` literally in front of anything but a quote or itself; as a separator it is cut off later.
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => {}
            },
            other => value.push(other),
        }
    }
    (value, "")
}

/// `UTF-8'en'na%C3%AFve.txt` (RFC 8187).
fn decode_extended(value: &str) -> Option<String> {
    let mut pieces = value.splitn(3, '\'');
    let (charset, _language, encoded) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    if charset.eq_ignore_ascii_case("utf-8") {
        String::from_utf8(bytes).ok()
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.into_iter().map(char::from).collect())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disposition(value: &str) -> Option<String> {
        from_content_disposition(&HeaderValue::from_bytes(value.as_bytes()).expect("a header value"))
    }

    #[test]
    fn the_name_is_found_where_rfc_6266_says() {
        let table = [
            ("attachment; filename=\"foo.html\"", Some("foo.html")),
            ("attachment; filename=foo.html", Some("foo.html")),
            ("attachment; FILENAME=\"foo.html\"", Some("foo.html")),
            ("attachment; filename=\"f\\\"oo.html\"", Some("f\"oo.html")),
            ("attachment; filename=\"foo;bar=1.html\"; x=y", Some("foo;bar=1.html")),
            ("attachment; filename*=UTF-8''na%C3%AFve%20file.txt", Some("naïve file.txt")),
            ("attachment; filename=\"fallback\"; filename*=UTF-8''best", Some("best")),
            ("attachment; filename*=UTF-8''best; filename=\"fallback\"", Some("best")),
            ("attachment; filename*=iso-8859-1''foo-%E4.html", Some("foo-ä.html")),
            ("attachment; filename*=UTF-8''%ff%ff; filename=plain", Some("plain")),
            ("attachment; filename*=koi8-r''x; filename=plain", Some("plain")),
            ("attachment; filename=\"über.txt\"", Some("über.txt")),
            ("inline", None),
            ("attachment; filename=", None),
            ("attachment; filename=\"\"", None),
        ];
        for (value, name) in table {
            assert_eq!(disposition(value).as_deref(), name, "{value}");
        }
    }

    #[test]
    fn a_name_never_leads_out_of_its_folder() {
        let table = [
            ("../../etc/passwd", Some("passwd")),
            ("..\\..\\boot.ini", Some("boot.ini")),
            ("/etc/passwd", Some("passwd")),
            ("C:\\autoexec.bat", Some("autoexec.bat")),
            ("..", None),
            (".", None),
            ("dir/", None),
            ("", None),
            (" . ", None),
            ("a\0b", Some("ab")),
            ("exe.\u{202e}txt", Some("exe.txt")),
            ("line\r\nbreak", Some("linebreak")),
            (".hidden", Some("hidden")),
            ("trailing. ", Some("trailing")),
            ("NUL", None),
            ("con.txt", None),
            ("COM1", None),
            ("com¹.log", None),
            ("common.txt", Some("common.txt")),
            ("e\u{301}.txt", Some("é.txt")),
        ];
        for (name, expected) in table {
            assert_eq!(safe(name).as_deref(), expected, "{name:?}");
        }
        assert!(safe(&"ü".repeat(300)).expect("a name").len() <= MAX_BYTES);
    }

    #[test]
    fn the_url_is_decoded_once() {
        let name = |url: &str| from_url(&url.parse().expect("a URL"));
        assert_eq!(name("https://example.com/a/na%C3%AFve.txt?x=/y").as_deref(), Some("naïve.txt"));
        assert_eq!(name("https://example.com/a/..%2F..%2Fb").as_deref(), Some("b"));
        assert_eq!(name("https://example.com/%252e%252e").as_deref(), Some("%2e%2e"));
        assert_eq!(name("https://example.com/"), None);
    }

    proptest! {
        #[test]
        fn a_safe_name_has_no_separator_and_stays_as_it_is(name in "\\PC*|[./\\\\ a-z\u{202e}\u{0}]*") {
            if let Some(once) = safe(&name) {
                prop_assert!(!once.contains(['/', '\\', '\0']) && once.len() <= MAX_BYTES && once != "." && once != "..");
                prop_assert_eq!(safe(&once), Some(once));
            }
        }
    }
}
