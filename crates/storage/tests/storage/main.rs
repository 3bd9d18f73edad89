//! The bucket's port and the embedded store, from the outside.

mod port;
mod support;
