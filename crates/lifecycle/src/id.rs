//! New identifiers: UUID version 7 (RFC 9562), so that they sort by their time of birth.

use uuid::Uuid;

/// Makes identifiers. Handed in, so that there is one place to look for where ids come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdSource;

impl IdSource {
    /// A new UUIDv7.
    #[expect(clippy::disallowed_methods, reason = "this is the source that everybody else asks")]
    pub fn next(self) -> Uuid {
        Uuid::now_v7()
    }
}
