//! YAML as kubectl and Flux read it: YAML 1.1 by way of go-yaml v2, into JSON values.
//!
//! In: the bytes of a file. Out: its documents, or one [`SourceError`](super::SourceError) with line, column and
//! excerpt. Stricter than kubectl in one thing: a key given twice is an error. Bounded in bytes, documents, depth and
//! nodes after aliases. An error never contains a value of the file, only keys and positions.

mod emit;
mod events;
mod position;
mod read;
mod scalar;
mod write;

pub(crate) use emit::emit;
pub(crate) use events::{EventReader, GAVE_UP, Unread};
pub use position::{PathSegment, item_lines, locate};
pub use read::{
    Document, MAX_DEPTH, MAX_DOCUMENTS, MAX_EXPANDED_BYTES, MAX_FILE_BYTES, MAX_NODES, documents, documents_while,
    single, single_while, text,
};
pub use scalar::{Leaf, Number, binary, leaf, number};
pub use write::write;
