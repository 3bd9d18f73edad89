//! Uploads from the outside: the bytes go to the object store by `curl`, a process of its own that can be killed.
//!
//! `make test` sends a few dozen MiB; `make prove` sets BOWERBIRD_PROVE and sends 200.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{fmt::Write as _, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use bowerbird_e2e::{House, text};
use bowerbird_testkit::{eventually, http::Http, ranged_server::Content};
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const MIB: u64 = 1 << 20;
const PART_BYTES: u64 = 5 * MIB;
const PATIENCE: Duration = Duration::from_mins(2);

fn whole_bytes() -> u64 {
    if std::env::var("BOWERBIRD_PROVE").is_ok() { 200 * MIB } else { 32 * MIB }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One transfer of a configuration for `curl`: this file to where the link says, with the headers that it demands and no others
/// that would matter.
fn transfer(link: &Value, file: &Path, rate: Option<u64>) -> String {
    let mut lines = format!("url = \"{}\"\nupload-file = \"{}\"\n", text(link, "url"), file.display());
    for (name, value) in link["headers"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default().replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(lines, "header = \"{name}: {value}\"");
    }
    if let Some(rate) = rate {
        let _ = writeln!(lines, "limit-rate = {rate}");
    }
    lines + "fail\nsilent\nshow-error\noutput = \"/dev/null\"\nwrite-out = \"%{http_code}\\n\"\nmax-time = 120\n"
}

/// `curl`, at work on these transfers, one after the other.
fn curl(folder: &TempDir, transfers: &[String]) -> Result<Child> {
    let configuration = folder.path().join("curl.conf");
    std::fs::write(&configuration, transfers.join("next\n"))?;
    let mut command = Command::new("curl");
    command.arg("--config").arg(configuration).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().context("start curl")
}

/// What it printed, once it has ended well.
async fn finished(curl: Child) -> Result<String> {
    let output = tokio::time::timeout(PATIENCE, curl.wait_with_output()).await.context("curl did not end")??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Wait until an upload is a file, asking about nothing but its status.
async fn landed(http: &Http, id: &str) -> Result<Value> {
    let upload = eventually(PATIENCE, "the upload is a file", async || {
        let upload = http.get(&format!("/v1/uploads/{id}")).await.ok()?.json();
        (text(&upload, "status") != "pending" && text(&upload, "status") != "processing").then_some(upload)
    })
    .await;
    ensure!(text(&upload, "status") == "completed", "{upload}");
    Ok(upload)
}

/// SHA-256 of what the file's link gives.
async fn digest_of(http: &Http, file_id: &str) -> Result<String> {
    let redirect = http.get(&format!("/v1/files/{file_id}/content")).await?;
    ensure!(redirect.status == 302, "expected a redirect, got {}", redirect.status);
    let answer = http.send(Method::GET, redirect.header("location"), &[], None).await?;
    ensure!(answer.status == 200, "the bucket answered {}", answer.status);
    Ok(hex(digest(&SHA256, &answer.body).as_ref()))
}

#[tokio::test]
async fn one_put_with_the_headers_as_given_is_a_file_without_another_call() -> Result<()> {
    let folder = TempDir::new()?;
    let mut house = House::start(&[]).await?;
    let http = house.account("ada").await?;
    let content = Content::new(7, 3 * MIB + 17).read(0, 3 * MIB + 17);
    let sha256 = hex(digest(&SHA256, &content).as_ref());
    let file = folder.path().join("content");
    std::fs::write(&file, &content)?;
    let announced = json!({
        "file_name": "holiday \u{fc}.bin", "size_bytes": content.len(), "content_type": "application/x-holiday", "sha256": sha256,
    });
    let upload = http.post("/v1/uploads", &announced).await?.expect(201)?;
    let link = &upload["transfer"];
    ensure!(text(link, "method") == "PUT" && text(link, "kind") == "single", "{upload}");

    // Something else of the same length is refused, and leaves the link as it was.
    let mut other = content.clone();
    other[5] ^= 1;
    let wrong = folder.path().join("other");
    std::fs::write(&wrong, &other)?;
    assert_eq!(finished(curl(&folder, &[transfer(link, &wrong, None)])?).await?.trim(), "400");
    assert_eq!(finished(curl(&folder, &[transfer(link, &file, None)])?).await?.trim(), "200");
    let done = landed(&http, text(&upload, "id")).await?;
    let found = http.get(&format!("/v1/files/{}", text(&done, "file_id"))).await?.expect(200)?;
    assert_eq!((text(&found, "status"), text(&found, "name")), ("available", "holiday \u{fc}.bin"));
    assert_eq!((text(&found, "sha256"), text(&found, "content_type")), (sha256.as_str(), "application/x-holiday"));
    assert_eq!(digest_of(&http, text(&done, "file_id")).await?, sha256);
    // The link has made what it was for.
    assert_eq!(finished(curl(&folder, &[transfer(link, &wrong, None)])?).await?.trim(), "412");
    assert_eq!(digest_of(&http, text(&done, "file_id")).await?, sha256);
    assert_eq!(house.stop().await?, Some(0), "an orderly stop");
    Ok(())
}

#[tokio::test]
async fn an_upload_whose_client_was_killed_goes_on_with_the_parts_that_are_missing() -> Result<()> {
    let folder = TempDir::new()?;
    let mut house = House::start(&[("UPLOADS__SINGLE_LIMIT", "8MiB"), ("UPLOADS__PART_SIZE", "5MiB")]).await?;
    let http = house.account("ada").await?;
    let content = Content::new(9, whole_bytes() + 4321);
    let sha256 = content.sha256_hex();
    let announced = json!({"file_name": "film.mkv", "size_bytes": content.len(), "sha256": sha256});
    let upload = http.post("/v1/uploads", &announced).await?.expect(201)?;
    let id = text(&upload, "id").to_owned();
    assert_eq!((text(&upload, "kind"), upload["transfer"]["part_size_bytes"].as_u64()), ("multipart", Some(PART_BYTES)));
    let total = content.len().div_ceil(PART_BYTES);
    assert_eq!(upload["transfer"]["missing_parts"].as_u64(), Some(total));

    let part_file = |number: u64| folder.path().join(format!("part.{number}"));
    for number in 1..=total {
        let begin = (number - 1) * PART_BYTES;
        std::fs::write(part_file(number), content.read(begin, content.len().min(begin + PART_BYTES)))?;
    }
    let transfers = |links: &Value, rate: Option<u64>| -> Vec<String> {
        let parts = links["parts"].as_array().into_iter().flatten();
        parts.map(|part| transfer(part, &part_file(part["part_number"].as_u64().unwrap_or(0)), rate)).collect()
    };
    let links = format!("/v1/uploads/{id}/links");

    // Slow enough that the kill falls into the middle of it.
    let mut first = curl(&folder, &transfers(&upload["transfer"], Some(whole_bytes() / 6)))?;
    let missing = eventually(PATIENCE, "half of the parts are stored", async || {
        let found = http.post(&links, &json!({})).await.ok()?.json();
        let missing = found["transfer"]["missing_parts"].as_u64().or(found["missing_parts"].as_u64())?;
        (missing <= total / 2).then_some(missing)
    })
    .await;
    first.start_kill()?;
    let status = first.wait().await?;
    ensure!(status.code().is_none(), "it was over before it was killed: {status}");
    ensure!(missing > 0, "nothing was missing when it was killed");
    // Too early to be completed, and told so.
    assert_eq!(http.post(&format!("/v1/uploads/{id}/complete"), &json!({})).await?.status, 409);

    // As from another machine: nothing is known but the identifier.
    let http = house.login("ada").await?;
    let (mut sent, mut page) = (0, json!({}));
    loop {
        let found = http.post(&links, &page).await?.expect(200)?;
        let fresh = if found["transfer"].is_object() { &found["transfer"] } else { &found };
        let now = transfers(fresh, None);
        sent += now.len() as u64;
        let codes = finished(curl(&folder, &now)?).await?;
        ensure!(codes.lines().count() == now.len() && codes.lines().all(|code| code == "200"), "{codes}");
        match fresh["next_after_part"].as_u64() {
            Some(after) => page = json!({"after_part": after}),
            None => break,
        }
    }
    ensure!(sent <= missing, "{sent} parts were sent again, {missing} were missing");
    http.post(&format!("/v1/uploads/{id}/complete"), &json!({})).await?.expect(200)?;
    let done = landed(&http, &id).await?;
    let found = http.get(&format!("/v1/files/{}", text(&done, "file_id"))).await?.expect(200)?;
    assert_eq!((text(&found, "status"), text(&found, "sha256")), ("available", sha256.as_str()));
    assert_eq!(found["size_bytes"], content.len());
    assert_eq!(digest_of(&http, text(&done, "file_id")).await?, sha256);
    eprintln!("{} MiB in {total} parts, killed when {missing} were missing, {sent} sent afterwards", content.len() / MIB);
    assert_eq!(house.stop().await?, Some(0), "an orderly stop");
    Ok(())
}
