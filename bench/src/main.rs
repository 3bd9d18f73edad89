//! Measurements, side by side with peers.

fn main() {}
