//! What tests stand on: real servers, a lying one, and patience with an end.
//!
//! Every server that is started here ends with the test that asked for it, also when the test is killed: children are
//! started through `setpriv --pdeathsig KILL`. The signal follows the thread that started the child, which for a test is
//! the test's own. Only the PostgreSQL cluster outlives a test, since all tests share it; it ends by itself when nobody has
//! used it for a while.

#![expect(clippy::expect_used, reason = "a test that cannot have its servers fails")]

mod cluster;
pub mod event_stream;
mod eventually;
pub mod http;
pub mod lying;
pub mod names;
mod nats_server;
mod port;
mod postgres;
mod process;
pub mod ranged_server;
mod raw_nats;
pub mod smtp;

pub use self::{
    eventually::eventually,
    nats_server::NatsServer,
    port::free_port,
    postgres::{Postgres, TestDatabase},
    process::{ChildProcess, find_program, process_exists, workspace_folder},
    raw_nats::RawNats,
};
