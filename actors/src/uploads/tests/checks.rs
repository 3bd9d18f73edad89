//! The external check: what it says happens, and when it says nothing there is an end.

use std::sync::{Arc, Mutex};

use bowerbird_nats::{
    UploadId,
    file::FileStatus,
    upload::{Check, Status},
};
use bowerbird_testkit::eventually;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::world::{PATIENCE, World, put, send};

const CHECKED: &str = "uploads.check_subject = 'scan.uploads'\nuploads.check_timeout = '300ms'\nuploads.check_deadline = '2s'";

/// Answers each question with the next of these; with the last one from then on. `null` is no answer.
struct Scanner {
    questions: Arc<Mutex<Vec<Check>>>,
    _running: JoinSet<()>,
}

impl Scanner {
    async fn answering(world: &World, answers: Vec<Value>) -> Scanner {
        let client = async_nats::connect(world.nats.url()).await.unwrap();
        let mut asked = client.subscribe("scan.uploads").await.unwrap();
        client.flush().await.unwrap();
        let questions: Arc<Mutex<Vec<Check>>> = Arc::default();
        let heard = Arc::clone(&questions);
        let mut running = JoinSet::new();
        running.spawn(async move {
            while let Some(message) = asked.next().await {
                let number = {
                    let mut heard = heard.lock().unwrap();
                    heard.push(serde_json::from_slice(&message.payload).unwrap());
                    heard.len() - 1
                };
                let answer = &answers[number.min(answers.len() - 1)];
                if !answer.is_null() {
                    let body = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
                    client.publish(message.reply.unwrap(), body.into()).await.unwrap();
                }
            }
        });
        Scanner { questions, _running: running }
    }
}

async fn uploaded(node: &super::world::Node, caller: bowerbird_nats::Caller) -> UploadId {
    let upload = node.create(caller, b"hello").await;
    assert_eq!(put(&upload.transfer.unwrap(), b"hello").await, 200);
    upload.id
}

#[tokio::test]
async fn what_the_check_lets_through_is_a_file_and_what_it_was_asked_is_enough_to_look() {
    let world = World::new().await;
    let (node, caller) = (world.node(CHECKED).await, world.account(1 << 30).await);
    let scanner = Scanner::answering(&world, vec![json!({ "outcome": "continue" })]).await;
    let id = uploaded(&node, caller).await;
    let done = node.until(caller, id, "the file is there", |upload| upload.status == Status::Completed).await;
    assert_eq!(node.file(caller, done.file_id.unwrap()).await.status, FileStatus::Available);
    let asked = scanner.questions.lock().unwrap()[0].clone();
    assert_eq!((asked.upload_id, asked.attempt, asked.size_bytes), (id, 1, 5));
    assert_eq!(asked.detected_content_type.as_deref(), Some("text/plain"));
    assert_eq!(send("GET", &asked.url, &[], b"").await, 200);
}

#[tokio::test]
async fn what_the_check_finds_is_kept_in_quarantine_or_deleted_as_it_says() {
    let world = World::new().await;
    let (node, caller) = (world.node(CHECKED).await, world.account(1 << 30).await);
    let scanner = Scanner::answering(
        &world,
        vec![json!({ "outcome": "quarantine", "reason": "Eicar" }), json!({ "outcome": "delete", "reason": "no" })],
    )
    .await;
    let id = uploaded(&node, caller).await;
    let done = node.until(caller, id, "it is kept", |upload| upload.status == Status::Completed).await;
    let file = node.file(caller, done.file_id.unwrap()).await;
    assert_eq!(file.status, FileStatus::Quarantined);
    assert_eq!(world.events(file.id.0).await, ["file.quarantined"]);
    let link = bowerbird_nats::file::PresignFile { id: file.id, internal: false };
    assert!(node.files.clone().presign(super::world::call(caller, link)).await.is_err());

    let id = uploaded(&node, caller).await;
    let failed = node.until(caller, id, "it is deleted", |upload| upload.status == Status::Failed).await;
    let error = failed.error.unwrap();
    assert_eq!((error.code.as_str(), error.detail.as_str()), ("rejected", "no"));
    eventually(PATIENCE, "the object is gone", async || (world.keys(caller).await.len() == 1).then_some(())).await;
    assert_eq!(world.usage(caller).await, (5, 0, 1, 0));
    assert_eq!(scanner.questions.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_check_that_wants_more_time_or_talks_nonsense_is_asked_again() {
    let world = World::new().await;
    let slow = CHECKED.replace("'2s'", "'1m'");
    let (node, caller) = (world.node(&slow).await, world.account(1 << 30).await);
    let answers = vec![
        json!({ "outcome": "retry", "retry_after_seconds": 1 }),
        json!("nonsense"),
        json!(null),
        json!({ "outcome": "continue" }),
    ];
    let scanner = Scanner::answering(&world, answers).await;
    let id = uploaded(&node, caller).await;
    node.until(caller, id, "it is let through", |upload| upload.status == Status::Completed).await;
    let attempts: Vec<i32> = scanner.questions.lock().unwrap().iter().map(|check| check.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
}

#[tokio::test]
async fn when_no_verdict_comes_the_setting_decides_and_nothing_hangs() {
    let world = World::new().await;
    // Nobody listens.
    for (fallback, expected) in [("quarantine", FileStatus::Quarantined), ("continue", FileStatus::Available)] {
        let node = world.node(&format!("{CHECKED}\nuploads.check_fallback = '{fallback}'")).await;
        let caller = world.account(1 << 30).await;
        let id = uploaded(&node, caller).await;
        let done = node.until(caller, id, "there is an end", |upload| upload.status == Status::Completed).await;
        assert_eq!(node.file(caller, done.file_id.unwrap()).await.status, expected);
        node.kill();
    }
}

#[tokio::test]
async fn an_object_that_goes_away_while_it_is_checked_fails_the_upload() {
    let world = World::new().await;
    let (node, caller) = (world.node(&CHECKED.replace("'2s'", "'1m'")).await, world.account(1 << 30).await);
    let _scanner = Scanner::answering(&world, vec![json!({ "outcome": "retry", "retry_after_seconds": 1 })]).await;
    let id = uploaded(&node, caller).await;
    node.until(caller, id, "it is being checked", |upload| upload.status == Status::Processing).await;
    world.bucket.delete(&world.key_of(id).await).await.unwrap();
    let failed = node.until(caller, id, "it has failed", |upload| upload.status == Status::Failed).await;
    assert_eq!(failed.error.unwrap().code.as_str(), "vanished");
    assert_eq!(world.usage(caller).await, (0, 0, 0, 0));
}
