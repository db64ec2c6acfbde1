//! What all workers share. Each part has one owner, named where it is defined.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::api::Key;
use crate::apply::{Applier, UnknownFields};
use crate::cluster::{Cluster, ErrorClass, Observed, Pods, WriteGate};
use crate::config;
use crate::manifest::DigestKey;
use crate::policy::User;
use crate::report::{Events, Metrics, Traces};
use crate::source::Remotes;

use super::courtesy::{Background, Courtesy};
use super::hold::Hold;
use super::namespaces::Namespaces;
use super::permits::Permits;
use super::policies::Policies;
use super::references::{Reference, References};
use super::registry::Registry;
use super::share::Share;
use super::source::{SourceHandle, Sources};

pub(super) struct Shared {
    pub cluster: Cluster,
    pub observed: Observed,
    pub pods: Pods,
    pub gate: WriteGate,
    pub applier: Applier,
    pub remotes: Arc<Remotes>,
    pub registry: Registry,
    pub references: References,
    pub namespaces: Namespaces,
    /// Whose keys serve where `spec.decryption` names no Secret.
    pub keys_by_default: Option<Reference>,
    pub events: Events,
    pub metrics: Metrics,
    pub digest_key: DigestKey,
    pub traces: Traces,
    pub renders: Permits,
    /// Turns of those whom a revision does not seem to concern: one after the other, since nobody waits for them.
    pub untouched: Permits,
    pub applies: Permits,
    pub statuses: Permits,
    pub background: Background,
    pub courtesy: Courtesy,
    pub unknown_fields: UnknownFields,
    pub default_service_account: Option<String>,
    pub source_role: config::SourceRole,
    pub share: Share,
    /// Who serves what is marked on it; `None`: nobody else is there to ask.
    pub hold: Option<Hold>,
    pub sources: Sources,
    pub policies: Policies,
    /// Who this daemon is for the API server, once a policy has asked.
    pub own_user: OnceCell<Arc<User>>,
}

impl Shared {
    /// The face of a source, made where it was not asked for before.
    pub fn source(&self, key: &Key) -> SourceHandle {
        self.sources.face(key)
    }

    /// Who this daemon is for the API server, which is asked once; nobody, where it does not tell.
    pub async fn own_user(&self) -> Result<Arc<User>, String> {
        const UNSAID: &str = "the API server does not say who Afresh is";
        let asked = self.own_user.get_or_try_init(async || match self.cluster.own_user().await {
            Ok(user) => serde_json::from_value(user).map(Arc::new).map_err(|error| format!("{UNSAID}: {error}")),
            Err(error) => match error.class {
                ErrorClass::NoSuchKind | ErrorClass::NotFound | ErrorClass::Forbidden => {
                    tracing::warn!(%error, "{UNSAID}: `request.userInfo` is empty where no service account is named");
                    Ok(Arc::default())
                }
                _ => Err(format!("policies ask who applies, and {UNSAID}: {error}")),
            },
        });
        asked.await.cloned()
    }

    /// An application is gone: nothing of it is waited for or reported any more.
    pub fn forget(&self, app: &Key) {
        self.registry.remove(app);
        self.events.forget("Kustomization", app);
        self.observed.keep_watched(app, |_, _| false);
        for source in self.sources.all() {
            source.attention(app, false, false);
        }
    }
}
