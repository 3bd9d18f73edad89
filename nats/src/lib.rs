//! Words: everything that can be said on the bus, and the ways to say it. This room decides nothing.
//!
//! A subject is `<prefix>.v1.<kind>.<area>.<name>[.<id>]`; only [`subject`] makes or parses one. What is said is typed:
//! one module per area holds its operations (asked and answered) and its events (facts, past tense).

pub mod account;
pub mod answer;
pub mod ask;
pub mod bus;
pub mod catalogue;
pub mod consume;
pub mod credential;
mod delivery;
mod discovery;
pub mod download;
pub mod envelope;
pub mod event;
pub mod file;
pub mod id;
pub mod json;
pub mod key;
mod key_watch;
pub mod operation;
pub mod page;
pub mod problem;
pub mod publish;
pub mod session;
mod stream_state;
pub mod subject;
pub mod topology;

pub use self::{
    answer::{Call, Limit},
    ask::AskContext,
    bus::{Bus, Connection},
    consume::{ConsumerSpec, Delivery, Outcome},
    credential::{Caller, Verifier},
    event::{Event, EventType},
    id::{AccountId, DownloadId, EventId, FileId, SessionId},
    operation::{Access, Operation},
    page::Page,
    problem::{Code, Problem},
    stream_state::StreamState,
    subject::{Subjects, WorkKind},
};
