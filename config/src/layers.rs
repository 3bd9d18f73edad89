//! Where settings come from: the defaults, a file, the environment; and what is said of one that is wrong: which key, what it
//! must be, what it is, and where that was written.

use std::{collections::BTreeSet, ffi::OsString, fs, net::SocketAddr, path::PathBuf};

use figment::{
    Figment,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Value},
};

use crate::{DEFAULTS, ENVIRONMENT_PREFIX, Error, Size, value::TEXT_WANTED};

/// Prefix of all our environment variables, those that hold no settings too.
const OUR_PREFIX: &str = "BOWERBIRD_";
/// Characters of a value that are repeated in a sentence at most.
const LONGEST_SHOWN: usize = 60;

/// What an operator wrote, besides the defaults.
#[derive(Default)]
pub(crate) struct Layers {
    file: Option<SettingsFile>,
    variables: Vec<Variable>,
}

struct SettingsFile {
    path: PathBuf,
    text: String,
    table: toml::Table,
}

/// `BOWERBIRD__GATEWAY__LISTEN=x` is the key `gateway.listen` with the text `x`.
struct Variable {
    name: String,
    key: String,
    text: String,
}

impl Layers {
    /// Read the file and pick our variables.
    pub(crate) fn read(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut variables = Vec::new();
        for (name, text) in environment {
            // A name that is no text is not ours.
            let Ok(name) = name.into_string() else { continue };
            let upper = name.to_ascii_uppercase();
            let Some(rest) = upper.strip_prefix(ENVIRONMENT_PREFIX) else {
                refuse_slip(&name, &upper)?;
                continue;
            };
            let key = rest.split("__").map(str::to_ascii_lowercase).collect::<Vec<_>>().join(".");
            if defaults().get(&key).is_some_and(toml::Value::is_table) {
                return Err(Error::Invalid(format!("{name}: {key} is a section; name a key of it, as in {name}__KEY")));
            }
            let text = text.into_string().map_err(|_| Error::Invalid(format!("{name}: the value is not UTF-8")))?;
            variables.push(Variable { name, key, text });
        }
        let file = file.map(SettingsFile::read).transpose()?;
        Ok(Layers { file, variables })
    }

    /// The defaults, the file over them, the environment over that.
    pub(crate) fn merged(&self) -> Figment {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = &self.file {
            figment = figment.merge(Toml::string(&file.text));
        }
        let mut environment = Dict::new();
        for variable in &self.variables {
            insert(&mut environment, &variable.key, variable.value());
        }
        figment.merge(Serialized::defaults(environment))
    }

    /// One sentence per fault.
    pub(crate) fn explain(&self, error: figment::Error) -> String {
        error.into_iter().map(|fault| self.sentence(&fault)).collect::<Vec<_>>().join("; ")
    }

    /// A sentence that names settings, with where those were written.
    pub(crate) fn with_places(&self, sentence: String) -> String {
        let in_file = self.file.iter().flat_map(|file| leaves(&file.table, ""));
        let written: BTreeSet<String> = self.variables.iter().map(|variable| variable.key.clone()).chain(in_file).collect();
        let places: Vec<String> = written
            .iter()
            .filter(|key| names(&sentence, key))
            .filter_map(|key| Some(format!("{key} is {}", self.place(key)?)))
            .collect();
        if places.is_empty() { sentence } else { format!("{sentence} ({})", places.join(", ")) }
    }

    fn sentence(&self, fault: &figment::Error) -> String {
        let key = fault.path.join(".");
        if let Kind::UnknownField(field, known) = &fault.kind {
            return self.unknown(&key, field, known);
        }
        let place = self.place(&key).map_or_else(String::new, |place| format!(" ({place})"));
        match &fault.kind {
            // Neither repeats what was found: it may be a secret.
            Kind::Message(message) if message == TEXT_WANTED => return format!("{key} must be a text in quotes{place}"),
            Kind::InvalidType(_, wanted) if wanted == "a text" => return format!("{key} must be a text in quotes{place}"),
            Kind::InvalidType(_, wanted) if wanted.starts_with("struct ") => {
                return format!("{key} must be a section with keys of its own{place}");
            }
            _ => {}
        }
        let found = self.found(&key);
        let not = found.as_deref().map_or_else(String::new, |found| format!(", not `{}`", shortened(found)));
        match form(&key, &fault.kind) {
            Some(form) => {
                let write = found.filter(|_| form.starts_with("a list")).and_then(|found| listed(&found));
                let write = write.map_or_else(String::new, |list| format!("; write {list}"));
                format!("{key} must be {form}{not}{write}{place}")
            }
            None if key.is_empty() => format!("{}{place}", fault.kind),
            None => format!("{key}: {}{place}", fault.kind),
        }
    }

    /// `key` ends with the field that is not known.
    fn unknown(&self, key: &str, field: &str, known: &[&str]) -> String {
        let section = key.strip_suffix(field).unwrap_or(key).trim_end_matches('.');
        let place = self.place(key).map_or_else(String::new, |place| format!(" ({place})"));
        let meant = known.iter().find(|name| section.is_empty() && field.starts_with(&format!("{name}_")));
        let hint = match (meant, section.is_empty()) {
            (Some(name), _) => {
                let meant = format!("{name}.{}", &field[name.len() + 1..]);
                format!("in the environment {meant} is {}", variable_of(&meant))
            }
            (None, true) => format!("there are {}", known.join(", ")),
            (None, false) => format!("{section} has {}", known.join(", ")),
        };
        format!("{key} is not a setting{place}; {hint}")
    }

    /// Where a key, or what it is a part of, was written.
    fn place(&self, key: &str) -> Option<String> {
        let within = |whole: &str, part: &str| part.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'));
        let of = |variable: &&Variable| {
            variable.key == key || within(&variable.key, key) || within(key, &variable.key) && !key.is_empty()
        };
        if let Some(variable) = self.variables.iter().find(of) {
            return Some(format!("set by {}", variable.name));
        }
        let file = self.file.as_ref()?;
        lookup(&file.table, key)?;
        Some(format!("set in {}", file.path.display()))
    }

    /// What was written for a key.
    fn found(&self, key: &str) -> Option<String> {
        let whole = without_index(key);
        if let Some(variable) = self.variables.iter().find(|variable| variable.key == whole) {
            return Some(variable.text.clone());
        }
        match lookup(&self.file.as_ref()?.table, whole)? {
            toml::Value::String(text) => Some(text.clone()),
            toml::Value::Table(_) => None,
            other => Some(other.to_string()),
        }
    }
}

impl SettingsFile {
    fn read(path: PathBuf) -> Result<Self, Error> {
        let text = fs::read_to_string(&path)
            .map_err(|error| Error::Invalid(format!("the settings file {} cannot be read: {error}", path.display())))?;
        let table = text.parse::<toml::Table>().map_err(|error| {
            // Without the line itself, which may hold a secret.
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Error::Invalid(format!("the settings file {} is not TOML: line {line}: {}", path.display(), error.message()))
        })?;
        Ok(SettingsFile { path, text, table })
    }
}

impl Variable {
    /// A setting that is a text takes every text: `0123` is a good password. The others are written as in TOML.
    fn value(&self) -> Value {
        let parsed: Value = match self.text.parse() {
            Ok(parsed) => parsed,
            Err(never) => match never {},
        };
        let is_text = defaults().get(&self.key).is_none_or(toml::Value::is_str);
        match parsed {
            Value::String(..) => parsed,
            _ if is_text => Value::from(self.text.clone()),
            _ => parsed,
        }
    }
}

/// The defaults by key, sections too.
struct Defaults(toml::Table);

fn defaults() -> Defaults {
    // A test proves that it is TOML.
    Defaults(DEFAULTS.parse().unwrap_or_default())
}

impl Defaults {
    fn get(&self, key: &str) -> Option<&toml::Value> {
        lookup(&self.0, key)
    }
}

/// `BOWERBIRD_GATEWAY__LISTEN` was meant to be a setting and would be none, `BOWERBIRD_DATA_DIR` too.
fn refuse_slip(name: &str, upper: &str) -> Result<(), Error> {
    let Some(rest) = upper.strip_prefix(OUR_PREFIX) else { return Ok(()) };
    let (first, has_more) = rest.split_once("__").map_or((rest, false), |(section, _)| (section, true));
    if defaults().get(&first.to_ascii_lowercase()).is_some_and(|value| value.is_table() == has_more) {
        return Err(Error::Invalid(format!(
            "{name} is not read: settings begin with two underscores; write {ENVIRONMENT_PREFIX}{rest}"
        )));
    }
    Ok(())
}

fn variable_of(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn insert(dict: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            dict.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let entry = dict.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

fn lookup<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => match table.get(section)? {
            toml::Value::Table(inner) => lookup(inner, rest),
            // A place within a list.
            other => Some(other),
        },
    }
}

/// Every key of a table that holds a value.
fn leaves(table: &toml::Table, section: &str) -> Vec<String> {
    table
        .iter()
        .flat_map(|(name, value)| match value {
            toml::Value::Table(inner) => leaves(inner, &join(section, name)),
            _ => vec![join(section, name)],
        })
        .collect()
}

/// `outbound.allow.0` is a place within `outbound.allow`.
fn without_index(key: &str) -> &str {
    match key.rsplit_once('.') {
        Some((whole, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => whole,
        _ => key,
    }
}

/// What a setting must be, told from its default and from what the type wanted.
fn form(key: &str, kind: &Kind) -> Option<String> {
    if let Kind::UnknownVariant(_, known) = kind {
        return Some(format!("one of `{}`", known.join("`, `")));
    }
    let wanted = match kind {
        Kind::InvalidType(_, wanted) | Kind::InvalidValue(_, wanted) => wanted.as_str(),
        _ => "",
    };
    let defaults = defaults();
    let form = match defaults.get(without_index(key)) {
        Some(toml::Value::Boolean(_)) => "true or false".to_owned(),
        Some(toml::Value::Integer(_)) => whole_number(wanted),
        Some(toml::Value::Float(_)) => "a number".to_owned(),
        Some(toml::Value::Array(items)) => format!("a list such as {}", example(key, items)),
        Some(toml::Value::String(text)) if text.parse::<SocketAddr>().is_ok() => {
            format!("an address with its port, such as {text}")
        }
        Some(toml::Value::String(text)) if humantime::parse_duration(text).is_ok() => {
            "a duration with its unit, such as \"15s\", \"5m\" or \"30d\"".to_owned()
        }
        Some(toml::Value::String(text)) if text.parse::<Size>().is_ok() => {
            "a size such as \"64KiB\", \"8MiB\" or \"1GiB\"".to_owned()
        }
        None if key.ends_with("url") || key.ends_with("endpoint") => "a URL such as https://drop.example.org".to_owned(),
        _ if wanted == "a string" => "a text in quotes".to_owned(),
        _ => return None,
    };
    Some(form)
}

fn whole_number(wanted: &str) -> String {
    let most = match wanted {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        _ => return "a whole number, not below 0".to_owned(),
    };
    format!("a whole number from 0 to {most}")
}

fn example(key: &str, default: &[toml::Value]) -> String {
    match without_index(key) {
        "outbound.allow" | "outbound.deny" => r#"["192.168.1.0/24"]"#.to_owned(),
        "outbound.name_servers" => r#"["192.168.1.1:53"]"#.to_owned(),
        "gateway.cors_origins" => r#"["https://app.example.org"]"#.to_owned(),
        _ if default.is_empty() => r#"["one", "two"]"#.to_owned(),
        _ => toml::Value::Array(default.to_vec()).to_string(),
    }
}

/// What was meant to be a list, as one: `127.0.0.0/8` as `["127.0.0.0/8"]`.
fn listed(found: &str) -> Option<String> {
    if found.is_empty() || found.contains(['[', ']', '"']) {
        return None;
    }
    let items = found.split(',').map(|item| match item.trim() {
        number if number.parse::<i64>().is_ok() => number.to_owned(),
        text => format!("\"{text}\""),
    });
    Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")))
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST_SHOWN {
        text.to_owned()
    } else {
        text.chars().take(LONGEST_SHOWN).chain(['…']).collect()
    }
}

/// Whether a sentence names this key, and not only one that begins with it.
fn names(sentence: &str, key: &str) -> bool {
    sentence.match_indices(key).any(|(at, _)| {
        let next = sentence[at + key.len()..].chars().next();
        next.is_none_or(|next| !next.is_ascii_alphanumeric() && next != '_')
    })
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::Settings;

    fn with(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let variables = variables.iter().map(|(name, text)| (OsString::from(name), OsString::from(text)));
        Settings::from_layers(&Layers::read(None, variables)?)
    }

    fn refused(name: &str, text: &str) -> String {
        with(&[(name, text)]).expect_err(name).to_string()
    }

    fn with_file(text: &str) -> (String, Result<Settings, Error>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_owned();
        let loaded = Layers::read(Some(path.clone()), []).and_then(|layers| Settings::from_layers(&layers));
        (path.display().to_string(), loaded)
    }

    #[test]
    fn the_environment_is_read_as_its_settings_are_meant() {
        let settings = with(&[
            ("BOWERBIRD__GATEWAY__LISTEN", "127.0.0.1:18080"),
            ("BOWERBIRD__OUTBOUND__ALLOW", r#"["127.0.0.0/8", "::1/128"]"#),
            ("BOWERBIRD__OUTBOUND__PORTS", "[8081]"),
            ("BOWERBIRD__GATEWAY__BODY_LIMIT", "2048"),
            ("BOWERBIRD__AUTH__OPEN_REGISTRATION", "false"),
            ("BOWERBIRD__NATS__USER", "007"),
            ("BOWERBIRD__NATS__PASSWORD", "0123"),
            ("BOWERBIRD__NATS__URL", "\"nats://u:pw@h:1\""),
            ("BOWERBIRD_CONFIG", ""),
            ("BOWERBIRD_PROVE__X", ""),
            ("HOME", "/root"),
        ])
        .unwrap();
        assert_eq!(settings.gateway.listen.port(), 18080);
        assert_eq!((settings.outbound.allow.len(), settings.outbound.ports.as_slice()), (2, &[8081][..]));
        assert_eq!(settings.gateway.body_limit.get(), 2048);
        assert!(!settings.auth.open_registration);
        assert_eq!(settings.nats.user.as_deref(), Some("007"));
        assert_eq!(settings.nats.password.as_ref().unwrap().expose(), "0123");
        assert_eq!(settings.nats.url.as_ref().unwrap().expose(), "nats://u:pw@h:1");
        let shown = settings.show().unwrap();
        assert!(shown.contains("nats://[hidden]@h:1") && !shown.contains("pw@"), "{shown}");
    }

    #[test]
    fn a_wrong_variable_is_named_with_what_it_must_be() {
        for (name, text, sentence) in [
            (
                "BOWERBIRD__OUTBOUND__ALLOW",
                "127.0.0.0/8",
                "outbound.allow must be a list such as [\"192.168.1.0/24\"], not `127.0.0.0/8`; write [\"127.0.0.0/8\"] (set by \
                 BOWERBIRD__OUTBOUND__ALLOW)",
            ),
            ("BOWERBIRD__OUTBOUND__ALLOW", "[\"here\"]", "must be a list such as [\"192.168.1.0/24\"], not `[\"here\"]`"),
            ("BOWERBIRD__OUTBOUND__PORTS", "8081", "; write [8081]"),
            (
                "BOWERBIRD__GATEWAY__READ_TIMEOUT",
                "15",
                "gateway.read_timeout must be a duration with its unit, such as \"15s\", \"5m\" or \"30d\", not `15` (set by \
                 BOWERBIRD__GATEWAY__READ_TIMEOUT)",
            ),
            (
                "BOWERBIRD__GATEWAY__LISTEN",
                "x",
                "gateway.listen must be an address with its port, such as 127.0.0.1:8080, not `x` (set by \
                 BOWERBIRD__GATEWAY__LISTEN)",
            ),
            ("BOWERBIRD__GATEWAY__BODY_LIMIT", "1 MB", "gateway.body_limit must be a size such as \"64KiB\""),
            ("BOWERBIRD__GATEWAY__MAX_CONNECTIONS", "many", "must be a whole number, not below 0, not `many`"),
            ("BOWERBIRD__GATEWAY__MAX_CONNECTIONS", "1.5", "must be a whole number, not below 0, not `1.5`"),
            ("BOWERBIRD__DOWNLOADS__MAX_ATTEMPTS", "5000000000", "must be a whole number from 0 to 4294967295"),
            ("BOWERBIRD__AUTH__OPEN_REGISTRATION", "yes", "auth.open_registration must be true or false, not `yes`"),
            ("BOWERBIRD__STORAGE__KIND", "disk", "storage.kind must be one of `embedded`, `s3`, not `disk`"),
            ("BOWERBIRD__GATEWAY__PUBLIC_URL", "drop", "gateway.public_url must be a URL such as https://drop.example.org, not"),
            (
                "BOWERBIRD__GATEWAY__LISSTEN",
                "x",
                "gateway.lissten is not a setting (set by BOWERBIRD__GATEWAY__LISSTEN); gateway has",
            ),
            ("BOWERBIRD__GATEWAY_LISTEN", "x", "in the environment gateway.listen is BOWERBIRD__GATEWAY__LISTEN"),
            ("BOWERBIRD__GATEWAY", "x", "gateway is a section"),
            ("BOWERBIRD__GATEWAY__LISTEN__NOW", "x", "set by BOWERBIRD__GATEWAY__LISTEN__NOW"),
            (
                "BOWERBIRD__NATS__REPLICAS",
                "2",
                "nats.replicas must be 1, 3 or 5 (nats.replicas is set by BOWERBIRD__NATS__REPLICAS)",
            ),
        ] {
            let said = refused(name, text);
            assert!(said.contains(sentence), "{name}={text}: {said}");
        }
    }

    #[test]
    fn one_underscore_instead_of_two_is_refused_with_the_right_spelling() {
        for slip in ["GATEWAY__LISTEN", "DATA_DIR", "nats__url"] {
            let said = refused(&format!("BOWERBIRD_{slip}"), "127.0.0.1:1");
            assert!(said.contains(&format!("write BOWERBIRD__{}", slip.to_ascii_uppercase())), "{said}");
        }
        for other in ["BOWERBIRD_NATS_CORE_PASSWORD", "BOWERBIRD_TOKEN", "BOWERBIRD_NATS", "BOWERBIRD_PROVE__X"] {
            with(&[(other, "x")]).unwrap();
        }
    }

    #[test]
    fn a_wrong_file_is_named_and_its_line() {
        let (path, refused) = with_file("[leases]\nduration = \"soon\"\n");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("leases.duration must be a duration") && said.contains("not `soon`"), "{said}");
        assert!(said.contains(&format!("(set in {path})")), "{said}");
        let (path, refused) = with_file("[gateway]\nlissten = 1\n");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(&format!("gateway.lissten is not a setting (set in {path})")), "{said}");
        let (path, refused) = with_file("[auth]\naccess_token_ttl = \"1h\"\n");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(&format!("(auth.access_token_ttl is set in {path})")), "{said}");
        let (path, refused) = with_file("\n[nats]\npassword = hunter2\n");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(&format!("{path} is not TOML: line 3")) && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_secret_that_is_no_text_is_refused_without_being_repeated() {
        for text in ["[nats]\npassword = 4711", "[database]\nurl = 4711.5", "[smtp]\nurl = true", "[nats]\nurl = 4711"] {
            let (_, refused) = with_file(text);
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("must be a text in quotes") && !said.contains("4711"), "{said}");
        }
        let (_, refused) = with_file("nats = \"hunter2\"");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("nats must be a section") && !said.contains("hunter2"), "{said}");
        let (_, refused) = with_file("[nats]\npassword = [\"hunter2\"]");
        let said = refused.unwrap_err().to_string();
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn the_defaults_are_a_table() {
        assert!(defaults().get("gateway.listen").is_some());
    }
}
