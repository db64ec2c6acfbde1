//! `afresh diff`: what would change in the cluster, by dry-run. Writes nothing and needs no daemon.
//!
//! Differences go to stdout, everything else to stderr. Exit codes as those of `kubectl diff`: 0 equal, 1 different,
//! 2 something could not be looked at, or would be refused.

mod masking;
mod report;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::connect::ClusterArgs;
use super::directory::{DirectoryTree, repository_root};
use super::identities::identities;
use super::kustomization::{self, InputError, absolute, account_name, assignment};
use crate::api::{CONFIRM_PRUNE, Kustomization};
use crate::apply::UnknownFields;
use crate::cluster::{ApiKind, Cluster};
use crate::engine::preview::{self, PreviewError, Question};
use crate::manifest::Tree;
use crate::policy::{Finding, PolicySet, Subject, snapshot};
use crate::source::listing::of_working_copy;
use crate::source::{DataDir, RemoteOptions, Remotes};
use crate::trigger::read_policies;
use report::Report;

#[derive(clap::Args, Clone, Debug)]
pub struct DiffArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// `ks/NAME`: a Kustomization of the cluster at the newest revision of its source; or a folder of a working copy
    target: String,
    /// For a folder: its Kustomization, `ks/NAME` in the cluster or a file; default: the one in the cluster whose
    /// `spec.path` is the folder's
    #[arg(long)]
    kustomization: Option<String>,
    /// Which of several Kustomizations in the file
    #[arg(long)]
    name: Option<String>,
    /// The namespace of the Kustomization
    #[arg(short, long, default_value = "flux-system")]
    namespace: String,
    /// For a folder: the root of the repository; default: the folder, or the Git repository around it
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// A variable, over those of `spec.postBuild`; can be given more than once
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// File with age identities, for files that are encrypted with SOPS; default: those of the Secret that
    /// `spec.decryption` names
    #[arg(long, value_name = "FILE", env = "SOPS_AGE_KEY_FILE")]
    sops_age_key_file: Option<PathBuf>,
    /// Secret of age identities for Kustomizations whose `spec.decryption` names none, as `afresh run` is told
    #[arg(long, value_name = "NAME", env = "AFRESH_SOPS_AGE_SECRET")]
    sops_age_secret: Option<String>,
    /// Where the Secret of `--sops-age-secret` is: the namespace of the daemon
    #[arg(long, value_name = "NAMESPACE", default_value = "afresh-system", env = "RUNTIME_NAMESPACE")]
    runtime_namespace: String,
    /// The service account of Kustomizations that name none, as `afresh run` is told
    #[arg(long, value_name = "NAME", value_parser = account_name)]
    default_service_account: Option<String>,
    /// A folder of ValidatingAdmissionPolicies, their bindings and parameters, as `afresh run` is told
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Fields that the API server doesn't know, as `afresh run` is told: `warn` leaves them out, `strict` refuses
    #[arg(long, value_enum, default_value = "warn")]
    field_validation: Validation,
    /// Sources may be repositories on this machine
    #[arg(long)]
    allow_local_sources: bool,
    /// Fetch what kustomizations name in other Git repositories, as `afresh run --allow-remote-bases` does
    #[arg(long)]
    allow_remote_bases: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Validation {
    Warn,
    Strict,
}

/// Nothing would change.
const EQUAL: u8 = 0;
const DIFFERENT: u8 = 1;
/// Something could not be looked at, or would be refused.
const FAILED: u8 = 2;

/// Prints what would change; the exit code says whether anything would.
pub async fn run(args: DiffArgs) -> ExitCode {
    match diff(&args).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            match error.downcast_ref::<InputError>() {
                Some(input) => anstream::eprint!("{}", input.render(true)),
                None => match error.downcast_ref::<PreviewError>() {
                    Some(PreviewError::Render(failed)) => anstream::eprint!("{}", failed.error.render(true)),
                    _ => super::print_error(&error),
                },
            }
            ExitCode::from(FAILED)
        }
    }
}

/// The application and the tree that is looked at.
struct Looked {
    object: Kustomization,
    tree: Arc<dyn Tree>,
    /// Empty: a working copy.
    revision: String,
    notes: Vec<String>,
    /// The repository, as rules for repositories see it.
    repository: Option<Value>,
}

async fn diff(args: &DiffArgs) -> anyhow::Result<u8> {
    let policies = args.policies.as_deref().map(read_policies).transpose()?.unwrap_or_default();
    let cluster = args.cluster.connect().await?;
    // where fetched objects are, as long as they are read
    let data = tempfile::Builder::new().prefix("afresh-diff-").tempdir().context("no folder for what is fetched")?;
    let options = RemoteOptions { allow_local_sources: args.allow_local_sources, ..RemoteOptions::default() };
    let remotes = Remotes::new(DataDir::open(data.path())?, options);
    let looked = match kustomization_name(&args.target) {
        Some(name) => from_cluster(args, &policies, &cluster, &remotes, name).await?,
        None => from_folder(args, &policies, &cluster).await?,
    };
    let of_repository = looked.repository.as_ref().map(|object| policies.evaluate(&Subject::repository(object)));
    let mut object = looked.object;
    if let Some(name) = &args.default_service_account {
        let own = &mut object.spec.service_account_name;
        *own = own.take().filter(|own| !own.is_empty()).or_else(|| Some(name.clone()));
    }
    let object = Arc::new(object);
    let by_default = args.sops_age_secret.as_deref().filter(|name| !name.is_empty());
    let variables: BTreeMap<String, String> = args.set.iter().cloned().collect();
    let keys = args.sops_age_key_file.as_deref().map(identities).transpose();
    let question = Question {
        cluster: &cluster,
        object: object.clone(),
        tree: looked.tree,
        remotes: args.allow_remote_bases.then_some(&remotes),
        revision: &looked.revision,
        variables: &variables,
        keys: keys.map_err(anyhow::Error::msg)?.map(Arc::new),
        keys_by_default: by_default.map(|name| (args.runtime_namespace.as_str(), name)),
        unknown_fields: match args.field_validation {
            Validation::Warn => UnknownFields::Drop,
            Validation::Strict => UnknownFields::Refuse,
        },
        policies: Arc::new(policies),
    };
    let preview = preview::preview(&question).await?;
    let key = object.key();
    let mut report = Report::new(&key, &looked.revision, &preview);
    looked.notes.iter().chain(&preview.note).for_each(|note| report.note(note));
    for Finding { policy, binding, action, message, .. } in of_repository.into_iter().flatten() {
        report.finding(action, &format!("{message} (policy `{policy}`, binding `{binding}`)"));
    }
    if object.spec.suspended() {
        report.note("it is suspended: nothing of this happens before it is resumed");
    }
    if object.metadata.deletion_timestamp.is_some() {
        report.note("it is being deleted: nothing is applied any more");
    }
    Ok(report.print(preview))
}

fn kustomization_name(target: &str) -> Option<&str> {
    let (prefix, name) = target.split_once('/')?;
    let known = matches!(prefix, "ks" | "kustomization" | "kustomizations");
    (known && !name.is_empty() && !name.contains('/')).then_some(name)
}

/// A Kustomization of the cluster.
async fn get(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Option<Kustomization>> {
    let kind = ApiKind::kustomization();
    let found = cluster.get(&kind, &kind.object(namespace, name)).await;
    let found = found.with_context(|| format!("can't read Kustomization `{namespace}/{name}`"))?;
    found
        .map(serde_json::from_value)
        .transpose()
        .with_context(|| format!("Kustomization `{namespace}/{name}` can't be read"))
}

async fn existing(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Kustomization> {
    get(cluster, namespace, name).await?.with_context(|| {
        format!("there is no Kustomization `{namespace}/{name}`: `afresh get ks -A` shows those that there are")
    })
}

/// At the newest revision of its source.
async fn from_cluster(
    args: &DiffArgs,
    policies: &PolicySet,
    cluster: &Cluster,
    remotes: &Remotes,
    name: &str,
) -> anyhow::Result<Looked> {
    if args.kustomization.is_some() || args.root.is_some() || args.name.is_some() {
        bail!("`--kustomization`, `--name` and `--root` go with a folder, not with `{}`", args.target);
    }
    let object = existing(cluster, &args.namespace, name).await?;
    let source = object.source_key();
    let found = preview::find(cluster, remotes, &source).await?;
    let mut notes = Vec::new();
    if found.suspended {
        notes.push("its source is suspended: the daemon stays at the revision that it has".to_owned());
    }
    let repository = match policies.has_repository_rules() {
        true => {
            let listing = found.snapshot.listing(policies.asks_for_sizes(), &|| false);
            let listing = listing.with_context(|| format!("the files of GitRepository `{source}` can't be listed"))?;
            Some(snapshot(&source.namespace, &source.name, &json!(found.labels), &listing))
        }
        false => None,
    };
    let tree = Arc::new(found.snapshot);
    Ok(Looked { object, tree, revision: found.revision, notes, repository })
}

/// A working copy, as a Kustomization sees it.
async fn from_folder(args: &DiffArgs, policies: &PolicySet, cluster: &Cluster) -> anyhow::Result<Looked> {
    let folder = absolute(Path::new(&args.target))?;
    let mut notes = Vec::new();
    let object = match args.kustomization.as_deref().map(|given| (given, kustomization_name(given))) {
        Some((_, Some(name))) => existing(cluster, &args.namespace, name).await?,
        Some((file, None)) => {
            let mut object = kustomization::read(Path::new(file), args.name.as_deref(), &args.namespace)?;
            let key = object.key();
            match get(cluster, &key.namespace, &key.name).await? {
                // what it owns and what people agreed to is the cluster's to say
                Some(live) => {
                    object.status = live.status;
                    let consent = live.metadata.annotations.and_then(|mut all| all.remove(CONFIRM_PRUNE));
                    if let Some(consent) = consent {
                        object.metadata.annotations.get_or_insert_default().insert(CONFIRM_PRUNE.into(), consent);
                    }
                }
                None => notes.push(format!("there is no Kustomization `{key}` in the cluster yet: it owns nothing")),
            }
            object
        }
        None => by_path(args, cluster, &folder).await?,
    };
    let root = kustomization::root_of(&folder, args.root.as_deref(), object.spec.path.as_deref().unwrap_or_default())?;
    let repository = match of_working_copy(&root).filter(|_| policies.has_repository_rules()) {
        Some(listing) => {
            let listing = listing.with_context(|| format!("the files of `{}` can't be listed", root.display()))?;
            let source = object.source_key();
            Some(snapshot(&source.namespace, &source.name, &json!({}), &listing))
        }
        None => None,
    };
    let tree = Arc::new(DirectoryTree::new(root));
    Ok(Looked { object, tree, revision: String::new(), notes, repository })
}

/// The only Kustomization whose path leads to the folder.
async fn by_path(args: &DiffArgs, cluster: &Cluster, folder: &Path) -> anyhow::Result<Kustomization> {
    let root = match &args.root {
        Some(root) => absolute(root)?,
        None => repository_root(folder).unwrap_or(folder).to_owned(),
    };
    let list = cluster.list(&ApiKind::kustomization(), Some(&args.namespace)).await;
    let list = list.with_context(|| format!("can't list the Kustomizations of `{}`", args.namespace))?;
    let leads_here = |object: &Kustomization| {
        let path = object.spec.path.as_deref().unwrap_or_default().trim_start_matches('/');
        root.join(path).canonicalize().is_ok_and(|to| to == *folder)
    };
    let mut found: Vec<Kustomization> =
        list.into_iter().filter_map(|o| serde_json::from_value(o).ok()).filter(leads_here).collect();
    if found.len() == 1 {
        return Ok(found.remove(0));
    }
    let names: Vec<_> = found.iter().map(|object| format!("ks/{}", object.key().name)).collect();
    if names.is_empty() {
        bail!(
            "no Kustomization of namespace `{}` has `{}` as its `spec.path`\nhint: name one with `--kustomization ks/NAME` or `--kustomization FILE`, and its namespace with `-n`",
            args.namespace,
            folder.strip_prefix(&root).unwrap_or(folder).display()
        );
    }
    bail!("several Kustomizations have this path: {}\nhint: choose one with `--kustomization`", names.join(", "))
}
