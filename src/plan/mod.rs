//! What to do: desired × inventory × observed → what to send, what to delete, what needs a person's consent.
//!
//! Pure: no Kubernetes client, no async runtime, no clock, no file system.

mod desired;
mod drift;
mod flux;
mod ignore;
mod inventory;
mod prune;
mod recreate;

pub use desired::{Application, Desired, Handling, PlanError, Scopes, desired};
pub use drift::DriftMode;
pub use flux::{Ground, controllers, is_of_flux};
pub use ignore::{IgnoreError, IgnoreRules};
pub use inventory::{INVENTORY_BYTES_MAX, Inventory, TooLarge};
pub use prune::{Consent, Prune, is_definition, prune};
pub use recreate::Recreation;
