//! Elections on an API server that knows nothing but Leases, with a clock that tests advance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::super::names::{flux_leases, own_lease};
use super::*;
use crate::cluster::ClusterOptions;
use crate::config::SourceRole;

#[tokio::test]
async fn a_keeper_that_dies_ends_its_term() {
    let lost = CancellationToken::new();
    let lives = tokio::spawn(cancelling_if_it_dies(lost.clone(), async { 1 }));
    assert_eq!(lives.await.unwrap(), 1);
    assert!(!lost.is_cancelled());
    let dies = tokio::spawn(cancelling_if_it_dies(lost.clone(), async { panic!("no clock") }));
    let error = dies.await.unwrap_err();
    assert!(lost.is_cancelled() && error.to_string().contains("no clock"), "{error}");
}

const LEASE_DURATION: Duration = Duration::from_secs(35);
/// What a request takes on the way.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// Leases by name; each write counts its version up.
#[derive(Clone, Default)]
struct Leases(Arc<Mutex<BTreeMap<String, Value>>>);

impl Leases {
    fn cluster(&self) -> Cluster {
        let leases = self.clone();
        let service = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            tokio::time::sleep(ROUND_TRIP / 2).await;
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let name = parts.uri.path().rsplit('/').next().unwrap_or_default();
            let (code, object) = leases.answer(&parts.method, name, serde_json::from_slice(&body).ok());
            tokio::time::sleep(ROUND_TRIP / 2).await;
            (code, object.to_string())
        });
        Cluster::from_client(kube::Client::new(service, "default"), ClusterOptions::default())
    }

    fn answer(&self, method: &Method, name: &str, sent: Option<Value>) -> (StatusCode, Value) {
        let mut leases = self.0.lock().unwrap();
        let failure = |code: StatusCode, reason: &str| {
            let details = json!({ "name": name, "group": "coordination.k8s.io", "kind": "leases" });
            let status = json!({ "kind": "Status", "reason": reason, "code": code.as_u16(), "details": details });
            (code, status)
        };
        let Some(mut sent) = sent else {
            return match leases.get(name) {
                Some(lease) => (StatusCode::OK, lease.clone()),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            };
        };
        let name = sent["metadata"]["name"].as_str().unwrap().to_owned();
        let known = leases.get(&name).map(|lease| lease["metadata"]["resourceVersion"].clone());
        if known.is_some() && *method == Method::POST {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        if known.as_ref().is_some_and(|known| *known != sent["metadata"]["resourceVersion"]) {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        let before: u64 = known.and_then(|version| version.as_str()?.parse().ok()).unwrap_or(0);
        sent["metadata"]["resourceVersion"] = (before + 1).to_string().into();
        leases.insert(name, sent.clone());
        (StatusCode::OK, sent)
    }

    /// How often all of them were written.
    fn writes(&self) -> u64 {
        let versions = |lease: &Value| lease["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok();
        self.0.lock().unwrap().values().filter_map(versions).sum()
    }

    fn election(&self, identity: &str) -> Election {
        let options = ElectionOptions {
            identity: identity.to_owned(),
            namespace: "afresh-system".to_owned(),
            lease: own_lease(None),
            flux_namespace: Some("flux-system".to_owned()),
            flux_leases: flux_leases(SourceRole::Serve, None),
            duration: LEASE_DURATION,
        };
        Election::new(self.cluster(), options, Arc::new(|_| {}), Readiness::default()).0
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_right_after_a_renewal_is_replaced_within_its_lease_and_not_while_it_might_write() {
    // wherever between two looks of the standby the last renewal falls
    for phase_ms in (0..500).step_by(50) {
        let leases = Leases::default();
        let stop = CancellationToken::new();
        let leader = leases.election("leader").win(&stop).await.unwrap().expect("nobody else is there");
        tokio::time::sleep(Duration::from_millis(phase_ms)).await;
        let standby = tokio::spawn({
            let (mut election, stop) = (leases.election("standby"), stop.clone());
            async move { election.win(&stop).await.unwrap().map(|term| (Instant::now(), term)) }
        });
        // the second renewal is its last deed
        let begun = Instant::now();
        let (mut renewed, mut writes) = (0, leases.writes());
        while renewed < 2 {
            tokio::time::sleep(ROUND_TRIP / 2).await;
            let now = leases.writes();
            if now >= writes + 3 {
                (renewed, writes) = (renewed + 1, now);
            }
            assert!(begun.elapsed() < 3 * LEASE_DURATION, "it is renewed");
        }
        let killed = Instant::now();
        let answers_until = leader.fence.admit().expect("it leads").expect("a bound");
        leader.keeper.abort();

        let (taken, _term) = standby.await.unwrap().expect("it leads");
        let silent = taken - killed;
        assert!(silent <= LEASE_DURATION, "phase {phase_ms} ms: taken over after {silent:?}");
        assert!(taken >= answers_until, "phase {phase_ms} ms: {:?} too early", answers_until - taken);
    }
}
