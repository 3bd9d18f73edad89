//! What the executable can be: one file per role.

pub(crate) mod actors;
pub(crate) mod admin;
pub(crate) mod gateway;
pub(crate) mod migrate;
pub(crate) mod rebuild;
pub(crate) mod store;
pub(crate) mod up;
