//! Downloads: requests, the dispatcher that decides who runs next, the slots of this node, and one actor for each
//! download that runs.

pub(crate) mod check;
mod retry;
pub(crate) mod row;
pub(crate) mod seal;
pub(crate) mod store;
