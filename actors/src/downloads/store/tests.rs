//! The tables of downloads and files against a real PostgreSQL.

use std::{collections::BTreeSet, time::Duration};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, DownloadId, FileId,
    download::{ErrorCode, Failure, Status, Verified, Work},
    id::NodeId,
};
use bowerbird_testkit::TestDatabase;
use sqlx::{PgConnection, PgPool};

use super::*;
use crate::{downloads::row::Part, files::store as files};

const LEASE: Duration = Duration::from_mins(1);
const LIMITS: Limits = Limits { per_account: 8, node_gone_after: Duration::from_secs(30), lost_after: Duration::from_secs(5) };
const MAX_UNFINISHED: i64 = 1000;

struct House {
    _database: TestDatabase,
    pool: PgPool,
    node: NodeId,
}

impl House {
    async fn new(slots: i32) -> House {
        let database = TestDatabase::new().await;
        let house = House { pool: database.pool(), _database: database, node: NodeId(IdSource.next()) };
        beat(&house.pool, house.node, slots).await.unwrap();
        house
    }

    async fn account(&self, quota_bytes: i64) -> AccountId {
        let id = IdSource.next();
        sqlx::query("INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at) VALUES ($1, $2, 'user', $3, now(), now())")
            .bind(id)
            .bind(format!("a{}", &id.simple().to_string()[2..]))
            .bind(quota_bytes)
            .execute(&self.pool)
            .await
            .unwrap();
        AccountId(id)
    }

    async fn try_insert(&self, account: AccountId, priority: i16) -> Result<Row, Error> {
        let id = DownloadId(IdSource.next());
        let new = New {
            id,
            account_id: account,
            file_id: FileId(IdSource.next()),
            source_sealed: vec![1],
            display_url: format!("https://example.org/{id}"),
            asked_name: None,
            folder: "/".to_owned(),
            checksum: None,
            max_connections: None,
            priority,
            max_attempts: 3,
            start_at: None,
        };
        let mut transaction = self.pool.begin().await.unwrap();
        let row = insert(&mut transaction, &new, MAX_UNFINISHED).await?;
        transaction.commit().await.unwrap();
        Ok(row)
    }

    async fn insert(&self, account: AccountId, priority: i16) -> Row {
        self.try_insert(account, priority).await.unwrap()
    }

    async fn dispatch(&self) -> Vec<HandOut> {
        let mut transaction = self.pool.begin().await.unwrap();
        let hand_outs = dispatch(&mut transaction, LIMITS).await.unwrap();
        transaction.commit().await.unwrap();
        hand_outs
    }

    /// Its alarm.
    async fn wake(&self, row: &Row) -> usize {
        let mut transaction = self.pool.begin().await.unwrap();
        let begun = begin(&mut transaction, &[row.id.0]).await.unwrap();
        transaction.commit().await.unwrap();
        begun
    }

    async fn claim(&self, hand_out: HandOut) -> Option<Claimed> {
        let mut transaction = self.pool.begin().await.unwrap();
        let work = Work { download_id: hand_out.id, dispatch_no: hand_out.dispatch_no };
        let claimed = claim(&mut transaction, work, self.node, LEASE).await.unwrap();
        transaction.commit().await.unwrap();
        claimed
    }

    /// A download that runs.
    async fn running(&self, account: AccountId) -> Row {
        let id = self.insert(account, 5).await.id;
        let hand_out = self.dispatch().await.into_iter().find(|hand_out| hand_out.id == id).unwrap();
        self.claim(hand_out).await.unwrap().row
    }

    async fn row(&self, row: &Row) -> Row {
        find(&self.pool, row.account_id, row.id).await.unwrap().unwrap()
    }

    async fn lapse(&self, row: &Row) {
        sqlx::query("UPDATE downloads SET lease_until = now() - interval '1 second' WHERE id = $1")
            .bind(row.id.0)
            .execute(&self.pool)
            .await
            .unwrap();
        let mut transaction = self.pool.begin().await.unwrap();
        reap(&mut transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// Every write that a worker can make, with the fence of `row`.
    async fn every_write(&self, row: &Row) -> Vec<Result<(), Error>> {
        let mut written = Vec::new();
        let part = [Part { number: 9, size_bytes: 5, etag: "zombie".to_owned(), crc64: 0 }];
        let upload = row.upload_id.clone().unwrap_or_default();
        macro_rules! in_transaction {
            (|$connection:ident| $write:expr) => {{
                let mut transaction = self.pool.begin().await.unwrap();
                let $connection = &mut *transaction;
                let result = $write.await.map(|_| ());
                if result.is_ok() {
                    transaction.commit().await.unwrap();
                }
                written.push(result);
            }};
        }
        in_transaction!(|c| adopt(c, row.id, row.fence, row.upload_id.as_deref(), &adoption("zombie", Some(7))));
        in_transaction!(|c| record(c, row.id, row.fence, &upload, &part));
        in_transaction!(|c| strike(c, row.id, row.fence, &[1]));
        in_transaction!(|c| restart(c, row.id, row.fence, true));
        in_transaction!(|c| complete(c, row.id, row.fence, &finished(row, 3)));
        in_transaction!(|c| retry(c, row.id, row.fence, &failure(), Duration::ZERO, true));
        in_transaction!(|c| give_back(c, row.id, row.fence));
        in_transaction!(|c| fail(c, row.id, row.fence, &failure(), true));
        written.push(progress(&self.pool, row.id, row.fence, Some(1), 1, 1).await);
        written
    }
}

fn adoption(upload_id: &str, size_bytes: Option<i64>) -> Adoption {
    Adoption {
        object_key: "a/b/1".to_owned(),
        upload_id: upload_id.to_owned(),
        part_size_bytes: 100,
        size_bytes,
        validator: Some("\"v1\"".to_owned()),
        content_type: None,
        file_name: Some("x.bin".to_owned()),
    }
}

fn finished(row: &Row, size_bytes: i64) -> Finished {
    Finished {
        object_key: row.key_of_this_try(),
        name: "x.bin".to_owned(),
        size_bytes,
        content_type: "video/mp4".to_owned(),
        sha256: Some(vec![7; 32]),
        crc64: -1,
        etag: "\"e\"".to_owned(),
        verified: Verified::Length,
    }
}

fn failure() -> Failure {
    Failure { code: ErrorCode::Timeout, detail: "no answer".to_owned(), retryable: true }
}

fn part(number: i32) -> Part {
    Part { number, size_bytes: 100, etag: format!("e{number}"), crc64: 1 }
}

#[tokio::test]
async fn a_hand_out_is_claimed_once_and_an_older_one_is_void() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let row = house.insert(account, 5).await;
    let first = house.dispatch().await;
    assert_eq!(first, [HandOut { id: row.id, dispatch_no: 1 }]);
    assert!(house.dispatch().await.is_empty(), "what is handed out is not handed out again at once");

    sqlx::query("UPDATE downloads SET dispatched_at = now() - interval '1 minute'").execute(&house.pool).await.unwrap();
    let second = house.dispatch().await;
    assert_eq!(second, [HandOut { id: row.id, dispatch_no: 2 }], "its message was lost");
    assert!(house.claim(first[0]).await.is_none());
    let claimed = house.claim(second[0]).await.unwrap();
    assert_eq!((claimed.row.status, claimed.row.fence, claimed.row.attempt), (Status::Running, 1, 1));
    assert!(house.claim(second[0]).await.is_none());
}

#[tokio::test]
async fn about_twice_as_many_are_handed_out_as_slots_are_free_and_accounts_take_turns() {
    let house = House::new(3).await;
    let (first, second) = (house.account(1 << 30).await, house.account(1 << 30).await);
    for _ in 0..20 {
        house.insert(first, 5).await;
    }
    let mut of_second = BTreeSet::new();
    for _ in 0..3 {
        of_second.insert(house.insert(second, 5).await.id);
    }
    let urgent = house.insert(first, 9).await;
    let hand_outs = house.dispatch().await;
    assert_eq!(hand_outs.len(), 6);
    assert_eq!(hand_outs[0].id, urgent.id);
    let turns: Vec<bool> = hand_outs[1..].iter().map(|hand_out| of_second.contains(&hand_out.id)).collect();
    assert_eq!(turns, [true, false, true, false, true], "whoever has fewer comes first");

    for hand_out in hand_outs.iter().take(3) {
        house.claim(*hand_out).await.unwrap();
    }
    assert!(house.dispatch().await.is_empty(), "no slot is free");
}

#[tokio::test]
async fn an_account_has_at_most_so_many_running() {
    let house = House::new(100).await;
    let account = house.account(1 << 30).await;
    for _ in 0..20 {
        house.insert(account, 5).await;
    }
    let hand_outs = house.dispatch().await;
    assert_eq!(hand_outs.len(), 8);
    for hand_out in &hand_outs {
        house.claim(*hand_out).await.unwrap();
    }
    assert!(house.dispatch().await.is_empty());
}

#[tokio::test]
async fn a_zombie_can_write_nothing() {
    let house = House::new(1000).await;
    let account = house.account(1 << 40).await;
    for round in 0..100 {
        let mut zombie = house.running(account).await;
        if round % 2 == 0 {
            let mut transaction = house.pool.begin().await.unwrap();
            adopt(&mut transaction, zombie.id, zombie.fence, None, &adoption("u1", Some(300))).await.unwrap();
            record(&mut transaction, zombie.id, zombie.fence, "u1", &[part(1)]).await.unwrap();
            transaction.commit().await.unwrap();
            zombie = house.row(&zombie).await;
        }
        match round % 4 {
            // Nobody has taken it over yet.
            0 => house.lapse(&zombie).await,
            // Another worker has it.
            1 | 2 => {
                house.lapse(&zombie).await;
                let again = house.dispatch().await;
                house.claim(again[0]).await.unwrap();
            }
            // Its owner ended it.
            _ => {
                let mut transaction = house.pool.begin().await.unwrap();
                let row = find_locked(&mut transaction, account, zombie.id).await.unwrap().unwrap();
                cancel(&mut transaction, &row).await.unwrap();
                transaction.commit().await.unwrap();
            }
        }
        let before = format!("{:?}", house.row(&zombie).await);
        for (number, written) in house.every_write(&zombie).await.into_iter().enumerate() {
            assert!(matches!(written, Err(Error::Fenced)), "write {number} of round {round}: {written:?}");
        }
        assert_eq!(renew(&house.pool, zombie.id, zombie.fence, LEASE).await.unwrap(), Renewal::Lost);
        assert_eq!(format!("{:?}", house.row(&zombie).await), before);
        // Make room for the next round.
        let mut transaction = house.pool.begin().await.unwrap();
        let row = find_locked(&mut transaction, account, zombie.id).await.unwrap().unwrap();
        if is_unfinished(row.status) {
            cancel(&mut transaction, &row).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

#[tokio::test]
async fn bytes_go_from_reserved_to_stored_and_never_over_the_quota() {
    let house = House::new(16).await;
    let account = house.account(1000).await;
    let (first, second) = (house.running(account).await, house.running(account).await);
    let adopt_bytes = async |row: &Row, bytes| {
        let mut transaction = house.pool.begin().await.unwrap();
        adopt(&mut transaction, row.id, row.fence, None, &adoption("u", Some(bytes))).await?;
        transaction.commit().await.unwrap();
        Ok::<_, Error>(())
    };
    adopt_bytes(&first, 700).await.unwrap();
    assert!(matches!(adopt_bytes(&second, 301).await, Err(Error::QuotaExceeded)));
    adopt_bytes(&second, 300).await.unwrap();
    assert_eq!(files::usage(&house.pool, account).await.unwrap().reserved_bytes, 1000);
    assert!(matches!(house.try_insert(account, 5).await, Err(Error::QuotaExceeded)), "nothing is left");

    let mut transaction = house.pool.begin().await.unwrap();
    complete(&mut transaction, first.id, first.fence, &finished(&first, 700)).await.unwrap();
    transaction.commit().await.unwrap();
    let mut transaction = house.pool.begin().await.unwrap();
    fail(&mut transaction, second.id, second.fence, &failure(), true).await.unwrap();
    transaction.commit().await.unwrap();
    let usage = files::usage(&house.pool, account).await.unwrap();
    assert_eq!((usage.stored_bytes, usage.reserved_bytes, usage.files, usage.unfinished_downloads), (700, 0, 1, 0));

    let mut transaction = house.pool.begin().await.unwrap();
    let trash = async |connection: &mut PgConnection| {
        files::trash::trash_file(connection, account, first.file_id, Duration::ZERO).await.unwrap()
    };
    assert!(trash(&mut transaction).await);
    assert!(!trash(&mut transaction).await);
    assert_eq!(files::trash::give_up(&mut transaction, None, &[first.file_id.0]).await.unwrap(), 1);
    transaction.commit().await.unwrap();
    assert_eq!(files::usage(&house.pool, account).await.unwrap().stored_bytes, 700, "until it is gone from the bucket");
    for purge in files::take_purges(&house.pool, LEASE, 10).await.unwrap() {
        let mut transaction = house.pool.begin().await.unwrap();
        files::purged(&mut transaction, purge.id).await.unwrap();
        transaction.commit().await.unwrap();
    }
    assert_eq!(files::usage(&house.pool, account).await.unwrap(), files::Usage::default());
}

#[tokio::test]
async fn sixty_four_downloads_race_for_the_quota_of_ten() {
    let house = House::new(1000).await;
    let account = house.account(1000).await;
    let mut rows = Vec::new();
    for _ in 0..64 {
        let row = house.insert(account, 5).await;
        let limits = Limits { per_account: 100, ..LIMITS };
        let mut transaction = house.pool.begin().await.unwrap();
        let hand_outs = dispatch(&mut transaction, limits).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(hand_outs[0].id, row.id);
        rows.push(house.claim(hand_outs[0]).await.unwrap().row);
    }
    let attempts = rows.iter().map(|row| {
        let pool = house.pool.clone();
        async move {
            let mut transaction = pool.begin().await.unwrap();
            // Nothing was reserved for a small one before.
            complete(&mut transaction, row.id, row.fence, &finished(row, 100)).await?;
            transaction.commit().await.unwrap();
            Ok::<_, Error>(())
        }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Error::QuotaExceeded))));
    let usage = files::usage(&house.pool, account).await.unwrap();
    assert_eq!((usage.stored_bytes, usage.files), (1000, 10));
}

#[tokio::test]
async fn content_of_unknown_length_is_reserved_in_steps() {
    let house = House::new(4).await;
    let account = house.account((64 << 20) + 150).await;
    let row = house.running(account).await;
    let mut transaction = house.pool.begin().await.unwrap();
    adopt(&mut transaction, row.id, row.fence, None, &adoption("u", None)).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(files::usage(&house.pool, account).await.unwrap().reserved_bytes, 64 << 20);
    let big = |number, size_bytes| Part { number, size_bytes, etag: "e".to_owned(), crc64: 0 };
    let mut transaction = house.pool.begin().await.unwrap();
    assert_eq!(record(&mut transaction, row.id, row.fence, "u", &[big(1, 64 << 20)]).await.unwrap(), 64 << 20);
    transaction.commit().await.unwrap();
    let mut transaction = house.pool.begin().await.unwrap();
    assert!(matches!(record(&mut transaction, row.id, row.fence, "u", &[big(2, 200)]).await, Err(Error::QuotaExceeded)));
}

#[tokio::test]
async fn an_upload_is_adopted_by_one_only() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let row = house.running(account).await;
    let adopting = |upload_id: &'static str| {
        let pool = house.pool.clone();
        let row = row.clone();
        async move {
            let mut transaction = pool.begin().await.unwrap();
            adopt(&mut transaction, row.id, row.fence, None, &adoption(upload_id, Some(10))).await?;
            transaction.commit().await.unwrap();
            Ok::<_, Error>(())
        }
    };
    let (first, second) = tokio::join!(adopting("u1"), adopting("u2"));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let upload_id = house.row(&row).await.upload_id.unwrap();
    assert_eq!(upload_id, if first.is_ok() { "u1" } else { "u2" });
    let mut transaction = house.pool.begin().await.unwrap();
    let other = if first.is_ok() { "u2" } else { "u1" };
    assert!(matches!(record(&mut transaction, row.id, row.fence, other, &[part(1)]).await, Err(Error::Fenced)));
}

#[tokio::test]
async fn progress_forgives_failures_and_lost_workers() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let mut row = house.running(account).await;
    let mut transaction = house.pool.begin().await.unwrap();
    adopt(&mut transaction, row.id, row.fence, None, &adoption("u", Some(1000))).await.unwrap();
    transaction.commit().await.unwrap();
    for round in 1..=5 {
        let mut transaction = house.pool.begin().await.unwrap();
        record(&mut transaction, row.id, row.fence, "u", &[part(round)]).await.unwrap();
        let queued = retry(&mut transaction, row.id, row.fence, &failure(), Duration::ZERO, true).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!((queued.attempt, queued.received_bytes), (0, i64::from(round) * 100));
        house.wake(&queued).await;
        let again = house.dispatch().await;
        let claimed = house.claim(again[0]).await.unwrap();
        assert_eq!(claimed.parts.len(), usize::try_from(round).unwrap());
        row = claimed.row;
    }
    house.lapse(&row).await;
    let lost = house.row(&row).await;
    assert_eq!((lost.status, lost.attempt, lost.lost), (Status::Queued, 0, 1));
}

#[tokio::test]
async fn a_download_that_kills_every_worker_is_given_up() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let mut row = house.running(account).await;
    for _ in 0..29 {
        house.lapse(&row).await;
        let again = house.dispatch().await;
        row = house.claim(again[0]).await.unwrap().row;
    }
    house.lapse(&row).await;
    let given_up = house.row(&row).await;
    assert_eq!((given_up.status, given_up.error.unwrap().code), (Status::Failed, ErrorCode::Stalled));
    assert_eq!(files::usage(&house.pool, account).await.unwrap().unfinished_downloads, 0);
}

#[tokio::test]
async fn a_stopping_node_hands_back_its_own_downloads_and_no_others() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let (ours, theirs) = (house.running(account).await, house.running(account).await);
    sqlx::query("UPDATE downloads SET worker = $2 WHERE id = $1")
        .bind(theirs.id.0)
        .bind(IdSource.next())
        .execute(&house.pool)
        .await
        .unwrap();
    let mut transaction = house.pool.begin().await.unwrap();
    let handed_back = hand_back(&mut transaction, house.node, false).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(handed_back.iter().map(|row| row.id).collect::<Vec<_>>(), [ours.id]);
    assert_eq!((handed_back[0].attempt, handed_back[0].lost), (0, 0));
    assert_eq!(house.row(&theirs).await.status, Status::Running);
}

#[tokio::test]
async fn what_a_canceled_download_stored_is_purged_and_a_retry_begins_under_another_name() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let row = house.running(account).await;
    let mut transaction = house.pool.begin().await.unwrap();
    adopt(&mut transaction, row.id, row.fence, None, &adoption("u", Some(1000))).await.unwrap();
    record(&mut transaction, row.id, row.fence, "u", &[part(1)]).await.unwrap();
    let now = find_locked(&mut transaction, account, row.id).await.unwrap().unwrap();
    let canceled = cancel(&mut transaction, &now).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((canceled.status, canceled.received_bytes, canceled.worker), (Status::Canceled, 0, None));
    let purges = files::take_purges(&house.pool, LEASE, 10).await.unwrap();
    assert_eq!(purges.iter().map(|purge| purge.prefix.clone()).collect::<Vec<_>>(), [row.prefix()]);
    let later: i64 = sqlx::query_scalar("SELECT count(*) FROM object_purges WHERE due_at > now() + interval '5 minutes'")
        .fetch_one(&house.pool)
        .await
        .unwrap();
    assert_eq!(later, 1, "once more when a stopped worker must be still");

    let mut transaction = house.pool.begin().await.unwrap();
    let retried = Retried { fresh_file_id: FileId(IdSource.next()) };
    let again = requeue(&mut transaction, &canceled, &retried, MAX_UNFINISHED).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((again.status, again.file_id), (Status::Queued, retried.fresh_file_id));
}

#[tokio::test]
async fn what_is_scheduled_is_queued_when_it_is_due() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let row = house.insert(account, 5).await;
    sqlx::query("UPDATE downloads SET status = 'scheduled', start_at = now() + interval '1 hour'")
        .execute(&house.pool)
        .await
        .unwrap();
    let armed = async || -> Option<bool> {
        sqlx::query_scalar("SELECT due_at = start_at FROM alarms JOIN downloads ON id = subject_id WHERE kind = 'download'")
            .fetch_optional(&house.pool)
            .await
            .unwrap()
    };
    assert_eq!(house.wake(&row).await, 0);
    assert!(house.dispatch().await.is_empty());
    assert_eq!(armed().await, Some(true), "too early: it is asked again when it is time");
    sqlx::query("UPDATE downloads SET start_at = now() - interval '1 second'").execute(&house.pool).await.unwrap();
    // Whoever holds it may be waiting for the alarm, so it is not waited for.
    let mut holding = house.pool.begin().await.unwrap();
    find_locked(&mut holding, account, row.id).await.unwrap();
    assert_eq!(house.wake(&row).await, 0);
    holding.rollback().await.unwrap();
    assert_eq!(house.wake(&row).await, 1);
    assert_eq!(house.dispatch().await[0].id, row.id);
}

#[tokio::test]
async fn the_next_try_waits_for_its_alarm_and_for_nothing_else() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let failed = house.running(account).await;
    let mut transaction = house.pool.begin().await.unwrap();
    let row = retry(&mut transaction, failed.id, failed.fence, &failure(), Duration::from_secs(1), true).await.unwrap();
    transaction.commit().await.unwrap();
    let armed: time::OffsetDateTime = sqlx::query_scalar("SELECT due_at FROM alarms WHERE kind = 'download' AND subject_id = $1")
        .bind(row.id.0)
        .fetch_one(&house.pool)
        .await
        .unwrap();
    assert_eq!(Some(armed), row.not_before);
    sqlx::query("UPDATE downloads SET not_before = now() - interval '1 hour'").execute(&house.pool).await.unwrap();
    assert!(house.dispatch().await.is_empty());
    assert_eq!(house.wake(&row).await, 1);
    assert_eq!(house.dispatch().await[0].id, row.id);
}

#[tokio::test]
async fn what_ended_long_ago_is_tidied() {
    let house = House::new(4).await;
    let account = house.account(1 << 30).await;
    let failed = house.running(account).await;
    let mut transaction = house.pool.begin().await.unwrap();
    adopt(&mut transaction, failed.id, failed.fence, None, &adoption("u", Some(1000))).await.unwrap();
    fail(&mut transaction, failed.id, failed.fence, &failure(), true).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(house.row(&failed).await.upload_id.as_deref(), Some("u"), "kept for a retry");
    let trim = async |keep_parts: Duration, keep_rows: Duration| {
        let mut transaction = house.pool.begin().await.unwrap();
        let touched = trim(&mut transaction, keep_parts, keep_rows).await.unwrap();
        transaction.commit().await.unwrap();
        touched
    };
    assert_eq!(trim(LEASE, LEASE).await, 0);
    assert_eq!(trim(Duration::ZERO, LEASE).await, 1);
    assert_eq!(house.row(&failed).await.upload_id, None);
    assert_eq!(trim(Duration::ZERO, Duration::ZERO).await, 1);
    assert!(find(&house.pool, account, failed.id).await.unwrap().is_none());
}

#[tokio::test]
async fn the_next_hand_out_is_found_quickly_in_a_long_queue() {
    let house = House::new(16).await;
    let accounts = [house.account(1 << 30).await, house.account(1 << 30).await];
    for account in accounts {
        sqlx::query(
            "INSERT INTO downloads (id, account_id, file_id, source_sealed, display_url, folder, priority, max_attempts, status, queued_at) \
             SELECT gen_random_uuid(), $1, gen_random_uuid(), '', 'x', '/', n % 10, 8, 'queued', now() - make_interval(secs => n) \
             FROM generate_series(1, 50000) n",
        )
        .bind(account.0)
        .execute(&house.pool)
        .await
        .unwrap();
    }
    sqlx::query("ANALYZE downloads").execute(&house.pool).await.unwrap();
    let began = std::time::Instant::now();
    let hand_outs = house.dispatch().await;
    let took = began.elapsed();
    println!("handed out {} of 100000 in {took:?}", hand_outs.len());
    assert_eq!(hand_outs.len(), 16);
    assert!(took < Duration::from_secs(1), "{took:?}");
}
