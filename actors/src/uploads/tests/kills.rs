//! Nodes are killed anywhere in the pipeline, again and again: what clients were promised is there in the end, and nothing
//! else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowerbird_nats::upload::AbortUpload;
use bowerbird_testkit::eventually;
use tokio::{sync::RwLock, task::JoinSet, time::sleep};

use super::world::{PATIENCE, World, announce, call, proving, put};

const SETTINGS: &str = "uploads.ttl = '3s'\nuploads.link_ttl = '2s'\nuploads.orphan_age = '4s'";

/// 200 kills when proving.
#[tokio::test]
async fn whatever_is_killed_leaves_neither_orphans_nor_lost_files() {
    let world = Arc::new(World::new().await);
    let caller = world.account(1 << 40).await;
    let kills = if proving() { 200 } else { 8 };
    let node = Arc::new(RwLock::new(Some(world.node(SETTINGS).await)));
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let (node, over, sent) = (Arc::clone(&node), Arc::clone(&over), Arc::clone(&sent));
        clients.spawn(async move {
            let mut number = 0_usize;
            while !over.load(Ordering::Acquire) {
                number += 1;
                let content = format!("{client} {number}");
                let created = {
                    let node = node.read().await;
                    let Some(node) = node.as_ref() else { continue };
                    node.try_create(caller, announce(content.len())).await
                };
                let Ok(upload) = created else {
                    #[expect(clippy::disallowed_methods, reason = "before the client asks again")]
                    sleep(Duration::from_millis(5)).await;
                    continue;
                };
                if number.is_multiple_of(5) {
                    let node = node.read().await;
                    if let Some(node) = node.as_ref() {
                        let _ = node.requests.clone().abort(call(caller, AbortUpload { id: upload.id })).await;
                    }
                }
                if !number.is_multiple_of(7)
                    && let Some(transfer) = &upload.transfer
                    && put(transfer, content.as_bytes()).await == 200
                {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    for _ in 0..kills {
        #[expect(clippy::disallowed_methods, reason = "how long a node lives is chance")]
        sleep(Duration::from_millis(rand::random_range(20..120))).await;
        // Whoever asks it something gets the answer; everything else that it is at dies with it.
        let mut held = node.write().await;
        held.take().unwrap().kill();
        *held = Some(world.node(SETTINGS).await);
    }
    over.store(true, Ordering::Release);
    clients.join_all().await;
    let held = node.read().await;
    let node = held.as_ref().unwrap();
    eventually(3 * PATIENCE, "every upload has ended", async || {
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM uploads WHERE finished_at IS NULL").fetch_one(&world.pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    // Late purges are due now.
    world.run("UPDATE object_purges SET due_at = now()").await;
    let report = eventually(3 * PATIENCE, "nothing is left over", async || {
        let report = node.reconcile(false).await;
        assert_eq!((report.stopped.as_deref(), report.missing), (None, 0), "{report:?}");
        let purges: i64 = sqlx::query_scalar("SELECT count(*) FROM object_purges").fetch_one(&world.pool).await.unwrap();
        world.run("UPDATE object_purges SET due_at = now()").await;
        (report.orphans == 0 && report.young == 0 && purges == 0).then_some(report)
    })
    .await;
    let (files, bytes): (i64, i64) =
        sqlx::query_as("SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM files WHERE status = 'available'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(u64::try_from(files).unwrap(), report.objects, "each object is a file's and each file has its object");
    assert_eq!(world.usage(caller).await, (bytes, 0, files, 0), "the ledger is the bucket");
    let completed: i64 =
        sqlx::query_scalar("SELECT count(*) FROM uploads WHERE status = 'completed'").fetch_one(&world.pool).await.unwrap();
    assert_eq!(completed, files);
    // What was stored and neither aborted nor over is a file.
    let strays: i64 =
        sqlx::query_scalar("SELECT count(*) FROM uploads WHERE status = 'failed'").fetch_one(&world.pool).await.unwrap();
    assert_eq!(strays, 0);
    eprintln!("{kills} kills, {} acknowledged PUTs, {files} files", sent.load(Ordering::Relaxed));
}
