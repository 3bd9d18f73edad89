//! Words: everything that can be said on the bus, and the ways to say it. This room decides nothing.
//!
//! A subject is `<prefix>.v1.<kind>.<area>.<name>[.<id>]`; only [`subject`] makes or parses one. What is said is typed:
//! one module per area holds its operations (asked and answered) and its events (facts, past tense).

pub mod account;
pub mod download;
pub mod file;
pub mod id;
pub mod json;
pub mod key;
pub mod operation;
pub mod page;
pub mod problem;
pub mod session;

pub use self::{
    id::{AccountId, DownloadId, EventId, FileId, SessionId},
    operation::{Access, Operation},
    page::Page,
    problem::{Code, Problem},
};
