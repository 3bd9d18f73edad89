//! Buckets: made, listed, asked for, and removed when they hold nothing.

use std::sync::Arc;

use redb::ReadableTable;
use s3s::{
    S3Request, S3Response, S3Result,
    dto::{
        Bucket, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput,
        GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
    },
};

use super::{
    commit::Tables,
    error::StoreError,
    index::{self, BUCKETS},
    receive::blocking,
    record::{BucketRecord, decode, encode},
    store::{Store, timestamp},
};

impl Store {
    /// Make a bucket.
    pub(super) async fn make_bucket(&self, name: String) -> Result<(), StoreError> {
        let created_ms = i64::try_from(self.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        self.committer
            .run(Vec::new(), move |tables| {
                if tables.buckets.get(name.as_str())?.is_some() {
                    return Err(StoreError::BucketExists);
                }
                tables.buckets.insert(name.as_str(), encode(&BucketRecord { created_ms })?.as_slice())?;
                Ok(())
            })
            .await
    }

    pub(super) async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let name = request.input.bucket;
        let location = Some(format!("/{name}"));
        self.make_bucket(name).await?;
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    pub(super) async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        let name = request.input.bucket;
        self.committer
            .run(Vec::new(), move |tables| {
                index::bucket(&tables.buckets, &name)?;
                if holds_something(tables, &name)? {
                    return Err(StoreError::BucketNotEmpty);
                }
                tables.buckets.remove(name.as_str())?;
                Ok(())
            })
            .await?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn bucket(&self, name: String) -> Result<BucketRecord, StoreError> {
        let index = Arc::clone(&self.index);
        blocking(move || index.read(|transaction| index::bucket(&transaction.open_table(BUCKETS)?, &name))).await
    }

    pub(super) async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(request.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(self.region.clone()), ..HeadBucketOutput::default() }))
    }

    pub(super) async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket(request.input.bucket).await?;
        // S3 says nothing for its oldest region.
        let location = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: location }))
    }

    pub(super) async fn list_buckets(&self, _request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let index = Arc::clone(&self.index);
        let buckets = blocking(move || {
            index.read(|transaction| {
                let mut found = Vec::new();
                for entry in transaction.open_table(BUCKETS)?.iter()? {
                    let (name, record) = entry?;
                    let record: BucketRecord = decode(record.value())?;
                    found.push(Bucket {
                        name: Some(name.value().to_owned()),
                        creation_date: Some(timestamp(record.created_ms)),
                        ..Bucket::default()
                    });
                }
                Ok(found)
            })
        })
        .await?;
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }
}

/// Objects and unfinished uploads both count: either would be lost.
fn holds_something(tables: &Tables<'_>, name: &str) -> Result<bool, StoreError> {
    let first = index::object_key(name, "");
    let begins = |table: &redb::Table<'_, &'static [u8], &'static [u8]>| -> Result<bool, StoreError> {
        let mut range = table.range::<&[u8]>(first.as_slice()..)?;
        Ok(range.next().transpose()?.is_some_and(|(key, _)| key.value().starts_with(&first)))
    };
    Ok(begins(&tables.objects)? || begins(&tables.uploads)?)
}
