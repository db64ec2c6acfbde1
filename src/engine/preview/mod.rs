//! What would change if a tree were applied, without a daemon and without writing.
//!
//! ```text
//!  Kustomization + tree ─▶ values ─▶ render ─▶ plan ─┬▶ one dry-run per object ─▶ Outlook
//!                                                    └▶ inventory less declared ─▶ Deletions
//! ```
//!
//! Comes in: an application and a tree. Goes out: a [`Preview`]. The stages are those of an attempt; only the questions
//! that a daemon answers from its memory (who declares what) are asked of the cluster instead.

mod neighbours;
mod policies;
mod prune;
mod rollouts;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use secrecy::SecretString;

use crate::api::{self, Key, Kustomization};
use crate::apply::{self, Fate, Outlook, UnknownFields};
use crate::cluster::{ApiError, Cluster, ErrorClass};
use crate::manifest::{DigestKey, ObjectId, Origin, Redaction, Tree};
use crate::plan::{self, Desired, Inventory};
use crate::policy::{Action, PolicySet};
use crate::render::{AppRef, Failed, Keys, Outline, RenderError, Rendered};
use crate::source::Remotes;

use super::application::{self, substitutions, unread};
use super::bases::{BASES_MAX, Bases, TreeWithBases};
use super::findings::{Told, UNFINISHED};
use super::references::{Content, Reference, Referenced};

pub use prune::Deletions;
pub use rollouts::Roll;
pub use source::{Found, SourceUnavailable, find};

/// Objects that are asked about at the same time.
const PARALLEL: usize = 8;

/// What is looked at.
pub struct Question<'a> {
    pub cluster: &'a Cluster,
    /// As the cluster has it, or as it would be; its status has the inventory.
    pub object: Arc<Kustomization>,
    pub tree: Arc<dyn Tree>,
    /// With what other repositories that kustomizations name are fetched; `None`: they are not.
    pub remotes: Option<&'a Remotes>,
    /// For the consent to deletions; empty where no commit is looked at.
    pub revision: &'a str,
    /// Variables over those of `postBuild`.
    pub variables: &'a BTreeMap<String, String>,
    /// Identities of whoever asks, instead of those that `decryption` names.
    pub keys: Option<Arc<Keys>>,
    /// Namespace and name of the Secret that serves where `decryption` names none.
    pub keys_by_default: Option<(&'a str, &'a str)>,
    pub unknown_fields: UnknownFields,
    /// What is to be asked of each object.
    pub policies: Arc<PolicySet>,
}

/// What would become of an application's objects.
pub struct Preview {
    /// In the order in which they would be applied.
    pub objects: Vec<Expected>,
    pub deletions: Deletions,
    /// Workloads that would be rolled because of what they read.
    pub rolls: Vec<Roll>,
    /// What policies say of the objects, the first of it.
    pub findings: Vec<(Action, String)>,
    /// Denials beyond those that are told.
    pub denied_beyond: usize,
    /// Declared by other applications already, which an attempt would refuse.
    pub contested: Vec<(ObjectId, Key)>,
    /// What could not be looked at, by name.
    pub unseen: Vec<String>,
    /// As whom the server was asked, if not as whom it would be applied.
    pub note: Option<String>,
    /// Values that came from Secrets or were decrypted: no text that has one of them is shown.
    pub secrets: Vec<SecretString>,
}

/// One declared object and what would become of it.
pub struct Expected {
    pub id: ObjectId,
    pub version: String,
    pub origin: Origin,
    pub outlook: Outlook,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    #[error("{0}")]
    Unserved(String),
    #[error("{0}")]
    Values(String),
    #[error("{0}")]
    Render(Box<Failed>),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plan(Vec<plan::PlanError>),
    /// Another repository can't be had.
    #[error("{0}")]
    Fetch(String),
    #[error("the API server does not answer: {0}")]
    Cluster(ApiError),
    #[error("the renderer failed: {0}")]
    Died(tokio::task::JoinError),
}

/// Looks at everything that an attempt would do.
pub async fn preview(question: &Question<'_>) -> Result<Preview, PreviewError> {
    let Question { cluster, object, tree, .. } = question;
    let (acting, note) = acting(cluster, object).await?;
    let key = object.key();
    let declared = Arc::new(declared(question, object, tree).await?);
    let controllers = plan::controllers(&declared.desired);
    if !controllers.is_empty() {
        let names: Vec<_> = controllers.iter().map(|d| format!("{} ({})", d.object.id, d.object.origin)).collect();
        return Err(PreviewError::Unserved(format!(
            "Kustomization `{key}` declares Flux's own controllers, so nothing of it would be applied: {}\nhint: docs/migrate-from-flux.md has the steps",
            names.join(", ")
        )));
    }
    let ids: BTreeSet<ObjectId> = declared.desired.iter().map(|d| d.object.id.clone()).collect();
    let (inventory, unreadable) = Inventory::read(object.status.as_ref().and_then(|s| s.inventory.as_ref()));
    let inventory = inventory.scoped(&super::application::Scopes(cluster));
    let mut unseen: Vec<String> =
        unreadable.into_iter().map(|id| format!("the inventory's entry `{id}` can't be read")).collect();

    let neighbours = neighbours::look(question, &key, &ids, &inventory, &mut unseen).await?;
    let deletions = prune::look(question, &key, &ids, &inventory, &neighbours).await;

    let objects: Vec<_> = declared.desired.iter().map(|d| Arc::new(d.object.unpacked())).collect();
    let preview = apply::Preview::new((*cluster).clone(), acting, question.unknown_fields, &objects, question.revision);
    let mut ordered: Vec<&Desired> = declared.desired.iter().collect();
    ordered.sort_by_key(|d| apply::stage_of(&d.object.id));
    let redaction = declared.rendered.redaction(declared.secrets.iter().map(String::as_str));
    let expected = futures::stream::iter(ordered).map(async |desired| {
        let object = &desired.object;
        Expected {
            id: object.id.clone(),
            version: object.version.clone(),
            origin: object.origin.clone(),
            outlook: told(preview.outlook(desired, question.object.spec.forces()).await, &redaction),
        }
    });
    let objects: Vec<Expected> = expected.buffered(PARALLEL).collect().await;
    let rolls = rollouts::look(question, &declared.desired, &objects, &deletions, &mut unseen).await;
    let found = policies::look(question, &question.policies, &declared, &mut unseen).await?;
    let told = found.kept.iter().filter(|told| told.action == Action::Deny).count();
    let denied_beyond = found.denied - told;
    let mut findings: Vec<_> = found.kept.into_iter().map(|Told { action, text }| (action, text)).collect();
    if found.unfinished {
        findings.insert(0, (Action::Deny, UNFINISHED.to_owned()));
    }
    let (contested, secrets) = (neighbours.contested, declared.secrets.iter().map(|s| s.clone().into()).collect());
    Ok(Preview { objects, deletions, rolls, findings, denied_beyond, contested, unseen, note, secrets })
}

/// As whom the daemon would apply: the service account of the spec, if the caller may act as it. What there is is read
/// as the caller.
async fn acting(cluster: &Cluster, object: &Kustomization) -> Result<(Cluster, Option<String>), PreviewError> {
    cluster.discover().await.map_err(PreviewError::Cluster)?;
    let Some(name) = object.spec.service_account_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok((cluster.clone(), None));
    };
    let key = object.key();
    let acting = cluster.as_service_account(&key.namespace, name).map_err(PreviewError::Cluster)?;
    match acting.discover().await {
        Ok(()) => Ok((acting, None)),
        Err(error) if error.class == ErrorClass::Forbidden => {
            let account = format!("ServiceAccount `{}/{name}`", key.namespace);
            let note = format!(
                "the server is asked as you and not as {account}, so that what that account may not do is not told: {error}"
            );
            Ok((cluster.clone(), Some(note)))
        }
        Err(error) => Err(PreviewError::Cluster(error)),
    }
}

/// What the server says, without the values of Secrets that it quotes.
fn told(mut outlook: Outlook, redaction: &Redaction) -> Outlook {
    outlook.warnings.iter_mut().for_each(|warning| redaction.apply(warning));
    outlook.fate = match outlook.fate {
        Fate::Refused(error) => Fate::Refused(error.redacted(redaction)),
        Fate::Unreadable(error) => Fate::Unreadable(error.redacted(redaction)),
        Fate::Recreated { becomes, why } => Fate::Recreated { becomes, why: why.redacted(redaction) },
        other => other,
    };
    outlook
}

/// What an application declares in a tree.
struct Declared {
    desired: Vec<Desired>,
    rendered: Outline,
    /// Values that came from Secrets or were decrypted.
    secrets: Vec<String>,
}

async fn declared(
    question: &Question<'_>,
    object: &Arc<Kustomization>,
    tree: &Arc<dyn Tree>,
) -> Result<Declared, PreviewError> {
    let key = object.key();
    let unserved = object.spec.unserved();
    if !unserved.is_empty() {
        let named: Vec<_> = unserved.iter().map(|field| format!("`{field}`")).collect();
        let message = format!("Kustomization `{key}`: not served by this version of Afresh: {}", named.join(", "));
        return Err(PreviewError::Unserved(message));
    }
    if let Some(message) = super::refusal(&object.spec) {
        return Err(PreviewError::Unserved(format!("Kustomization `{key}`: {message}")));
    }
    let (variables, secrets) = variables(question, &key, object).await?;
    let keys = keys(question, &key, object).await?;
    let variables = Arc::new(variables);
    let mut tree = TreeWithBases { tree: tree.clone(), bases: Bases::default() };
    let mut fetched = 0;
    let rendered = loop {
        let (of, key, tree_now) = (object.clone(), key.clone(), tree.clone());
        let (variables, keys) = (variables.clone(), keys.clone());
        let render = move || render(&of, &key, &tree_now, (*variables).as_ref(), keys.as_deref());
        let failed = match tokio::task::spawn_blocking(render).await.map_err(PreviewError::Died)? {
            Ok(rendered) => break rendered,
            Err(failed) => failed,
        };
        match (&failed.error, question.remotes) {
            (RenderError::RemoteBase { base, .. }, Some(remotes)) if fetched < BASES_MAX => {
                let key = source::ssh_key(question.cluster, remotes, &object.source_key()).await;
                let key = key.as_deref().map_err(String::as_str);
                tree.bases.fetch(remotes, base, key).await.map_err(PreviewError::Fetch)?;
                fetched += 1;
            }
            _ => return Err(PreviewError::Render(failed)),
        }
    };
    let secrets = rendered.secrets_with(&secrets).cloned().collect();
    let desired = desired(question.cluster, object, &key, &rendered).await?;
    Ok(Declared { desired, rendered: rendered.into(), secrets })
}

/// The variables of `postBuild` as they are in the cluster, under those that were given; and which came from Secrets.
async fn variables(
    question: &Question<'_>,
    key: &Key,
    object: &Kustomization,
) -> Result<(Option<BTreeMap<String, String>>, Arc<BTreeMap<String, String>>), PreviewError> {
    let mut contents = Vec::new();
    for reference in Reference::of(&key.namespace, object) {
        let content = read(question.cluster, &reference).await;
        contents.push(Arc::new(content.map_err(|error| PreviewError::Values(unread(&reference, error)))?));
    }
    let read = substitutions(&key.namespace, object, &contents).map_err(PreviewError::Values)?;
    let secrets = read.as_ref().map(|read| read.secrets.clone()).unwrap_or_default();
    let mut variables = read.map(|read| read.variables);
    if !question.variables.is_empty() {
        variables.get_or_insert_default().extend(question.variables.clone());
    }
    Ok((variables, secrets))
}

/// What opens encrypted files, where the application says that there are some.
async fn keys(question: &Question<'_>, key: &Key, object: &Kustomization) -> Result<Option<Arc<Keys>>, PreviewError> {
    if object.spec.decryption.is_none() {
        return Ok(None);
    }
    if let Some(keys) = &question.keys {
        return Ok(Some(keys.clone()));
    }
    let by_default = question.keys_by_default.map(|(namespace, name)| Reference::secret(namespace, name));
    let Some(reference) = Reference::keys(&key.namespace, object, by_default.as_ref()) else {
        return Ok(Some(Arc::default()));
    };
    let asked = match by_default.as_ref() == Some(&reference) {
        true => "--sops-age-secret",
        false => "spec.decryption.secretRef",
    };
    let failed = |why: String| PreviewError::Values(format!("can't read {reference} of `{asked}`: {why}"));
    let content = read(question.cluster, &reference).await.map_err(|error| failed(error.to_string()))?;
    application::keys(&content).map(|keys| Some(Arc::new(keys))).map_err(failed)
}

async fn read(cluster: &Cluster, reference: &Reference) -> Result<Content, ApiError> {
    let Reference { kind, namespace, name } = reference;
    Ok(match kind {
        Referenced::Secret => cluster.get_secret(namespace, name).await?.map_or(Content::Absent, Content::Secret),
        Referenced::ConfigMap => {
            cluster.get_config_map(namespace, name).await?.map_or(Content::Absent, Content::ConfigMap)
        }
    })
}

fn render(
    object: &Kustomization,
    key: &Key,
    tree: &dyn Tree,
    variables: Option<&BTreeMap<String, String>>,
    keys: Option<&Keys>,
) -> Result<Rendered, Box<Failed>> {
    let app = AppRef { name: key.name.clone(), namespace: key.namespace.clone() };
    let request = super::request(&object.spec, &app, tree, variables, keys, &|| false);
    crate::render::render(&request).map_err(Box::new)
}

/// Settles scopes, asking for kinds that discovery didn't show.
async fn desired(
    cluster: &Cluster,
    object: &Kustomization,
    key: &Key,
    rendered: &Rendered,
) -> Result<Vec<Desired>, PreviewError> {
    // what is wrong with the rules was said before
    let ignore = plan::IgnoreRules::compile(&object.spec.ignore).unwrap_or_default();
    let app = plan::Application { key, ignore: &ignore };
    // what is compared has no digest in it, so that any key will do
    let digests = DigestKey::new([0; 32]);
    plan::desired(&rendered.objects, &app, &super::application::Scopes(cluster), &digests).map_err(PreviewError::Plan)
}

/// Whether a person has agreed to deletions, as the annotation says.
fn consent(question: &Question<'_>) -> plan::Consent {
    plan::Consent::read(question.object.annotation(api::CONFIRM_PRUNE), question.revision)
}
