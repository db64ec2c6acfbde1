//! What an API server does to an object between request and storage, as pure functions.
//!
//! ```text
//!  schema ← built-in table, CustomResourceDefinition
//!    │
//!  check · merge · compare · extract     one object by its types, in sets of fields
//!    │
//!  apply · update                        who owns which field
//! ```
//!
//! Never does I/O, knows no async runtime and no clock: the time is passed in.

mod apply;
mod check;
mod compare;
mod crd;
mod encoding;
mod extract;
mod fields;
mod managers;
mod merge;
mod schema;
mod update;

pub use apply::{ApplyError, Conflict, Writer, apply};
pub use encoding::canonical;
pub use fields::{FieldSet, FieldSetError, Scalar, Step, display_path};
pub use managers::{ManagerId, Managers, ManagersError, Operation, Owned, same_but_times};
pub use schema::{KindInfo, ListKind, Schema, Shape, Type};
pub use update::update;
