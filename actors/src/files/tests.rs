//! The drive against a real PostgreSQL and a real object store.

mod contents;
mod finding;
mod handing_out;
mod moving;
mod sharing;
mod trashing;
mod world;
