//! `afresh migrate --check`: what becomes of a cluster that Flux serves now. Only reads.
//!
//! Comes in: the Flux objects of a cluster, metadata of what they applied, and who holds Flux's Leases. Goes out: which way
//! fits, what is served, what isn't, by name and field, and what would happen. What it can't see is said, too.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::Value;

use super::connect::ClusterArgs;
use crate::api::{self, GitRepository, Kustomization, OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL, PART_OF, Receiver};
use crate::cluster::{ApiKind, Cluster};
use crate::engine;
use crate::manifest::ObjectId;
use crate::plan::Inventory;
use crate::report::{refusal_of_alert, refusal_of_provider};

#[derive(clap::Args, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Say what is served, what isn't and what would happen; nothing is changed
    #[arg(long, required = true)]
    check: bool,
    /// Where Flux is installed
    #[arg(long, default_value = "flux-system", value_name = "NAMESPACE")]
    flux_namespace: String,
    /// How it is printed
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Text,
    Json,
}

/// The exit code when something is there that is not served.
pub const NOT_ALL_SERVED: u8 = 3;

/// Kinds of Flux, by group, so that those that we don't serve are named.
const FLUX_KINDS: [(&str, &str); 17] = [
    ("source.toolkit.fluxcd.io", "GitRepository"),
    ("source.toolkit.fluxcd.io", "OCIRepository"),
    ("source.toolkit.fluxcd.io", "Bucket"),
    ("source.toolkit.fluxcd.io", "HelmRepository"),
    ("source.toolkit.fluxcd.io", "HelmChart"),
    ("source.toolkit.fluxcd.io", "ExternalArtifact"),
    ("kustomize.toolkit.fluxcd.io", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"),
    ("notification.toolkit.fluxcd.io", "Alert"),
    ("notification.toolkit.fluxcd.io", "Provider"),
    ("notification.toolkit.fluxcd.io", "Receiver"),
    ("image.toolkit.fluxcd.io", "ImageRepository"),
    ("image.toolkit.fluxcd.io", "ImagePolicy"),
    ("image.toolkit.fluxcd.io", "ImageUpdateAutomation"),
    ("source.extensions.fluxcd.io", "ArtifactGenerator"),
    ("infra.contrib.fluxcd.io", "Terraform"),
    ("fluxcd.controlplane.io", "FluxInstance"),
];
/// Kinds whose controllers take artifacts from source-controller, or are served by it: while there are any, it stays.
const NEED_SOURCE_CONTROLLER: [&str; 9] = [
    "OCIRepository",
    "Bucket",
    "HelmRepository",
    "HelmChart",
    "ExternalArtifact",
    "HelmRelease",
    "ImageUpdateAutomation",
    "ArtifactGenerator",
    "Terraform",
];
/// What an installation by flux-operator means for a takeover.
const FLUX_INSTANCE: &str = "flux-operator starts again what it lists: take the controllers that are to be stopped out of its `spec.components` instead of scaling them";
/// Whoever applies as Flux does: Flux itself, and we.
const MANAGER: &str = api::APPLY_MANAGER;
/// Objects of inventories whose metadata is read: the check of a large cluster takes a minute, not an hour.
const OBJECTS_MAX: usize = 5_000;
/// Reads under way at a time.
const READS_MAX: usize = 16;

/// All that was found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// True if nothing is there that isn't served.
    all_served: bool,
    /// Which of Flux's controllers are stopped.
    way: Way,
    /// Why source-controller stays: kinds, and how many there are of each.
    stays_for: BTreeMap<String, usize>,
    /// Kustomizations that hold Flux's own installation: `Stalled` until it is taken out of them in Git.
    holds_flux: Vec<String>,
    served: Vec<Found>,
    unserved: Vec<Found>,
    /// What would happen to what each application applied.
    applications: Vec<Adoption>,
    leases: Vec<Held>,
    /// What can't be told from the cluster.
    not_seen: Vec<&'static str>,
}

/// How Afresh takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// kustomize-controller and source-controller are stopped.
    #[default]
    Full,
    /// kustomize-controller alone: `--sources=observe`.
    Observe,
}

/// A Flux object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    kind: String,
    namespace: String,
    name: String,
    /// Why it isn't served: its fields, or its kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// What an application's inventory holds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Adoption {
    namespace: String,
    name: String,
    suspended: bool,
    /// Objects that Flux's field manager applied: taken over as they are, nothing is sent for what is as declared.
    adopted: usize,
    /// There, without an entry of Flux's field manager: applied once.
    applied: Vec<String>,
    /// In the inventory and gone: created anew if still declared.
    absent: Vec<String>,
    /// Labelled as another application's: refused while that one declares it.
    others: Vec<String>,
    /// As which service account it is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<String>,
    /// Flux's own controllers are among what it applied.
    holds_flux: bool,
    /// Not looked at: the check stops after a number of objects.
    not_looked_at: usize,
    prune: bool,
}

/// Who holds a Lease of Flux's.
#[derive(Debug, Serialize)]
struct Held {
    lease: String,
    holder: String,
}

/// Whether all that is there is served.
pub async fn run(args: MigrateArgs) -> anyhow::Result<bool> {
    debug_assert!(args.check, "clap requires it");
    let cluster = args.cluster.connect().await?;
    let report = look(&cluster, &args.flux_namespace).await?;
    match args.output {
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => anstream::print!("{}", report.text()),
    }
    Ok(report.all_served)
}

async fn look(cluster: &Cluster, flux_namespace: &str) -> anyhow::Result<Report> {
    cluster.discover().await.context("the API server does not answer")?;
    let mut report = Report::default();
    let ours: Vec<(String, String, String)> = api::definitions()
        .into_iter()
        .flat_map(|d| {
            d.spec.versions.into_iter().map(move |v| (d.spec.group.clone(), d.spec.names.kind.clone(), v.name))
        })
        .collect();
    let mut applications = Vec::new();
    for (group, kind) in FLUX_KINDS {
        let Some(preferred) = cluster.resource(group, kind, None) else { continue };
        let versions: Vec<_> = ours.iter().filter(|(g, k, _)| g == group && k == kind).map(|(.., v)| v).collect();
        let served = versions.iter().find_map(|version| cluster.resource(group, kind, Some(version)));
        let items = cluster.list(served.as_ref().unwrap_or(&preferred), None).await;
        for item in items.with_context(|| format!("can't list `{}`", preferred.resource()))? {
            let reasons = match &served {
                Some(_) => reasons_of(kind, &item),
                None if kind == "FluxInstance" => vec![FLUX_INSTANCE.to_owned()],
                None if versions.is_empty() => vec![format!("the kind `{kind}` is not served")],
                None => vec![format!(
                    "the cluster serves `{kind}` only as `{}`, and Afresh reads `{}`: install newer definitions",
                    preferred.version, versions[0]
                )],
            };
            let found = Found { reasons, ..Found::of(kind, &item) };
            if NEED_SOURCE_CONTROLLER.contains(&kind) {
                *report.stays_for.entry(kind.to_owned()).or_default() += 1;
            }
            if kind == "Kustomization" && served.is_some() {
                applications.push(item);
            }
            if found.reasons.is_empty() { report.served.push(found) } else { report.unserved.push(found) }
        }
    }
    let mut budget = OBJECTS_MAX;
    for item in applications {
        report.applications.extend(adoption(cluster, item, &mut budget).await?);
    }
    report.way = if report.stays_for.is_empty() { Way::Full } else { Way::Observe };
    report.holds_flux = report
        .applications
        .iter()
        .filter(|app| app.holds_flux)
        .map(|app| format!("{}/{}", app.namespace, app.name))
        .collect();
    for name in ["kustomize-controller-leader-election", "source-controller-leader-election"] {
        let lease =
            cluster.get_lease(flux_namespace, name).await.with_context(|| format!("can't read Lease `{name}`"))?;
        if let Some(holder) = lease.map(|lease| lease.tenure().holder).filter(|holder| !holder.is_empty()) {
            report.leases.push(Held { lease: format!("{flux_namespace}/{name}"), holder });
        }
    }
    report.all_served = report.unserved.is_empty();
    report.not_seen = vec![
        "what is in Git: kustomization files, decryption and templates are not visible from the cluster; `afresh render PATH` in a working copy shows what a folder declares, or names what is not served",
        "whether the newest commit is what the cluster holds: what differs is applied, as Flux would",
    ];
    Ok(report)
}

impl Found {
    fn of(kind: &str, item: &Value) -> Self {
        let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            kind: kind.to_owned(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            reasons: Vec::new(),
        }
    }
}

/// The fields of an object of a served kind that are not served.
fn reasons_of(kind: &str, item: &Value) -> Vec<String> {
    fn read<T: serde::de::DeserializeOwned>(item: &Value) -> Result<T, Vec<String>> {
        serde_json::from_value(item.clone()).map_err(|error| vec![format!("it can't be read: {error}")])
    }
    let fields =
        |fields: Vec<&'static str>| -> Vec<String> { fields.into_iter().map(|field| format!("`{field}`")).collect() };
    let read = match kind {
        "GitRepository" => read::<GitRepository>(item).map(|object| fields(object.spec.unserved())),
        "Kustomization" => read::<Kustomization>(item).map(|object| {
            let refusal = engine::refusal(&object.spec);
            fields(object.spec.unserved()).into_iter().chain(refusal).collect()
        }),
        "Alert" => Ok(refusal_of_alert(item).into_iter().collect()),
        "Provider" => Ok(refusal_of_provider(item).into_iter().collect()),
        "Receiver" => read::<Receiver>(item).map(|object| object.spec.unserved()),
        _ => Ok(Vec::new()),
    };
    read.unwrap_or_else(|reasons| reasons)
}

async fn adoption(cluster: &Cluster, item: Value, budget: &mut usize) -> anyhow::Result<Option<Adoption>> {
    let Ok(object) = serde_json::from_value::<Kustomization>(item) else { return Ok(None) };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut adoption = Adoption {
        namespace: text(&object.metadata.namespace),
        name: text(&object.metadata.name),
        suspended: object.spec.suspended(),
        prune: object.spec.prune,
        service_account: object.spec.service_account_name.clone().filter(|name| !name.is_empty()),
        ..Adoption::default()
    };
    let (inventory, _) = Inventory::read(object.status.as_ref().and_then(|status| status.inventory.as_ref()));
    let looked_at = inventory.len().min(*budget);
    *budget -= looked_at;
    adoption.not_looked_at = inventory.len() - looked_at;
    let ids: Vec<ObjectId> = inventory.ids().take(looked_at).cloned().collect();
    let reads = futures::stream::iter(ids).map(async |id| (metadata(cluster, &id).await, id));
    let mut reads = reads.buffered(READS_MAX);
    while let Some((metadata, id)) = reads.next().await {
        let metadata = metadata.with_context(|| format!("can't read `{id}`"))?;
        adoption.take(&id, metadata.as_ref());
    }
    Ok(Some(adoption))
}

async fn metadata(cluster: &Cluster, id: &ObjectId) -> anyhow::Result<Option<Value>> {
    let Some(kind): Option<ApiKind> = cluster.resource(&id.group, &id.kind, None) else { return Ok(None) };
    Ok(cluster.get_metadata(&kind, id).await?)
}

impl Adoption {
    fn take(&mut self, id: &ObjectId, metadata: Option<&Value>) {
        let Some(metadata) = metadata else {
            self.absent.push(id.to_string());
            return;
        };
        let label = |name: &str| metadata["labels"][name].as_str();
        let owner = (label(OWNER_NAMESPACE_LABEL), label(OWNER_NAME_LABEL));
        self.holds_flux |= id.group == "apps" && id.kind == "Deployment" && label(PART_OF) == Some("flux");
        let by_flux = |entry: &Value| entry["manager"] == MANAGER && entry["operation"] == "Apply";
        if owner.1.is_some() && owner != (Some(self.namespace.as_str()), Some(self.name.as_str())) {
            self.others.push(id.to_string());
        } else if metadata["managedFields"].as_array().is_some_and(|entries| entries.iter().any(by_flux)) {
            self.adopted += 1;
        } else {
            self.applied.push(id.to_string());
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: String| {
            text.push_str(&words);
            text.push('\n');
        };
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for found in &self.served {
            *counts.entry(&found.kind).or_default() += 1;
        }
        line("The way".into());
        self.way_in_words().into_iter().for_each(&mut line);
        line("\nServed".into());
        for (kind, count) in counts {
            line(format!("  {count} {kind}"));
        }
        if self.served.is_empty() {
            line("  nothing".into());
        }
        line("\nNot served".into());
        for found in &self.unserved {
            line(format!("  {}/{}/{}: {}", found.kind, found.namespace, found.name, found.reasons.join(", ")));
        }
        if self.unserved.is_empty() {
            line("  nothing".into());
        } else {
            line("  Objects of a kind that is not served stay with Flux's other controllers. Those with a field that is not\n  served are reported as Stalled, and what they applied stays as it is.".into());
        }
        line("\nWhat would happen".into());
        let stays =
            |held: &&Held| self.way == Way::Observe && held.lease.ends_with("/source-controller-leader-election");
        for held in self.leases.iter().filter(|held| !stays(held)) {
            line(format!("  Afresh stands by while `{}` holds the Lease `{}`.", held.holder, held.lease));
        }
        for app in &self.holds_flux {
            line(format!(
                "  Kustomization/{app} declares Flux's own controllers: Stalled (RendersFlux) until they are taken out of it in\n  Git; what it applied stays as it is, and so do the Kustomizations that it declares."
            ));
        }
        for app in &self.applications {
            line(format!("  {}", app.text()));
            for (what, ids) in [
                ("applied once", &app.applied),
                ("gone, created again if still declared", &app.absent),
                ("another application's, refused while that one declares it", &app.others),
            ] {
                for id in ids {
                    line(format!("    {id}: {what}"));
                }
            }
        }
        line("\nNot visible from here".into());
        for words in &self.not_seen {
            line(format!("  - {words}"));
        }
        text
    }
}

impl Report {
    /// Which controllers to stop, and why.
    fn way_in_words(&self) -> Vec<String> {
        let mut lines = match self.way {
            Way::Full => vec![
                "  Full: nothing here needs Flux's source-controller. Stop kustomize-controller and source-controller;"
                    .into(),
                "  install with `kubectl apply -k manifests/beside-flux`.".into(),
            ],
            Way::Observe => {
                let kinds: Vec<_> = self.stays_for.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                vec![
                    format!(
                        "  Observe: source-controller stays, for {}. Stop kustomize-controller alone;",
                        kinds.join(", ")
                    ),
                    "  install with `kubectl apply -k manifests/observe` (`--sources=observe`).".into(),
                ]
            }
        };
        lines.push("  The steps, and the way back: docs/migrate-from-flux.md".into());
        lines
    }
}

impl Adoption {
    fn text(&self) -> String {
        let mut words =
            format!("Kustomization/{}/{}: {} objects adopted as they are", self.namespace, self.name, self.adopted);
        if !self.prune {
            words.push_str(", nothing is ever pruned (`prune: false`)");
        }
        if let Some(name) = &self.service_account {
            words.push_str(&format!(", as ServiceAccount `{name}` (Afresh needs manifests/impersonation)"));
        }
        if self.suspended {
            words.push_str(", suspended: nothing is done until it is resumed");
        }
        if self.not_looked_at > 0 {
            words.push_str(&format!(", {} not looked at", self.not_looked_at));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_told_apart_by_their_labels_and_by_who_applied_them() {
        let labels = |name: &str| json!({OWNER_NAMESPACE_LABEL: "apps", OWNER_NAME_LABEL: name});
        let flux = json!([{"manager": "kustomize-controller", "operation": "Apply"}]);
        let mut adoption = Adoption { namespace: "apps".into(), name: "shop".into(), ..Adoption::default() };
        let id = |name: &str| ObjectId::new("", "ConfigMap", "apps", name);
        adoption.take(&id("a"), Some(&json!({"labels": labels("shop"), "managedFields": flux})));
        adoption.take(&id("b"), Some(&json!({"labels": labels("shop"), "managedFields": []})));
        adoption.take(&id("c"), None);
        adoption.take(&id("d"), Some(&json!({"labels": labels("other"), "managedFields": flux})));
        assert_eq!(adoption.adopted, 1);
        assert_eq!(adoption.applied, [id("b").to_string()]);
        assert_eq!(adoption.absent, [id("c").to_string()]);
        assert_eq!(adoption.others, [id("d").to_string()]);
        assert!(!adoption.holds_flux);
        let of_flux = json!({"labels": {PART_OF: "flux"}});
        adoption.take(&ObjectId::new("apps", "Deployment", "flux-system", "helm-controller"), Some(&of_flux));
        assert!(adoption.holds_flux);
    }

    #[test]
    fn what_would_be_refused_of_a_kustomization_is_listed_and_no_more() {
        let reasons = |change: Value| {
            let mut item = json!({
                "metadata": {"name": "shop", "namespace": "apps"},
                "spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "s"}},
            });
            item["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            reasons_of("Kustomization", &item).join(", ")
        };
        let check = json!({"kind": "Deployment", "name": "web", "namespace": "shop"});
        let expression = json!({"apiVersion": "example.org/v1", "current": "status.phase == 'Up'"});
        let served = json!({
            "healthChecks": [check], "healthCheckExprs": [expression], "serviceAccountName": "team",
            "dependsOn": [{"name": "db", "readyExpr": "dep.metadata.name == 'db'"}],
        });
        assert_eq!(reasons(served), "");
        let refused = json!({"kubeConfig": {"secretRef": {"name": "far"}}});
        assert_eq!(reasons(refused), "`spec.kubeConfig`");
        assert_eq!(reasons(json!({"ignore": [{"paths": ["/spec/replicas"]}]})), "");
        let wrong = reasons(json!({"ignore": [{"paths": ["spec.replicas"]}]}));
        assert!(wrong.starts_with("`spec.ignore[0].paths[0]` is `spec.replicas`"), "{wrong}");
        let wrong = reasons(json!({"dependsOn": [{"name": "db", "readyExpr": "dep."}]}));
        assert!(wrong.starts_with("`spec.dependsOn[0].readyExpr`: "), "{wrong}");
    }

    #[test]
    fn the_way_is_named_with_what_source_controller_stays_for() {
        let full = Report::default().way_in_words().join("\n");
        assert!(full.contains("Full") && full.contains("manifests/beside-flux"), "{full}");
        let stays_for = BTreeMap::from([("HelmRelease".to_owned(), 3), ("HelmRepository".to_owned(), 1)]);
        let observe = Report { way: Way::Observe, stays_for, ..Report::default() }.way_in_words().join("\n");
        assert!(
            observe.contains("for 3 HelmRelease, 1 HelmRepository.") && observe.contains("--sources=observe"),
            "{observe}"
        );
    }
}
