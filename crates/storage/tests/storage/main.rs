//! The bucket's port and the embedded store, from the outside.

mod durability;
mod links;
mod parts;
mod port;
mod protocol;
mod support;
