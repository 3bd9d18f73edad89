//! Asking somebody else's service on a subject that the operator chose.

use std::time::Duration;

use async_nats::RequestErrorKind;
use serde::{Serialize, de::DeserializeOwned};

use crate::{bus::Bus, subject::Subject};

/// Longest answer that is read.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Why there is no answer. Asking again may help with each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody subscribes to the subject.
    #[error("nobody answers on {0}")]
    NoResponders(String),
    /// No answer in time, or the server is away.
    #[error("no answer came on {0} in time")]
    Timeout(String),
    /// The answer is not of the documented form.
    #[error("the answer on {subject} is not one: {reason}")]
    BadAnswer {
        /// Where it was asked.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Bus {
    /// Asks a service that is not ours: JSON there, JSON back, once.
    pub async fn ask_outside<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        subject: &Subject,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, Error> {
        let bad = |reason: String| Error::BadAnswer { subject: subject.to_string(), reason };
        let body = serde_json::to_vec(question).map_err(|error| bad(format!("the question has no JSON: {error}")))?;
        let request = async_nats::Request::new().payload(body.into()).timeout(None);
        let asked = self.0.client.send_request(subject.nats(), request);
        let answer = match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                return Err(Error::NoResponders(subject.to_string()));
            }
            Ok(Err(_)) | Err(_) => return Err(Error::Timeout(subject.to_string())),
        };
        if answer.payload.len() > ANSWER_MAX_BYTES {
            return Err(bad(format!("it is longer than {ANSWER_MAX_BYTES} bytes")));
        }
        serde_json::from_slice(&answer.payload).map_err(|error| bad(error.to_string()))
    }
}
