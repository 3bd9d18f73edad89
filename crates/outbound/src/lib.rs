//! Internet: the one guarded HTTP client, and the transfer engine on top of it.
//!
//! From the bottom up: [`address`] and [`target`] say what may be fetched, `dial` and `connection` make connections to
//! exactly that, [`client`] makes requests and follows redirects, and the engine turns a URL into an object.

pub mod address;
pub mod client;
mod connection;
mod dial;
mod error;
pub mod header;
mod response;
pub mod target;

pub use address::AddressPolicy;
pub use client::{Client, ClientOptions, Session, Timeouts};
pub use dial::SetupError;
pub use error::{Error, ErrorCode};
pub use response::{Body, Framing, Response};
