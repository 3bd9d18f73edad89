//! Sweeps: what is kept for a time goes when that time is over. Each comes around by itself, and can be asked for.

use serde::{Deserialize, Serialize};

use crate::operation::operation;

/// A sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct Sweep {
    /// Its name: `shares-that-ended`.
    pub name: String,
    /// How often it comes around by itself.
    pub every_seconds: i64,
}

/// Every sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct Sweeps {
    /// By name.
    pub items: Vec<Sweep>,
}

/// What a sweep has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(poem_openapi::Object))]
pub struct Swept {
    /// Its name.
    pub name: String,
    /// What it took, or looked after.
    pub rows: i64,
}

/// Which sweeps there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListSweeps {}

/// Have a sweep come around now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSweep {
    /// Its name.
    pub name: String,
}

operation!(reads ListSweeps => Sweeps, "sweep", "list", Admin, "Which sweeps there are.");
operation!(RunSweep => Swept, "sweep", "run", Admin, "Have a sweep come around now.");
