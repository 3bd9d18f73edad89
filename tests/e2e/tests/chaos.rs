//! Many downloads while everything is killed: what was accepted is completed once, and the bucket equals the database.
//!
//! `make test` runs a short version; `make prove` sets BOWERBIRD_PROVE and runs the full one.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result, ensure};
use bowerbird_e2e::{House, text};
use bowerbird_testkit::{
    http::Http,
    ranged_server::{Content, Options, RangedServer},
};
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Whether the long versions are wanted.
#[expect(clippy::disallowed_methods, reason = "`make prove` chooses the size of the proof")]
fn proving() -> bool {
    std::env::var("BOWERBIRD_PROVE").is_ok()
}

/// Children of the house by the name of their executable.
fn child_of(house: &House, name: &str) -> Result<Pid> {
    let parent = house.pid()?.as_raw_nonzero().get();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let is_child = tail.split_whitespace().nth(1).and_then(|ppid| ppid.parse().ok()) == Some(parent);
        if is_child && head.contains(name) {
            let pid: i32 = head.split_whitespace().next().context("a pid")?.parse()?;
            return Pid::from_raw(pid).context("a process id");
        }
    }
    anyhow::bail!("the house has no child called {name}")
}

/// Submit until it is accepted, with the same key, as a careful client does.
async fn submit(http: &Http, url: &str, key: &str, within: Duration) -> Result<String> {
    let body = json!({"url": url}).to_string();
    let key = format!("\"{key}\"");
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    let end = tokio::time::Instant::now() + within;
    loop {
        let answer = http.send(Method::POST, "/v1/downloads", &headers, Some(body.clone().into())).await;
        match answer {
            Ok(answer) if answer.status == 202 => return Ok(text(&answer.json(), "id").to_owned()),
            Ok(answer) if answer.status.is_server_error() || matches!(answer.status.as_u16(), 409 | 429) => {}
            Ok(answer) => anyhow::bail!("refused with {}: {}", answer.status, answer.json()),
            Err(_) => {}
        }
        ensure!(tokio::time::Instant::now() < end, "not accepted within {within:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All items of a list, page by page.
async fn all(http: &Http, path: &str) -> Result<Vec<Value>> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("{path}?limit=200{cursor}")).await?.expect(200)?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(items),
        }
    }
}

/// Wait until nothing waits or runs.
async fn settled(house: &House, name: &str, count: usize, within: Duration) -> Result<Vec<Value>> {
    let end = tokio::time::Instant::now() + within;
    loop {
        if let Ok(http) = house.login(name).await
            && let Ok(downloads) = all(&http, "/v1/downloads").await
        {
            let completed = downloads.iter().filter(|download| text(download, "status") == "completed").count();
            if completed == count && downloads.len() == count {
                return Ok(downloads);
            }
            let failed: Vec<_> = downloads.iter().filter(|download| text(download, "status") == "failed").collect();
            ensure!(failed.is_empty(), "{} downloads failed, one of them: {:?}", failed.len(), failed.first());
            ensure!(
                tokio::time::Instant::now() < end,
                "{completed} of {count} were completed within {within:?}; {} are listed",
                downloads.len()
            );
        }
        ensure!(tokio::time::Instant::now() < end + Duration::from_secs(30), "the house does not answer");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Every accepted id has one completed download with one file, and the bucket holds exactly those.
async fn assert_exactly_once(house: &House, name: &str, accepted: &[String], downloads: &[Value]) -> Result<()> {
    let http = house.login(name).await?;
    let accepted: HashSet<&str> = accepted.iter().map(String::as_str).collect();
    let listed: HashSet<&str> = downloads.iter().map(|download| text(download, "id")).collect();
    assert_eq!(accepted, listed, "what was accepted is what is listed");
    let files = all(&http, "/v1/files").await?;
    let made: HashSet<&str> = downloads.iter().map(|download| text(download, "file_id")).collect();
    let there: HashSet<&str> = files.iter().map(|file| text(file, "id")).collect();
    assert_eq!(files.len(), downloads.len(), "one file for each download");
    assert_eq!(made, there);
    // What a killed try had stored is deleted soon after another one completed.
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let objects = house.objects_in_bucket().await?;
        if objects == files.len() {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "{objects} objects in the bucket, {} files in the database", files.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn every_accepted_download_is_completed_once_whatever_is_killed() -> Result<()> {
    let (count, kills) = if proving() { (2_000, 5) } else { (120, 2) };
    let source_content = Content::new(5, 100 << 10);
    let source = RangedServer::start(source_content.clone(), Options::default()).await;
    let mut house = House::start(&[("LEASES__DURATION", "3s"), ("DOWNLOADS__RETRY_BASE", "200ms")]).await?;
    house.account("ada").await?;

    let mut accepted = Vec::new();
    let mut kill_at: Vec<usize> = (1..=kills).map(|turn| turn * count / (kills + 3)).collect();
    let nats_at = (kills + 1) * count / (kills + 3);
    let postgres_at = (kills + 2) * count / (kills + 3);
    let mut http = house.login("ada").await?;
    for number in 0..count {
        if kill_at.first() == Some(&number) {
            kill_at.remove(0);
            house.kill().await?;
            house.up().await?;
            http = house.login("ada").await?;
        }
        if number == nats_at {
            kill_process(child_of(&house, "nats-server")?, Signal::KILL)?;
        }
        if number == postgres_at {
            kill_process(child_of(&house, "postgres")?, Signal::KILL)?;
        }
        let path = format!("/{number}");
        source.put(&path, source_content.clone());
        let url = source.url_of(&path);
        accepted.push(submit(&http, &url, &format!("key-{number}"), Duration::from_mins(1)).await?);
    }
    let downloads = settled(&house, "ada", count, Duration::from_mins(4)).await?;
    assert_exactly_once(&house, "ada", &accepted, &downloads).await
}

#[tokio::test]
async fn queued_downloads_are_completed_after_jetstream_was_wiped() -> Result<()> {
    let count = 24;
    let options = Options { connection_rate: Some(256 << 10), ..Options::default() };
    let content = Content::new(6, 256 << 10);
    let source = RangedServer::start(content.clone(), options).await;
    let house =
        House::start(&[("LEASES__DURATION", "3s"), ("DOWNLOADS__SLOTS", "2"), ("DOWNLOADS__MEMORY_BUDGET", "64MiB")]).await?;
    let http = house.account("ada").await?;
    let mut accepted = Vec::new();
    for number in 0..count {
        let path = format!("/{number}");
        source.put(&path, content.clone());
        accepted.push(submit(&http, &source.url_of(&path), &format!("key-{number}"), Duration::from_secs(30)).await?);
    }
    // The server is restarted by `up`; its store is gone.
    kill_process(child_of(&house, "nats-server")?, Signal::KILL)?;
    std::fs::remove_dir_all(house.jetstream_dir()?)?;
    let downloads = settled(&house, "ada", count, Duration::from_mins(2)).await?;
    assert_exactly_once(&house, "ada", &accepted, &downloads).await
}
