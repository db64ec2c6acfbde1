//! From a source's spec to an immutable tree.

pub mod credentials;
pub mod error;
pub mod git;
pub mod ignore;
pub mod pacing;
pub mod reference;
pub mod url;

pub use credentials::{Access, CredentialsError};
pub use error::{Class, SourceError};
pub use reference::{Reference, ReferenceError, Revision};
pub use url::{SourceUrl, UrlError};
