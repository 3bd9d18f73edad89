//! HTTP as it arrives: connections with bounds and deadlines, what every request must have, what every answer carries.
//!
//! HTTP/1.1 only. Cleartext HTTP/2 would have to be spoken with prior knowledge, which no browser does; whoever wants
//! HTTP/2 has a proxy in front that ends TLS anyway. So there are no streams to bound, only connections.

pub(crate) mod cors;
pub(crate) mod entry;
pub(crate) mod server;
mod wire;
