//! As whom an application's objects are written, deleted and read: the service account that its spec or the daemon's
//! flag names, in the Kustomization's own namespace, else the daemon itself.
//!
//! Status, Events, finalizers and Leases are always the daemon's own, as are the shared watches: they show nothing but
//! what carries an application's labels.

use std::fmt;

use crate::api::{KustomizationSpec, service_account};
use crate::apply::Applier;
use crate::cluster::{ApiError, Cluster, ErrorClass};
use crate::manifest::ObjectId;

use super::{Application, Failure};

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// As whom an attempt acts.
pub(super) struct Identity {
    /// `None`: the daemon.
    pub account: Option<Account>,
    pub cluster: Cluster,
    pub applier: Applier,
}

/// What can be said of the account without asking anybody.
pub(super) fn validate(spec: &KustomizationSpec) -> Result<(), Failure> {
    match spec.service_account_name.as_deref() {
        Some(name) if !name.is_empty() && !service_account::is_name(name) => {
            let message = format!("`spec.serviceAccountName` is `{name}`, which no service account can be called");
            Err(Failure::new("ReconciliationFailed", message).stalled())
        }
        _ => Ok(()),
    }
}

impl Application {
    /// As whom objects of this spec are written.
    pub fn identity(&self, spec: &KustomizationSpec) -> Result<Identity, Failure> {
        let shared = &self.shared;
        let (cluster, applier) = (shared.cluster.clone(), shared.applier.clone());
        let own = spec.service_account_name.as_deref().filter(|name| !name.is_empty());
        let Some(name) = own.or(shared.default_service_account.as_deref()) else {
            return Ok(Identity { account: None, cluster, applier });
        };
        let account = Account { namespace: self.key.namespace.clone(), name: name.to_owned() };
        let cluster = cluster
            .as_service_account(&account.namespace, &account.name)
            .map_err(|error| Failure::new("ReconciliationFailed", error.to_string()).stalled())?;
        let applier = applier.acting_on(cluster.clone());
        Ok(Identity { account: Some(account), cluster, applier })
    }
}

impl Identity {
    /// The same, whose requests go before those of others that wait.
    pub fn urgently(self) -> Self {
        let cluster = self.cluster.urgently();
        Self { applier: self.applier.acting_on(cluster.clone()), cluster, ..self }
    }

    /// What a person can do about an error, if the account is to blame.
    pub fn hint(&self, error: &ApiError) -> Option<String> {
        let account = self.account.as_ref().filter(|_| error.class == ErrorClass::Forbidden)?;
        Some(if error.message.contains("cannot impersonate") {
            format!(
                "hint: `{account}` is the ServiceAccount of this Kustomization; let Afresh act as it: manifests/impersonation"
            )
        } else {
            format!("hint: it is done as ServiceAccount `{account}`; grant it the right")
        })
    }

    /// Whether the account is known not to exist: then nothing can be done in its name any more.
    pub async fn is_gone(&self, own: &Cluster) -> Result<bool, ApiError> {
        let Some(account) = &self.account else { return Ok(false) };
        let kind = own.resolve("", "ServiceAccount", Some("v1")).await?;
        let id = ObjectId::new("", "ServiceAccount", account.namespace.clone(), account.name.clone());
        Ok(own.get_metadata(&kind, &id).await?.is_none())
    }
}
