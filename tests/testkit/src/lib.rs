//! What tests stand on: real servers, a lying one, and patience with an end.

pub mod lying;
pub mod ranged_server;
