//! What concerns all replicas and comes to one of them: a delivery may come to any, and is live at once whoever serves what it
//! is about; a source is reported on by one, and its status says the same whoever that is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use afresh::api::{GitRepository, Key, READY, Truth, receiver_path};
use afresh::sandbox::{Effect, Faults, Match, Subresource, Verb};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::shards::{APPLICATIONS, LEASE, SLACK, all_ready_at, begin, divide, labelled, of_all, until_divided};
use crate::support::daemon::Daemon;
use crate::support::env::{Cluster, Env, SOURCE};
use crate::support::forge::Forge;
use crate::support::manifests::config_map;
use crate::support::scenarios;
use crate::webhook::{TOKEN, receiver, secret, standing, until_receiver};

scenarios! {
    a_delivery_is_live_at_once_whichever_replica_it_comes_to,
    a_delivery_is_live_at_once_whichever_instance_it_comes_to,
    a_delivery_is_live_at_once_where_nothing_may_be_written_to_sources,
    the_status_of_a_source_says_the_same_while_its_shard_changes_hands,
    the_status_of_a_source_says_the_same_while_its_label_changes,
}

mod slow {
    use super::*;

    scenarios! {
        only on the sandbox:
        a_shard_is_not_given_up_while_a_status_of_it_is_being_written,
        the_status_of_a_source_that_could_not_be_written_is_written_soon,
    }

    fn faults(env: &Env) -> &Faults {
        let Cluster::Sandbox(sandbox) = &env.cluster else { unreachable!("it runs on the sandbox") };
        sandbox.faults()
    }

    fn statuses_of(resource: &str) -> Match {
        Match { subresource: Some(Subresource::Status), ..Match::verb(Verb::Patch).on(resource) }
    }

    async fn a_shard_is_not_given_up_while_a_status_of_it_is_being_written(env: &mut Env) {
        const SLOW: Duration = Duration::from_secs(2);
        let mut newest = divide(env, 2).await;
        for (resource, value) in [("gitrepositories", "b"), ("kustomizations", "c")] {
            let replica = env.start_replica(resource, env.kubeconfig());
            all_ready_at(env, &newest).await;
            let slow = faults(env).once(statuses_of(resource), Effect::Delay(SLOW));
            newest = push(env, value);
            env.announce().await;
            env.eventually("a status is on its way", async || (faults(env).applied(slow) > 0).then_some(())).await;
            replica.stop().await.expect("it ends in order");
            // its Leases are given up: whatever it wrote is there
            let left = versions(env).await;
            tokio::time::sleep(2 * SLOW).await;
            assert_eq!(versions(env).await, left, "{resource}: a write landed after the shards were given up");
        }
    }

    /// The versions of all sources and applications.
    async fn versions(env: &Env) -> Vec<(String, Option<String>)> {
        let (sources, applications) = (env.sources(), env.kustomizations());
        let sources = sources.list(&ListParams::default()).await.expect("sources").items;
        let applications = applications.list(&ListParams::default()).await.expect("applications").items;
        let of_sources = sources.iter().map(|one| (one.name_any(), one.resource_version()));
        of_sources.chain(applications.iter().map(|one| (one.name_any(), one.resource_version()))).collect()
    }

    async fn the_status_of_a_source_that_could_not_be_written_is_written_soon(env: &mut Env) {
        env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
        let refused = Effect::Answer { code: 503, message: "not now".into() };
        let refused = faults(env).once(statuses_of("gitrepositories"), refused);
        let b = env.push("B", &[("app/settings.yaml", &config_map("settings", "b"))]);
        env.announce().await;
        env.fetched(&b).await;
        assert_eq!(faults(env).applied(refused), 1);
    }
}

/// A machine that compiles beside the test needs more than the moment that it takes; sources are looked at every ten minutes.
const AT_ONCE: Duration = Duration::from_secs(20);
const OF_THE_RECEIVER: &str = "of-the-receiver";

/// From now on daemons take webhooks.
async fn with_webhooks(env: &mut Env) -> Forge {
    secret(env, "webhook", TOKEN).await;
    env.arguments.extend(["--webhook-addr", "127.0.0.1:0", "--webhook-secret"].map(str::to_owned));
    env.arguments.push(format!("{}/webhook", env.namespace));
    Forge::new(TOKEN, &env.git.url(SOURCE))
}

fn push(env: &Env, value: &str) -> String {
    env.push(value, &of_all(value).iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>())
}

/// Until a replica knows what comes in at a path.
async fn takes(env: &Env, forge: &Forge, replica: &Daemon, path: &str) {
    env.eventually(&format!("deliveries at {path} are taken"), async || {
        (forge.deliver(replica, path, "ping", "{}").await.0 == 200).then_some(())
    })
    .await;
}

/// Two replicas that have divided the work; what there is is live.
async fn two_replicas(env: &mut Env) -> [Daemon; 2] {
    let a = divide(env, 2).await;
    let replicas = [env.start_replica("first", env.kubeconfig()), env.start_replica("second", env.kubeconfig())];
    until_divided(env, &replicas.each_ref(), &[1, 1]).await;
    all_ready_at(env, &a).await;
    replicas
}

/// A push of which one replica is told is live at once, whichever serves what. Answers the revision.
async fn live_at_once(env: &Env, forge: &Forge, number: usize, replica: &Daemon) -> String {
    takes(env, forge, replica, "/webhook").await;
    let revision = push(env, &format!("pushed-{number}"));
    let pushed = Instant::now();
    assert_eq!(forge.announce(replica, &revision).await.0, 202);
    all_ready_at(env, &revision).await;
    assert!(pushed.elapsed() < AT_ONCE, "replica {number}: {:?}", pushed.elapsed());
    revision
}

async fn a_delivery_is_live_at_once_whichever_replica_it_comes_to(env: &mut Env) {
    let forge = with_webhooks(env).await;
    let replicas = two_replicas(env).await;

    // the source, and each application, is served by one of the two
    for (number, replica) in replicas.iter().enumerate() {
        let revision = live_at_once(env, &forge, number, replica).await;
        env.fetched(&revision).await;
    }

    // Receivers are served by all, and one of them says so
    secret(env, "receiver", OF_THE_RECEIVER).await;
    let forge = forge.with_secret(OF_THE_RECEIVER);
    let path = receiver_path(OF_THE_RECEIVER.as_bytes(), &Key::new(env.namespace.as_str(), "github"));
    for (kind, names) in [("GitRepository", vec![SOURCE]), ("Kustomization", APPLICATIONS.to_vec())] {
        let resources: Vec<_> = names.iter().map(|name| json!({ "kind": kind, "name": name })).collect();
        receiver(env, json!({ "resources": resources })).await;
        until_receiver(env, "is Ready", |r| {
            let observed = r.status.as_ref().and_then(|status| status.observed_generation);
            standing(r).0 == Some(Truth::True) && observed == r.metadata.generation
        })
        .await;
        for (number, replica) in replicas.iter().enumerate() {
            takes(env, &forge, replica, &path).await;
            let revision = push(env, &format!("received-{kind}-{number}"));
            let (pushed, said) = (Instant::now(), forge.push("main", Some(&revision)));
            assert_eq!(forge.deliver(replica, &path, "push", &said).await.0, 200);
            all_ready_at(env, &revision).await;
            assert!(pushed.elapsed() < AT_ONCE, "{kind}, replica {number}: {:?}", pushed.elapsed());
        }
    }
    for replica in replicas {
        replica.stop().await.expect("it ends in order");
    }
}

async fn a_delivery_is_live_at_once_whichever_instance_it_comes_to(env: &mut Env) {
    let forge = with_webhooks(env).await;
    // the one serves the source, the other the application
    let instances = begin(env).await;
    for (number, instance) in instances.iter().enumerate() {
        takes(env, &forge, instance, "/webhook").await;
        let value = format!("pushed-{number}");
        let revision = env.push(&value, &[("app/settings.yaml", &config_map("settings", &value))]);
        let pushed = Instant::now();
        assert_eq!(forge.announce(instance, &revision).await.0, 202);
        env.ready_at("app", &revision).await;
        assert!(pushed.elapsed() < AT_ONCE, "instance {number}: {:?}", pushed.elapsed());
        env.fetched(&revision).await;
    }
}

async fn a_delivery_is_live_at_once_where_nothing_may_be_written_to_sources(env: &mut Env) {
    let forge = with_webhooks(env).await;
    env.arguments.extend(["--sources", "observe"].map(str::to_owned));
    let replicas = two_replicas(env).await;
    let before = env.sources().get(SOURCE).await.expect("the source").resource_version();
    for (number, replica) in replicas.iter().enumerate() {
        live_at_once(env, &forge, number, replica).await;
    }
    assert_eq!(env.sources().get(SOURCE).await.expect("the source").resource_version(), before, "nobody wrote to it");
    for replica in replicas {
        replica.stop().await.expect("it ends in order");
    }
}

/// What a status says, but for the request that was handled last.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    ready: Option<Truth>,
    message: String,
    revision: Option<String>,
    rest: Value,
}

impl Said {
    fn by(source: &GitRepository) -> Option<Said> {
        let status = source.status.as_ref()?;
        let ready = status.conditions.get(READY);
        let mut rest = json!(status);
        rest.as_object_mut()?.remove("lastHandledReconcileAt");
        Some(Said {
            ready: ready.map(|ready| ready.status),
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            revision: status.artifact.as_ref().map(|artifact| artifact.revision.clone()),
            rest,
        })
    }
}

/// Everything that the status of the source says from now on, each once.
async fn follow(env: &Env) -> Arc<Mutex<Vec<Said>>> {
    let (sources, seen) = (env.sources(), Arc::new(Mutex::new(Vec::<Said>::new())));
    let field = format!("metadata.name={SOURCE}");
    let mut version = "0".to_owned();
    let told = seen.clone();
    let note = move |source: &GitRepository| {
        let mut told = told.lock().unwrap();
        if let Some(said) = Said::by(source).filter(|said| told.last() != Some(said)) {
            told.push(said);
        }
    };
    for source in sources.list(&ListParams::default().fields(&field)).await.expect("the source") {
        version = source.resource_version().unwrap_or_default();
        note(&source);
    }
    tokio::spawn(async move {
        loop {
            let params = WatchParams::default().fields(&field);
            let Ok(events) = sources.watch(&params, &version).await else { return };
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                if let Ok(WatchEvent::Added(source) | WatchEvent::Modified(source)) = event {
                    version = source.resource_version().unwrap_or_default();
                    note(&source);
                }
            }
        }
    });
    seen
}

/// Each revision was told once, in its turn, and nothing else was.
fn assert_said(seen: &Mutex<Vec<Said>>, revisions: &[String]) {
    let seen = seen.lock().unwrap();
    let told: Vec<_> = seen.iter().map(|said| said.revision.clone().unwrap_or_default()).collect();
    assert_eq!(told, revisions, "{seen:#?}");
    for said in seen.iter() {
        let revision = said.revision.as_deref().unwrap_or_default();
        assert_eq!(said.ready, Some(Truth::True), "{said:#?}");
        assert!(said.message.contains(revision), "{said:#?}");
    }
}

async fn the_status_of_a_source_says_the_same_while_its_shard_changes_hands(env: &mut Env) {
    let mut revisions = vec![divide(env, 2).await];
    let first = env.start_replica("first", env.kubeconfig());
    all_ready_at(env, &revisions[0]).await;
    env.fetched(&revisions[0]).await;
    let seen = follow(env).await;
    let mut live = async |value: &str| {
        let revision = push(env, value);
        env.announce().await;
        all_ready_at(env, &revision).await;
        env.fetched(&revision).await;
        revisions.push(revision);
    };

    // one that joins, one that goes, one that is lost: the source changes hands at one of these at least
    let second = env.start_replica("second", env.kubeconfig());
    until_divided(env, &[&first, &second], &[1, 1]).await;
    live("joined").await;
    first.stop().await.expect("it ends in order");
    until_divided(env, &[&second], &[2]).await;
    live("gone").await;
    let third = env.start_replica("third", env.kubeconfig());
    until_divided(env, &[&second, &third], &[1, 1]).await;
    second.kill().await.expect("it is killed");
    let killed = Instant::now();
    until_divided(env, &[&third], &[2]).await;
    assert!(killed.elapsed() < LEASE + SLACK, "{:?}", killed.elapsed());
    live("lost").await;
    third.stop().await.expect("it ends in order");
    assert_said(&seen, &revisions);
}

async fn the_status_of_a_source_says_the_same_while_its_label_changes(env: &mut Env) {
    let instances = begin(env).await;
    let now = env.sources().get(SOURCE).await.expect("the source");
    let artifact = now.status.and_then(|status| status.artifact).map(|artifact| artifact.revision);
    let mut revisions = vec![artifact.expect("it was fetched: an application is Ready")];
    let seen = follow(env).await;
    for round in 0..6 {
        // it changes hands in the middle of a change
        let shard = (round % 2 == 0).then_some("shard1");
        let value = format!("round-{round}");
        let revision = env.push(&value, &[("app/settings.yaml", &config_map("settings", &value))]);
        env.announce().await;
        let labels = Patch::Merge(labelled(shard));
        env.sources().patch(SOURCE, &PatchParams::default(), &labels).await.expect("it is labelled");
        env.ready_at("app", &revision).await;
        env.fetched(&revision).await;
        revisions.push(revision);
    }
    assert_said(&seen, &revisions);
    for instance in instances {
        instance.stop().await.expect("it ends in order");
    }
}
