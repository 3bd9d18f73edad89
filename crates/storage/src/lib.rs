//! Bucket: where the bytes live.
//!
//! [`Bucket`] is the port to any S3 server. [`embedded`] is a server of our own for those who have none, durable and
//! atomic, and [`notification`] is the JSON by which a server tells that an object came or went.

mod bucket;
pub mod embedded;
pub mod notification;

pub use self::bucket::{
    Audience, Blocks, Bucket, BucketOptions, Disposition, Error, ErrorKind, Listing, ObjectInfo, ObjectStream, PartInfo,
    PresignGet, PresignPut, PresignedLink, SetUp, SetUpReport, Stored, UploadInfo,
};
