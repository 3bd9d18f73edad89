//! The servers that `up` starts for itself: PostgreSQL and nats-server.
//!
//! They run in process groups of their own, so that Ctrl-C in a terminal reaches `up` alone, which stops them in order. They
//! are started through `setpriv --pdeathsig`, so that the kernel stops them when `up` is killed; what should still be there
//! at the next start is found by its working folder, waited for and, if need be, killed. They are restarted when they die.

pub(crate) mod guardian;
pub(crate) mod keeper;
pub(crate) mod leftover;
pub(crate) mod nats;
pub(crate) mod postgres;
pub(crate) mod program;

pub(crate) use self::{guardian::Guardian, keeper::Keeper};
