//! Silence is no news only as long as everything lives: a part of the daemon that dies ends the daemon, by name.

use std::sync::Arc;

use afresh::cluster::{Cluster, ClusterOptions, Fence};
use afresh::config::{FieldValidation, SourceRole};
use afresh::engine::{self, Settings, Share, Sources};
use afresh::report::{Metrics, Readiness};
use afresh::source::{DataDir, RemoteOptions, Remotes};
use tokio_util::sync::CancellationToken;

use crate::support::env::{Env, PATIENCE};
use crate::support::scenarios;

scenarios! {
    only on the sandbox:
    a_watch_that_dies_ends_the_daemon,
}

async fn a_watch_that_dies_ends_the_daemon(env: &mut Env) {
    let cluster = Cluster::connect(Some(env.kubeconfig()), None, ClusterOptions::default()).await.unwrap();
    let readiness = Readiness::default();
    let data_dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        cluster: cluster.clone(),
        remotes: Arc::new(Remotes::new(DataDir::open(data_dir.path()).unwrap(), RemoteOptions::default())),
        fence: Fence::default(),
        sources: Sources::default(),
        metrics: Metrics::new(),
        readiness: readiness.clone(),
        watch_namespace: Some(env.namespace.clone()),
        runtime_namespace: env.namespace.clone(),
        default_service_account: None,
        sops_age_secret: None,
        field_validation: FieldValidation::Warn,
        source_role: SourceRole::Serve,
        share: Share::All,
        lease: None,
        traces: Default::default(),
        policies: afresh::engine::Policies::default(),
    };
    let daemon = tokio::spawn(engine::run(settings, CancellationToken::new()));
    env.eventually("it serves", async || readiness.is_ready().then_some(())).await;
    assert!(!daemon.is_finished());

    cluster.tasks().spawn("the watch of `configmaps`", async { panic!("an event that nobody thought of") });
    let ended = tokio::time::timeout(PATIENCE, daemon).await.expect("it ends").unwrap();
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("the watch of `configmaps` died: an event that nobody thought of"), "{error}");
}
