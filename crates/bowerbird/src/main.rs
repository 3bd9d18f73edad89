//! The executable: roles and composition, nothing else.

fn main() {}
