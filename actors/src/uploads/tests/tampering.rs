//! Whoever has a link may do the one thing that it was signed for. Everything else leaves no object, or the one that was
//! there.

use bowerbird_nats::upload::{CreateUpload, LinkUpload, Status, Transfer};
use bowerbird_testkit::eventually;

use super::world::{BUCKET, Node, PATIENCE, World, announce, call, digest, put, send};

const CONTENT: &[u8] = b"what was announced";

async fn link(node: &Node, caller: bowerbird_nats::Caller) -> (bowerbird_nats::UploadId, Transfer) {
    let request =
        CreateUpload { content_type: Some("text/plain".to_owned()), sha256: Some(digest(CONTENT)), ..announce(CONTENT.len()) };
    let upload = node.try_create(caller, request).await.unwrap();
    (upload.id, upload.transfer.unwrap())
}

#[tokio::test]
async fn whatever_is_changed_about_a_link_is_refused_and_leaves_no_object() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(1 << 30).await);
    let (id, transfer) = link(&node, caller).await;
    let url = transfer.url.clone().unwrap();
    let headers: Vec<(&str, &str)> = transfer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let with = |name: &'static str, value: &'static str| {
        let mut changed: Vec<(&str, &str)> = headers.iter().copied().filter(|(found, _)| *found != name).collect();
        if !value.is_empty() {
            changed.push((name, value));
        }
        changed
    };
    let key = world.key_of(id).await;
    let mut other = CONTENT.to_vec();
    other[3] ^= 1;
    let short = &CONTENT[..17];
    let longer = [CONTENT, b"!"].concat();
    let another_key = url.replace(&key, &format!("{}1", &key[..key.len() - 1]));
    let another_bucket = url.replace(&format!("/{BUCKET}/"), "/another/");
    let longer_life = url.replace("X-Amz-Expires=900", "X-Amz-Expires=9000");
    let more_query = format!("{url}&x-id=PutObjects");
    let as_part = format!("{url}&partNumber=1&uploadId=x");
    let acl = format!("{url}&acl");
    let copying = [headers.clone(), vec![("x-amz-copy-source", "/bowerbird/secret")]].concat();
    let metadata = [headers.clone(), vec![("x-amz-meta-owner", "me")]].concat();
    let more_checksums = [headers.clone(), vec![("x-amz-checksum-crc32", "AAAAAA==")]].concat();
    assert!(another_key != url && another_bucket != url && longer_life != url);
    for (what, method, url, headers, body) in [
        ("another content", "PUT", &url, headers.clone(), other.as_slice()),
        ("another length", "PUT", &url, with("content-length", "17"), short),
        ("fewer bytes than declared", "PUT", &url, headers.clone(), short),
        ("another type", "PUT", &url, with("content-type", "text/html"), CONTENT),
        ("no type", "PUT", &url, with("content-type", ""), CONTENT),
        ("no condition", "PUT", &url, with("if-none-match", ""), CONTENT),
        ("another condition", "PUT", &url, with("if-none-match", "\"x\""), CONTENT),
        ("no checksum", "PUT", &url, with("x-amz-checksum-sha256", ""), CONTENT),
        ("another checksum", "PUT", &url, with("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), CONTENT),
        ("one more checksum", "PUT", &url, more_checksums, CONTENT),
        ("a copy source", "PUT", &url, copying, CONTENT),
        ("metadata", "PUT", &url, metadata, CONTENT),
        ("another key", "PUT", &another_key, headers.clone(), CONTENT),
        ("another bucket", "PUT", &another_bucket, headers.clone(), CONTENT),
        ("a longer life", "PUT", &longer_life, headers.clone(), CONTENT),
        ("more of a query", "PUT", &more_query, headers.clone(), CONTENT),
        ("a part", "PUT", &as_part, headers.clone(), CONTENT),
        ("an access list", "PUT", &acl, headers.clone(), CONTENT),
        ("reading", "GET", &url, headers.clone(), b"".as_slice()),
        ("deleting", "DELETE", &url, headers.clone(), b""),
        ("posting", "POST", &url, headers.clone(), CONTENT),
    ] {
        let status = send(method, url, &headers, body).await;
        // A client that breaks off before the end is not always answered.
        assert!((400..500).contains(&status) || (status == 0 && what == "fewer bytes than declared"), "{what}: {status}");
        assert_eq!(world.keys(caller).await, Vec::<String>::new(), "{what} left an object");
    }
    assert_eq!(node.get(caller, id).await.status, Status::Pending);

    // Bytes behind the declared end belong to no object.
    let declared = CONTENT.len().to_string();
    let with_end = with("content-length", "").into_iter().chain([("content-length", declared.as_str())]).collect::<Vec<_>>();
    assert_eq!(send("PUT", &url, &with_end, &longer).await, 200);
    node.until(caller, id, "the file is there", |upload| upload.status == Status::Completed).await;
    let stored = world.bucket.get(&key, None).await.unwrap().collect(1000).await.unwrap();
    assert_eq!(stored, CONTENT);
}

#[tokio::test]
async fn a_link_cannot_be_used_again_on_what_it_has_made() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(1 << 30).await);
    let upload = node.create(caller, CONTENT).await;
    let transfer = upload.transfer.unwrap();
    assert_eq!(put(&transfer, CONTENT).await, 200);
    let mut other = CONTENT.to_vec();
    other.reverse();
    assert_eq!(put(&transfer, &other).await, 412);
    let done = node.until(caller, upload.id, "the file is there", |upload| upload.status == Status::Completed).await;
    assert_eq!(put(&transfer, &other).await, 412);
    let key = world.key_of(upload.id).await;
    assert_eq!(world.bucket.get(&key, None).await.unwrap().collect(1000).await.unwrap(), CONTENT);
    let file = node.file(caller, done.file_id.unwrap()).await;
    assert_eq!(file.etag, world.bucket.head(&key).await.unwrap().unwrap().etag);
}

#[tokio::test]
async fn fresh_links_work_and_old_ones_lapse() {
    let world = World::new().await;
    let (node, caller) = (world.node("uploads.link_ttl = '1s'").await, world.account(1 << 30).await);
    let (id, old) = link(&node, caller).await;
    eventually(PATIENCE, "the link lapses", async || {
        let headers = [("content-length", "0")];
        // Any request tells: a lapsed link is refused before anything else is looked at.
        let status = send("PUT", old.url.as_deref().unwrap(), &headers, b"").await;
        assert_eq!(status, 403);
        (bowerbird_lifecycle::Clock::system().now() > old.expires_at + std::time::Duration::from_secs(1)).then_some(())
    })
    .await;
    assert_eq!(put(&old, CONTENT).await, 403);
    let fresh = node.requests.clone().link(call(caller, LinkUpload { id, after_part: None, limit: None })).await.unwrap();
    assert_eq!(put(&fresh, CONTENT).await, 200);
    node.until(caller, id, "the file is there", |upload| upload.status == Status::Completed).await;
}

/// An object store that checks less than it should, played by writing with the keys of the bucket: whatever lies at the key
/// is judged by a look at it, and the wrong thing goes.
#[tokio::test]
async fn what_got_past_the_object_store_is_refused_and_removed() {
    let world = World::new().await;
    let (node, caller) = (world.node("").await, world.account(1 << 30).await);
    let mut other = CONTENT.to_vec();
    other[0] ^= 1;
    for (body, content_type, code) in [
        (CONTENT[..5].to_vec(), "text/plain", "length_mismatch"),
        ([CONTENT, b"appended"].concat(), "text/plain", "length_mismatch"),
        (other, "text/plain", "checksum_mismatch"),
        (CONTENT.to_vec(), "text/html", "type_mismatch"),
    ] {
        let (id, _) = link(&node, caller).await;
        let key = world.key_of(id).await;
        world.bucket.put(&key, body, Some(content_type), None).await.unwrap();
        let failed = node.until(caller, id, "it is refused", |upload| upload.status == Status::Failed).await;
        assert_eq!(failed.error.unwrap().code.as_str(), code);
        eventually(PATIENCE, "it is removed", async || world.keys(caller).await.is_empty().then_some(())).await;
        assert_eq!(world.usage(caller).await, (0, 0, 0, 0));
        assert_eq!(world.events(id.0).await, ["upload.created", "upload.failed"]);
    }
    // The same content without a checksum that the store knows: it is read back.
    let (id, _) = link(&node, caller).await;
    world.bucket.put(&world.key_of(id).await, CONTENT, Some("text/plain"), None).await.unwrap();
    let done = node.until(caller, id, "the file is there", |upload| upload.status == Status::Completed).await;
    assert_eq!(node.file(caller, done.file_id.unwrap()).await.sha256, Some(digest(CONTENT)));
}
