//! What the measurements share: processes of the binary, one application on a cluster, the table of what was promised.

pub mod application;
pub mod process;
pub mod table;

use std::time::Duration;

/// Nothing that works takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const NAMESPACE: &str = "bench";
