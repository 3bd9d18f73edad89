//! Proof from the outside: the executable over HTTP and NATS.
