//! The door from outside: a real nats-server, and a scripted service in place of the actors.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where something is not as it should be")]

mod bounds;
mod content;
mod document;
mod feed;
mod links;
mod operations;
mod pages;
mod refusals;
mod shares;
mod stage;
