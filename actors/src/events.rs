//! Facts on their way out: written with the change that they tell of, published by the outbox.

mod bell;

pub use self::bell::Bell;
