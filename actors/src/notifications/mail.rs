//! E-mail: the letters, the mail server that takes them, and the mailer that sends what is due.

pub(crate) mod letter;
pub(crate) mod mailer;
pub(crate) mod tokens;
pub(crate) mod transport;

use bowerbird_config::Settings;
use lettre::message::Mailbox;

pub use self::transport::SetupError;
use self::{
    letter::Letterhead,
    mailer::{Limits, MailerAddress},
    tokens::Tokens,
    transport::Transport,
};
use crate::downloads::retry::Backoff;

/// What e-mail needs, if it is on.
#[derive(Clone)]
pub(crate) struct Mail {
    pub(crate) letterhead: Letterhead,
    pub(crate) transport: Transport,
    pub(crate) limits: Limits,
    pub(crate) mailer: MailerAddress,
    /// E-mails of notifications that an account gets within an hour; beyond it they are gathered.
    pub(crate) most_an_hour: i64,
}

impl Mail {
    /// E-mail as the settings say; `None` when it is off.
    pub(crate) fn new(settings: &Settings, tokens: Tokens) -> Result<Option<Self>, SetupError> {
        let smtp = &settings.smtp;
        if smtp.url.is_none() {
            return Ok(None);
        }
        let from: Mailbox = smtp.from.as_deref().unwrap_or_default().parse().map_err(|_| SetupError::From)?;
        let Some(transport) = Transport::new(smtp, from.email.domain())? else { return Ok(None) };
        let public_url = settings.gateway.public_url.clone().ok_or(SetupError::PublicUrl)?;
        Ok(Some(Mail {
            letterhead: Letterhead { from, public_url, tokens },
            transport,
            limits: Limits {
                connections: smtp.connections,
                max_attempts: i32::try_from(smtp.max_attempts).unwrap_or(i32::MAX),
                backoff: Backoff { base: smtp.retry_base.get(), max: smtp.retry_max.get() },
            },
            mailer: MailerAddress::default(),
            most_an_hour: i64::from(smtp.max_per_account_and_hour),
        }))
    }
}
