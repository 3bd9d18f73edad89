//! Handing an e-mail to the mail server: one connection each, every step with an end, and a verdict on what went wrong.

use std::{path::Path, time::Duration};

use bowerbird_config::Smtp;
use lettre::{
    Message,
    transport::smtp::{
        Error as SmtpError,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use url::{Host, Url};

use crate::notifications::telling;

/// Longest wait for one answer of the mail server.
const COMMAND_PATIENCE: Duration = Duration::from_secs(20);
/// Longest exchange: what it takes to send one e-mail.
pub(crate) const SEND_PATIENCE: Duration = Duration::from_mins(1);
/// Longest word of the mail server that is written down.
const SAID_MAX: usize = 300;

/// The mail server cannot be used as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Not a URL of a mail server.
    #[error(
        "smtp.url has to be smtps://user:password@host or smtp://user:password@host:587, with ?tls=none for a server without TLS"
    )]
    Url,
    /// Not a sender.
    #[error("smtp.from has to be an address such as `Bowerbird <drop@example.org>`")]
    From,
    /// Nothing that links could lead to.
    #[error("gateway.public_url has to be set, as e-mails have links")]
    PublicUrl,
    /// The certificates cannot be read.
    #[error("smtp.ca_file cannot be read as certificates in PEM; check its path and its content")]
    CaFile,
    /// TLS cannot be set up.
    #[error("TLS to the mail server cannot be set up: {0}")]
    Tls(String),
}

/// An e-mail was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub(crate) struct NotTaken {
    /// Whether another try could go better.
    pub(crate) passing: bool,
    /// What went wrong. Holds no secret, but perhaps an address.
    pub(crate) said: String,
}

/// How the connection is encrypted.
#[derive(Clone)]
enum Encryption {
    /// From the first byte.
    Wrapped(TlsParameters),
    /// By STARTTLS before anything is said, or nothing is said.
    Required(TlsParameters),
    /// Not at all.
    None,
}

/// Talks to one mail server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transport {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    hello: ClientId,
}

impl Transport {
    /// A transport as the settings say; `None` when e-mail is off.
    pub(crate) fn new(settings: &Smtp, sender_domain: &str) -> Result<Option<Self>, SetupError> {
        let Some(url) = &settings.url else { return Ok(None) };
        let url = Url::parse(url.expose()).map_err(|_| SetupError::Url)?;
        let host = match url.host().ok_or(SetupError::Url)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let mode: Vec<_> = url.query_pairs().collect();
        let tls = || tls(&host, settings.ca_file.as_deref());
        let (encryption, port) = match (url.scheme(), mode.as_slice()) {
            ("smtps", []) => (Encryption::Wrapped(tls()?), 465),
            ("smtp", []) => (Encryption::Required(tls()?), 587),
            ("smtp", [(key, value)]) if key == "tls" && value == "none" => (Encryption::None, 25),
            _ => return Err(SetupError::Url),
        };
        let decode =
            |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| SetupError::Url);
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) if !user.is_empty() => Some(Credentials::new(decode(user)?, decode(password)?)),
            _ => return Err(SetupError::Url),
        };
        let hello = ClientId::Domain(sender_domain.to_owned());
        Ok(Some(Transport { port: url.port().unwrap_or(port), host, encryption, credentials, hello }))
    }

    /// Hand over an e-mail. When this is dropped or says that it was not taken, it may have been taken all the same.
    pub(crate) async fn send(&self, message: &Message) -> Result<(), NotTaken> {
        match timeout(SEND_PATIENCE, self.exchange(message)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(NotTaken { passing: true, said: format!("the mail server took longer than {SEND_PATIENCE:?}") }),
        }
    }

    async fn exchange(&self, message: &Message) -> Result<(), NotTaken> {
        // What the server says before it has heard of this e-mail is about the server or the settings, so it passes.
        let mut connection = self.connect().await.map_err(|error| not_taken("the mail server cannot be used", &error, true))?;
        let sent = connection.send(message.envelope(), &message.formatted()).await;
        let outcome = sent
            .map(|_| ())
            .map_err(|error| not_taken("the mail server did not take it", &error, !error.is_permanent() && !error.is_client()));
        // It has said what it had to say.
        let _ = timeout(Duration::from_secs(1), connection.quit()).await;
        outcome
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let wrapped = match &self.encryption {
            Encryption::Wrapped(tls) => Some(tls.clone()),
            Encryption::Required(_) | Encryption::None => None,
        };
        let server = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(COMMAND_PATIENCE), &self.hello, wrapped, None).await?;
        if let Encryption::Required(tls) = &self.encryption {
            connection.starttls(tls.clone(), &self.hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }
}

fn tls(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, SetupError> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(ca_file) = ca_file {
        let pem = std::fs::read(ca_file).map_err(|_| SetupError::CaFile)?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|_| SetupError::CaFile)?);
    }
    builder.build().map_err(|error| SetupError::Tls(error.to_string()))
}

fn not_taken(what: &str, error: &SmtpError, passing: bool) -> NotTaken {
    use std::error::Error as _;
    let mut said = error.to_string();
    if let Some(source) = error.source()
        && !said.contains(&source.to_string())
    {
        said = format!("{said}: {source}");
    }
    NotTaken { passing, said: format!("{what}: {}", telling::line(&said, SAID_MAX)) }
}

#[cfg(test)]
mod tests {
    use bowerbird_config::Settings;

    use super::*;

    fn transport(url: &str) -> Result<Option<Transport>, SetupError> {
        let settings = Settings::with_overrides(&format!("[smtp]\nurl = \"{url}\"\nfrom = \"a@example.org\"")).unwrap();
        Transport::new(&settings.smtp, "example.org")
    }

    #[test]
    fn the_url_says_where_and_how_and_nothing_is_sent_in_the_clear_by_default() {
        let of = |url: &str| transport(url).unwrap().unwrap();
        let wrapped = of("smtps://mail.example.org");
        assert!(matches!(wrapped.encryption, Encryption::Wrapped(_)) && wrapped.port == 465 && wrapped.credentials.is_none());
        let required = of("smtp://us%40er:p%3Aw@mail.example.org");
        assert!(matches!(required.encryption, Encryption::Required(_)) && required.port == 587);
        assert_eq!(required.credentials, Some(Credentials::new("us@er".into(), "p:w".into())));
        let plain = of("smtp://127.0.0.1:2525?tls=none");
        assert!(matches!(plain.encryption, Encryption::None) && plain.port == 2525 && plain.host == "127.0.0.1");
        for wrong in
            ["mail.example.org", "http://mail.example.org", "smtp://mail.example.org?tls=maybe", "smtp://user@mail.example.org"]
        {
            let error = transport(wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("smtp.url"), "{wrong}: {error}");
        }
        assert!(Transport::new(&Settings::with_overrides("").unwrap().smtp, "example.org").unwrap().is_none());
    }
}
