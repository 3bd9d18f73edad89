//! Whole objects: PUT, GET, HEAD, DELETE and copies.

use std::{ops::Range as Bounds, sync::Arc};

use s3s::{
    Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput, DeleteObjectOutput,
        DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput,
        HeadObjectOutput, MetadataDirective, PutObjectInput, PutObjectOutput, Range, StreamingBlob, Timestamp,
    },
};
use time::OffsetDateTime;

use super::{
    checksum::{Algorithm, Checksums, Expectation},
    data::NewFile,
    error::StoreError,
    index::{self, Content},
    read::ObjectBytes,
    receive::{Intake, ReceivedContent, blocking, discard, receive},
    record::{Headers, ObjectRecord, Segment},
    store::{Found, NewContent, NewObject, Store, WriteCondition, etag, remove_object, replace_object, timestamp},
};

impl Store {
    pub(super) async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request { mut input, headers, trailing_headers, .. } = request;
        let length_bytes = declared_length(input.content_length)?;
        let condition = WriteCondition { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
        // Asked again when it counts; here so that a body is not written in vain.
        let wanted = self.record(&input.bucket, &input.key).await.and_then(|current| condition.check(current.as_ref()));
        if let Err(error) = wanted {
            discard(input.body).await;
            return Err(error.into());
        }
        let mut expectation = Expectation::of_headers(&headers)?;
        expectation.announced.extend(input.checksum_algorithm.as_ref().and_then(|name| Algorithm::parse(name.as_str())));
        let intake = Intake { body: input.body, length_bytes, expectation, trailer: trailing_headers, may_inline: true };
        let received = receive(&self.data, intake).await?;

        let (content, file) = match received.content {
            ReceivedContent::Memory(bytes) => (NewContent::Inline(bytes), None),
            ReceivedContent::File(file) => {
                let segment = Segment { file: file.number, size_bytes: received.size_bytes };
                (NewContent::Files(vec![segment]), Some(file))
            }
        };
        let new = NewObject {
            content,
            size_bytes: received.size_bytes,
            headers: Headers {
                content_type: input.content_type,
                content_encoding: input.content_encoding.as_deref().and_then(without_aws_chunked),
                content_language: input.content_language,
                content_disposition: input.content_disposition,
                cache_control: input.cache_control,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            },
            checksums: received.checksums,
            parts: None,
            event: "s3:ObjectCreated:Put",
        };
        let record = self.write_object(input.bucket, input.key, condition, new, file.into_iter().collect()).await?;
        let sums = record.checksums;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(etag(&record.etag)),
            size: i64::try_from(record.size_bytes).ok(),
            checksum_type: Some(checksum_type(false)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..PutObjectOutput::default()
        }))
    }

    /// Commit an object whose content is durable.
    pub(super) async fn write_object(
        &self,
        bucket: String,
        key: String,
        condition: WriteCondition,
        new: NewObject,
        files: Vec<NewFile>,
    ) -> Result<ObjectRecord, StoreError> {
        self.committer
            .run(files, move |tables| {
                index::bucket(&tables.buckets, &bucket)?;
                condition.check(index::object(&tables.objects, &bucket, &key)?.as_ref())?;
                replace_object(tables, &bucket, &key, new)
            })
            .await
    }

    pub(super) async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let S3Request { input, headers, .. } = request;
        let Found { record, content, pin } = self.find(&input.bucket, &input.key).await?;
        ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(&record)?;
        // RFC 9110 §13.1.5: a range of another version is not what the client wants.
        let same = headers.get("if-range").is_none_or(|tag| tag.as_bytes() == format!("\"{}\"", record.etag).as_bytes());
        let selected = select(&record, &content, input.range.filter(|_| same), input.part_number)?;
        let bounds = selected.bounds.clone();
        let body = match content {
            Content::Inline(bytes) => {
                let bounds = usize::try_from(bounds.start).unwrap_or(0)..usize::try_from(bounds.end).unwrap_or(0);
                StreamingBlob::from(Body::from(bytes::Bytes::from(bytes).slice(bounds)))
            }
            Content::Files(segments) => {
                let data = Arc::clone(&self.data);
                let bytes = blocking(move || Ok(ObjectBytes::open(data, pin, segments, bounds)?)).await?;
                StreamingBlob::new(bytes)
            }
        };
        let sums = shown_checksums(&record, input.checksum_mode.is_some() && selected.content_range.is_none());
        let headers = record.headers;
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(body),
            cache_control: headers.cache_control,
            content_disposition: headers.content_disposition,
            content_encoding: headers.content_encoding,
            content_language: headers.content_language,
            content_type: Some(headers.content_type.unwrap_or_else(|| DEFAULT_TYPE.to_owned())),
            content_length: Some(selected.length()),
            content_range: selected.content_range,
            parts_count: selected.parts_count,
            e_tag: Some(etag(&record.etag)),
            last_modified: Some(timestamp(record.modified_ms)),
            metadata: Some(headers.metadata.into_iter().collect()),
            checksum_type: sums.as_ref().map(|sums| checksum_type(sums.composite)),
            checksum_crc32: sums.as_ref().and_then(|sums| sums.crc32.clone()),
            checksum_crc32c: sums.as_ref().and_then(|sums| sums.crc32c.clone()),
            checksum_crc64nvme: sums.as_ref().and_then(|sums| sums.crc64nvme.clone()),
            checksum_sha1: sums.as_ref().and_then(|sums| sums.sha1.clone()),
            checksum_sha256: sums.and_then(|sums| sums.sha256),
            ..GetObjectOutput::default()
        }))
    }

    pub(super) async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let Found { record, content, .. } = self.find(&input.bucket, &input.key).await?;
        ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(&record)?;
        let selected = select(&record, &content, input.range, input.part_number)?;
        let sums = shown_checksums(&record, input.checksum_mode.is_some() && selected.content_range.is_none());
        let headers = record.headers;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: headers.cache_control,
            content_disposition: headers.content_disposition,
            content_encoding: headers.content_encoding,
            content_language: headers.content_language,
            content_type: Some(headers.content_type.unwrap_or_else(|| DEFAULT_TYPE.to_owned())),
            content_length: Some(selected.length()),
            content_range: selected.content_range,
            parts_count: selected.parts_count,
            e_tag: Some(etag(&record.etag)),
            last_modified: Some(timestamp(record.modified_ms)),
            metadata: Some(headers.metadata.into_iter().collect()),
            checksum_type: sums.as_ref().map(|sums| checksum_type(sums.composite)),
            checksum_crc32: sums.as_ref().and_then(|sums| sums.crc32.clone()),
            checksum_crc32c: sums.as_ref().and_then(|sums| sums.crc32c.clone()),
            checksum_crc64nvme: sums.as_ref().and_then(|sums| sums.crc64nvme.clone()),
            checksum_sha1: sums.as_ref().and_then(|sums| sums.sha1.clone()),
            checksum_sha256: sums.and_then(|sums| sums.sha256),
            ..HeadObjectOutput::default()
        }))
    }

    pub(super) async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, if_match, .. } = request.input;
        let condition = WriteCondition { if_match, if_none_match: None };
        self.committer
            .run(Vec::new(), move |tables| {
                index::bucket(&tables.buckets, &bucket)?;
                if condition.if_match.is_some() {
                    condition.check(index::object(&tables.objects, &bucket, &key)?.as_ref())?;
                }
                remove_object(tables, &bucket, &key)
            })
            .await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = request.input;
        if delete.objects.len() > 1000 {
            return Err(StoreError::Invalid("at most 1000 keys can be deleted at once".to_owned()).into());
        }
        let quiet = delete.quiet.unwrap_or(false);
        if delete.objects.iter().any(|object| object.version_id.as_deref().is_some_and(|version| version != "null")) {
            return Err(S3Error::with_message(S3ErrorCode::NoSuchVersion, "there are no versions here"));
        }
        let keys: Vec<String> = delete.objects.into_iter().map(|object| object.key).collect();
        let deleted = self
            .committer
            .run(Vec::new(), move |tables| {
                index::bucket(&tables.buckets, &bucket)?;
                for key in &keys {
                    remove_object(tables, &bucket, key)?;
                }
                Ok(keys)
            })
            .await?;
        let deleted = deleted.into_iter().map(|key| DeletedObject { key: Some(key), ..DeletedObject::default() });
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then(|| deleted.collect()),
            ..DeleteObjectsOutput::default()
        }))
    }

    /// A copy shares the bytes of its source: files get a second name.
    pub(super) async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        let (source_bucket, source_key) = source_of(&input.copy_source)?;
        let Found { record, content, pin } = self.find(source_bucket, source_key).await?;
        ReadCondition {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        }
        .check(&record)
        .map_err(|_| StoreError::PreconditionFailed("x-amz-copy-source-if"))?;
        self.data.room_for(0)?;
        let (content, files) = match content {
            Content::Inline(bytes) => (NewContent::Inline(bytes), Vec::new()),
            Content::Files(segments) => {
                let data = Arc::clone(&self.data);
                blocking(move || {
                    let _pin = pin;
                    let mut files = Vec::with_capacity(segments.len());
                    for segment in &segments {
                        files.push(data.link(segment.file)?);
                    }
                    let segments = files.iter().zip(&segments);
                    let segments =
                        segments.map(|(file, segment)| Segment { file: file.number, size_bytes: segment.size_bytes }).collect();
                    Ok((NewContent::Files(segments), files))
                })
                .await?
            }
        };
        let replaced = input.metadata_directive.is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let headers = if replaced {
            Headers {
                content_type: input.content_type,
                content_encoding: input.content_encoding,
                content_language: input.content_language,
                content_disposition: input.content_disposition,
                cache_control: input.cache_control,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            }
        } else {
            record.headers
        };
        let new = NewObject {
            content,
            size_bytes: record.size_bytes,
            headers,
            checksums: record.checksums,
            parts: record.parts,
            event: "s3:ObjectCreated:Copy",
        };
        let written = self.write_object(input.bucket, input.key, WriteCondition::default(), new, files).await?;
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(etag(&written.etag)),
                last_modified: Some(timestamp(written.modified_ms)),
                checksum_crc64nvme: written.checksums.crc64nvme,
                ..CopyObjectResult::default()
            }),
            ..CopyObjectOutput::default()
        }))
    }
}

const DEFAULT_TYPE: &str = "binary/octet-stream";

pub(super) fn declared_length(length: Option<i64>) -> S3Result<u64> {
    length
        .and_then(|length| u64::try_from(length).ok())
        .ok_or_else(|| S3Error::with_message(S3ErrorCode::MissingContentLength, "the length of the body must be declared"))
}

pub(super) fn source_of(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, .. } => Ok((bucket, key)),
        _ => Err(S3Error::with_message(S3ErrorCode::NotImplemented, "a copy source is `bucket/key` here")),
    }
}

pub(super) fn checksum_type(composite: bool) -> s3s::dto::ChecksumType {
    use s3s::dto::ChecksumType;
    ChecksumType::from_static(if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT })
}

/// `aws-chunked` is how the body travelled, not what it is.
fn without_aws_chunked(encoding: &str) -> Option<String> {
    let kept: Vec<&str> = encoding.split(',').map(str::trim).filter(|name| *name != "aws-chunked" && !name.is_empty()).collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

fn shown_checksums(record: &ObjectRecord, wanted: bool) -> Option<Checksums> {
    wanted.then(|| record.checksums.clone())
}

/// What a reader demands of the object, by RFC 9110 §13.2.2.
#[expect(clippy::struct_field_names, reason = "they are the names of the headers")]
pub(super) struct ReadCondition {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl ReadCondition {
    pub(super) fn check(self, record: &ObjectRecord) -> S3Result<()> {
        let seconds = |time: Timestamp| OffsetDateTime::from(time).unix_timestamp();
        let modified = record.modified_ms / 1000;
        match &self.if_match {
            Some(ETagCondition::ETag(wanted)) if wanted.as_strong() != Some(&record.etag) => {
                return Err(StoreError::PreconditionFailed("If-Match").into());
            }
            None if self.if_unmodified_since.is_some_and(|time| modified > seconds(time)) => {
                return Err(StoreError::PreconditionFailed("If-Unmodified-Since").into());
            }
            _ => {}
        }
        let unchanged = match &self.if_none_match {
            Some(ETagCondition::Any) => true,
            Some(ETagCondition::ETag(tag)) => tag.value() == record.etag,
            None => self.if_modified_since.is_some_and(|time| modified <= seconds(time)),
        };
        if unchanged {
            let mut answer = S3Error::new(S3ErrorCode::NotModified);
            let mut headers = http::HeaderMap::new();
            if let Ok(tag) = format!("\"{}\"", record.etag).parse() {
                headers.insert(http::header::ETAG, tag);
            }
            answer.set_headers(headers);
            return Err(answer);
        }
        Ok(())
    }
}

/// Which bytes a reader gets.
struct Selected {
    bounds: Bounds<u64>,
    content_range: Option<String>,
    parts_count: Option<i32>,
}

impl Selected {
    fn length(&self) -> i64 {
        i64::try_from(self.bounds.end - self.bounds.start).unwrap_or(i64::MAX)
    }
}

fn select(record: &ObjectRecord, content: &Content, range: Option<Range>, part_number: Option<i32>) -> S3Result<Selected> {
    let size = record.size_bytes;
    let shown = |bounds: &Bounds<u64>| format!("bytes {}-{}/{size}", bounds.start, bounds.end.saturating_sub(1));
    let parts_count = record.parts.and_then(|parts| i32::try_from(parts).ok());
    match (range, part_number) {
        (Some(_), Some(_)) => {
            Err(StoreError::Invalid("a range and a part number cannot be asked for together".to_owned()).into())
        }
        (Some(range), None) => {
            if size == 0 {
                return Err(unsatisfiable(size));
            }
            let bounds = range.check(size).map_err(|_| unsatisfiable(size))?;
            Ok(Selected { content_range: Some(shown(&bounds)), bounds, parts_count: None })
        }
        (None, Some(number)) => {
            let bounds = match (content, record.parts) {
                (Content::Files(segments), Some(_)) => {
                    let index = usize::try_from(number - 1).map_err(|_| unsatisfiable(size))?;
                    let segment = segments.get(index).ok_or_else(|| unsatisfiable(size))?;
                    let start = segments[..index].iter().map(|segment| segment.size_bytes).sum::<u64>();
                    start..start + segment.size_bytes
                }
                _ if number == 1 => 0..size,
                _ => return Err(unsatisfiable(size)),
            };
            let content_range = (size > 0).then(|| shown(&bounds));
            Ok(Selected { bounds, content_range, parts_count })
        }
        (None, None) => Ok(Selected { bounds: 0..size, content_range: None, parts_count: None }),
    }
}

fn unsatisfiable(size: u64) -> S3Error {
    let mut answer = S3Error::with_message(S3ErrorCode::InvalidRange, format!("the object has {size} bytes"));
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = format!("bytes */{size}").parse() {
        headers.insert(http::header::CONTENT_RANGE, value);
    }
    answer.set_headers(headers);
    answer
}
