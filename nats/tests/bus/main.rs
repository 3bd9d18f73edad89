//! The bus over a real nats-server. One binary, so that one link serves all.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod alarm;
mod bulk;
mod cluster;
mod consume;
mod credential;
mod dead;
mod keys;
mod publish;
mod server;
mod support;
mod talk;
mod topology;
mod wire;
