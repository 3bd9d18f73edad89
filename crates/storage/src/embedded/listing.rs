//! Listings, read from the index in order: objects (both versions of the request) and unfinished uploads.
//!
//! A group of keys with a common prefix is skipped by seeking behind it, so a listing costs what it returns.

use std::{ops::Bound, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use redb::ReadOnlyTable;
use s3s::{
    S3Request, S3Response, S3Result,
    dto::{
        CommonPrefix, EncodingType, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
        ListObjectsV2Input, ListObjectsV2Output, MultipartUpload, Object, ObjectStorageClass,
    },
};

use super::{
    error::StoreError,
    index::{self, BUCKETS, OBJECTS, UPLOADS},
    receive::blocking,
    record::{ObjectRecord, UploadRecord, decode},
    store::{Store, etag, timestamp},
};

const MAX_ENTRIES: usize = 1000;
/// What S3 leaves as it is with `encoding-type=url`.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b'*');

/// What to list.
#[derive(Clone, Debug, Default)]
struct Query {
    bucket: String,
    prefix: String,
    /// Empty: no grouping.
    delimiter: String,
    /// List what comes after this key.
    after: String,
    limit: usize,
}

/// One entry of a listing.
#[derive(Debug)]
enum Entry<R> {
    Record(String, R),
    /// All keys that begin with it.
    Group(String),
}

#[derive(Debug)]
struct Page<R> {
    entries: Vec<Entry<R>>,
    /// The last key or group of the page, if there is more.
    next: Option<String>,
}

/// Walk a table whose keys are bucket, NUL, key.
fn walk<R: serde::de::DeserializeOwned>(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    query: &Query,
) -> Result<Page<R>, StoreError> {
    let base = query.bucket.len() + 1;
    let end = index::object_key(&query.bucket, &query.prefix);
    let mut entries = Vec::new();
    let mut last = String::new();
    // A listing that stopped at a group goes on behind all of it.
    let grouped = group_of(&query.after, query).filter(|group| *group == query.after);
    let mut from = match grouped.and_then(|group| successor(index::object_key(&query.bucket, group).as_slice())) {
        Some(behind) => Bound::Included(behind),
        None if query.after.as_bytes() >= query.prefix.as_bytes() && !query.after.is_empty() => {
            Bound::Excluded(index::object_key(&query.bucket, &query.after))
        }
        None => Bound::Included(end.clone()),
    };
    if query.limit == 0 {
        return Ok(Page { entries, next: None });
    }
    'seek: loop {
        let bounds = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
        for entry in table.range::<&[u8]>(bounds)? {
            let (stored, record) = entry?;
            let stored = stored.value();
            if !stored.starts_with(&end) {
                // Still before the prefix (the marker was), or behind it.
                if stored < end.as_slice() {
                    continue;
                }
                break 'seek;
            }
            let Ok(key) = std::str::from_utf8(&stored[base..]) else { continue };
            if entries.len() == query.limit {
                return Ok(Page { entries, next: Some(last) });
            }
            if let Some(group) = group_of(key, query) {
                group.clone_into(&mut last);
                entries.push(Entry::Group(last.clone()));
                match successor(index::object_key(&query.bucket, group).as_slice()) {
                    Some(behind) => from = Bound::Included(behind),
                    None => break 'seek,
                }
                continue 'seek;
            }
            key.clone_into(&mut last);
            entries.push(Entry::Record(last.clone(), decode(record.value())?));
        }
        break;
    }
    Ok(Page { entries, next: None })
}

/// The group that a key belongs to: up to and with the first delimiter behind the prefix.
fn group_of<'a>(key: &'a str, query: &Query) -> Option<&'a str> {
    if query.delimiter.is_empty() {
        return None;
    }
    let rest = key.strip_prefix(query.prefix.as_str())?;
    let end = rest.find(&query.delimiter)? + query.delimiter.len();
    key.get(..query.prefix.len() + end)
}

/// The first byte string that comes after everything that begins with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next)
}

impl Store {
    async fn objects_page(&self, query: Query) -> Result<Page<ObjectRecord>, StoreError> {
        let index = Arc::clone(&self.index);
        blocking(move || {
            index.read(|transaction| {
                index::bucket(&transaction.open_table(BUCKETS)?, &query.bucket)?;
                walk(&transaction.open_table(OBJECTS)?, &query)
            })
        })
        .await
    }

    pub(super) async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let encode = encoder(input.encoding_type.as_ref())?;
        let after = match &input.continuation_token {
            Some(token) => URL_SAFE_NO_PAD
                .decode(token)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| StoreError::Invalid("the continuation token is not one of ours".to_owned()))?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let limit = entries_limit(input.max_keys)?;
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after,
            limit,
        };
        let page = self.objects_page(query).await?;
        let (contents, common_prefixes) = shown(page.entries, encode);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encode(&prefix)),
            delimiter: input.delimiter.map(|delimiter| encode(&delimiter)),
            start_after: input.start_after.map(|key| encode(&key)),
            max_keys: i32::try_from(limit).ok(),
            key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(|key| URL_SAFE_NO_PAD.encode(key)),
            encoding_type: input.encoding_type,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            ..ListObjectsV2Output::default()
        }))
    }

    pub(super) async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let encode = encoder(input.encoding_type.as_ref())?;
        let limit = entries_limit(input.max_keys)?;
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: input.marker.clone().unwrap_or_default(),
            limit,
        };
        let page = self.objects_page(query).await?;
        let (contents, common_prefixes) = shown(page.entries, encode);
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encode(&prefix)),
            delimiter: input.delimiter.map(|delimiter| encode(&delimiter)),
            marker: Some(input.marker.map(|key| encode(&key)).unwrap_or_default()),
            max_keys: i32::try_from(limit).ok(),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next.map(|key| encode(&key)),
            encoding_type: input.encoding_type,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            ..ListObjectsOutput::default()
        }))
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let encode = encoder(input.encoding_type.as_ref())?;
        let limit = entries_limit(input.max_uploads)?;
        // With an upload id, the marker is one upload; without, all those of its key.
        let after = match (input.key_marker.clone(), &input.upload_id_marker) {
            (Some(key), Some(id)) if !id.is_empty() => format!("{key}\0{id}"),
            (Some(key), _) if !key.is_empty() => format!("{key}\0~"),
            _ => String::new(),
        };
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after,
            limit,
        };
        let index = Arc::clone(&self.index);
        let page: Page<(String, UploadRecord)> = blocking(move || {
            index.read(|transaction| {
                index::bucket(&transaction.open_table(BUCKETS)?, &query.bucket)?;
                let page = walk::<UploadRecord>(&transaction.open_table(UPLOADS)?, &query)?;
                let entries = page.entries.into_iter().map(|entry| match entry {
                    Entry::Group(group) => Entry::Group(group),
                    Entry::Record(stored, record) => {
                        let (key, id) = stored.rsplit_once('\0').unwrap_or((stored.as_str(), ""));
                        Entry::Record(key.to_owned(), (id.to_owned(), record))
                    }
                });
                Ok(Page { entries: entries.collect(), next: page.next })
            })
        })
        .await?;
        let (mut uploads, mut common_prefixes) = (Vec::new(), Vec::new());
        for entry in page.entries {
            match entry {
                Entry::Group(group) => common_prefixes.push(CommonPrefix { prefix: Some(encode(&group)) }),
                Entry::Record(key, (upload_id, record)) => uploads.push(MultipartUpload {
                    key: Some(encode(&key)),
                    upload_id: Some(upload_id),
                    initiated: Some(timestamp(record.initiated_ms)),
                    ..MultipartUpload::default()
                }),
            }
        }
        let next = page.next.map(|next| match next.rsplit_once('\0') {
            Some((key, id)) => (encode(key), id.to_owned()),
            None => (encode(&next), String::new()),
        });
        let (next_key_marker, next_upload_id_marker) = next.unzip();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix.map(|prefix| encode(&prefix)),
            delimiter: input.delimiter.map(|delimiter| encode(&delimiter)),
            key_marker: Some(input.key_marker.map(|key| encode(&key)).unwrap_or_default()),
            upload_id_marker: input.upload_id_marker,
            max_uploads: i32::try_from(limit).ok(),
            is_truncated: Some(next_key_marker.is_some()),
            next_key_marker,
            next_upload_id_marker,
            encoding_type: input.encoding_type,
            uploads: Some(uploads),
            common_prefixes: Some(common_prefixes),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}

fn shown(entries: Vec<Entry<ObjectRecord>>, encode: fn(&str) -> String) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut contents, mut groups) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Entry::Group(group) => groups.push(CommonPrefix { prefix: Some(encode(&group)) }),
            Entry::Record(key, record) => contents.push(Object {
                key: Some(encode(&key)),
                e_tag: Some(etag(&record.etag)),
                last_modified: Some(timestamp(record.modified_ms)),
                size: i64::try_from(record.size_bytes).ok(),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Object::default()
            }),
        }
    }
    (contents, groups)
}

fn entries_limit(asked: Option<i32>) -> Result<usize, StoreError> {
    let asked = asked.unwrap_or(1000);
    let asked = usize::try_from(asked).map_err(|_| StoreError::Invalid("a limit is not negative".to_owned()))?;
    Ok(asked.min(MAX_ENTRIES))
}

fn encoder(encoding: Option<&EncodingType>) -> Result<fn(&str) -> String, StoreError> {
    match encoding.map(EncodingType::as_str) {
        None => Ok(str::to_owned),
        Some(EncodingType::URL) => Ok(|text| utf8_percent_encode(text, KEPT).to_string()),
        Some(_) => Err(StoreError::Invalid("the only encoding type is `url`".to_owned())),
    }
}
