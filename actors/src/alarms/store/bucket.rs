//! The table `alarm_buckets`: the seconds for which JetStream holds a schedule.

use bowerbird_nats::alarm::Bucket;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::super::Kind;

/// Advisory lock of whoever guards the horizon.
const GUARDING: i64 = 0x626f_7765_616c_6d01;

/// One process at a time, until the transaction ends. False if another is at it.
pub(crate) async fn take_turn(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // JetStream is told meanwhile.
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1) FROM set_config('idle_in_transaction_session_timeout', '60s', true)")
        .bind(GUARDING)
        .fetch_one(connection)
        .await
}

/// The second that the database has now.
pub(crate) async fn this_second(connection: &mut PgConnection) -> Result<OffsetDateTime, sqlx::Error> {
    sqlx::query_scalar("SELECT date_trunc('second', now())").fetch_one(connection).await
}

/// The seconds after `begins` and up to `ends`, both whole, in which something is due and which JetStream knows
/// nothing of. Costs one entry of the index for each second in which something is due, however much that is.
pub(crate) async fn unguarded(
    connection: &mut PgConnection,
    kinds: &[Kind],
    begins: OffsetDateTime,
    ends: OffsetDateTime,
) -> Result<Vec<Bucket>, sqlx::Error> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let seconds: Vec<i64> = sqlx::query_scalar(
        "WITH RECURSIVE step (kind, second) AS (
             SELECT k.kind, (SELECT to_timestamp(ceil(extract(epoch FROM a.wake_at))) FROM alarms AS a
                             WHERE a.kind = k.kind AND a.refused_at IS NULL AND a.wake_at > $2 AND a.wake_at <= $3
                             ORDER BY a.wake_at LIMIT 1)
             FROM unnest($1::text[]) AS k (kind)
             UNION ALL
             SELECT s.kind, (SELECT to_timestamp(ceil(extract(epoch FROM a.wake_at))) FROM alarms AS a
                             WHERE a.kind = s.kind AND a.refused_at IS NULL AND a.wake_at > s.second AND a.wake_at <= $3
                             ORDER BY a.wake_at LIMIT 1)
             FROM step AS s WHERE s.second IS NOT NULL
         )
         SELECT DISTINCT extract(epoch FROM s.second)::bigint AS unguarded
         FROM step AS s
         WHERE s.second IS NOT NULL AND NOT EXISTS (SELECT 1 FROM alarm_buckets AS b WHERE b.fires_at = s.second)
         ORDER BY unguarded",
    )
    .bind(names)
    .bind(begins)
    .bind(ends)
    .fetch_all(connection)
    .await?;
    Ok(seconds.into_iter().map(Bucket).collect())
}

/// JetStream has acknowledged these.
pub(crate) async fn guarded(connection: &mut PgConnection, buckets: &[Bucket]) -> Result<(), sqlx::Error> {
    let seconds: Vec<i64> = buckets.iter().map(|bucket| bucket.0).collect();
    sqlx::query(
        "INSERT INTO alarm_buckets (fires_at) SELECT to_timestamp(s) FROM unnest($1::bigint[]) AS s ON CONFLICT DO NOTHING",
    )
    .bind(seconds)
    .execute(connection)
    .await?;
    Ok(())
}

/// JetStream has lost what it had.
pub(crate) async fn forget_all(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM alarm_buckets").execute(connection).await?;
    Ok(())
}

/// Take off what has fired; how many are left.
pub(crate) async fn trim(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query("DELETE FROM alarm_buckets WHERE fires_at < now() - interval '1 minute'").execute(&mut *connection).await?;
    sqlx::query_scalar("SELECT count(*) FROM alarm_buckets").fetch_one(connection).await
}
