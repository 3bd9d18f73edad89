//! Webhooks against real receivers, PostgreSQL and JetStream.

mod asking;
mod fairness;
mod limits;
mod sending;
mod world;
