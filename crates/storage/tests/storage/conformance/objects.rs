//! Whole objects: writing, conditions, checksums, reading, listing, copying, removing.

use bowerbird_storage::ErrorKind;

use super::{Check, Need, Outcome, Site, expect, failed};
use crate::support::{content, crc64};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "an object is there, with its type, as soon as it was written",
        need: Need::Needed,
        run: |site| Box::pin(written(site)),
    },
    Check { name: "`If-None-Match: *` writes over nothing", need: Need::Needed, run: |site| Box::pin(conditional(site)) },
    Check { name: "of 16 who write one key at once one wins", need: Need::Needed, run: |site| Box::pin(racing(site)) },
    Check {
        name: "bytes that do not have their CRC-64/NVME are refused",
        need: Need::Needed,
        run: |site| Box::pin(wrong_crc(site)),
    },
    Check {
        name: "the CRC-64/NVME of an object is told",
        need: Need::Without("a completion that was cut off is known by its length alone"),
        run: |site| Box::pin(told_crc(site)),
    },
    Check { name: "ranges, also behind the end", need: Need::Needed, run: |site| Box::pin(ranges(site)) },
    Check { name: "a missing object is missing", need: Need::Needed, run: |site| Box::pin(missing(site)) },
    Check { name: "removing twice is no error", need: Need::Needed, run: |site| Box::pin(removing(site)) },
    Check { name: "an overwritten object has another entity tag", need: Need::Needed, run: |site| Box::pin(overwriting(site)) },
    Check {
        name: "a copy of what the entity tag says, and of nothing else",
        need: Need::Needed,
        run: |site| Box::pin(copying(site)),
    },
    Check {
        name: "a listing by prefix, in pages, in the order of bytes",
        need: Need::Needed,
        run: |site| Box::pin(listing(site)),
    },
    Check {
        name: "a listing shows what was written and removed at once",
        need: Need::Needed,
        run: |site| Box::pin(fresh_listing(site)),
    },
    Check {
        name: "keys with `//`, spaces, `+`, `%41`, any Unicode, `p` beside `p/q`, 1024 bytes",
        need: Need::Without("nothing: ours are of letters, digits and `/`"),
        run: |site| Box::pin(hard_keys(site)),
    },
];

async fn written(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("written"), content(1, 100_000));
    let stored = site.bucket.put(&key, bytes.clone(), Some("image/png"), Some(crc64(&bytes))).await.map_err(failed)?;
    let info = site.bucket.head(&key).await.map_err(failed)?.ok_or("it is not there")?;
    expect(info.size_bytes == 100_000 && info.etag == stored.etag, format!("{info:?}"))?;
    expect(info.content_type.as_deref() == Some("image/png"), format!("its type is {:?}", info.content_type))?;
    let read = site.bucket.get(&key, None).await.map_err(failed)?.collect(1 << 20).await.map_err(failed)?;
    expect(read == bytes, "other bytes came back")
}

async fn conditional(site: &Site) -> Outcome {
    let key = site.key("conditional");
    site.bucket.put_new(&key, b"first".as_slice(), None, None).await.map_err(failed)?;
    match site.bucket.put_new(&key, b"second".as_slice(), None, None).await {
        Err(error) if error.kind() == ErrorKind::PreconditionFailed => {}
        Err(error) => return Err(failed(error)),
        Ok(_) => return Err("it was written over".to_owned()),
    }
    let read = site.bucket.get(&key, None).await.map_err(failed)?.collect(100).await.map_err(failed)?;
    expect(read == b"first".as_slice(), "the first bytes are gone")
}

async fn racing(site: &Site) -> Outcome {
    let key = site.key("racing");
    let racers = (0..16_u8).map(|racer| {
        let (bucket, key) = (site.bucket.clone(), key.clone());
        async move { bucket.put_new(&key, vec![racer; 10_000], None, None).await.is_ok().then_some(racer) }
    });
    let winners: Vec<u8> = futures_util::future::join_all(racers).await.into_iter().flatten().collect();
    let read = site.bucket.get(&key, None).await.map_err(failed)?.collect(1 << 20).await.map_err(failed)?;
    expect(winners.len() == 1, format!("{} won", winners.len()))?;
    expect(read == vec![winners[0]; 10_000], "it holds what another wrote")
}

async fn wrong_crc(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("wrong-crc"), content(2, 10_000));
    if site.bucket.put(&key, bytes.clone(), None, Some(crc64(&bytes) ^ 1)).await.is_ok() {
        return Err("they were taken".to_owned());
    }
    expect(site.bucket.head(&key).await.map_err(failed)?.is_none(), "they were refused and are there")
}

async fn told_crc(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("told-crc"), content(3, 10_000));
    site.bucket.put(&key, bytes.clone(), None, Some(crc64(&bytes))).await.map_err(failed)?;
    let told = site.bucket.head(&key).await.map_err(failed)?.and_then(|info| info.crc64);
    expect(told == Some(crc64(&bytes)), format!("{told:x?}"))
}

async fn ranges(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("ranges"), content(4, 10_000));
    site.bucket.put(&key, bytes.clone(), None, None).await.map_err(failed)?;
    let part = site.bucket.get(&key, Some(1_000..2_000)).await.map_err(failed)?.collect(1 << 20).await.map_err(failed)?;
    expect(part == bytes[1_000..2_000], format!("{} other bytes came", part.len()))?;
    match site.bucket.get(&key, Some(10_000..10_001)).await {
        Err(error) if error.kind() == ErrorKind::InvalidRange => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(_) => Err("what lies behind the end was answered".to_owned()),
    }
}

async fn missing(site: &Site) -> Outcome {
    let key = site.key("missing");
    expect(site.bucket.head(&key).await.map_err(failed)?.is_none(), "HEAD shows something")?;
    match site.bucket.get(&key, None).await {
        Err(error) if error.kind() == ErrorKind::NoSuchKey => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(_) => Err("GET shows something".to_owned()),
    }
}

async fn removing(site: &Site) -> Outcome {
    let key = site.key("removing");
    site.bucket.put(&key, b"x".as_slice(), None, None).await.map_err(failed)?;
    site.bucket.delete(&key).await.map_err(failed)?;
    site.bucket.delete(&key).await.map_err(failed)?;
    expect(site.bucket.head(&key).await.map_err(failed)?.is_none(), "it is still there")
}

async fn overwriting(site: &Site) -> Outcome {
    let key = site.key("overwriting");
    let first = site.bucket.put(&key, b"first".as_slice(), None, None).await.map_err(failed)?;
    let second = site.bucket.put(&key, b"other".as_slice(), None, None).await.map_err(failed)?;
    let info = site.bucket.head(&key).await.map_err(failed)?.ok_or("it is not there")?;
    expect(first.etag != second.etag && info.etag == second.etag, format!("{} then {}", first.etag, second.etag))
}

async fn copying(site: &Site) -> Outcome {
    let (from, to) = (site.key("copy/from"), site.key("copy/to"));
    let bytes = content(5, 50_000);
    let stored = site.bucket.put(&from, bytes.clone(), Some("image/png"), None).await.map_err(failed)?;
    site.bucket.copy(&from, &to, 50_000, &stored.etag).await.map_err(failed)?;
    let read = site.bucket.get(&to, None).await.map_err(failed)?;
    expect(read.content_type.as_deref() == Some("image/png"), format!("its type is {:?}", read.content_type))?;
    expect(read.collect(1 << 20).await.map_err(failed)? == bytes, "the copy has other bytes")?;
    let stale = site.key("copy/stale");
    match site.bucket.copy(&from, &stale, 50_000, "0123456789abcdef0123456789abcdef").await {
        Err(_) => expect(site.bucket.head(&stale).await.map_err(failed)?.is_none(), "a refused copy is there"),
        Ok(_) => Err("a copy of another version was made".to_owned()),
    }
}

async fn listing(site: &Site) -> Outcome {
    let names = ["a", "a b", "a-b", "a/b", "a/c", "b"];
    for name in names {
        site.bucket.put(&site.key(&format!("list/{name}")), b"x".as_slice(), None, None).await.map_err(failed)?;
    }
    let prefix = site.key("list/");
    let (mut found, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = site.bucket.list(&prefix, after.as_deref(), 2).await.map_err(failed)?;
        let Some(last) = page.last() else { break };
        expect(page.len() <= 2, "a page is longer than was asked for")?;
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|object| object.key[prefix.len()..].to_owned()));
        expect(found.len() <= names.len(), format!("{found:?}"))?;
    }
    expect(found == names, format!("{found:?}"))
}

async fn fresh_listing(site: &Site) -> Outcome {
    let key = site.key("fresh/one");
    for _ in 0..5 {
        site.bucket.put(&key, b"x".as_slice(), None, None).await.map_err(failed)?;
        expect(site.bucket.list(&key, None, 10).await.map_err(failed)?.len() == 1, "what was written is not listed")?;
        site.bucket.delete(&key).await.map_err(failed)?;
        expect(site.bucket.list(&key, None, 10).await.map_err(failed)?.is_empty(), "what was removed is listed")?;
    }
    Ok(())
}

async fn hard_keys(site: &Site) -> Outcome {
    let longest = "k".repeat(1024 - site.key("").len());
    for name in ["a//b", "a b+c", "%41&d=e?f#g", "ü/日本/🐦", "p", "p/q", "..a/.b", longest.as_str()] {
        let key = site.key(name);
        let shown: String = name.chars().take(20).collect();
        site.bucket
            .put(&key, name.as_bytes().to_vec(), None, None)
            .await
            .map_err(|error| format!("{shown}: {}", failed(error)))?;
        let read = site.bucket.get(&key, None).await.map_err(|error| format!("{shown}: {}", failed(error)))?;
        expect(read.collect(2000).await.map_err(failed)? == name.as_bytes(), format!("{shown}: other bytes"))?;
        let listed = site.bucket.list(&key, None, 1000).await.map_err(failed)?;
        expect(listed.iter().any(|object| object.key == key), format!("{shown}: not listed"))?;
    }
    Ok(())
}
