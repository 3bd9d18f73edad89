//! What owners do with their reminders. Every function but [`find`] and [`list`] runs in the caller's transaction.

use bowerbird_nats::{AccountId, ReminderId, reminder::Status};
use sqlx::{PgConnection, PgPool, postgres::PgArguments, query::Query};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, columns, read, read_all};
use crate::reminders::row::{Row, Watch};

/// Below this distance to the limit, those who make reminders for an account are counted one after the other.
const CLOSE_TO_THE_LIMIT: i64 = 1_000;

/// Reminders that are looked at for one page.
const LOOKED_AT_MOST: i64 = 5_000;

/// The database's time, of this transaction.
pub(crate) async fn now(connection: &mut PgConnection) -> Result<OffsetDateTime, Error> {
    Ok(sqlx::query_scalar("SELECT now()").fetch_one(connection).await?)
}

/// The database's time, right now.
pub(crate) async fn clock(connection: &mut PgConnection) -> Result<OffsetDateTime, Error> {
    Ok(sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await?)
}

/// Whether the account may do anything.
pub(crate) async fn is_enabled(connection: &mut PgConnection, account: AccountId) -> Result<bool, Error> {
    let enabled = sqlx::query_scalar("SELECT EXISTS (SELECT FROM accounts WHERE id = $1 AND disabled_at IS NULL)");
    Ok(enabled.bind(account.0).fetch_one(connection).await?)
}

/// Whether the account may have one more reminder ahead of it, besides `but`.
pub(crate) async fn has_room(
    connection: &mut PgConnection,
    account: AccountId,
    but: ReminderId,
    most: u32,
) -> Result<bool, Error> {
    let most = i64::from(most);
    if ahead(connection, account, but, most).await? < most - CLOSE_TO_THE_LIMIT {
        return Ok(true);
    }
    // Until the transaction ends, so that the next one counts this one's.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('reminders ' || $1::text, 0))")
        .bind(account.0)
        .execute(&mut *connection)
        .await?;
    Ok(ahead(connection, account, but, most).await? < most)
}

async fn ahead(connection: &mut PgConnection, account: AccountId, but: ReminderId, most: i64) -> Result<i64, Error> {
    let counted = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM reminders WHERE account_id = $1 AND status = 'scheduled' AND id <> $2 LIMIT $3) AS ahead",
    );
    Ok(counted.bind(account.0).bind(but.0).bind(most).fetch_one(connection).await?)
}

/// Sequence of the last event of this thing. Nothing more is written about it while the caller holds its row.
pub(crate) async fn last_event_of(connection: &mut PgConnection, thing: Uuid) -> Result<i64, Error> {
    let last: Option<i64> = sqlx::query_scalar("SELECT last_sequence FROM event_sequences WHERE entity_id = $1")
        .bind(thing)
        .fetch_optional(connection)
        .await?;
    Ok(last.unwrap_or(0))
}

/// Add a reminder.
pub(crate) async fn insert(connection: &mut PgConnection, row: &Row) -> Result<Row, Error> {
    let inserted = sqlx::query(concat!(
        "INSERT INTO reminders (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, \
         $25, $26, $27, $28, $29, $30, $31, $32, $33) RETURNING ",
        columns!()
    ));
    read(&bind(inserted, row).fetch_one(connection).await?)
}

/// Write all of a row that the caller holds.
pub(crate) async fn change(connection: &mut PgConnection, row: &Row) -> Result<Row, Error> {
    let changed = sqlx::query(concat!(
        "UPDATE reminders SET title = $3, note = $4, channels = $5, about_kind = $6, about_id = $7, due_at = $8, start_local = $9, \
         time_zone = $10, rrule = $11, exdates = $12, last_local = $13, ends_at = $14, on_event_type = $15, on_event_id = $16, \
         on_event_after = $17, unless_event_type = $18, unless_event_id = $19, unless_event_after = $20, status = $21, \
         next_fire_at = $22, next_local = $23, snoozed_until = $24, floor_at = $25, handled_local = $26, zone_rules = $27, \
         last_fired_at = $28, fired = $29, version = $30, created_at = $31, updated_at = $32, ended_at = $33 \
         WHERE id = $1 AND account_id = $2 RETURNING ",
        columns!()
    ));
    read(&bind(changed, row).fetch_one(connection).await?)
}

/// The columns in their order.
fn bind<'q>(query: Query<'q, sqlx::Postgres, PgArguments>, row: &'q Row) -> Query<'q, sqlx::Postgres, PgArguments> {
    let watched = |watch: &'q Option<Watch>| {
        let watch = watch.as_ref();
        (
            watch.map(|watch| watch.trigger.event_type.as_str()),
            watch.map(|watch| watch.trigger.id),
            watch.and_then(|watch| watch.after),
        )
    };
    let (on_event, unless_event) = (watched(&row.on_event), watched(&row.unless_event));
    let channels: Vec<&str> = row.words.channels.iter().map(|channel| channel.as_str()).collect();
    query
        .bind(row.id.0)
        .bind(row.account_id.0)
        .bind(&row.words.title)
        .bind(&row.words.note)
        .bind(channels)
        .bind(row.words.about.map(|about| about.kind.as_str()))
        .bind(row.words.about.map(|about| about.id))
        .bind(row.timing.due_at)
        .bind(row.timing.start_local)
        .bind(&row.timing.time_zone)
        .bind(&row.timing.rrule)
        .bind(&row.timing.exdates)
        .bind(row.timing.last_local)
        .bind(row.timing.ends_at)
        .bind(on_event.0)
        .bind(on_event.1)
        .bind(on_event.2)
        .bind(unless_event.0)
        .bind(unless_event.1)
        .bind(unless_event.2)
        .bind(row.status.as_str())
        .bind(row.next_fire_at)
        .bind(row.next_local)
        .bind(row.snoozed_until)
        .bind(row.floor_at)
        .bind(row.handled_local)
        .bind(&row.zone_rules)
        .bind(row.last_fired_at)
        .bind(row.fired)
        .bind(row.version)
        .bind(row.created_at)
        .bind(row.updated_at)
        .bind(row.ended_at)
}

/// One reminder of this account.
pub(crate) async fn find(pool: &PgPool, account: AccountId, id: ReminderId) -> Result<Option<Row>, Error> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM reminders WHERE id = $1 AND account_id = $2"))
        .bind(id.0)
        .bind(account.0)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(read).transpose()
}

/// One reminder of this account, held until the transaction ends. Hold its alarm before.
pub(crate) async fn find_locked(connection: &mut PgConnection, account: AccountId, id: ReminderId) -> Result<Option<Row>, Error> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM reminders WHERE id = $1 AND account_id = $2 FOR UPDATE"))
        .bind(id.0)
        .bind(account.0)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Which reminders are listed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filters<'a> {
    /// In this status; all but the canceled when not given.
    pub(crate) status: Option<Status>,
    pub(crate) about: Option<Uuid>,
    pub(crate) due_before: Option<OffsetDateTime>,
    pub(crate) due_after: Option<OffsetDateTime>,
    /// A pattern of LIKE.
    pub(crate) pattern: Option<&'a str>,
    /// Only those older than this.
    pub(crate) before: Option<Uuid>,
}

/// Reminders of this account, newest first, and where to go on if it has more than were looked at: so many in one go,
/// however few of them fit.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    filters: &Filters<'_>,
    limit: u32,
) -> Result<(Vec<Row>, Option<Uuid>), Error> {
    let beyond: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM reminders WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC OFFSET $3 LIMIT 1",
    )
    .bind(account.0)
    .bind(filters.before)
    .bind(LOOKED_AT_MOST)
    .fetch_optional(pool)
    .await?;
    let rows = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM reminders WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($9::uuid IS NULL OR id >= $9) \
         AND CASE WHEN $3::text IS NULL THEN status <> 'canceled' ELSE status = $3 END \
         AND ($4::uuid IS NULL OR about_id = $4) AND ($5::timestamptz IS NULL OR next_fire_at < $5) \
         AND ($6::timestamptz IS NULL OR next_fire_at >= $6) AND ($7::text IS NULL OR title ILIKE $7 OR note ILIKE $7) \
         ORDER BY id DESC LIMIT $8"
    ))
    .bind(account.0)
    .bind(filters.before)
    .bind(filters.status.map(Status::as_str))
    .bind(filters.about)
    .bind(filters.due_before)
    .bind(filters.due_after)
    .bind(filters.pattern)
    .bind(i64::from(limit))
    .bind(beyond)
    .fetch_all(pool)
    .await?;
    Ok((read_all(&rows)?, beyond))
}
