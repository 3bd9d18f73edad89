//! Schema: forward-only SQL, embedded.
