//! Downloads and files, from a request to the object and away again, against real servers.

#![expect(clippy::large_futures, reason = "a test has a stack of its own")]

mod asking;
mod running;
mod world;
