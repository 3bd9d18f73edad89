//! Reminders in a real database: what owners ask, what time and events do, and both at once.

mod asking;
mod racing;
mod waking;
mod world;
