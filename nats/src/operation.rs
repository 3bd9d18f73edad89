//! What an operation is: a request that is asked on one subject and answered once.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody; no credential is looked at.
    Public,
    /// Whoever brings a valid access token.
    Account,
    /// An account whose role is `admin`.
    Admin,
}

impl Access {
    /// As it is written: `account`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Access::Public => "public",
            Access::Account => "account",
            Access::Admin => "admin",
        }
    }
}

/// A request with its reply. Its subject is `<prefix>.v1.req.<AREA>.<NAME>`; the body is its JSON.
pub trait Operation: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What comes back when it went well; else a [`crate::Problem`].
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Area, singular: `download`.
    const AREA: &'static str;
    /// Name of the operation within its area: `create`.
    const NAME: &'static str;
    /// Who may ask.
    const ACCESS: Access;
    /// Whether it only reads. Such a request may be asked again while its first answer is still waited for.
    const READS: bool = false;
    /// One sentence for the subject catalogue and the service's endpoint metadata.
    const SUMMARY: &'static str;
}

/// The reply of an operation that has nothing to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {}

/// Implements [`Operation`] in one line; `reads` in front says that it changes nothing.
macro_rules! operation {
    (reads $request:ty => $reply:ty, $area:literal, $name:literal, $access:ident, $summary:literal) => {
        $crate::operation::operation!($request => $reply, $area, $name, $access, $summary, true);
    };
    ($request:ty => $reply:ty, $area:literal, $name:literal, $access:ident, $summary:literal) => {
        $crate::operation::operation!($request => $reply, $area, $name, $access, $summary, false);
    };
    ($request:ty => $reply:ty, $area:literal, $name:literal, $access:ident, $summary:literal, $reads:literal) => {
        impl $crate::operation::Operation for $request {
            type Reply = $reply;
            const AREA: &'static str = $area;
            const NAME: &'static str = $name;
            const ACCESS: $crate::operation::Access = $crate::operation::Access::$access;
            const READS: bool = $reads;
            const SUMMARY: &'static str = $summary;
        }
    };
}
pub(crate) use operation;
