//! What the executable can be: one file per role.

pub(crate) mod migrate;
pub(crate) mod up;
