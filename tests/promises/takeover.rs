//! A cluster that Flux has bootstrapped, as its own controllers left it (recorded in `tests/flux`), is taken over as it
//! is; what Afresh leaves behind is what Flux needs. `tests/flux` does the same with Flux's controllers running.

use std::collections::BTreeSet;

use afresh::api::{APPLY_MANAGER, CONFIRM_PRUNE, FINALIZER, STATUS_MANAGER};
use afresh::sandbox::kubelet;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::control_plane::ControlPlane;
use crate::support::env::{Cluster, Env, PATIENCE, SOURCE, message};
use crate::support::flux::{self, KUSTOMIZATION, NAMESPACE, SHOP};
use crate::support::installation;
use crate::support::wait::watch_until;

/// Each scenario has a cluster of its own: the names of Flux's objects are Flux's.
macro_rules! on_clusters_of_flux {
    ($($name:ident installed by $manifests:literal),+ $(,)?) => {
        mod sandbox {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let mut env = $crate::support::env::Env::on_sandbox(stringify!($name)).await;
                    super::$name(&mut super::FluxCluster::in_it(&mut env).await).await;
                }
            )+
        }
        mod real {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(mut env) = super::on_a_plane_of_its_own(stringify!($name), $manifests).await {
                        super::$name(&mut super::FluxCluster::in_it(&mut env).await).await;
                    }
                }
            )+
        }
    };
}

on_clusters_of_flux! {
    what_flux_left_is_taken_over_as_it_is_and_stays_as_flux_needs_it installed by "beside-flux",
    without_its_folder_in_git_flux_itself_stays_in_the_cluster installed by "beside-flux",
    beside_source_controller_nothing_is_written_to_sources installed by "observe",
}

/// An environment whose cluster Flux has served, in Flux's namespace.
struct FluxCluster<'a> {
    env: &'a mut Env,
    /// What Flux has applied last.
    revision: String,
    _kubelet: DropGuard,
}

async fn on_a_plane_of_its_own(scenario: &str, manifests: &str) -> Option<Env> {
    let plane = ControlPlane::of_its_own().await?;
    let mut env = Env::on_plane(scenario, plane).await;
    installation::apply(plane, &installation::manifests().join(manifests)).await.unwrap();
    env.use_kubeconfig(installation::kubeconfig_of(plane, installation::NAMESPACE).await.unwrap());
    Some(env)
}

impl FluxCluster<'_> {
    async fn in_it(env: &mut Env) -> FluxCluster<'_> {
        let cancel = CancellationToken::new();
        tokio::spawn(kubelet::run(env.client.clone(), None, cancel.clone()));
        let url = env.git.url(SOURCE);
        let files = flux::platform(&url);
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let revision = env.push("the platform", &files);
        flux::replay(&env.client, &url, revision.rsplit(':').next().unwrap_or_default()).await;
        env.namespace = SHOP.into();
        env.until_live("Deployment", "web", "it runs", |web| web["status"]["availableReplicas"] == 2).await;
        env.namespace = NAMESPACE.into();
        for name in ["source-controller", "kustomize-controller"] {
            env.until_live("Deployment", name, "it runs", |it| it["status"]["availableReplicas"] == 1).await;
        }
        FluxCluster { env, revision, _kubelet: cancel.drop_guard() }
    }

    /// Starts the daemon for all namespaces.
    fn start(&mut self) {
        self.env.arguments.extend(["--runtime-namespace".into(), installation::NAMESPACE.into()]);
        self.env.namespace.clear();
        self.env.start();
        self.env.namespace = NAMESPACE.into();
    }

    fn kustomizations(&self) -> Api<DynamicObject> {
        flux::objects(&self.env.client, "kustomize.toolkit.fluxcd.io/v1", "Kustomization", NAMESPACE)
    }

    async fn source(&self) -> Value {
        json!(self.env.sources().get("flux-system").await.unwrap())
    }

    async fn announce(&self) {
        self.env.announce_source("flux-system").await;
    }

    /// Until the Kustomization of Flux itself says that it waits for a person, and why.
    async fn stalled(&self) -> String {
        let mut said = String::new();
        let kustomizations = self.env.kustomizations();
        let outcome = watch_until(&kustomizations, "flux-system", PATIENCE, |found| {
            let stalled = found.and_then(|found| found.status.as_ref()?.conditions.get("Stalled"));
            said = stalled.map(|stalled| format!("{}: {}", stalled.reason, stalled.message)).unwrap_or_default();
            said.starts_with("RendersFlux")
        });
        assert!(outcome.await.is_ok(), "flux-system is not Stalled: {said}");
        said
    }
}

async fn what_flux_left_is_taken_over_as_it_is_and_stays_as_flux_needs_it(cluster: &mut FluxCluster<'_>) {
    let before = flux::fingerprint(&cluster.env.client).await;
    let conditions = |object: &Value| object["status"]["conditions"].clone();
    let source = conditions(&cluster.source().await);
    cluster.start();
    let said = cluster.stalled().await;
    for part in [
        "Deployment/flux-system/kustomize-controller, Deployment/flux-system/source-controller",
        "in `clusters/prod/flux-system/gotk-components.yaml`",
        "take `gotk-components.yaml`, and the patches for it, out of `clusters/prod/flux-system/kustomization.yaml`",
        "the rest of `./clusters/prod` is applied again",
        "docs/migrate-from-flux.md",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let first = cluster.revision.clone();
    cluster.env.ready_at("apps", &first).await;
    cluster.env.ready_at("infrastructure", &first).await;
    assert_eq!(flux::differences(&before, &flux::fingerprint(&cluster.env.client).await), Vec::<String>::new());
    assert_eq!(conditions(&cluster.source().await), source, "what was true stays so, with its times");

    // what it says is enough, and all that is needed
    let second = cluster.env.push("flux is not declared any more", &[(KUSTOMIZATION, &flux::without_components())]);
    cluster.announce().await;
    for name in ["flux-system", "infrastructure", "apps"] {
        cluster.env.ready_at(name, &second).await;
    }
    assert_eq!(flux::differences(&before, &flux::fingerprint(&cluster.env.client).await), Vec::<String>::new());
    let kept = cluster.env.events("flux-system").await;
    assert!(kept.iter().any(|(reason, text)| reason == "Kept" && text.contains("left in place")), "{kept:?}");

    // Git is followed: an object goes, a field goes, a child that is declared by the folder of Flux changes
    let base = flux::file("apps/base/kustomization.yaml").replace("  - notice.yaml\n", "");
    let slower = flux::file("clusters/prod/apps.yaml").replace("timeout: 5m0s", "timeout: 4m0s");
    let third = cluster.env.push_changes(
        "no notice",
        &[
            ("apps/base/notice.yaml", None),
            ("apps/base/kustomization.yaml", Some(&base)),
            ("infrastructure/namespace.yaml", Some("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n")),
            ("clusters/prod/apps.yaml", Some(&slower)),
        ],
    );
    cluster.announce().await;
    for name in ["flux-system", "infrastructure", "apps"] {
        cluster.env.ready_at(name, &third).await;
    }
    let after = flux::fingerprint(&cluster.env.client).await;
    let changed = [format!("ConfigMap/{SHOP}/notice is gone"), format!("Kustomization/{NAMESPACE}/apps changed")];
    assert_eq!(flux::differences(&before, &after), changed);
    let namespace = cluster.env.cluster_objects("Namespace").get(SHOP).await.unwrap();
    assert!(!namespace.metadata.labels.unwrap_or_default().contains_key("team"), "what Git has no more is gone");

    // a definition goes only when a person said so on the definition
    let fourth = cluster.env.push_changes("no vouchers", &[("infrastructure/vouchers.yaml", None)]);
    cluster.announce().await;
    let asks = message(&cluster.env.failed_at("infrastructure", &fourth, CONFIRM_PRUNE).await);
    assert!(asks.contains("crd vouchers.shop.example.com"), "{asks}");
    cluster
        .env
        .push("vouchers again", &[("infrastructure/vouchers.yaml", &flux::file("infrastructure/vouchers.yaml"))]);
    let fifth = cluster.env.push("flux is declared again", &[(KUSTOMIZATION, &flux::file(KUSTOMIZATION))]);
    cluster.announce().await;
    cluster.stalled().await;
    cluster.env.ready_at("apps", &fifth).await;
    cluster.env.ready_at("infrastructure", &fifth).await;
    cluster.env.daemon.take().unwrap().stop().await.unwrap();
    assert_eq!(flux::differences(&after, &flux::fingerprint(&cluster.env.client).await), Vec::<String>::new());
    is_as_flux_needs_it(cluster, &fifth).await;
}

/// Finalizers, inventory in Flux's words, and no manager of fields that Flux doesn't know as its own.
async fn is_as_flux_needs_it(cluster: &FluxCluster<'_>, revision: &str) {
    for name in ["infrastructure", "apps"] {
        let left = json!(cluster.kustomizations().get(name).await.unwrap());
        assert_eq!(left["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(left["status"]["lastAppliedRevision"], revision);
        let entries = left["status"]["inventory"]["entries"].as_array().unwrap().clone();
        let ids: BTreeSet<_> = entries.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect();
        let expected: &[&str] = match name {
            "infrastructure" => &[
                "_shop__Namespace",
                "_shop__voucher-viewer_rbac.authorization.k8s.io_ClusterRole",
                "_vouchers.shop.example.com_apiextensions.k8s.io_CustomResourceDefinition",
            ],
            _ => &["shop_web__Service", "shop_web_apps_Deployment"],
        };
        for id in expected {
            assert!(ids.contains(*id), "{name}: {id} in {ids:?}");
        }
    }
    for (api_version, kind, name) in
        [("apps/v1", "Deployment", "web"), ("v1", "Service", "web"), ("v1", "Namespace", SHOP)]
    {
        let place = if kind == "Namespace" { "" } else { SHOP };
        let left = flux::objects(&cluster.env.client, api_version, kind, place).get(name).await.unwrap();
        let entries = left.metadata.managed_fields.unwrap();
        let appliers = entries.iter().filter(|entry| entry.operation.as_deref() == Some("Apply"));
        let appliers: Vec<_> = appliers.filter_map(|entry| entry.manager.clone()).collect();
        assert_eq!(appliers, [APPLY_MANAGER], "{kind}/{name}");
    }
    let left = cluster.kustomizations().get("apps").await.unwrap();
    let entries = left.metadata.managed_fields.unwrap();
    let of_status = entries.iter().filter(|entry| entry.subresource.as_deref() == Some("status"));
    let managers: BTreeSet<_> = of_status.filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, BTreeSet::from([STATUS_MANAGER]));
}

async fn without_its_folder_in_git_flux_itself_stays_in_the_cluster(cluster: &mut FluxCluster<'_>) {
    let before = flux::fingerprint(&cluster.env.client).await;
    cluster.start();
    cluster.stalled().await;
    let gone = ["gotk-components.yaml", "gotk-sync.yaml", "kustomization.yaml"];
    let gone: Vec<_> = gone.iter().map(|file| format!("clusters/prod/flux-system/{file}")).collect();
    let changes: Vec<_> = gone.iter().map(|path| (path.as_str(), None)).collect();
    let second = cluster.env.push_changes("no flux-system", &changes);
    cluster.announce().await;
    for name in ["flux-system", "infrastructure", "apps"] {
        cluster.env.ready_at(name, &second).await;
    }
    assert_eq!(flux::differences(&before, &flux::fingerprint(&cluster.env.client).await), Vec::<String>::new());
    // what is not declared any more is still followed, for it holds what is
    let base = flux::file("apps/base/kustomization.yaml").replace("colour=blue", "colour=green");
    let third = cluster.env.push("green", &[("apps/base/kustomization.yaml", &base)]);
    cluster.announce().await;
    cluster.env.ready_at("apps", &third).await;
}

async fn beside_source_controller_nothing_is_written_to_sources(cluster: &mut FluxCluster<'_>) {
    // source-controller goes on: it holds its Lease, and reports
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "source-controller-leader-election" },
        "spec": { "holderIdentity": "source-controller-1", "leaseDurationSeconds": 35, "renewTime": "2030-01-01T00:00:00.000000Z" },
    });
    let params = PatchParams::apply("flux").force();
    cluster
        .env
        .objects("Lease")
        .patch("source-controller-leader-election", &params, &Patch::Apply(lease))
        .await
        .unwrap();
    let leases = async |env: &Env| env.live("Lease", "source-controller-leader-election").await.unwrap();
    let (source, lease) = (cluster.source().await, leases(cluster.env).await);

    cluster.env.arguments.push("--sources=observe".into());
    cluster.start();
    let first = cluster.revision.clone();
    cluster.env.ready_at("apps", &first).await;
    cluster.env.ready_at("infrastructure", &first).await;
    cluster.stalled().await;

    let broken = flux::file("apps/base/service.yaml").replace("port: 80", "port: many");
    let b = cluster.env.push("B", &[("apps/base/service.yaml", &broken)]);
    // nobody announces it: a retry finds it, as it finds the fix
    let patch = json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": "now" } } });
    cluster.kustomizations().patch("apps", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    cluster.env.failed_at("apps", &b, "port").await;
    let c = cluster.env.push("C", &[("apps/base/service.yaml", &flux::file("apps/base/service.yaml"))]);
    cluster.env.ready_at("apps", &c).await;

    assert_eq!(cluster.source().await, source, "the source is another's");
    assert_eq!(leases(cluster.env).await, lease);
    if let Cluster::Real(plane) = &cluster.env.cluster {
        let entries = plane.audit().unwrap();
        let of_daemon =
            entries.iter().filter(|e| e["user"]["username"] == "system:serviceaccount:afresh-system:afresh");
        let to_sources = of_daemon.filter(|e| e["objectRef"]["resource"] == "gitrepositories");
        let verbs: BTreeSet<_> = to_sources.map(|e| e["verb"].as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(verbs, BTreeSet::from(["list".to_owned(), "watch".to_owned()]));
    }
}
