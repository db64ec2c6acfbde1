//! From a source's spec to an immutable tree: probe the remote, fetch what is new, open a [`Snapshot`].
//!
//! ```text
//!  url + access ─→ Remotes ─→ Remote ── probe ────→ commit id     one small request
//!                               │
//!                               └────── snapshot ─→ Snapshot      fetches if the commit is not held
//!                                          │
//!                    cache: one generation of packs per remote, read in place, disposable at any time
//! ```
//!
//! What is deliberately absent: Kubernetes, a checkout, a decision to probe ([`pacing`] says when one may be made, the
//! engine makes it), and credentials in any message.

mod attempt;
pub mod cache;
pub mod credentials;
pub mod data_dir;
pub mod error;
mod follower;
pub mod git;
mod github_app;
pub mod ignore;
pub mod listing;
pub mod mount;
pub mod pacing;
mod probes;
pub mod proxy;
pub mod reference;
pub mod remote;
pub mod snapshot;
pub mod spacing;
pub mod url;
pub mod version;

pub use credentials::{Access, CredentialsError};
pub use data_dir::{DataDir, DataDirError};
pub use error::{Class, SourceError};
pub use follower::{Follower, Sight};
pub use github_app::GitHubApp;
pub use listing::{File, Listing, ListingError};
pub use mount::{Mount, Sparse};
pub use pacing::{Failure, Pacing, When};
pub use reference::{Reference, ReferenceError, Revision};
pub use remote::{Remote, RemoteOptions, Remotes};
pub use snapshot::{CommitInfo, Snapshot};
pub use spacing::ProbeKind;
pub use url::{SourceUrl, UrlError};
