//! Lists: a page of items and the cursor of the next.

use serde::{Deserialize, Serialize};

/// Items of a page when the caller does not say.
pub const DEFAULT_LIMIT: u32 = 50;
/// Items of a page at most.
pub const MAX_LIMIT: u32 = 200;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Hand this back as `cursor` for the next page; `null` at the end.
    pub next_cursor: Option<String>,
}
