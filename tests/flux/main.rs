//! Flux's own controllers, then Afresh, then Flux again, on a real control plane.
//!
//! Needs `AFRESH_FLUX=$(tests/tools/flux/build)` and `KUBEBUILDER_ASSETS=$(tests/tools/build)`; `.ci/run` runs it.

mod controllers;
mod document;
mod record;
mod served;
#[allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its part of the environment")]
#[path = "../support/mod.rs"]
mod support;

use afresh::api::{DESIRED, STATUS_MANAGER};
use serde_json::Value;

use served::Served;
use support::flux::{self, KUSTOMIZATION, SHOP};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Flux's controllers and a control plane; .ci/run builds both"]
async fn a_cluster_is_taken_over_from_flux_and_given_back_and_nothing_is_restarted() {
    let mut served = Served::by_flux("taken-over").await;
    let before = flux::fingerprint(&served.env.client).await;
    let first = served.env.kustomizations().get("apps").await.expect("apps").status.expect("a status");
    let first = first.last_applied_revision.expect("a revision");

    // both are there: Afresh stands by
    served.start_afresh();
    let said = async |served: &Served, text: &str| {
        let daemon = served.env.daemon.as_ref().expect("a daemon");
        served.env.eventually(text, async || daemon.said(text)).await
    };
    said(&served, "standing by").await;
    served.stop_flux().await;
    served.env.ready_at("apps", &first).await;
    served.env.ready_at("infrastructure", &first).await;
    served.stalled("flux-system", "gotk-components.yaml").await;
    assert_eq!(flux::differences(&before, &flux::fingerprint(&served.env.client).await), Vec::<String>::new());

    // as the message says
    let taken_out = flux::without_components();
    let second = served.env.push("flux is not declared any more", &[(KUSTOMIZATION, &taken_out)]);
    served.env.announce_source("flux-system").await;
    for name in served::KUSTOMIZATIONS {
        served.env.ready_at(name, &second).await;
    }
    assert_eq!(flux::differences(&before, &flux::fingerprint(&served.env.client).await), Vec::<String>::new());

    // a commit that removes an object, and a field
    let base = flux::file("apps/base/kustomization.yaml");
    let third = served.env.push_changes(
        "no notice",
        &[
            ("apps/base/notice.yaml", None),
            ("apps/base/kustomization.yaml", Some(&base.replace("  - notice.yaml\n", ""))),
            ("infrastructure/namespace.yaml", Some("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n")),
        ],
    );
    served.env.announce_source("flux-system").await;
    served.env.ready_at("apps", &third).await;
    served.env.ready_at("infrastructure", &third).await;
    let after = flux::fingerprint(&served.env.client).await;
    assert_eq!(flux::differences(&before, &after), [format!("ConfigMap/{SHOP}/notice is gone")]);
    let namespace = flux::objects(&served.env.client, "v1", "Namespace", "").get(SHOP).await.expect("it is there");
    assert!(!namespace.metadata.labels.unwrap_or_default().contains_key("team"), "what Git has no more is gone");

    // and back: Flux is in Git again first
    let fourth = served.env.push("flux is declared again", &[(KUSTOMIZATION, &flux::file(KUSTOMIZATION))]);
    served.env.announce_source("flux-system").await;
    served.stalled("flux-system", "gotk-components.yaml").await;
    served.env.ready_at("apps", &fourth).await;
    served.env.daemon.take().expect("it runs").stop().await.expect("it stops");
    served.start_flux();
    served.ready_by_flux(&fourth).await;
    assert_eq!(flux::differences(&after, &flux::fingerprint(&served.env.client).await), Vec::<String>::new());
    let deployments = flux::objects(&served.env.client, "apps/v1", "Deployment", SHOP);
    let taken_away = async || {
        let web = deployments.get("web").await.expect("it is there");
        (!web.metadata.annotations.unwrap_or_default().contains_key(DESIRED)).then_some(())
    };
    served.env.eventually("Flux takes away what we noted", taken_away).await;

    // it is Flux's again: it prunes, and reports
    let fifth = served.env.push_changes(
        "no service",
        &[
            ("apps/base/service.yaml", None),
            (
                "apps/base/kustomization.yaml",
                Some(&base.replace("  - notice.yaml\n", "").replace("  - service.yaml\n", "")),
            ),
        ],
    );
    served.env.announce_source("flux-system").await;
    served.ready_by_flux(&fifth).await;
    let last = flux::fingerprint(&served.env.client).await;
    assert_eq!(flux::differences(&after, &last), [format!("Service/{SHOP}/web is gone")]);
    let status: Value = serde_json::json!(served.env.kustomizations().get("flux-system").await.expect("it").status);
    assert!(status["inventory"].to_string().contains("kustomizations.kustomize.toolkit.fluxcd.io"), "{status:#}");
    served.stop_flux().await;
}

/// Runs the commands of these sections one after the other; what Flux serves is as before, but for its own Pods. Answers
/// who has written to the source.
async fn as_the_page_says(scenario: &str, sections: &[&str]) -> Vec<String> {
    let mut served = Served::by_flux(scenario).await;
    let before = flux::fingerprint(&served.env.client).await;
    for step in sections.iter().flat_map(|section| document::steps(section)) {
        println!("$ {}", step.command);
        served.types(&step).await;
        let now = flux::fingerprint(&served.env.client).await;
        let others: Vec<_> =
            flux::differences(&before, &now).into_iter().filter(|it| !it.contains("-controller")).collect();
        assert_eq!(others, Vec::<String>::new(), "after `{}`", step.command);
    }
    let source = served.env.sources().get("flux-system").await.expect("the source");
    let managers: Vec<_> = source.metadata.managed_fields.into_iter().flatten().filter_map(|it| it.manager).collect();
    served.stop_flux().await;
    managers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Flux's controllers and a control plane; .ci/run builds both"]
async fn the_page_about_a_full_takeover_and_the_way_back_is_true() {
    let writers = as_the_page_says("full", &["Which way", "Full takeover", "And back"]).await;
    assert!(writers.contains(&"source-controller".to_owned()), "{writers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Flux's controllers and a control plane; .ci/run builds both"]
async fn the_page_about_staying_beside_source_controller_is_true() {
    let writers = as_the_page_says("beside", &["Beside source-controller"]).await;
    assert!(!writers.contains(&STATUS_MANAGER.to_owned()), "{writers:?}");
}
