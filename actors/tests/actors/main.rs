//! The actors against a real PostgreSQL and a real nats-server, asked over the bus as everybody asks them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod accounts;
mod alarms;
mod dead_letters;
mod email;
mod keyring;
mod notifications;
mod outbox;
mod sessions;
mod stand;
mod statistics;
