//! Uploads, from the announcement to the file and away again, against real servers: PostgreSQL, NATS, the embedded object
//! store, and a client that sends what it likes.

mod checks;
mod flow;
mod hints;
mod kills;
mod parts;
mod reconciling;
mod tampering;
mod world;
