//! The raw limits that taking in uploads is held against, and what is taken in.
//!
//! `ingest.py` runs these beside Bowerbird. Keys come from a file, one a line; each prints how many it did a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bowerbird_nats::{
    Bus,
    bus::Options,
    consume::{ConsumerSpec, Delivery, Outcome},
};
use bowerbird_storage::Bucket;
use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// As many at once as the intake has notifications in hand.
const AT_ONCE: usize = 32;
/// What each object holds.
const CONTENT: &[u8] = b"hello";

/// Write a small object at each key.
pub(crate) async fn put_each(bucket: Bucket, keys: Vec<String>) -> Result<f64> {
    each(keys, move |key| {
        let bucket = bucket.clone();
        async move {
            bucket.put(&key, CONTENT, None, None).await?;
            Ok(())
        }
    })
    .await
}

/// Look at the object of each key.
pub(crate) async fn head_each(bucket: Bucket, keys: Vec<String>) -> Result<f64> {
    each(keys, move |key| {
        let bucket = bucket.clone();
        async move {
            ensure!(bucket.head(&key).await?.is_some(), "an object is not there");
            Ok(())
        }
    })
    .await
}

/// Consume and acknowledge so many notifications, doing nothing with them.
pub(crate) async fn consume(url: String, count: usize) -> Result<f64> {
    let options = Options {
        url,
        user: None,
        credentials_file: None,
        prefix: "bowerbird".to_owned(),
        replicas: 1,
        name: "bowerbird-bench".to_owned(),
    };
    let bus = Bus::connect(options, Duration::from_secs(10)).await?;
    let spec = ConsumerSpec { max_deliveries: i64::MAX, ..bus.object_consumer("bench") };
    let (seen, done, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()), CancellationToken::new());
    let handler = {
        let (seen, done) = (Arc::clone(&seen), Arc::clone(&done));
        move |_: Delivery<Bytes>| {
            if seen.fetch_add(1, Ordering::Relaxed) + 1 == count {
                done.notify_one();
            }
            std::future::ready(Outcome::Done)
        }
    };
    let began = Instant::now();
    let consuming = bus.consume(spec, over.clone(), Arc::new(Semaphore::new(AT_ONCE)), handler);
    tokio::select! {
        () = consuming => anyhow::bail!("the consumer ended before it had all"),
        () = done.notified() => {}
    }
    Ok(rate(count, began))
}

async fn each<W>(keys: Vec<String>, work: impl Fn(String) -> W) -> Result<f64>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    let (count, began) = (keys.len(), Instant::now());
    let mut running = JoinSet::new();
    for key in keys {
        if running.len() >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            done??;
        }
        running.spawn(work(key));
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(rate(count, began))
}

fn rate(count: usize, began: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = count as f64;
    count / began.elapsed().as_secs_f64()
}
