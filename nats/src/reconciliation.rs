//! Reconciliation: the rows of the database and the objects of the bucket are compared, and what one lost is put right.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::operation::operation;

/// Compare now. Only for administrators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(deny_unknown_fields))]
pub struct Reconcile {
    /// Only report.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub dry_run: bool,
    /// Delete also when most of the bucket has no rows, which looks like the wrong database.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", oai(default))]
    pub force: bool,
}

/// What was found and done. Of a dry run: what would be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object), oai(rename = "ReconciliationReport", skip_serializing_if_is_none))]
pub struct Report {
    /// Nothing was changed.
    pub dry_run: bool,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// Unfinished uploads that were looked at in the bucket.
    pub uploads: u64,
    /// Those of them whose object was there, of which no notification had come.
    pub landed: u64,
    /// Objects of the bucket that were compared.
    pub objects: u64,
    /// Those that no row names and that are old enough to be deleted.
    pub orphans: u64,
    /// Those that no row names and that are too young to be sure.
    pub young: u64,
    /// Those whose keys are not of our form; they are left alone.
    pub foreign: u64,
    /// Files whose object is not there.
    pub missing: u64,
    /// Files whose object was missing and is there again.
    pub found: u64,
    /// Uploads in parts that no row names and that are old enough to be aborted.
    pub abandoned_parts: u64,
    /// Bytes of the orphans.
    pub orphan_bytes: u64,
    /// Why it ended early, or deleted nothing. What was found until then is in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

operation!(Reconcile => Report, "sweep", "reconcile", Admin, "Compare the rows of the database with the objects of the bucket.");
