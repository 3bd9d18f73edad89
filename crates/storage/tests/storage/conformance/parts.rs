//! Uploads in parts.

use std::time::Duration;

use bowerbird_storage::{Audience, ErrorKind};

use super::{Check, Need, Outcome, Site, expect, failed};
use crate::support::{content, crc64};

/// The smallest part that S3 takes, but for the last.
const PART: usize = 5 << 20;
const TAIL: usize = 1000;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "parts become one object, whose CRC-64/NVME is checked",
        need: Need::Needed,
        run: |site| Box::pin(joining(site)),
    },
    Check {
        name: "parts that do not make the CRC-64/NVME of the whole are refused",
        need: Need::Needed,
        run: |site| Box::pin(wrong_whole(site)),
    },
    Check {
        name: "a part that does not have its CRC-64/NVME is refused",
        need: Need::Needed,
        run: |site| Box::pin(wrong_part(site)),
    },
    Check { name: "a part by another entity tag is refused", need: Need::Needed, run: |site| Box::pin(wrong_tag(site)) },
    Check { name: "parts are listed with length and entity tag", need: Need::Needed, run: |site| Box::pin(listing_parts(site)) },
    Check { name: "a part sent again takes the place of the one before", need: Need::Needed, run: |site| Box::pin(again(site)) },
    Check { name: "parts by links, and no other length", need: Need::Needed, run: |site| Box::pin(by_links(site)) },
    Check { name: "an aborted upload is gone", need: Need::Needed, run: |site| Box::pin(aborting(site)) },
    Check { name: "nothing is seen of an upload before it is complete", need: Need::Needed, run: |site| Box::pin(unseen(site)) },
    Check { name: "unfinished uploads are listed by their key", need: Need::Needed, run: |site| Box::pin(listed_by_key(site)) },
    Check {
        name: "unfinished uploads are listed by a prefix",
        need: Need::Without("abandoned uploads in parts are left to the store's own clean-up"),
        run: |site| Box::pin(listed_by_prefix(site)),
    },
];

/// An upload of two parts: its id, and number, entity tag and CRC of each.
async fn two_parts(site: &Site, key: &str, bytes: &[u8]) -> Result<(String, Vec<(u32, String, u64)>), String> {
    let id = site.bucket.create_multipart(key, Some("image/png")).await.map_err(failed)?;
    let mut parts = Vec::new();
    for (number, part) in (1..).zip([&bytes[..PART], &bytes[PART..]]) {
        let tag = site.bucket.upload_part(key, &id, number, part.to_vec(), crc64(part)).await.map_err(failed)?;
        parts.push((number, tag, crc64(part)));
    }
    Ok((id, parts))
}

fn of_two() -> Vec<u8> {
    content(11, PART + TAIL)
}

async fn joining(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/joining"), of_two());
    let (id, parts) = two_parts(site, &key, &bytes).await?;
    site.bucket.complete_multipart(&key, &id, &parts, bytes.len() as u64, crc64(&bytes)).await.map_err(failed)?;
    let info = site.bucket.head(&key).await.map_err(failed)?.ok_or("it is not there")?;
    expect(info.size_bytes == bytes.len() as u64 && info.content_type.as_deref() == Some("image/png"), format!("{info:?}"))?;
    let read = site.bucket.get(&key, None).await.map_err(failed)?.collect(1 << 24).await.map_err(failed)?;
    expect(read == bytes, "other bytes came back")?;
    match site.bucket.complete_multipart(&key, &id, &parts, bytes.len() as u64, crc64(&bytes)).await {
        // S3 answers either way; what counts is that nothing changes.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NoSuchUpload => {}
        Err(error) => return Err(format!("completed again: {}", failed(error))),
    }
    let after = site.bucket.head(&key).await.map_err(failed)?.ok_or("completed again, it is gone")?;
    expect(after.etag == info.etag, "completed again, it is another")
}

async fn wrong_whole(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/wrong-whole"), of_two());
    let (id, parts) = two_parts(site, &key, &bytes).await?;
    let completed = site.bucket.complete_multipart(&key, &id, &parts, bytes.len() as u64, crc64(&bytes) ^ 1).await;
    let _ = site.bucket.abort_multipart(&key, &id).await;
    expect(completed.is_err(), "they were joined")?;
    expect(site.bucket.head(&key).await.map_err(failed)?.is_none(), "they were refused and are there")
}

async fn wrong_part(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/wrong-part"), content(12, TAIL));
    let id = site.bucket.create_multipart(&key, None).await.map_err(failed)?;
    let taken = site.bucket.upload_part(&key, &id, 1, bytes.clone(), crc64(&bytes) ^ 1).await;
    let _ = site.bucket.abort_multipart(&key, &id).await;
    expect(taken.is_err(), "it was taken")
}

async fn wrong_tag(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/wrong-tag"), of_two());
    let (id, mut parts) = two_parts(site, &key, &bytes).await?;
    "0123456789abcdef0123456789abcdef".clone_into(&mut parts[1].1);
    let completed = site.bucket.complete_multipart(&key, &id, &parts, bytes.len() as u64, crc64(&bytes)).await;
    let _ = site.bucket.abort_multipart(&key, &id).await;
    match completed {
        Err(error) if error.kind() == ErrorKind::InvalidPart => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(_) => Err("they were joined".to_owned()),
    }
}

async fn listing_parts(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/listing"), of_two());
    let (id, parts) = two_parts(site, &key, &bytes).await?;
    let listed = site.bucket.list_parts(&key, &id).await.map_err(failed)?;
    let _ = site.bucket.abort_multipart(&key, &id).await;
    let found: Vec<_> = listed.iter().map(|part| (part.number, part.size_bytes, part.etag.as_str())).collect();
    expect(found == [(1, PART as u64, parts[0].1.as_str()), (2, TAIL as u64, parts[1].1.as_str())], format!("{found:?}"))
}

async fn again(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/again"), content(13, TAIL));
    let id = site.bucket.create_multipart(&key, None).await.map_err(failed)?;
    let other = content(14, TAIL);
    site.bucket.upload_part(&key, &id, 1, other.clone(), crc64(&other)).await.map_err(failed)?;
    let tag = site.bucket.upload_part(&key, &id, 1, bytes.clone(), crc64(&bytes)).await.map_err(failed)?;
    site.bucket.complete_multipart(&key, &id, &[(1, tag, crc64(&bytes))], TAIL as u64, crc64(&bytes)).await.map_err(failed)?;
    let read = site.bucket.get(&key, None).await.map_err(failed)?.collect(1 << 20).await.map_err(failed)?;
    expect(read == bytes, "the first bytes came back")
}

async fn by_links(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/by-links"), of_two());
    let id = site.bucket.create_multipart_for_links(&key, "image/png").await.map_err(failed)?;
    let mut parts = Vec::new();
    for (number, part) in (1..).zip([&bytes[..PART], &bytes[PART..]]) {
        let signed = site.bucket.presign_part(&key, &id, number, part.len() as u64, Duration::from_mins(1), Audience::Internal);
        let link = signed.await.map_err(failed)?;
        let short = site.follow(&link, &[], &part[1..]).await;
        expect((400..500).contains(&short.status), format!("another length is answered {}", short.status))?;
        let answer = site.follow(&link, &[], part).await;
        expect(answer.status == 200, format!("{} {}", answer.status, answer.text()))?;
        parts.push((number, answer.header("etag").unwrap_or_default().trim_matches('"').to_owned()));
    }
    site.bucket.complete_multipart_of_links(&key, &id, &parts, bytes.len() as u64).await.map_err(failed)?;
    let read = site.bucket.get(&key, None).await.map_err(failed)?.collect(1 << 24).await.map_err(failed)?;
    expect(read == bytes, "other bytes came back")
}

async fn aborting(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/aborting"), of_two());
    let (id, parts) = two_parts(site, &key, &bytes).await?;
    site.bucket.abort_multipart(&key, &id).await.map_err(failed)?;
    site.bucket.abort_multipart(&key, &id).await.map_err(|error| format!("a second time: {}", failed(error)))?;
    match site.bucket.complete_multipart(&key, &id, &parts, bytes.len() as u64, crc64(&bytes)).await {
        Err(error) if error.kind() == ErrorKind::NoSuchUpload => {}
        Err(error) => return Err(failed(error)),
        Ok(_) => return Err("it was completed".to_owned()),
    }
    expect(site.bucket.head(&key).await.map_err(failed)?.is_none(), "an object is there")
}

async fn unseen(site: &Site) -> Outcome {
    let (key, bytes) = (site.key("parts/unseen"), of_two());
    let (id, _) = two_parts(site, &key, &bytes).await?;
    let seen = site.bucket.head(&key).await.map_err(failed)?;
    let listed = site.bucket.list(&key, None, 10).await.map_err(failed)?;
    let _ = site.bucket.abort_multipart(&key, &id).await;
    expect(seen.is_none() && listed.is_empty(), "it is seen")
}

async fn listed_by_key(site: &Site) -> Outcome {
    let key = site.key("parts/listed-by-key");
    listed(site, &key, &key).await
}

async fn listed_by_prefix(site: &Site) -> Outcome {
    listed(site, &site.key("parts/listed-by-prefix"), &site.key("parts/listed-by-p")).await
}

async fn listed(site: &Site, key: &str, prefix: &str) -> Outcome {
    let id = site.bucket.create_multipart(key, None).await.map_err(failed)?;
    let found = site.bucket.list_uploads(prefix, 100).await.map_err(failed);
    let _ = site.bucket.abort_multipart(key, &id).await;
    let after = site.bucket.list_uploads(prefix, 100).await.map_err(failed)?;
    expect(found?.iter().any(|upload| upload.key == key && upload.upload_id == id), "it is not listed")?;
    expect(after.is_empty(), "it is listed after it was aborted")
}
