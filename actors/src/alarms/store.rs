//! The table `alarms`: arming, moving and cancelling, in the caller's transaction.

pub(super) mod bucket;
pub(super) mod due;

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Kind;

/// Wake `kind` about `subject_id` at `due_at`; at once if that is past. Makes the alarm, or moves the one that there is.
///
/// If it is being woken right now, this waits until that is over and arms it anew.
pub async fn arm(connection: &mut PgConnection, kind: Kind, subject_id: Uuid, due_at: OffsetDateTime) -> Result<(), sqlx::Error> {
    arm_many(connection, kind, &[(subject_id, due_at)]).await
}

/// [`arm`] for many subjects, in one statement. Of a subject that is named twice the last counts.
pub async fn arm_many(connection: &mut PgConnection, kind: Kind, alarms: &[(Uuid, OffsetDateTime)]) -> Result<(), sqlx::Error> {
    if alarms.is_empty() {
        return Ok(());
    }
    let (subjects, due): (Vec<Uuid>, Vec<OffsetDateTime>) = alarms.iter().copied().unzip();
    // In the order of the subjects, so that two who arm the same ones do not wait for each other in a circle.
    sqlx::query(
        "INSERT INTO alarms AS a (kind, subject_id, due_at, wake_at)
         SELECT DISTINCT ON (t.subject_id) $1, t.subject_id, t.due_at, t.due_at
         FROM unnest($2::uuid[], $3::timestamptz[]) WITH ORDINALITY AS t (subject_id, due_at, place)
         ORDER BY t.subject_id, t.place DESC
         ON CONFLICT (kind, subject_id) DO UPDATE SET
             due_at = excluded.due_at, wake_at = excluded.due_at, version = a.version + 1,
             attempt = 0, last_error = NULL, refused_at = NULL",
    )
    .bind(kind.as_str())
    .bind(subjects)
    .bind(due)
    .execute(connection)
    .await?;
    Ok(())
}

/// [`arm`], counted from the database's time.
pub async fn arm_after(connection: &mut PgConnection, kind: Kind, subject_id: Uuid, after: Duration) -> Result<(), sqlx::Error> {
    let due_at = sqlx::query_scalar("SELECT now() + make_interval(secs => $1)")
        .bind(after.as_secs_f64())
        .fetch_one(&mut *connection)
        .await?;
    arm(connection, kind, subject_id, due_at).await
}

/// Wake `kind` about `subject_id` after `after`, unless that is armed already, at whatever time.
pub async fn arm_first(connection: &mut PgConnection, kind: Kind, subject_id: Uuid, after: Duration) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO alarms (kind, subject_id, due_at, wake_at)
         SELECT $1, $2, at, at FROM (SELECT now() + make_interval(secs => $3)) AS t (at) ON CONFLICT DO NOTHING",
    )
    .bind(kind.as_str())
    .bind(subject_id)
    .bind(after.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

/// Do not wake it any more. True if it was armed; false if there is none: it never was armed, or it has woken. If it is
/// being woken right now, this waits until that is over.
pub async fn cancel(connection: &mut PgConnection, kind: Kind, subject_id: Uuid) -> Result<bool, sqlx::Error> {
    let canceled = sqlx::query("DELETE FROM alarms WHERE kind = $1 AND subject_id = $2")
        .bind(kind.as_str())
        .bind(subject_id)
        .execute(connection)
        .await?;
    Ok(canceled.rows_affected() == 1)
}

/// [`cancel`] for many; those that were armed, in their own order.
pub async fn cancel_many(connection: &mut PgConnection, kind: Kind, subjects: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    let held = hold_many(connection, kind, subjects).await?;
    if !held.is_empty() {
        sqlx::query("DELETE FROM alarms WHERE kind = $1 AND subject_id = ANY ($2)")
            .bind(kind.as_str())
            .bind(&held)
            .execute(connection)
            .await?;
    }
    Ok(held)
}

/// Keep it from being woken until the transaction ends. True if there is one. Call it before locking what the alarm is
/// about, in a transaction that will arm or cancel it. If it is being woken right now, this waits until that is over.
pub async fn hold(connection: &mut PgConnection, kind: Kind, subject_id: Uuid) -> Result<bool, sqlx::Error> {
    Ok(!hold_many(connection, kind, &[subject_id]).await?.is_empty())
}

/// [`hold`] for many; those that there are, in their own order.
pub async fn hold_many(connection: &mut PgConnection, kind: Kind, subjects: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT subject_id FROM alarms WHERE kind = $1 AND subject_id = ANY ($2) ORDER BY subject_id FOR UPDATE")
        .bind(kind.as_str())
        .bind(subjects)
        .fetch_all(connection)
        .await
}

#[cfg(test)]
mod tests {
    use bowerbird_lifecycle::IdSource;
    use bowerbird_testkit::TestDatabase;
    use sqlx::PgPool;
    use time::macros::datetime;

    use super::*;

    const FIRST: OffsetDateTime = datetime!(2030-01-01 08:00:00 UTC);
    const LATER: OffsetDateTime = datetime!(2031-01-01 08:00:00 UTC);

    async fn alarm(pool: &PgPool, kind: Kind, subject: Uuid) -> Option<(OffsetDateTime, OffsetDateTime, i64, i32)> {
        sqlx::query_as("SELECT due_at, wake_at, version, attempt FROM alarms WHERE kind = $1 AND subject_id = $2")
            .bind(kind.as_str())
            .bind(subject)
            .fetch_optional(pool)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn arming_again_moves_the_one_alarm_that_there_is_and_forgets_its_failures() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let mut connection = pool.acquire().await.unwrap();
        let subject = IdSource.next();
        arm(&mut connection, Kind::Reminder, subject, FIRST).await.unwrap();
        assert_eq!(alarm(&pool, Kind::Reminder, subject).await, Some((FIRST, FIRST, 1, 0)));
        sqlx::query("UPDATE alarms SET attempt = 3, wake_at = now(), refused_at = now()").execute(&pool).await.unwrap();
        arm(&mut connection, Kind::Reminder, subject, LATER).await.unwrap();
        assert_eq!(alarm(&pool, Kind::Reminder, subject).await, Some((LATER, LATER, 2, 0)));
        // Another kind about the same thing is another alarm.
        arm(&mut connection, Kind::Email, subject, FIRST).await.unwrap();
        assert!(cancel(&mut connection, Kind::Email, subject).await.unwrap());
        assert!(!cancel(&mut connection, Kind::Email, subject).await.unwrap());
        assert!(alarm(&pool, Kind::Reminder, subject).await.is_some());
    }

    #[tokio::test]
    async fn what_is_armed_in_a_transaction_that_is_rolled_back_is_not_armed() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let subject = IdSource.next();
        let mut transaction = pool.begin().await.unwrap();
        arm(&mut transaction, Kind::Reminder, subject, FIRST).await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(alarm(&pool, Kind::Reminder, subject).await, None);
    }

    #[tokio::test]
    async fn of_a_subject_that_is_named_twice_the_last_counts_and_many_are_canceled_at_once() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let mut connection = pool.acquire().await.unwrap();
        let (a, b, never) = (IdSource.next(), IdSource.next(), IdSource.next());
        arm_many(&mut connection, Kind::WebhookDelivery, &[(a, FIRST), (b, FIRST), (a, LATER)]).await.unwrap();
        assert_eq!(alarm(&pool, Kind::WebhookDelivery, a).await, Some((LATER, LATER, 1, 0)));
        assert_eq!(alarm(&pool, Kind::WebhookDelivery, b).await, Some((FIRST, FIRST, 1, 0)));
        assert_eq!(cancel_many(&mut connection, Kind::WebhookDelivery, &[b, never, a]).await.unwrap(), [a, b]);
        assert_eq!(cancel_many(&mut connection, Kind::WebhookDelivery, &[a, b]).await.unwrap(), Vec::<Uuid>::new());
        arm_many(&mut connection, Kind::WebhookDelivery, &[]).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_holds_an_alarm_makes_the_next_one_wait_and_sees_what_it_left() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let subject = IdSource.next();
        arm(&mut pool.acquire().await.unwrap(), Kind::Reminder, subject, FIRST).await.unwrap();
        let mut first = pool.begin().await.unwrap();
        assert!(hold(&mut first, Kind::Reminder, subject).await.unwrap());
        let second = tokio::task::JoinSet::from_iter([{
            let pool = pool.clone();
            async move {
                let mut transaction = pool.begin().await.unwrap();
                hold(&mut transaction, Kind::Reminder, subject).await.unwrap()
            }
        }]);
        assert!(cancel(&mut first, Kind::Reminder, subject).await.unwrap());
        first.commit().await.unwrap();
        assert_eq!(second.join_all().await, [false]);
    }
}
