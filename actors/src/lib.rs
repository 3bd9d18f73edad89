//! Work: the supervision tree, one folder per area.
