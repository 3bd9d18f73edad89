//! Words: everything that can be said on the bus, and the ways to say it. This room decides nothing.
//!
//! A subject is `<prefix>.v1.<kind>.<area>.<name>[.<id>]`; only [`subject`] makes or parses one. What is said is typed:
//! one module per area holds its operations (asked and answered) and its events (facts, past tense).

pub mod account;
pub mod alarm;
pub mod answer;
pub mod archive;
pub mod ask;
mod bulk;
pub mod bus;
pub mod catalogue;
pub mod check;
pub mod consume;
pub mod credential;
pub mod dead;
pub mod dead_letter;
mod delivery;
mod discovery;
pub mod download;
pub mod envelope;
pub mod event;
pub mod feed;
pub mod file;
pub mod folder;
pub mod id;
pub mod json;
pub mod key;
mod key_watch;
pub mod notification;
pub mod operation;
pub mod page;
pub mod problem;
pub mod publish;
pub mod reconciliation;
pub mod reminder;
pub mod session;
pub mod share;
pub mod statistics;
mod stream_state;
pub mod subject;
pub mod sweep;
pub mod topology;
pub mod trash;
pub mod upload;
pub mod webhook;

pub use self::{
    answer::{Call, Limit},
    ask::AskContext,
    bus::{Bus, Connection},
    consume::{ConsumerSpec, Delivery, Outcome},
    credential::{Caller, Verifier},
    event::{Event, EventType},
    id::{
        AccountId, DeadLetterId, DownloadId, EventId, FileId, FileVersionId, FolderId, NotificationId, ReminderId, SessionId,
        ShareId, UploadId, WebhookDeliveryId, WebhookId,
    },
    operation::{Access, Operation},
    page::Page,
    problem::{Code, Problem},
    stream_state::StreamState,
    subject::{Subjects, WorkKind},
};
