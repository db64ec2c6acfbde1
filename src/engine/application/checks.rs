//! Whose health counts: all that is declared (`wait`), or what `healthChecks` names, whoever applies it; and which kinds
//! are judged by the expressions of `healthCheckExprs`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::join_all;

use crate::api::{HealthCheck, Key, KustomizationSpec};
use crate::cluster::{Followed, Following, What};
use crate::health::{Expression, Expressions};
use crate::manifest::{GroupKind, ObjectId};
use crate::plan::{Desired, Handling};

use super::{Application, Failure, KIND, Prepared, Work};

/// Objects that one application may name: each is a watch of its own.
const HEALTH_CHECKS_MAX: usize = 200;
/// How long to wait for the first look at all of them before it is said that one is not there.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(5);

/// Replaced by each attempt, which keeps what it still needs of the one before.
#[derive(Default)]
pub(super) struct Checks {
    /// All that is declared.
    all: bool,
    /// Of what is declared, the objects that are named.
    declared: HashSet<ObjectId>,
    /// What is named and not declared here, or not applied from here.
    pub named: Vec<(ObjectId, Arc<Followed>)>,
    /// What is declared and judged by its whole content.
    whole: Vec<Arc<Followed>>,
    expressions: Expressions,
}

impl Checks {
    /// Whether anybody is looked at.
    pub fn any(&self) -> bool {
        self.all || !self.declared.is_empty() || !self.named.is_empty()
    }

    /// The declared objects whose health counts.
    pub fn of<'a>(&self, desired: &'a [Desired]) -> impl Iterator<Item = &'a Desired> {
        let counts =
            |d: &&Desired| d.handling != Handling::Ignore && (self.all || self.declared.contains(&d.object.id));
        desired.iter().filter(counts)
    }

    /// The expression that judges an object.
    pub fn expression(&self, id: &ObjectId) -> Option<&Expression> {
        self.expressions.of(&id.group, &id.kind)
    }

    /// Where the whole content of a declared object is seen.
    pub fn whole(&self, id: &ObjectId) -> Option<&Followed> {
        self.whole.iter().find(|followed| followed.following.shows(id)).map(AsRef::as_ref)
    }

    /// Returns once something is known of each that is followed, or when that takes too long.
    pub async fn known(&self) {
        let named = self.named.iter().map(|(_, followed)| followed);
        let all = join_all(named.chain(&self.whole).map(|followed| followed.known()));
        // what is not known by then is waited for in words
        let _ = tokio::time::timeout(FIRST_LOOK_MAX, all).await;
    }
}

/// What can be said of the checks without looking at anything.
pub(super) fn validate(spec: &KustomizationSpec) -> Result<(), Failure> {
    let refused = |message: String| Err(Failure::new("HealthCheckFailed", message).stalled());
    if spec.health_checks.len() > HEALTH_CHECKS_MAX {
        let count = spec.health_checks.len();
        return refused(format!(
            "`spec.healthChecks` names {count} objects; at most {HEALTH_CHECKS_MAX} are looked at\nhint: `spec.wait` looks at all that is declared"
        ));
    }
    for (at, check) in spec.health_checks.iter().enumerate() {
        let version = check.api_version.as_deref().unwrap_or_default();
        if version.matches('/').count() > 1 {
            return refused(format!(
                "`spec.healthChecks[{at}].apiVersion` is `{version}`, which is no group and version"
            ));
        }
        if check.kind.is_empty() || check.name.is_empty() {
            return refused(format!("`spec.healthChecks[{at}]` needs a `kind` and a `name`"));
        }
    }
    match Expressions::compile(&spec.health_check_exprs) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new("InvalidCELExpression", error.to_string()).stalled()),
    }
}

impl Application {
    /// Takes up whose health counts from here on.
    pub fn look_at(&self, work: &Work, prepared: &Prepared) {
        let spec = &work.object.spec;
        let account = work.identity.account.as_ref();
        let account = account.map(|account| (account.namespace.clone(), account.name.clone()));
        let before = self.checks();
        let follow = |following: Following| {
            let known = before.named.iter().map(|(_, followed)| followed).chain(&before.whole);
            let known = known.clone().find(|followed| followed.following == following).cloned();
            known.unwrap_or_else(|| Arc::new(self.shared.observed.follow(&self.key, following)))
        };
        let applied: HashSet<&ObjectId> =
            prepared.desired.iter().filter(|d| d.handling != Handling::Ignore).map(|d| &d.object.id).collect();
        // those that can't be compiled were refused before
        let expressions = Expressions::compile(&spec.health_check_exprs).unwrap_or_default();
        let mut checks = Checks { all: spec.waits(), expressions, ..Checks::default() };
        for id in named(&self.key, spec.named_checks()) {
            if applied.contains(&id) {
                checks.declared.insert(id);
            } else if !checks.named.iter().any(|(known, _)| *known == id) {
                let whole = checks.expression(&id).is_some();
                let followed = follow(Following { what: What::Object(id.clone()), whole, account: account.clone() });
                checks.named.push((id, followed));
            }
        }
        let mut judged: BTreeMap<GroupKind, BTreeSet<&str>> = BTreeMap::new();
        for id in checks.of(&prepared.desired).map(|d| &d.object.id).filter(|id| checks.expression(id).is_some()) {
            judged.entry(id.group_kind()).or_default().insert(&id.namespace);
        }
        for (kind, namespaces) in judged {
            let owned = self.shared.observed.owned_of(&kind, namespaces.into_iter());
            checks.whole.extend(owned.into_iter().map(&follow));
        }
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(checks);
    }

    pub fn checks(&self) -> Arc<Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The objects of `healthChecks`; an application that waited for itself would wait for ever.
fn named<'a>(app: &'a Key, checks: &'a [HealthCheck]) -> impl Iterator<Item = ObjectId> + 'a {
    let id = |check: &HealthCheck| {
        ObjectId::new(check.group(), &check.kind, check.namespace.clone().unwrap_or_default(), &check.name)
    };
    checks.iter().map(id).filter(|id| !is_itself(app, id))
}

/// Whether an object is the application.
pub(super) fn is_itself(app: &Key, id: &ObjectId) -> bool {
    id.kind == KIND && id.group == "kustomize.toolkit.fluxcd.io" && id.name == app.name && id.namespace == app.namespace
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(change: serde_json::Value) -> KustomizationSpec {
        let mut spec = json!({"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "s"}});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn what_is_named_is_looked_at_but_for_the_application_itself() {
        let app = Key::new("flux-system", "app");
        let checks = json!([
            {"kind": "Deployment", "name": "web", "namespace": "shop"},
            {"apiVersion": "v1", "kind": "Namespace", "name": "shop"},
            {"apiVersion": "helm.toolkit.fluxcd.io/v2beta1", "kind": "HelmRelease", "name": "db", "namespace": "shop"},
            {"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "name": "app", "namespace": "flux-system"},
        ]);
        let of = |spec: &KustomizationSpec| -> Vec<String> {
            named(&app, spec.named_checks()).map(|id| id.inventory_id()).collect()
        };
        let expected = ["shop_web_apps_Deployment", "_shop__Namespace", "shop_db_helm.toolkit.fluxcd.io_HelmRelease"];
        assert_eq!(of(&spec(json!({ "healthChecks": checks }))), expected);
        assert!(of(&spec(json!({ "healthChecks": checks, "wait": true }))).is_empty(), "`wait` looks at all instead");
    }

    #[test]
    fn checks_that_can_never_be_met_are_refused_by_place() {
        let check = |change: serde_json::Value| {
            let mut check = json!({"kind": "Deployment", "name": "web"});
            check.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            check
        };
        let message = |checks: serde_json::Value| {
            validate(&spec(json!({ "healthChecks": checks }))).err().map(|failure| (failure.stalled, failure.message))
        };
        assert_eq!(message(json!([check(json!({}))])), None);
        for (checks, said) in [
            (json!([check(json!({})), check(json!({"apiVersion": "a/b/c"}))]), "`spec.healthChecks[1].apiVersion`"),
            (json!([check(json!({"name": ""}))]), "`spec.healthChecks[0]` needs"),
            (json!(vec![check(json!({})); 201]), "201 objects; at most 200"),
        ] {
            let (stalled, message) = message(checks).expect("it is refused");
            assert!(stalled && message.contains(said), "{message}");
        }
    }
}
