//! The raw limits that a transfer is held against: one core's SHA-256, and a multipart PUT with nothing in front of it.
//!
//! `transfer.py` runs these beside Bowerbird and its peers, and takes their time and memory from the outside; `ingest.py` runs those
//! of [`ingest`].

mod ingest;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use bowerbird_lifecycle::Clock;
use bowerbird_storage::{Bucket, BucketOptions};
use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinSet};

const PART_BYTES: u64 = 8 << 20;
const CONCURRENCY: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a command line tool")]
            {
                eprintln!("bowerbird-bench: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [what, of] = arguments else {
        bail!("usage: bowerbird-bench sha256|put <bytes>, put-each|head-each <file of keys>, consume <number>")
    };
    let size = || of.parse::<u64>().context("it is a number");
    let keys = || anyhow::Ok(std::fs::read_to_string(of).context("read the keys")?.lines().map(str::to_owned).collect());
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let rate = match what.as_str() {
        "sha256" => {
            sha256(size()?);
            return Ok(());
        }
        "put" => return runtime()?.block_on(put(size()?)),
        "put-each" => runtime()?.block_on(async { ingest::put_each(bucket().await?, keys()?).await })?,
        "head-each" => runtime()?.block_on(async { ingest::head_each(bucket().await?, keys()?).await })?,
        "consume" => runtime()?.block_on(ingest::consume(from("BENCH_NATS")?, usize::try_from(size()?)?))?,
        _ => bail!("unknown measurement `{what}`"),
    };
    #[expect(clippy::print_stdout, reason = "what it is run for")]
    {
        println!("{rate:.1}");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "secrets do not go on a command line")]
fn from(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

async fn bucket() -> Result<Bucket> {
    let endpoint: url::Url = from("BENCH_ENDPOINT")?.parse()?;
    let options = BucketOptions {
        endpoint: endpoint.clone(),
        public_endpoint: endpoint,
        region: "us-east-1".to_owned(),
        bucket: "bowerbird".to_owned(),
        access_key_id: from("BENCH_ACCESS_KEY")?,
        secret_access_key: from("BENCH_SECRET_KEY")?,
        path_style: true,
        clock: Clock::system(),
    };
    Ok(Bucket::connect(options, Duration::from_secs(10)).await?)
}

/// Digest so many bytes on one core, out of a block that stays in the cache.
fn sha256(size: u64) {
    let block = vec![0x5a_u8; 256 << 10];
    let mut digest = Digest::new(&SHA256);
    let mut left = size;
    while left > 0 {
        let now = left.min(block.len() as u64);
        digest.update(&block[..usize::try_from(now).unwrap_or(block.len())]);
        left -= now;
    }
    std::hint::black_box(digest.finish());
}

/// One object of so many bytes by multipart, parts from memory, as fast as the store takes them.
async fn put(size: u64) -> Result<()> {
    let bucket = bucket().await?;
    let key = "bench/raw-put";
    let upload = bucket.create_multipart(key, None).await?;
    let block = Bytes::from(vec![0x5a_u8; usize::try_from(PART_BYTES)?]);
    let mut whole = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    let (mut parts, mut running, permits) = (Vec::new(), JoinSet::new(), Arc::new(Semaphore::new(CONCURRENCY)));
    let (mut left, mut number) = (size, 0_u32);
    while left > 0 {
        let body = block.slice(..usize::try_from(left.min(PART_BYTES))?);
        left -= body.len() as u64;
        number += 1;
        whole.update(&body);
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (bucket, upload) = (bucket.clone(), upload.clone());
        running.spawn(async move {
            let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &body);
            let etag = bucket.upload_part(key, &upload, number, vec![body], crc).await;
            drop(permit);
            etag.map(|etag| (number, etag, crc))
        });
    }
    while let Some(part) = running.join_next().await {
        parts.push(part??);
    }
    parts.sort_unstable_by_key(|part| part.0);
    bucket.complete_multipart(key, &upload, &parts, size, whole.finalize()).await?;
    if from("BENCH_KEEP").is_err() {
        bucket.delete(key).await?;
    }
    Ok(())
}
