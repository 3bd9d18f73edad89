//! Settings: every key, its default, and the rules between them.
//!
//! Defaults (`default.toml`, embedded) are overridden by a file, and that by the environment. What is loaded is checked
//! as a whole before anything starts; a start is refused with a sentence that names the key.

mod check;
mod layers;
mod section;
mod value;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::{Deserialize, Serialize};
use url::Url;

use self::layers::Layers;

pub use self::{
    section::{
        Accounts, Alarms, Auth, Cache, CacheKind, CheckFallback, Database, DigestKind, Downloads, Files, Gateway, Leases,
        LogFormat, Nats, Notifications, Outbound, Reminders, Shutdown, Smtp, Storage, StorageKind, Telemetry, Uploads, Webhooks,
    },
    value::{Secret, ServerUrl, Size, Span},
};

/// The documented defaults, as they are compiled in.
pub const DEFAULTS: &str = include_str!("../default.toml");

/// Prefix of the environment variables that hold settings.
pub const ENVIRONMENT_PREFIX: &str = "BOWERBIRD__";

/// Everything an operator may choose. One field per section of `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in default.toml, once")]
pub struct Settings {
    pub data_dir: PathBuf,
    pub gateway: Gateway,
    pub database: Database,
    pub nats: Nats,
    pub storage: Storage,
    pub auth: Auth,
    pub cache: Cache,
    pub leases: Leases,
    pub outbound: Outbound,
    pub downloads: Downloads,
    pub files: Files,
    pub accounts: Accounts,
    pub alarms: Alarms,
    pub uploads: Uploads,
    pub reminders: Reminders,
    pub notifications: Notifications,
    pub smtp: Smtp,
    pub webhooks: Webhooks,
    pub telemetry: Telemetry,
    pub shutdown: Shutdown,
}

/// Why settings were refused. The text names the key and says what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named file is not there.
    #[error("the settings file {0} cannot be read; name an existing file with --config or leave the option out")]
    MissingFile(PathBuf),
    /// A value has the wrong shape, or a key does not exist.
    #[error("{0}")]
    Invalid(String),
    /// Values that do not fit each other.
    #[error("{0}")]
    Conflict(String),
}

impl Settings {
    /// Load from the defaults, then `file` (or `./bowerbird.toml` if it is there), then the environment, and check.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "this is the room that reads the environment")]
        let (named, environment) =
            (std::env::var("BOWERBIRD_CONFIG").ok().filter(|path| !path.is_empty()).map(PathBuf::from), std::env::vars_os());
        let file = match file.or(named.as_deref()) {
            Some(path) if !path.is_file() => return Err(Error::MissingFile(path.to_owned())),
            Some(path) => Some(path.to_owned()),
            None => Some(PathBuf::from("bowerbird.toml")).filter(|path| path.is_file()),
        };
        Self::from_layers(&Layers::read(file, environment)?)
    }

    fn from_layers(layers: &Layers) -> Result<Self, Error> {
        let settings: Settings = layers.merged().extract().map_err(|error| Error::Invalid(layers.explain(error)))?;
        settings.check().map_err(|error| match error {
            Error::Conflict(sentence) => Error::Conflict(layers.with_places(sentence)),
            error => error,
        })?;
        Ok(settings)
    }

    /// The defaults alone, for tests and for documentation.
    pub fn defaults() -> Result<Self, Error> {
        Self::with_overrides("")
    }

    /// The defaults with `overrides` (TOML) merged over them, checked. No file, no environment.
    pub fn with_overrides(overrides: &str) -> Result<Self, Error> {
        let figment = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(overrides));
        let settings: Settings = figment.extract().map_err(|error| Error::Invalid(Layers::default().explain(error)))?;
        settings.check()?;
        Ok(settings)
    }

    /// Put the addresses that follow from others into the keys that were left out: `gateway.public_url`, `auth.issuer` and
    /// `storage.public_endpoint`. To be called once the ports are known.
    pub fn fill_in_addresses(&mut self) {
        let url_of = |address: SocketAddr| Url::parse(&format!("http://{address}")).ok();
        if self.gateway.public_url.is_none() {
            self.gateway.public_url = url_of(self.gateway.listen);
        }
        if self.auth.issuer.is_none() {
            self.auth.issuer = self.gateway.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
        }
        if self.storage.public_endpoint.is_none() {
            self.storage.public_endpoint = match self.storage.kind {
                StorageKind::Embedded => url_of(self.storage.listen),
                StorageKind::S3 => self.storage.endpoint.clone(),
            };
        }
    }

    /// The effective settings as TOML, secrets hidden.
    pub fn show(&self) -> Result<String, Error> {
        toml::to_string_pretty(self).map_err(|error| Error::Invalid(format!("the settings cannot be printed: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_print_without_secrets() {
        let mut settings = Settings::defaults().unwrap();
        settings.nats.password = Some(Secret::new("hunter2"));
        let shown = settings.show().unwrap();
        assert!(shown.contains("[gateway]"));
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Settings::with_overrides("[gateway]\nlissten = \"127.0.0.1:1\"").unwrap_err().to_string();
        assert!(error.contains("lissten"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        let error = Settings::with_overrides("[leases]\nduration = \"soon\"").unwrap_err().to_string();
        assert!(error.contains("leases.duration must be a duration"), "{error}");
    }

    #[test]
    fn without_a_file_the_defaults_and_the_environment_are_enough() {
        // The tests' working folder has no bowerbird.toml.
        assert_eq!(Settings::load(None).unwrap().data_dir, Path::new("./data"));
    }

    #[test]
    fn addresses_that_were_left_out_follow_from_the_listeners() {
        let mut settings = Settings::with_overrides("[gateway]\nlisten = \"127.0.0.1:18080\"").unwrap();
        settings.fill_in_addresses();
        assert_eq!(settings.gateway.public_url.unwrap().as_str(), "http://127.0.0.1:18080/");
        assert_eq!(settings.auth.issuer.as_deref(), Some("http://127.0.0.1:18080"));
        assert_eq!(settings.storage.public_endpoint.unwrap().as_str(), "http://127.0.0.1:9000/");

        let mut chosen = Settings::with_overrides("[gateway]\npublic_url = \"https://drop.example.org\"").unwrap();
        chosen.fill_in_addresses();
        assert_eq!(chosen.auth.issuer.as_deref(), Some("https://drop.example.org"));
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Settings::load(Some(Path::new("/nowhere/at/all.toml"))).unwrap_err();
        assert!(matches!(error, Error::MissingFile(_)));
    }
}
