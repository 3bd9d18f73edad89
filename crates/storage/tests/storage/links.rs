//! Presigned links: each opens one thing, for a while, exactly as signed.

use std::time::Duration;

use bowerbird_lifecycle::Clock;
use bowerbird_storage::{Audience, Bucket, PresignGet, PresignPut, PresignedLink};

use crate::support::{BUCKET, Store, bucket_options, content, follow, raw};

const MINUTE: Duration = Duration::from_mins(1);

async fn put_link(bucket: &Bucket, body: &[u8]) -> PresignedLink {
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body).as_ref().try_into().unwrap();
    let put = PresignPut {
        content_length: body.len() as u64,
        content_type: Some("text/plain".to_owned()),
        sha256: Some(sha256),
        if_none_match: true,
    };
    bucket.presign_put("key", MINUTE, &put, Audience::Internal).await.unwrap()
}

#[tokio::test]
async fn a_link_to_write_takes_the_one_body_that_it_was_made_for_and_once() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    let body = content(1, 10_000);
    let link = put_link(&bucket, &body).await;
    let demanded: Vec<(&str, &str)> = link.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let with = |name: &'static str, value: &'static str| {
        let mut headers: Vec<(&str, &str)> = demanded.iter().copied().filter(|(found, _)| *found != name).collect();
        if !value.is_empty() {
            headers.push((name, value));
        }
        headers
    };
    let mut other = body.clone();
    other[5_000] ^= 1;
    let secret = format!("/{BUCKET}/secret");
    let mut copying = demanded.clone();
    copying.push(("x-amz-copy-source", &secret));
    let mut metadata = demanded.clone();
    metadata.push(("x-amz-meta-owner", "me"));
    let tampered = [
        ("another body", follow(&store, &link, &demanded, &other).await),
        ("another length", follow(&store, &link, &with("content-length", "9999"), &body[..9_999]).await),
        ("another type", follow(&store, &link, &with("content-type", "text/html"), &body).await),
        ("no type", follow(&store, &link, &with("content-type", ""), &body).await),
        ("no condition", follow(&store, &link, &with("if-none-match", ""), &body).await),
        ("no checksum", follow(&store, &link, &with("x-amz-checksum-sha256", ""), &body).await),
        ("a copy source", follow(&store, &link, &copying, &body).await),
        ("more metadata", follow(&store, &link, &metadata, &body).await),
    ];
    for (what, answer) in tampered {
        assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        assert_eq!(bucket.head("key").await.unwrap(), None, "{what} left an object");
    }
    let query = link.url.query().unwrap();
    for (method, target) in [
        ("PUT", format!("/{BUCKET}/other?{query}")),
        ("GET", format!("/{BUCKET}/key?{query}")),
        ("DELETE", format!("/{BUCKET}/key?{query}")),
        ("PUT", format!("/{BUCKET}/key?partNumber=1&uploadId=x&{query}")),
        ("PUT", format!("/{BUCKET}/key?{}", query.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))),
    ] {
        let answer = raw(&store, method, &target, &demanded, &body).await;
        assert_eq!(answer.status, 403, "{method} {target}");
    }
    let answer = follow(&store, &link, &demanded, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let info = bucket.head("key").await.unwrap().unwrap();
    assert_eq!((info.size_bytes, info.content_type.as_deref()), (10_000, Some("text/plain")));
    assert_eq!(follow(&store, &link, &demanded, &body).await.status, 412);
    assert_eq!(store.data_files(), 1);
}

#[tokio::test]
async fn a_link_to_read_is_followed_with_the_bearer_header_of_the_redirect() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    bucket.put("key", content(1, 100_000), Some("text/html"), None).await.unwrap();
    let get = PresignGet {
        file_name: Some("page.html".to_owned()),
        content_type: Some("application/octet-stream".to_owned()),
        ..PresignGet::default()
    };
    let link = bucket.presign_get("key", MINUTE, &get, Audience::Internal).await.unwrap();
    assert_eq!(link.headers, []);
    let answer = follow(&store, &link, &[("Authorization", "Bearer of.another.server")], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == content(1, 100_000));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"page.html\""));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-security-policy"), Some("sandbox; default-src 'none'"));
    let answer = follow(&store, &link, &[("Range", "bytes=10-19")], b"").await;
    assert_eq!((answer.status, answer.body.len()), (206, 10));
    let etag = bucket.head("key").await.unwrap().unwrap().etag;
    let stale = [("Range", "bytes=10-19"), ("If-Range", "\"another\"")];
    assert_eq!(follow(&store, &link, &stale, b"").await.status, 200);
    let current = format!("\"{etag}\"");
    assert_eq!(follow(&store, &link, &[("Range", "bytes=10-19"), ("If-Range", &current)], b"").await.status, 206);
    let mut head = link.clone();
    head.method = "HEAD".to_owned();
    assert_eq!(follow(&store, &head, &[], b"").await.status, 403);
}

#[tokio::test]
async fn a_link_ends() {
    let store = Store::start().await;
    let mut options = bucket_options(&store.endpoint);
    options.clock = Clock::manual(Clock::system().now() - 2 * MINUTE);
    let bucket = Bucket::new(options);
    bucket.put("key", b"content".as_slice(), None, None).await.unwrap();
    let link = bucket.presign_get("key", MINUTE, &PresignGet::default(), Audience::Internal).await.unwrap();
    let answer = follow(&store, &link, &[], b"").await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("expired"), "{}", answer.text());
}
