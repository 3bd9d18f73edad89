//! The bucket's port and the embedded store, from the outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod durability;
mod fitness;
mod links;
mod notifications;
mod parts;
mod port;
mod protocol;
mod support;
