//! The port to Kubernetes: one bounded, observed call per question, and shared watches for all that is to be known.
//!
//! ```text
//!  kubeconfig, service account ─▶ Cluster ─▶ apply · patch · delete · get · events     each call has a deadline
//!                                    │
//!                                    │       ▲ as many at a time as the server takes without complaint
//!                                    └─────▶ Watcher ─▶ Observed   what is seen of our objects, kept current
//!                                                  ├──▶ Followed   what health checks ask about, while they do
//!                                                  └──▶ Pods       Pods and ReplicaSets, while someone asks
//! ```
//!
//! What it never does: retry a call, read a whole Secret in a watch, keep what nobody asks about, read the environment
//! (but for the two variables by which a pod finds its API server).

mod congestion;
mod connection;
mod discovery;
mod error;
mod fence;
mod fields;
mod followed;
mod gate;
mod kinds;
mod leases;
mod lists;
mod objects;
mod observed;
mod paths;
mod pods;
mod reduced;
mod seen;
mod tasks;
mod watch;
mod watched;

pub use connection::{Cluster, ClusterError, ClusterOptions, NoObserver, RequestFacts, RequestObserver};
pub use discovery::ApiKind;
pub(crate) use error::outside_quotes;
pub use error::{ApiError, Cause, ErrorClass};
pub use fence::{Closed, Fence};
pub use fields::{EntryHash, FieldTree};
pub use followed::{Followed, Following, Individual, Look, What};
pub use gate::{Abandoned, WriteGate};
pub use kinds::NOTIFICATION_GROUP;
pub use leases::{Lease, Tenure};
pub use objects::{
    Answer, ApplyOptions, ConfigData, Content, EventNote, FieldValidation, Propagation, SecretData, Would,
};
pub use observed::{Holding, Observed, ObservedOptions};
pub use paths::{Drift, FieldPath};
pub use pods::{ContainerSeen, Ending, PodSeen, PodWatch, Pods};
pub use reduced::{LoadBalancer, Reduced, RollingUpdate, SeenCondition, Spec, Status, UpdateStrategy};
pub(crate) use seen::is_folded;
pub use seen::{DriftMark, Marks, OwnerKey, Scaled, Seen, Ssa};
pub use tasks::{Died, Tasks};
pub use watch::{Collection, Named, WatchEvent, Watchable, Watcher};
pub use watched::{WatchError, WatchState};
