//! The actors against a real PostgreSQL and a real nats-server, asked over the bus as everybody asks them.

mod accounts;
mod keyring;
mod outbox;
mod sessions;
mod stand;
