//! Rows and objects are compared: what one of them lost is put right, and nothing is deleted on a mere suspicion.

use std::sync::atomic::Ordering;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{file::FileStatus, reconciliation::Reconcile, upload::Status};
use bowerbird_testkit::eventually;

use super::world::{PATIENCE, World, put};

const QUOTA: i64 = 1 << 30;
/// Objects count as nobody's at once.
const AT_ONCE: &str = "uploads.ttl = '1s'\nuploads.link_ttl = '1s'\nuploads.orphan_age = '2s'";

#[tokio::test]
async fn what_no_notification_came_for_is_found() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    world.messenger.silent.store(true, Ordering::Release);
    let (sent, waiting) = (node.create(caller, b"hello").await, node.create(caller, b"hello").await);
    assert_eq!(put(&sent.transfer.unwrap(), b"hello").await, 200);
    assert_eq!(node.reconcile(false).await.uploads, 0, "they are too young");
    world.run("UPDATE uploads SET created_at = created_at - interval '1 minute'").await;
    let dry = node.reconcile(true).await;
    assert_eq!((dry.uploads, dry.landed, dry.stopped), (2, 1, None));
    assert_eq!(node.get(caller, sent.id).await.status, Status::Pending, "a dry run changes nothing");
    assert_eq!(node.reconcile(false).await.landed, 1);
    assert_eq!(node.get(caller, sent.id).await.status, Status::Completed);
    assert_eq!(node.get(caller, waiting.id).await.status, Status::Pending);
}

#[tokio::test]
async fn objects_and_parts_that_no_row_names_go_when_they_are_old_and_strange_ones_stay() {
    let world = World::new().await;
    let (node, caller) = (world.node(AT_ONCE).await, world.account(QUOTA).await);
    let kept = node.create(caller, b"hello").await;
    assert_eq!(put(&kept.transfer.unwrap(), b"hello").await, 200);
    let done = node.until(caller, kept.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let key = world.key_of(kept.id).await;
    let beside = format!("{}9", &key[..key.len() - 1]);
    let orphan = format!("{}/{}/0", IdSource.next(), IdSource.next());
    for key in [&orphan, &beside, &"somebody/elses.txt".to_owned()] {
        world.bucket.put(key, b"orphan".as_slice(), None, None).await.unwrap();
    }
    let begun = format!("{}/{}/0", IdSource.next(), IdSource.next());
    world.bucket.create_multipart_for_links(&begun, "text/plain").await.unwrap();
    let patient = world.node("").await;
    let young = patient.reconcile(false).await;
    assert_eq!((young.objects, young.orphans, young.young, young.foreign), (4, 0, 2, 1), "{young:?}");

    let dry = eventually(PATIENCE, "they are old", async || {
        let dry = node.reconcile(true).await;
        (dry.orphans == 2 && dry.abandoned_parts == 1).then_some(dry)
    })
    .await;
    assert_eq!((dry.orphan_bytes, dry.missing, dry.stopped), (12, 0, None));
    assert!(world.bucket.head(&orphan).await.unwrap().is_some(), "a dry run deletes nothing");
    assert_eq!(node.reconcile(false).await.orphans, 2);
    eventually(PATIENCE, "they are gone", async || {
        let gone = world.bucket.head(&orphan).await.unwrap().is_none() && world.bucket.head(&beside).await.unwrap().is_none();
        gone.then_some(())
    })
    .await;
    assert!(world.bucket.head("somebody/elses.txt").await.unwrap().is_some());
    assert!(world.bucket.list_uploads("", 10).await.unwrap().is_empty());
    assert_eq!(node.file(caller, done.file_id.unwrap()).await.status, FileStatus::Available);
    assert!(world.bucket.head(&key).await.unwrap().is_some(), "what a file has stays");
}

#[tokio::test]
async fn a_file_without_its_object_is_shown_as_missing_and_found_again() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(QUOTA).await);
    let upload = node.create(caller, b"hello").await;
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let (id, key) = (done.file_id.unwrap(), world.key_of(upload.id).await);
    world.messenger.silent.store(true, Ordering::Release);
    world.bucket.delete(&key).await.unwrap();
    assert_eq!(node.reconcile(true).await.missing, 1);
    assert_eq!(node.file(caller, id).await.status, FileStatus::Available);
    assert_eq!(node.reconcile(false).await.missing, 1);
    assert_eq!(node.file(caller, id).await.status, FileStatus::Missing);
    assert_eq!(node.reconcile(false).await.missing, 0, "it is known");
    // As after a restored bucket; there an entity tag survives.
    world.bucket.put(&key, b"hello".as_slice(), None, None).await.unwrap();
    let etag = world.bucket.head(&key).await.unwrap().unwrap().etag;
    sqlx::query("UPDATE files SET etag = $1").bind(etag).execute(&world.pool).await.unwrap();
    assert_eq!(node.reconcile(false).await.found, 1);
    assert_eq!(node.file(caller, id).await.status, FileStatus::Available);
}

#[tokio::test]
async fn the_database_of_another_bucket_deletes_nothing_unless_the_operator_insists() {
    let world = World::new().await;
    let node = world.node(AT_ONCE).await;
    for _ in 0..101 {
        let key = format!("{}/{}/0", IdSource.next(), IdSource.next());
        world.bucket.put(&key, b"somebody's".as_slice(), None, None).await.unwrap();
    }
    // Dry: of those that are old first there are few, which would be believed.
    eventually(PATIENCE, "they are old", async || (node.reconcile(true).await.orphans == 101).then_some(())).await;
    let report = node.reconcile(false).await;
    assert_eq!(report.orphans, 101);
    assert!(report.stopped.unwrap().contains("force"));
    assert_eq!(world.run("DELETE FROM object_purges").await, 0);
    let forced = node.reconciler.now(Reconcile { dry_run: false, force: true }).await.unwrap();
    assert_eq!((forced.orphans, forced.stopped), (101, None));
    eventually(PATIENCE, "they are gone", async || world.bucket.list("", None, 10).await.unwrap().is_empty().then_some(())).await;
}

#[tokio::test]
async fn nothing_is_concluded_when_the_database_or_the_bucket_does_not_answer() {
    let world = World::new().await;
    let (node, caller) = (world.node(AT_ONCE).await, world.account(QUOTA).await);
    let upload = node.create(caller, b"hello").await;
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    let orphan = format!("{}/{}/0", IdSource.next(), IdSource.next());
    world.bucket.put(&orphan, b"orphan".as_slice(), None, None).await.unwrap();
    eventually(PATIENCE, "it is old", async || (node.reconcile(true).await.orphans == 1).then_some(())).await;
    // A statement that fails in the middle of the run.
    world.run("ALTER TABLE downloads RENAME TO hidden").await;
    let report = node.reconcile(false).await;
    assert!(report.stopped.is_some() && report.orphans == 0, "{report:?}");
    world.run("ALTER TABLE hidden RENAME TO downloads").await;
    assert!(world.bucket.head(&orphan).await.unwrap().is_some());
    assert_eq!(node.file(caller, done.file_id.unwrap()).await.status, FileStatus::Available);
    world.stop_store().await;
    let report = node.reconcile(false).await;
    assert!(report.stopped.is_some() && report.orphans == 0 && report.missing == 0, "{report:?}");
    assert_eq!(node.file(caller, done.file_id.unwrap()).await.status, FileStatus::Available);
}
