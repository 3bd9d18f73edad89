//! The client and the transfer engine against real sockets.
#![expect(clippy::expect_used, reason = "a test ends where its ground is missing")]
#![expect(clippy::panic, reason = "so that a failure says what it is about")]

mod client;
mod lying;
mod post;
mod ssrf;
mod support;
mod tls;
mod transfer;
