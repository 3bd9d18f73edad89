//! Files: what accounts own. Requests about them, and the purger that deletes in the bucket what is no longer wanted.

pub(crate) mod disposition;
pub(crate) mod store;
