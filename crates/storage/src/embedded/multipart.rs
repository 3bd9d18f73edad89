//! Objects in parts. A part is a file from the beginning; completing writes a list of files and copies nothing.

use std::sync::Arc;

use rand::Rng;
use s3s::{
    S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CompletedPart, CopyPartResult, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        ListPartsInput, ListPartsOutput, Part, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
    },
};

use super::{
    checksum::{Algorithm, Checksums, Expectation, compose, join},
    commit::Tables,
    error::StoreError,
    index::{self, BUCKETS, Content, PARTS, UPLOADS},
    objects::{ReadCondition, checksum_type, declared_length, source_of},
    read::ObjectBytes,
    receive::{Intake, Received, ReceivedContent, blocking, discard, receive},
    record::{Headers, PartRecord, Segment, UploadRecord, encode},
    store::{Found, NewContent, NewObject, Store, WriteCondition, etag, new_etag, replace_object, timestamp},
};

const MAX_PARTS: u32 = 10_000;
/// What every part but the last must have at least.
const MIN_PART_BYTES: u64 = 5 << 20;

impl Store {
    pub(super) async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let algorithm = input.checksum_algorithm.as_ref().and_then(|name| Algorithm::parse(name.as_str()));
        let composite = match input.checksum_type.as_ref().map(ChecksumType::as_str) {
            Some(ChecksumType::COMPOSITE) => true,
            Some(_) => false,
            // As S3: composite, unless the algorithm can only do the whole.
            None => algorithm.is_some_and(|algorithm| algorithm != Algorithm::Crc64Nvme),
        };
        let record = UploadRecord {
            initiated_ms: 0,
            headers: Headers {
                content_type: input.content_type,
                content_encoding: input.content_encoding,
                content_language: input.content_language,
                content_disposition: input.content_disposition,
                cache_control: input.cache_control,
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            },
            checksum_algorithm: algorithm.map(|algorithm| algorithm.name().to_owned()),
            composite,
        };
        self.data.room_for(0)?;
        let upload_id = format!("{:032x}", rand::rng().random::<u128>());
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), upload_id.clone());
        let now_ms = i64::try_from(self.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        self.committer
            .run(Vec::new(), move |tables| {
                index::bucket(&tables.buckets, &bucket)?;
                let record = encode(&UploadRecord { initiated_ms: now_ms, ..record })?;
                tables.uploads.insert(index::upload_key(&bucket, &key, &id).as_slice(), record.as_slice())?;
                Ok(())
            })
            .await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: algorithm.map(|_| checksum_type(composite)),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn find_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<UploadRecord, StoreError> {
        let index = Arc::clone(&self.index);
        let (bucket, key, upload_id) = (bucket.to_owned(), key.to_owned(), upload_id.to_owned());
        blocking(move || {
            index.read(|transaction| {
                index::bucket(&transaction.open_table(BUCKETS)?, &bucket)?;
                index::upload(&transaction.open_table(UPLOADS)?, &bucket, &key, &upload_id)
            })
        })
        .await
    }

    pub(super) async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let S3Request { input, headers, trailing_headers, .. } = request;
        let number = part_number(input.part_number)?;
        let length_bytes = declared_length(input.content_length)?;
        let upload = match self.find_upload(&input.bucket, &input.key, &input.upload_id).await {
            Ok(upload) => upload,
            Err(error) => {
                discard(input.body).await;
                return Err(error.into());
            }
        };
        let mut expectation = Expectation::of_headers(&headers)?;
        let named = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
        let wanted = [named, upload.checksum_algorithm.as_deref()];
        expectation.announced.extend(wanted.into_iter().flatten().filter_map(Algorithm::parse));
        let intake = Intake { body: input.body, length_bytes, expectation, trailer: trailing_headers, may_inline: false };
        let received = receive(&self.data, intake).await?;
        let part = self.write_part(input.bucket, input.key, input.upload_id, number, received).await?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(etag(&part.etag)),
            checksum_crc32: part.checksums.crc32,
            checksum_crc32c: part.checksums.crc32c,
            checksum_crc64nvme: part.checksums.crc64nvme,
            checksum_sha1: part.checksums.sha1,
            checksum_sha256: part.checksums.sha256,
            ..UploadPartOutput::default()
        }))
    }

    async fn write_part(
        &self,
        bucket: String,
        key: String,
        upload_id: String,
        number: u32,
        received: Received,
    ) -> Result<PartRecord, StoreError> {
        let Received { content, size_bytes, checksums } = received;
        let ReceivedContent::File(file) = content else { return Err(StoreError::Stopping) };
        let file_number = file.number;
        self.committer
            .run(vec![file], move |tables| {
                // The upload may have been completed or aborted while the part came in.
                index::upload(&tables.uploads, &bucket, &key, &upload_id)?;
                let (version, modified_ms) = tables.next_version()?;
                let part = PartRecord { file: file_number, etag: new_etag(version), size_bytes, modified_ms, checksums };
                let part_key = index::part_key(&upload_id, number);
                let old = tables.parts.insert(part_key.as_slice(), encode(&part)?.as_slice())?;
                let old: Option<PartRecord> = old.map(|old| super::record::decode(old.value())).transpose()?;
                if let Some(old) = old {
                    tables.files.remove(old.file)?;
                    tables.obsolete.push((0, vec![old.file]));
                }
                tables.files.insert(file_number, ())?;
                Ok(part)
            })
            .await
    }

    pub(super) async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let number = part_number(input.part_number)?;
        let upload = self.find_upload(&input.bucket, &input.key, &input.upload_id).await?;
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
        let bounds = match &input.copy_source_range {
            None => 0..record.size_bytes,
            Some(range) => s3s::dto::Range::parse(range)
                .ok()
                .and_then(|range| range.check(record.size_bytes).ok())
                .ok_or_else(|| StoreError::Invalid("the range of the copy source cannot be had".to_owned()))?,
        };
        let length_bytes = bounds.end - bounds.start;
        let body = match content {
            Content::Inline(bytes) => {
                let bounds = usize::try_from(bounds.start).unwrap_or(0)..usize::try_from(bounds.end).unwrap_or(0);
                s3s::dto::StreamingBlob::from(s3s::Body::from(bytes::Bytes::from(bytes).slice(bounds)))
            }
            Content::Files(segments) => {
                let data = Arc::clone(&self.data);
                let bytes = blocking(move || Ok(ObjectBytes::open(data, pin, segments, bounds)?)).await?;
                s3s::dto::StreamingBlob::new(bytes)
            }
        };
        let announced = upload.checksum_algorithm.as_deref().and_then(Algorithm::parse).into_iter().collect();
        let intake = Intake {
            body: Some(body),
            length_bytes,
            expectation: Expectation { announced, ..Expectation::default() },
            trailer: None,
            may_inline: false,
        };
        let received = receive(&self.data, intake).await?;
        let part = self.write_part(input.bucket, input.key, input.upload_id, number, received).await?;
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(etag(&part.etag)),
                last_modified: Some(timestamp(part.modified_ms)),
                checksum_crc64nvme: part.checksums.crc64nvme,
                ..CopyPartResult::default()
            }),
            ..UploadPartCopyOutput::default()
        }))
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let S3Request { input, headers, .. } = request;
        let (bucket, key, upload_id) = (input.bucket.clone(), input.key.clone(), input.upload_id);
        let completion = Completion {
            listed: input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default(),
            condition: WriteCondition { if_match: input.if_match, if_none_match: input.if_none_match },
            size_bytes: input.mpu_object_size.and_then(|size| u64::try_from(size).ok()),
            checksums: whole_checksums(&headers),
        };
        let record = self
            .committer
            .run(Vec::new(), move |tables| {
                index::bucket(&tables.buckets, &bucket)?;
                complete(tables, &bucket, &key, &upload_id, &completion)
            })
            .await?;
        let sums = record.checksums;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(etag(&record.etag)),
            checksum_type: Some(checksum_type(sums.composite)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput { bucket, key, upload_id, .. } = request.input;
        self.committer
            .run(Vec::new(), move |tables| {
                index::bucket(&tables.buckets, &bucket)?;
                index::upload(&tables.uploads, &bucket, &key, &upload_id)?;
                let parts = index::parts(&tables.parts, &upload_id, 0, usize::MAX)?;
                let files: Vec<u64> = parts.iter().map(|(_, part)| part.file).collect();
                forget_upload(tables, &bucket, &key, &upload_id, &parts)?;
                for file in &files {
                    tables.files.remove(file)?;
                }
                tables.obsolete.push((0, files));
                Ok(())
            })
            .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let limit = usize::try_from(input.max_parts.unwrap_or(1000)).unwrap_or(0).min(1000);
        let marker = input.part_number_marker.and_then(|marker| u32::try_from(marker).ok()).unwrap_or(0);
        let index = Arc::clone(&self.index);
        let (bucket, key, upload_id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let (upload, mut parts) = blocking(move || {
            index.read(|transaction| {
                index::bucket(&transaction.open_table(BUCKETS)?, &bucket)?;
                let upload = index::upload(&transaction.open_table(UPLOADS)?, &bucket, &key, &upload_id)?;
                let parts = index::parts(&transaction.open_table(PARTS)?, &upload_id, marker + 1, limit + 1)?;
                Ok((upload, parts))
            })
        })
        .await?;
        let is_truncated = parts.len() > limit;
        parts.truncate(limit);
        let next = parts.last().and_then(|(number, _)| i32::try_from(*number).ok());
        let algorithm = upload.checksum_algorithm.map(ChecksumAlgorithm::from);
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: i32::try_from(limit).ok(),
            part_number_marker: input.part_number_marker,
            next_part_number_marker: next.filter(|_| is_truncated),
            is_truncated: Some(is_truncated),
            checksum_type: algorithm.as_ref().map(|_| checksum_type(upload.composite)),
            checksum_algorithm: algorithm,
            parts: Some(parts.into_iter().map(|(number, part)| shown_part(number, part)).collect()),
            ..ListPartsOutput::default()
        }))
    }
}

fn shown_part(number: u32, part: PartRecord) -> Part {
    Part {
        part_number: i32::try_from(number).ok(),
        e_tag: Some(etag(&part.etag)),
        last_modified: Some(timestamp(part.modified_ms)),
        size: i64::try_from(part.size_bytes).ok(),
        checksum_crc32: part.checksums.crc32,
        checksum_crc32c: part.checksums.crc32c,
        checksum_crc64nvme: part.checksums.crc64nvme,
        checksum_sha1: part.checksums.sha1,
        checksum_sha256: part.checksums.sha256,
    }
}

fn part_number(number: i32) -> Result<u32, StoreError> {
    u32::try_from(number)
        .ok()
        .filter(|number| (1..=MAX_PARTS).contains(number))
        .ok_or_else(|| StoreError::Invalid(format!("a part number is from 1 to {MAX_PARTS}")))
}

/// The checksums of the whole that a completion names; a composite one is compared with its number of parts.
fn whole_checksums(headers: &http::HeaderMap) -> Checksums {
    let mut checksums = Checksums::default();
    for algorithm in Algorithm::ALL {
        let name = format!("x-amz-checksum-{}", algorithm.name().to_ascii_lowercase());
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            checksums.set(algorithm, value.to_owned());
        }
    }
    checksums
}

/// What a client says that its object is.
struct Completion {
    listed: Vec<CompletedPart>,
    condition: WriteCondition,
    size_bytes: Option<u64>,
    checksums: Checksums,
}

/// Make an object of an upload. Everything is checked before anything is written, so a refusal leaves the upload usable.
fn complete(
    tables: &mut Tables<'_>,
    bucket: &str,
    key: &str,
    upload_id: &str,
    completion: &Completion,
) -> Result<super::record::ObjectRecord, StoreError> {
    let upload = index::upload(&tables.uploads, bucket, key, upload_id)?;
    let uploaded = index::parts(&tables.parts, upload_id, 0, usize::MAX)?;
    let chosen = choose(&completion.listed, &uploaded)?;
    let size_bytes = chosen.iter().map(|part| part.size_bytes).sum();
    if completion.size_bytes.is_some_and(|wanted| wanted != size_bytes) {
        return Err(StoreError::Invalid(format!("the parts have {size_bytes} bytes together, not as many as declared")));
    }
    let checksums = combine(&upload, &chosen);
    checksums.verify(&completion.checksums)?;
    completion.condition.check(index::object(&tables.objects, bucket, key)?.as_ref())?;

    let segments: Vec<Segment> = chosen.iter().map(|part| Segment { file: part.file, size_bytes: part.size_bytes }).collect();
    let used: std::collections::HashSet<u64> = segments.iter().map(|segment| segment.file).collect();
    let unused: Vec<u64> = uploaded.iter().map(|(_, part)| part.file).filter(|file| !used.contains(file)).collect();
    forget_upload(tables, bucket, key, upload_id, &uploaded)?;
    for file in &unused {
        tables.files.remove(file)?;
    }
    tables.obsolete.push((0, unused));
    let new = NewObject {
        content: NewContent::Files(segments),
        size_bytes,
        headers: upload.headers,
        checksums,
        parts: u32::try_from(completion.listed.len()).ok(),
        event: "s3:ObjectCreated:CompleteMultipartUpload",
    };
    replace_object(tables, bucket, key, new)
}

/// The parts that a completion lists: in ascending order, gaps allowed, each with the entity tag it has here.
fn choose<'a>(listed: &[CompletedPart], uploaded: &'a [(u32, PartRecord)]) -> Result<Vec<&'a PartRecord>, StoreError> {
    if listed.is_empty() {
        return Err(StoreError::Invalid("a completion lists at least one part".to_owned()));
    }
    let numbers: Vec<i32> = listed.iter().map(|part| part.part_number.unwrap_or(0)).collect();
    if !numbers.is_sorted_by(|before, after| before < after) {
        return Err(StoreError::InvalidPartOrder);
    }
    let mut chosen: Vec<&PartRecord> = Vec::with_capacity(listed.len());
    for (position, (part, number)) in listed.iter().zip(numbers).enumerate() {
        let found = u32::try_from(number)
            .ok()
            .and_then(|number| uploaded.binary_search_by_key(&number, |(number, _)| *number).ok())
            .map(|index| &uploaded[index].1)
            .ok_or(StoreError::InvalidPart(number))?;
        if part.e_tag.as_ref().map(s3s::dto::ETag::value) != Some(&found.etag) {
            return Err(StoreError::InvalidPart(number));
        }
        let named = Checksums {
            crc32: part.checksum_crc32.clone(),
            crc32c: part.checksum_crc32c.clone(),
            crc64nvme: part.checksum_crc64nvme.clone(),
            sha1: part.checksum_sha1.clone(),
            sha256: part.checksum_sha256.clone(),
            composite: false,
        };
        found.checksums.verify(&named)?;
        if found.size_bytes < MIN_PART_BYTES && position + 1 < listed.len() {
            return Err(StoreError::EntityTooSmall(number));
        }
        chosen.push(found);
    }
    Ok(chosen)
}

/// The checksums of the whole: CRC-64 always, and the one that the upload was begun with.
fn combine(upload: &UploadRecord, parts: &[&PartRecord]) -> Checksums {
    let mut checksums = Checksums { composite: upload.composite, ..Checksums::default() };
    let joined = |algorithm| join(algorithm, parts.iter().map(|part| (part.checksums.get(algorithm), part.size_bytes)));
    if let Some(value) = joined(Algorithm::Crc64Nvme) {
        checksums.set(Algorithm::Crc64Nvme, value);
    }
    if let Some(algorithm) = upload.checksum_algorithm.as_deref().and_then(Algorithm::parse) {
        let value = if upload.composite {
            compose(algorithm, parts.iter().map(|part| part.checksums.get(algorithm)))
        } else {
            joined(algorithm)
        };
        if let Some(value) = value {
            checksums.set(algorithm, value);
        }
    }
    checksums
}

/// Remove an upload and its parts from the index, not the files.
fn forget_upload(
    tables: &mut Tables<'_>,
    bucket: &str,
    key: &str,
    upload_id: &str,
    parts: &[(u32, PartRecord)],
) -> Result<(), StoreError> {
    tables.uploads.remove(index::upload_key(bucket, key, upload_id).as_slice())?;
    for (number, _) in parts {
        tables.parts.remove(index::part_key(upload_id, *number).as_slice())?;
    }
    Ok(())
}
