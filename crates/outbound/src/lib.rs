//! Internet: the one guarded HTTP client, and the transfer engine on top of it.
//!
//! From the bottom up: [`address`] and [`target`] say what may be fetched, `dial` and `connection` make connections to
//! exactly that, [`client`] makes requests and follows redirects, `post` hands something over, and the engine turns a URL into an object.

pub mod address;
mod answer_head;
mod attempt;
pub mod client;
mod connection;
mod dial;
mod digest;
mod engine;
mod error;
mod fetch;
pub mod file_name;
mod flight;
mod growth;
pub mod header;
pub mod ledger;
pub mod memory;
pub mod plan;
mod post;
mod probe;
mod response;
pub mod sink;
pub mod target;
pub mod transfer;

pub use address::AddressPolicy;
pub use client::{Client, ClientOptions, Session, Timeouts};
pub use dial::SetupError;
pub use engine::{Engine, MAX_RESTARTS, Patience};
pub use error::{Error, ErrorCode};
pub use ledger::{Ledger, LedgerError, PartRecord, PlanRecord, Progress, RestartReason};
pub use memory::MemoryBudget;
pub use post::{Answer, Post};
pub use response::{Body, Framing, Response};
pub use sink::{Sink, SinkAnswer, SinkError, Stored};
pub use transfer::{Checksum, Completed, Resume, Stopped, Transfer, TransferError, Verified};
