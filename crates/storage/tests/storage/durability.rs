//! What a crash, a full disk or a second process may do to the store: nothing that was acknowledged is lost or torn.

#![expect(clippy::disallowed_methods, reason = "the pauses of tests")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowerbird_storage::{Bucket, ErrorKind, PresignGet, embedded};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::{Listener, Store, bucket_options, content, crc64, data_files, eventually, options};

/// The store in a process of its own, killed when dropped; under a wrapper it ends with its standard input.
struct Process {
    child: Child,
    endpoint: String,
}

impl Process {
    fn start(root: &Path, wrapper: &[&str]) -> Process {
        let executable = executable();
        let mut words: Vec<&str> = wrapper.to_vec();
        let root = root.join("store");
        words.extend([executable.to_str().unwrap(), root.to_str().unwrap(), "127.0.0.1:0", "notify"]);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the store did not start");
        Process { child, endpoint: format!("http://{}", line.trim()) }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The port, without the trial at the start.
    fn bucket(&self) -> Bucket {
        Bucket::new(bucket_options(&self.endpoint))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example `store`, which is built with the tests.
fn executable() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join("store")
}

/// What one writer knows about its key: the last round that was acknowledged, and the one that was begun.
#[derive(Clone, Copy, Default)]
struct Written {
    acknowledged: Option<u64>,
    begun: u64,
}

/// The body of a round: of all kinds of size, so that some are kept in the index and some in files.
fn body(writer: u64, round: u64) -> Vec<u8> {
    let sizes = [100, 4_000, 5_000, 60_000, 300_000];
    let size = sizes[usize::try_from((writer + round) % 5).unwrap()];
    let mut body = content(writer * 1_000_003 + round, size);
    body[..8].copy_from_slice(&round.to_be_bytes());
    body
}

/// One writer, until the store is gone: every third round by parts, the others whole.
async fn write_until_gone(
    bucket: Bucket,
    writer: u64,
    first: u64,
    known: Arc<Mutex<HashMap<u64, Written>>>,
    count: Arc<AtomicUsize>,
) {
    let key = format!("key-{writer}");
    for round in first.. {
        let body = body(writer, round);
        let crc = crc64(&body);
        known.lock().unwrap().entry(writer).or_default().begun = round;
        let outcome = if round % 3 == 0 {
            in_one_part(&bucket, &key, body, crc).await
        } else {
            bucket.put(&key, body, None, Some(crc)).await.map(drop)
        };
        if outcome.is_err() {
            return;
        }
        known.lock().unwrap().entry(writer).or_default().acknowledged = Some(round);
        count.fetch_add(1, Ordering::SeqCst);
    }
}

async fn in_one_part(bucket: &Bucket, key: &str, body: Vec<u8>, crc: u64) -> Result<(), bowerbird_storage::Error> {
    let upload = bucket.create_multipart(key, None).await?;
    let size = body.len() as u64;
    let etag = bucket.upload_part(key, &upload, 1, body, crc).await?;
    bucket.complete_multipart(key, &upload, &[(1, etag, crc)], size, crc).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_killed_among_a_thousand_writes_loses_and_tears_nothing() {
    const WRITERS: u64 = 8;
    const KILLS: usize = 5;
    let root = TempDir::new().unwrap();
    let known: Arc<Mutex<HashMap<u64, Written>>> = Arc::default();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let process = Process::start(root.path(), &[]);
        let bucket = process.bucket();
        let before = known.lock().unwrap().clone();
        for (writer, written) in &before {
            let read = match bucket.get(&format!("key-{writer}"), None).await {
                Ok(read) => Some(read.collect(1 << 20).await.unwrap()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSuchKey);
                    None
                }
            };
            let round = read.as_ref().map(|read| u64::from_be_bytes(read[..8].try_into().unwrap()));
            // The one that was under way when it was killed may have been made or not.
            assert!(
                round == written.acknowledged || round == Some(written.begun),
                "writer {writer}: {round:?} is there, {:?} was acknowledged",
                written.acknowledged
            );
            if let (Some(read), Some(round)) = (read, round) {
                assert!(read == body(*writer, round), "writer {writer}: round {round} is torn");
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let first = before.get(&writer).map_or(0, |written| written.begun + 1);
            writers.spawn(write_until_gone(bucket.clone(), writer, first, Arc::clone(&known), Arc::clone(&count)));
        }
        eventually("the writers do not get on", async || count.load(Ordering::SeqCst) >= 200 + kill).await;
        process.kill();
        // They would try again for a while.
        writers.shutdown().await;
        acknowledged += count.load(Ordering::SeqCst);
    }
    assert!(acknowledged >= 1000, "{acknowledged} writes");

    // The last one's directory, opened here: the journal has every change, and no file is left over.
    let listener = Arc::new(Listener::default());
    let directory = TempDir::new().unwrap();
    std::fs::rename(root.path().join("store"), directory.path().join("store")).unwrap();
    let store_root = directory.path().join("store");
    let shutdown = CancellationToken::new();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = embedded::serve(options(&store_root), tcp, Some(listener.clone()), shutdown.clone()).await.unwrap();
    eventually("events are missing", async || {
        listener.heard.lock().unwrap().iter().filter(|(_, event)| event.key.starts_with("key-")).count() >= acknowledged
    })
    .await;
    let bucket = Bucket::new(bucket_options(&format!("http://{}", running.address())));
    for upload in bucket.list_uploads("", 1000).await.unwrap() {
        bucket.abort_multipart(&upload.key, &upload.upload_id).await.unwrap();
    }
    for writer in 0..WRITERS {
        bucket.delete(&format!("key-{writer}")).await.unwrap();
    }
    eventually("files are left over", async || data_files(&store_root) == 0).await;
    shutdown.cancel();
    assert!(running.stopped(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn everything_is_synced_before_it_is_acknowledged() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: there is no strace");
        return;
    }
    let root = TempDir::new().unwrap();
    let trace = root.path().join("trace");
    let trace = trace.to_str().unwrap();
    let wrapper = ["strace", "-f", "-y", "-s", "40", "-e", "trace=fsync,fdatasync,openat,write,writev,sendto", "-o", trace];
    let process = Process::start(root.path(), &wrapper);
    let bucket = process.bucket();
    bucket.put("file", content(1, 50_000), None, None).await.unwrap();
    bucket.put("small", content(1, 100), None, None).await.unwrap();
    let upload = bucket.create_multipart("parts", None).await.unwrap();
    let etag = bucket.upload_part("parts", &upload, 1, content(2, 50_000), crc64(&content(2, 50_000))).await.unwrap();
    let crc = crc64(&content(2, 50_000));
    bucket.complete_multipart("parts", &upload, &[(1, etag, crc)], 50_000, crc).await.unwrap();
    drop(process);

    // What was synced between one answer and the next; the requests came one after the other.
    let text = std::fs::read_to_string(trace).unwrap();
    let mut synced: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.lines() {
        let of = |what: &str| line.contains("sync(") && line.contains(what);
        if line.contains("HTTP/1.1 200") {
            synced.push(Vec::new());
        } else if let Some(last) = synced.last_mut() {
            if of("index.redb") {
                last.push("index");
            } else if of("/data/") && line.contains("fdatasync(") {
                last.push("file");
            } else if of("/data/") {
                last.push("directory");
            }
        }
    }
    let order = |at: usize, wanted: &[&str]| {
        let mut found = synced[at].iter();
        assert!(wanted.iter().all(|step| found.any(|found| found == step)), "{at}: {:?}", synced[at]);
    };
    order(0, &["file", "directory", "index"]);
    order(1, &["index"]);
    order(2, &["index"]);
    order(3, &["file", "directory", "index"]);
    order(4, &["index"]);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_leaves_everything_readable() {
    let root = TempDir::new().unwrap();
    let mount = root.path().join("disk");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a small disk can only be mounted by root");
        return;
    }
    let _unmount = Unmount(mount.clone());
    let mut options = options(&mount.join("store"));
    options.reserve_bytes = 4 << 20;
    let shutdown = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = embedded::serve(options, listener, None, shutdown.clone()).await.unwrap();
    let bucket = Bucket::new(bucket_options(&format!("http://{}", running.address())));

    let mut stored = Vec::new();
    let refused = loop {
        let number = stored.len() as u64;
        match bucket.put(&format!("key-{number}"), content(number, 1 << 20), None, None).await {
            Ok(_) => stored.push(number),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(refused.to_string().contains("free some space"), "{refused}");
    assert!(stored.len() > 5);
    // Something else takes the rest: not even the reserve is left.
    let ballast = mount.join("ballast");
    let _ = std::fs::write(&ballast, vec![0; 24 << 20]);
    let refused = bucket.put("small", content(1, 10), None, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    for number in &stored {
        let read = bucket.get(&format!("key-{number}"), None).await.unwrap().collect(1 << 20).await.unwrap();
        assert!(read == content(*number, 1 << 20), "key-{number}");
    }
    assert_eq!(bucket.list("", None, 1000).await.unwrap().len(), stored.len());
    std::fs::remove_file(&ballast).unwrap();
    bucket.delete("key-0").await.unwrap();
    bucket.delete("key-1").await.unwrap();
    bucket.put("again", content(9, 1 << 20), None, None).await.unwrap();
    assert!(bucket.get("again", None).await.unwrap().collect(1 << 20).await.unwrap() == content(9, 1 << 20));
    shutdown.cancel();
    assert!(running.stopped(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_hangs_up_leaves_all_or_nothing() {
    use tokio::io::AsyncWriteExt;
    let store = Store::start().await;
    let bucket = store.bucket().await;
    let body = content(1, 20_000);
    let put = bowerbird_storage::PresignPut { content_length: 20_000, content_type: None, sha256: None, if_none_match: false };
    let audience = bowerbird_storage::Audience::Internal;
    let host = store.endpoint.trim_start_matches("http://").to_owned();
    let mut writers = JoinSet::new();
    for number in 0..200_u64 {
        let link = bucket.presign_put(&format!("key-{number}"), Duration::from_mins(1), &put, audience).await.unwrap();
        let target = format!("{}?{}", link.url.path(), link.url.query().unwrap());
        let head = format!("PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 20000\r\n\r\n");
        let (host, body) = (host.clone(), body.clone());
        writers.spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "a raw client for our own listener")]
            let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
            // At another moment of its way to the disk each time.
            tokio::time::sleep(Duration::from_micros(number * 100)).await;
        });
    }
    writers.join_all().await;
    // What was on its way is through when a later write is.
    let settled = async || {
        bucket.put("after", content(2, 20_000), None, None).await.unwrap();
        bucket.list("key-", None, 1000).await.unwrap().len()
    };
    let mut before = settled().await;
    eventually("writes go on", async || {
        let now = settled().await;
        std::mem::replace(&mut before, now) == now && store.data_files() == now + 1
    })
    .await;
    for object in bucket.list("key-", None, 1000).await.unwrap() {
        let read = bucket.get(&object.key, None).await.unwrap().collect(1 << 20).await.unwrap();
        assert!(read == body, "{}", object.key);
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_no_memory() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const PART: usize = 16 << 20;
    const PARTS: u32 = 8;
    let root = TempDir::new().unwrap();
    let process = Process::start(root.path(), &[]);
    let bucket = process.bucket();
    let upload = bucket.create_multipart("large", None).await.unwrap();
    let body = content(1, PART);
    let crc = crc64(&body);
    let mut parts = Vec::new();
    let mut whole = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    for number in 1..=PARTS {
        parts.push((number, bucket.upload_part("large", &upload, number, body.clone(), crc).await.unwrap(), crc));
        whole.update(&body);
    }
    let size = u64::from(PARTS) * PART as u64;
    bucket.complete_multipart("large", &upload, &parts, size, whole.finalize()).await.unwrap();

    let audience = bowerbird_storage::Audience::Internal;
    let link = bucket.presign_get("large", Duration::from_mins(1), &PresignGet::default(), audience).await.unwrap();
    let host = process.endpoint.trim_start_matches("http://");
    #[expect(clippy::disallowed_methods, reason = "a raw client for our own listener")]
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let target = format!("{}?{}", link.url.path(), link.url.query().unwrap());
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let field = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", process.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Until the server has filled what it may fill, and reads no more.
    let mut before = 0;
    eventually("the server goes on reading", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = field("io", "rchar");
        std::mem::replace(&mut before, now) == now
    })
    .await;
    let peak_kib = field("status", "VmHWM");
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB for one reader");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&body) && answer.len() > PARTS as usize * PART);
}

#[tokio::test]
async fn a_directory_belongs_to_one_process() {
    let store = Store::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = embedded::serve(options(store.root.path()), listener, None, CancellationToken::new()).await;
    let error = second.unwrap_err();
    assert!(matches!(error, embedded::Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_and_left_over_files_are_not() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    bucket.put("file", content(1, 50_000), Some("text/plain"), None).await.unwrap();
    bucket.put("small", content(2, 50), None, None).await.unwrap();
    let upload = bucket.create_multipart("parts", None).await.unwrap();
    let body = content(3, 1000);
    let etag = bucket.upload_part("parts", &upload, 1, body.clone(), crc64(&body)).await.unwrap();
    let before = bucket.head("file").await.unwrap().unwrap();
    let root = store.stop().await;
    let directory = std::fs::read_dir(root.path().join("data")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(directory.join("00000000000000ff"), b"of a write that was never acknowledged").unwrap();
    assert_eq!(data_files(root.path()), 3);

    let store = Store::in_directory(root, |_| {}, None).await;
    assert_eq!(store.data_files(), 2);
    let bucket = store.bucket().await;
    assert_eq!(bucket.head("file").await.unwrap().unwrap(), before);
    assert!(bucket.get("small", None).await.unwrap().collect(1000).await.unwrap() == content(2, 50));
    let parts = [(1, etag, crc64(&body))];
    bucket.complete_multipart("parts", &upload, &parts, 1000, crc64(&body)).await.unwrap();
    assert!(bucket.get("parts", None).await.unwrap().collect(1000).await.unwrap() == body);
}

#[tokio::test]
async fn every_change_is_told_once_somebody_listens() {
    let listener = Arc::new(Listener::default());
    listener.refusing.store(true, Ordering::SeqCst);
    let store = Store::start_with(|_| {}, Some(listener.clone())).await;
    let client = store.client();
    let bucket = Bucket::new(bucket_options(&store.endpoint));
    let put = client.put_object().bucket(bucket.name()).key("a b/c").content_type("text/plain");
    put.metadata("colour", "blue").body(Bytes::from_static(b"content").into()).send().await.unwrap();
    in_one_part(&bucket, "parts", content(1, 10), crc64(&content(1, 10))).await.unwrap();
    bucket.delete("a b/c").await.unwrap();
    bucket.delete("never there").await.unwrap();
    eventually("nobody was asked twice", async || listener.asked.load(Ordering::SeqCst) > 3).await;
    assert_eq!(listener.heard.lock().unwrap().len(), 0);

    // Not even a restart loses one.
    let root = store.stop().await;
    listener.refusing.store(false, Ordering::SeqCst);
    let store = Store::in_directory(root, |_| {}, Some(listener.clone())).await;
    eventually("events are missing", async || listener.heard.lock().unwrap().len() >= 3).await;
    let heard = listener.heard.lock().unwrap().clone();
    let names: Vec<_> = heard.iter().map(|(_, event)| (event.name.as_str(), event.key.as_str())).collect();
    assert_eq!(
        names,
        [
            ("s3:ObjectCreated:Put", "a b/c"),
            ("s3:ObjectCreated:CompleteMultipartUpload", "parts"),
            ("s3:ObjectRemoved:Delete", "a b/c"),
        ]
    );
    let (message_id, first) = &heard[0];
    assert_eq!(*message_id, format!("bowerbird/a b/c#{:x}", first.sequencer.unwrap()));
    assert_eq!((first.size_bytes, first.content_type.as_deref()), (Some(7), Some("text/plain")));
    assert_eq!(first.metadata["colour"], "blue");
    assert!(heard.is_sorted_by_key(|(_, event)| event.sequencer));
    let info = Bucket::new(bucket_options(&store.endpoint)).head("parts").await.unwrap().unwrap();
    assert_eq!(heard[1].1.etag.as_deref(), Some(info.etag.as_str()));
}

#[tokio::test]
async fn content_without_its_index_is_kept_and_refused() {
    let store = Store::start().await;
    let body = content(3, 64 << 10);
    store.bucket().await.put("kept", body, None, None).await.unwrap();
    let root = store.stop().await;
    std::fs::rename(root.path().join("index.redb"), root.path().join("elsewhere.redb")).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = embedded::serve(options(root.path()), listener, None, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, embedded::Error::LostIndex { .. }), "{refused}");
    assert_eq!(data_files(root.path()), 1, "the content was cleared away");

    std::fs::remove_file(root.path().join("index.redb")).ok();
    std::fs::rename(root.path().join("elsewhere.redb"), root.path().join("index.redb")).unwrap();
    let store = Store::in_directory(root, |_| {}, None).await;
    assert_eq!(store.bucket().await.head("kept").await.unwrap().unwrap().size_bytes, 64 << 10);
}
