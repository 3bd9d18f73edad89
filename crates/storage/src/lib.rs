//! Bucket: the S3 port, and the embedded object store.
