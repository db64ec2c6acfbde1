//! What an API server does to an object between request and storage, as pure functions.
//!
//! ```text
//!  schema ← built-in table, CustomResourceDefinition
//!    │
//!  strict · strategic                    from a request's body to an object of its type
//!  check · merge · compare · extract     one object by its types, in sets of fields
//!    │
//!  apply · update                        who owns which field
//!    │
//!  structural · encoding · invalid       defaults, the form in which it is stored, what is refused
//! ```
//!
//! Never does I/O, knows no async runtime and no clock: the time is passed in.

mod apply;
mod cause;
mod check;
mod compare;
mod crd;
mod encoding;
mod extract;
mod fields;
mod invalid;
mod managers;
mod merge;
pub mod names;
mod quantity;
mod schema;
mod strategic;
mod strict;
mod structural;
mod table;
mod update;

pub use apply::{ApplyError, Conflict, Writer, apply};
pub use cause::Cause;
pub use encoding::canonical;
pub use fields::{FieldSet, FieldSetError, Scalar, Step, display_path};
pub use invalid::{invalid, warnings};
pub use managers::{ManagerId, Managers, ManagersError, Operation, Owned, same_but_times};
pub use quantity::{Quantity, QuantityError};
pub use schema::{Empty, Field, KindInfo, ListKind, Primitive, Schema, Shape, Type};
pub use strategic::{StrategicError, strategic_merge};
pub use strict::decode;
pub use update::update;
