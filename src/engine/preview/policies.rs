//! What policies would say of an application, with what the cluster alone knows of its objects.

use std::sync::Arc;

use crate::engine::findings::{self, Findings, Known, Look, evaluate, live, subject};
use crate::manifest::ObjectId;
use crate::policy::{PolicySet, User};

use super::{Declared, PreviewError, Question};

/// Asks the cluster only where a policy asks for what it alone knows; what it can't answer is `unseen`.
pub(super) async fn look(
    question: &Question<'_>,
    policies: &Arc<PolicySet>,
    declared: &Arc<Declared>,
    unseen: &mut Vec<String>,
) -> Result<Findings, PreviewError> {
    let resources = findings::resources(&declared.desired);
    let mut namespaces = findings::namespaces(&declared.desired);
    let mut known = Vec::with_capacity(declared.desired.len());
    for desired in &declared.desired {
        let id = &desired.object.id;
        let (resource, namespaced) = match question.cluster.resource(&id.group, &id.kind, Some(&desired.object.version))
        {
            Some(kind) => (kind.plural.to_string(), kind.namespaced),
            None => resources.find(&id.group, &id.kind),
        };
        let object = desired.object.unpacked();
        let subject = subject(&object, &resource, namespaced);
        let mut before = None;
        if policies.asks_before(&subject) {
            before = live(question.cluster, id).await.unwrap_or_else(|why| {
                unseen.push(why);
                None
            });
        }
        if namespaced && policies.asks_for_namespace(&subject) && !namespaces.contains_key(&id.namespace) {
            let id = ObjectId::new("", "Namespace", "", &*id.namespace);
            let namespace = live(question.cluster, &id).await.unwrap_or_else(|why| {
                unseen.push(why);
                None
            });
            namespaces.insert(id.name.clone(), namespace.map(Arc::new));
        }
        let namespace = namespaces.get(&id.namespace).cloned().flatten();
        known.push(Known { desired: desired.clone(), resource, namespaced, before, namespace });
    }
    let (policies, declared) = (policies.clone(), declared.clone());
    let key = question.object.key();
    let account = question.object.spec.service_account_name.clone().filter(|name| !name.is_empty());
    let evaluation = tokio::task::spawn_blocking(move || {
        let user = account.as_deref().map(|name| User::service_account(&key.namespace, name));
        let (rendered, secrets) = (&declared.rendered, &*declared.secrets);
        let look = Look { rendered, secrets, user: user.as_ref(), known: &known };
        evaluate(&policies, &look, &|| false)
    });
    evaluation.await.map_err(PreviewError::Died)
}
