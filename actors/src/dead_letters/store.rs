//! The table `dead_letters`.

use bowerbird_nats::{DeadLetterId, dead::Buried, dead_letter::DeadLetter};
use sqlx::{PgPool, Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

/// Consumers whose letters are counted at most; more would be a fault, and must not grow the metrics without end.
const CONSUMERS_COUNTED: i64 = 64;

macro_rules! columns {
    () => {
        "id, stream, consumer, subject, reason, deliveries, octet_length(payload)::bigint AS size_bytes, refused_at, replayed_at"
    };
}

/// A letter with what it says and where it lies.
pub(super) struct Kept {
    pub(super) letter: DeadLetter,
    pub(super) headers: Vec<(String, String)>,
    pub(super) payload: Vec<u8>,
    /// Its sequence in `DEAD`, and when it was stored there.
    pub(super) lies: (u64, OffsetDateTime),
}

/// Write down a letter that lies in `DEAD` at this place. False if it is there already.
pub(super) async fn bury(
    pool: &PgPool,
    id: DeadLetterId,
    letter: &Buried,
    (sequence, stored_at): (u64, OffsetDateTime),
) -> Result<bool, sqlx::Error> {
    let key = letter.message_id.clone().unwrap_or_else(|| format!("DEAD.{sequence}.{}", stored_at.unix_timestamp_nanos()));
    let written = sqlx::query(
        "INSERT INTO dead_letters (id, message_key, stream, consumer, subject, headers, payload, reason, deliveries, refused_at,
                                   buried_sequence, buried_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $10) ON CONFLICT (message_key) DO NOTHING",
    )
    .bind(id.0)
    .bind(key)
    .bind(storable(&letter.stream))
    .bind(storable(&letter.consumer))
    .bind(storable(&letter.subject))
    .bind(Json(letter.headers.iter().map(|(name, value)| (storable(name), storable(value))).collect::<Vec<_>>()))
    .bind(letter.body.as_ref())
    .bind(storable(&letter.reason))
    .bind(letter.deliveries)
    .bind(stored_at)
    .bind(i64::try_from(sequence).unwrap_or(i64::MAX))
    .execute(pool)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// PostgreSQL's text holds every character but this one; a letter must not fail for it.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Letters of this stream and this consumer, the youngest first, older than `before`.
pub(super) async fn list(
    pool: &PgPool,
    stream: Option<&str>,
    consumer: Option<&str>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM dead_letters WHERE ($1::uuid IS NULL OR id < $1) AND ($2::text IS NULL OR stream = $2) \
         AND ($3::text IS NULL OR consumer = $3) ORDER BY id DESC LIMIT $4"
    ))
    .bind(before)
    .bind(stream)
    .bind(consumer)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(letter).collect()
}

/// One letter.
pub(super) async fn find(pool: &PgPool, id: DeadLetterId) -> Result<Option<Kept>, sqlx::Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        ", headers, payload, buried_sequence, buried_at FROM dead_letters WHERE id = $1"
    ))
    .bind(id.0)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(kept).transpose()
}

/// It was sent back to its consumer now. `None` if it is gone.
pub(super) async fn replayed(pool: &PgPool, id: DeadLetterId) -> Result<Option<DeadLetter>, sqlx::Error> {
    let row = sqlx::query(concat!("UPDATE dead_letters SET replayed_at = now() WHERE id = $1 RETURNING ", columns!()))
        .bind(id.0)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(letter).transpose()
}

/// It goes.
pub(super) async fn delete(pool: &PgPool, id: DeadLetterId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM dead_letters WHERE id = $1").bind(id.0).execute(pool).await?;
    Ok(())
}

/// How many letters of each consumer were never sent back.
pub(super) async fn waiting(pool: &PgPool) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT consumer, count(*) FROM dead_letters WHERE replayed_at IS NULL GROUP BY consumer ORDER BY 2 DESC LIMIT $1",
    )
    .bind(CONSUMERS_COUNTED)
    .fetch_all(pool)
    .await
}

fn letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: DeadLetterId(row.try_get("id")?),
        stream: row.try_get("stream")?,
        consumer: row.try_get("consumer")?,
        subject: row.try_get("subject")?,
        reason: row.try_get("reason")?,
        deliveries: row.try_get("deliveries")?,
        size_bytes: row.try_get("size_bytes")?,
        refused_at: row.try_get("refused_at")?,
        replayed_at: row.try_get("replayed_at")?,
    })
}

fn kept(row: &PgRow) -> Result<Kept, sqlx::Error> {
    let sequence: i64 = row.try_get("buried_sequence")?;
    let Json(headers) = row.try_get::<Json<Vec<(String, String)>>, _>("headers")?;
    Ok(Kept {
        letter: letter(row)?,
        headers,
        payload: row.try_get("payload")?,
        lies: (sequence.unsigned_abs(), row.try_get("buried_at")?),
    })
}

#[cfg(test)]
mod tests {
    use bowerbird_lifecycle::IdSource;
    use bowerbird_testkit::TestDatabase;
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_letter_is_written_down_once_whatever_it_holds() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let letter = Buried {
            message_id: Some("one".into()),
            stream: "EVENTS".into(),
            consumer: "test".into(),
            reason: "a\0b".into(),
            subject: "a.b".into(),
            deliveries: 3,
            headers: vec![("a\0".into(), "\u{1F426}".into()), ("a".into(), "2".into())],
            body: Bytes::from_static(b"\0\xff"),
        };
        let lies = (7, OffsetDateTime::UNIX_EPOCH);
        let id = DeadLetterId(IdSource.next());
        assert!(bury(&pool, id, &letter, lies).await.unwrap());
        assert!(!bury(&pool, DeadLetterId(IdSource.next()), &letter, (8, lies.1)).await.unwrap());
        let kept = find(&pool, id).await.unwrap().unwrap();
        assert_eq!((kept.letter.reason.as_str(), kept.payload, kept.lies), ("a\u{fffd}b", b"\0\xff".to_vec(), lies));
        assert_eq!(kept.headers[0], ("a\u{fffd}".into(), "\u{1F426}".into()));
        // What others put there has no id; its place names it.
        let nameless = Buried { message_id: None, ..letter };
        assert!(bury(&pool, DeadLetterId(IdSource.next()), &nameless, lies).await.unwrap());
        assert!(!bury(&pool, DeadLetterId(IdSource.next()), &nameless, lies).await.unwrap());
        assert_eq!(waiting(&pool).await.unwrap(), [("test".to_owned(), 2)]);
    }
}
