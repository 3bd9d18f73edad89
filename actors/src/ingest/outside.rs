//! The external check: somebody else's service says what is to become of an object. It is waited for with an end.

use std::time::Duration;

use bowerbird_config::CheckFallback;
use bowerbird_nats::{
    Bus,
    subject::Subject,
    upload::{Check, Checked, Verdict},
};
use bowerbird_storage::{Audience, Bucket, PresignGet};
use sqlx::PgPool;
use tracing::{info, warn};

use super::Error;
use crate::{
    downloads::row::hexadecimal,
    uploads::{row::Row, store},
};

/// Life of the link that the service reads the content by.
const LINK_FOR: Duration = Duration::from_mins(5);
/// Longest wait before the service is asked again.
const AGAIN_MOST: Duration = Duration::from_mins(1);
/// Longest wait that the service may ask for.
const ASKED_MOST_SECONDS: u32 = 3600;
/// Longest reason that is kept.
const REASON_MAX_CHARACTERS: usize = 500;

/// Asks the service.
#[derive(Clone)]
pub(super) struct Outside {
    pub(super) bus: Bus,
    pub(super) bucket: Bucket,
    pub(super) pool: PgPool,
    pub(super) subject: Subject,
    /// For one answer.
    pub(super) timeout: Duration,
    /// From the landing on; then the fallback.
    pub(super) deadline: Duration,
    pub(super) fallback: CheckFallback,
}

/// What is to become of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Continue,
    Quarantine(String),
    Delete(String),
    /// Ask again after this long.
    Later(Duration),
    /// Nobody waits for it any more.
    Nothing,
}

impl Outside {
    pub(super) async fn ask(&self, row: &Row) -> Result<Decision, Error> {
        let Some(attempt) = store::check_asked(&self.pool, row.id).await? else { return Ok(Decision::Nothing) };
        let link = self.bucket.presign_get(&row.object_key, LINK_FOR, &PresignGet::default(), Audience::Internal).await?;
        let question = Check {
            upload_id: row.id,
            file_id: row.file_id,
            account_id: row.account_id,
            file_name: row.file_name.clone(),
            size_bytes: row.size_bytes,
            content_type: row.content_type.clone(),
            detected_content_type: row.detected_type.clone(),
            sha256: row.sha256.as_ref().map(|digest| hexadecimal(digest)),
            url: link.url.to_string(),
            attempt,
        };
        let answer = self.bus.ask_outside::<_, Checked>(&self.subject, &question, self.timeout).await;
        let wait = match answer {
            Ok(Checked { outcome: Verdict::Continue, .. }) => return Ok(Decision::Continue),
            Ok(Checked { outcome: Verdict::Quarantine, reason, .. }) => {
                return Ok(Decision::Quarantine(said(reason, "the external check found something wrong with it")));
            }
            Ok(Checked { outcome: Verdict::Delete, reason, .. }) => {
                return Ok(Decision::Delete(said(reason, "the external check had it deleted")));
            }
            Ok(Checked { outcome: Verdict::Retry, retry_after_seconds, .. }) => {
                let asked = retry_after_seconds.map(|seconds| Duration::from_secs(seconds.clamp(1, ASKED_MOST_SECONDS).into()));
                asked.unwrap_or_else(|| backoff(attempt))
            }
            Err(error) => {
                info!(upload = %row.id, attempt, %error, "the external check did not answer");
                backoff(attempt)
            }
        };
        let since = Duration::try_from_secs_f64(row.landed_seconds_ago.unwrap_or(0.0).max(0.0)).unwrap_or(Duration::MAX);
        let left = self.deadline.saturating_sub(since);
        if !left.is_zero() {
            return Ok(Decision::Later(wait.min(left)));
        }
        warn!(upload = %row.id, attempt, "the external check gave no verdict in time");
        Ok(match self.fallback {
            CheckFallback::Continue => Decision::Continue,
            CheckFallback::Quarantine => Decision::Quarantine("the external check gave no verdict in time".to_owned()),
        })
    }
}

fn backoff(attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(0).min(6);
    Duration::from_secs(1 << doublings).min(AGAIN_MOST)
}

fn said(reason: Option<String>, otherwise: &str) -> String {
    let reason = reason.unwrap_or_default();
    let reason: String = reason.chars().filter(|character| !character.is_control()).take(REASON_MAX_CHARACTERS).collect();
    if reason.is_empty() { otherwise.to_owned() } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_reasons_are_cut() {
        assert_eq!(backoff(1), Duration::from_secs(1));
        assert_eq!(backoff(4), Duration::from_secs(8));
        assert_eq!(backoff(i32::MAX), AGAIN_MOST);
        assert_eq!(said(None, "why"), "why");
        assert_eq!(said(Some("\n".to_owned()), "why"), "why");
        assert_eq!(said(Some("a\r\nb".to_owned()), "why"), "ab");
        assert_eq!(said(Some("x".repeat(600)), "why").len(), REASON_MAX_CHARACTERS);
    }
}
