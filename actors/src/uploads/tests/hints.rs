//! Notifications are hints: lost, doubled, late, in no order, forged, malformed. The bucket decides.

use std::{sync::Arc, sync::atomic::Ordering};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{file::FileStatus, upload::Status};
use bowerbird_testkit::eventually;
use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::world::{BUCKET, PATIENCE, World, proving, put};

const QUOTA: i64 = 1 << 30;

fn told(event: &str, key: &str) -> Bytes {
    told_of(BUCKET, event, key)
}

fn told_of(bucket: &str, event: &str, key: &str) -> Bytes {
    let escaped = key.replace('/', "%2F");
    let record = json!({
        "eventVersion": "2.0", "eventSource": "minio:s3", "eventTime": "2026-11-20T12:00:00.000Z", "eventName": event,
        "s3": { "bucket": { "name": bucket }, "object": { "key": escaped, "size": 5, "eTag": "forged", "sequencer": "1" } },
    });
    json!({ "EventName": event, "Key": format!("{bucket}/{key}"), "Records": [record] }).to_string().into()
}

impl World {
    async fn tell(&self, payload: Bytes) {
        self.bus.publish_object(payload, &IdSource.next().to_string()).await.unwrap();
    }

    /// Everything that was told so far has been acted on.
    async fn all_is_told(&self) {
        eventually(PATIENCE, "everything is acted on", async || {
            let raw = async_nats::connect(self.nats.url()).await.unwrap();
            let jetstream = async_nats::jetstream::new(raw);
            let mut consumer: async_nats::jetstream::consumer::PullConsumer =
                jetstream.get_consumer_from_stream("ingest", "OBJECTS").await.ok()?;
            let info = consumer.info().await.ok()?;
            (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_never_happened_changes_nothing_and_what_happened_counts_once() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let waiting = node.create(caller, b"hello").await;
    let upload = node.create(caller, b"hello").await;
    let (waiting_key, key) = (world.key_of(waiting.id).await, world.key_of(upload.id).await);
    for payload in [
        told("s3:ObjectCreated:Put", &waiting_key),
        told("s3:ObjectRemoved:Delete", &waiting_key),
        told("s3:ObjectCreated:Put", "../../etc/passwd"),
        told("s3:ObjectCreated:Put", &format!("{}/{}/0", IdSource.next(), IdSource.next())),
        told("s3:ObjectAccessed:Get", &waiting_key),
        told_of("another", "s3:ObjectCreated:Put", &waiting_key),
        Bytes::from_static(b"not json"),
        Bytes::from_static(b"{}"),
        Bytes::from_static(br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"bowerbird"}"#),
        Bytes::from_static(b"{\"Records\":[{\"eventName\":\"s3:ObjectCreated:Put\",\"s3\":{\"bucket\":{\"name\":\"bowerbird\"},\"object\":{\"key\":\"%ff\"}}}]}"),
    ] {
        world.tell(payload).await;
    }
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
    for _ in 0..20 {
        world.tell(told("s3:ObjectCreated:Put", &key)).await;
        world.tell(told("s3:ObjectRemoved:Delete", &key)).await;
    }
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    world.all_is_told().await;
    assert_eq!(node.get(caller, waiting.id).await.status, Status::Pending);
    assert_eq!(world.usage(caller).await, (5, 5, 1, 1));
    assert_eq!(world.events(done.file_id.unwrap().0).await, ["file.available"]);
    assert_eq!(world.events(upload.id.0).await, ["upload.created", "upload.completed"]);
    assert_eq!(node.file(caller, done.file_id.unwrap()).await.status, FileStatus::Available);
    assert_eq!(world.bus.stream_state("DEAD").await.unwrap().unwrap().last_sequence, 0, "nothing is kept of a message");
}

#[tokio::test]
async fn a_file_whose_object_somebody_else_removed_is_shown_as_missing_until_it_is_there_again() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let upload = node.create(caller, b"hello").await;
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let (id, key) = (done.file_id.unwrap(), world.key_of(upload.id).await);
    world.bucket.delete(&key).await.unwrap();
    eventually(PATIENCE, "it is missing", async || (node.file(caller, id).await.status == FileStatus::Missing).then_some(()))
        .await;
    assert_eq!(world.usage(caller).await, (5, 0, 1, 0));
    let link = bowerbird_nats::file::PresignFile { id, internal: false };
    let refused = node.files.clone().presign(super::world::call(caller, link)).await.unwrap_err();
    assert_eq!(refused.code, bowerbird_nats::Code::InvalidState);
    // Another object at its key is not its object.
    world.bucket.put(&key, b"other".as_slice(), None, None).await.unwrap();
    world.all_is_told().await;
    assert_eq!(node.file(caller, id).await.status, FileStatus::Missing);
    let etag = world.bucket.head(&key).await.unwrap().unwrap().etag;
    sqlx::query("UPDATE files SET etag = $1 WHERE id = $2").bind(etag).bind(id.0).execute(&world.pool).await.unwrap();
    world.tell(told("s3:ObjectCreated:Put", &key)).await;
    eventually(PATIENCE, "it is found", async || (node.file(caller, id).await.status == FileStatus::Available).then_some(()))
        .await;
    assert_eq!(world.events(id.0).await, ["file.available", "file.missing", "file.found"]);
}

/// Three of ten notifications lost, three doubled, two held back until others have passed, and forged ones among them: the
/// end is the same as without faults. 10 000 uploads when proving.
#[tokio::test]
async fn faulty_notifications_end_as_faultless_ones_do() {
    let world = Arc::new(World::new().await);
    let node = Arc::new(world.node("uploads.max_unfinished_per_account = 20000").await);
    let caller = world.account(QUOTA).await;
    world.messenger.careless.store(true, Ordering::Release);
    let (count, writers) = (if proving() { 10_000 } else { 200 }, 8);
    let mut running = JoinSet::new();
    for writer in 0..writers {
        let (world, node) = (Arc::clone(&world), Arc::clone(&node));
        running.spawn(async move {
            for number in 0..count / writers {
                let content = format!("{writer}-{number:08}");
                let upload = node.create(caller, content.as_bytes()).await;
                if number % 3 == 0 {
                    let key = world.key_of(upload.id).await;
                    world.tell(told("s3:ObjectCreated:Put", &key)).await;
                    world.tell(told("s3:ObjectRemoved:Delete", &key)).await;
                }
                assert_eq!(put(&upload.transfer.unwrap(), content.as_bytes()).await, 200);
            }
        });
    }
    running.join_all().await;
    world.messenger.let_go().await;
    world.all_is_told().await;
    let pending: i64 =
        sqlx::query_scalar("SELECT count(*) FROM uploads WHERE finished_at IS NULL").fetch_one(&world.pool).await.unwrap();
    assert!(pending > 0, "some notifications were lost");
    world.run("UPDATE uploads SET created_at = created_at - interval '1 minute'").await;
    let report = node.reconcile(false).await;
    assert_eq!((report.stopped.clone(), i64::try_from(report.landed)), (None, Ok(pending)), "{report:?}");
    let by_status: Vec<(String, i64)> =
        sqlx::query_as("SELECT status, count(*) FROM uploads GROUP BY 1").fetch_all(&world.pool).await.unwrap();
    assert_eq!(by_status, [("completed".to_owned(), count)]);
    let bytes: i64 = sqlx::query_scalar("SELECT sum(size_bytes)::bigint FROM uploads").fetch_one(&world.pool).await.unwrap();
    assert_eq!(world.usage(caller).await, (bytes, 0, count, 0));
    let available: i64 =
        sqlx::query_scalar("SELECT count(*) FROM files WHERE status = 'available'").fetch_one(&world.pool).await.unwrap();
    let told: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'file.available'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!((available, told), (count, count));
    eprintln!("{count} uploads, {pending} of them found by comparing");
}
