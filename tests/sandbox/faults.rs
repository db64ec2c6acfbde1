//! Faults happen when they are asked for, as often as asked for, and nowhere else.

use std::time::Duration;

use afresh::sandbox::{Effect, Match, Options, Rule, Sandbox, SandboxError, Verb};
use serde_json::json;

use crate::support::{CONFIG_MAPS, PATIENCE, cluster, config_map};

#[tokio::test]
async fn a_rule_answers_for_the_requests_it_names_and_no_others() {
    let c = cluster().await;
    let rule = Rule {
        matches: Match::verb(Verb::Create).on("configmaps").named("a"),
        effect: Effect::Answer { code: 503, message: "not now".into() },
        times: Some(1),
    };
    let id = c.sandbox.faults().add(rule);
    let other = c.post(CONFIG_MAPS, &config_map("b", &json!({}))).await;
    assert_eq!(other.code, 201);
    let hit = c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    assert_eq!((hit.code, hit.reason(), hit.message()), (503, "ServiceUnavailable", "not now"));
    assert_eq!(c.sandbox.faults().applied(id), 1);
    assert_eq!(c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.code, 201);
}

#[tokio::test]
async fn denials_read_as_webhooks_and_rbac_write_them() {
    let c = cluster().await;
    let deny = Effect::Deny { webhook: "policy.example.com".into(), message: "no".into(), code: 403 };
    c.sandbox.faults().once(Match::writes(), deny);
    let denied = c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    assert_eq!(denied.message(), "admission webhook \"policy.example.com\" denied the request: no");
    c.sandbox.faults().once(Match::writes(), Effect::Forbid);
    let forbidden = c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await;
    assert_eq!(
        forbidden.message(),
        "configmaps is forbidden: User \"sandbox\" cannot create resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
    assert_eq!(c.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.code, 201);
}

#[tokio::test]
async fn a_dropped_answer_leaves_the_write_done() {
    let c = cluster().await;
    c.sandbox.faults().once(Match::writes(), Effect::DropAfter);
    let request = http::Request::post(CONFIG_MAPS).header("content-type", "application/json");
    let body = config_map("a", &json!({})).to_string().into_bytes();
    assert!(c.client.send(request.body(body.into()).unwrap()).await.is_err());
    assert_eq!(c.get(&format!("{CONFIG_MAPS}/a")).await.code, 200);
}

#[tokio::test]
async fn a_slow_write_lands_after_its_client_has_gone() {
    let c = cluster().await;
    c.sandbox.faults().once(Match::writes(), Effect::Delay(Duration::from_millis(200)));
    let map = config_map("a", &json!({}));
    let write = c.post(CONFIG_MAPS, &map);
    assert!(tokio::time::timeout(Duration::from_millis(50), write).await.is_err());
    assert_eq!(c.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    c.until(&format!("{CONFIG_MAPS}/a"), "there", |a| a.code == 200).await;

    c.sandbox.faults().once(Match::writes(), Effect::LandLate(Duration::from_millis(100)));
    let patch = http::Request::patch(format!("{CONFIG_MAPS}/a")).header("content-type", "application/merge-patch+json");
    assert!(c.client.send(patch.body(br#"{"data":{"x":"late"}}"#.to_vec().into()).unwrap()).await.is_err());
    c.until(&format!("{CONFIG_MAPS}/a"), "written", |a| a.body["data"]["x"] == "late").await;
}

#[tokio::test]
async fn a_hanging_request_ends_when_the_rule_goes() {
    let c = cluster().await;
    let id = c.sandbox.faults().always(Match::verb(Verb::List), Effect::Hang);
    let request = http::Request::get(CONFIG_MAPS).body(Vec::new().into()).unwrap();
    let hanging = tokio::spawn({
        let client = c.client.clone();
        async move { client.send(request).await }
    });
    let begun = async {
        while c.sandbox.faults().applied(id) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    assert!(!hanging.is_finished());
    c.sandbox.faults().remove(id);
    assert!(tokio::time::timeout(PATIENCE, hanging).await.unwrap().unwrap().is_err());
    assert_eq!(c.get(CONFIG_MAPS).await.code, 200);
}

#[tokio::test]
async fn requests_are_counted_and_remembered() {
    let c = cluster().await;
    c.sandbox.requests().reset();
    c.post(&format!("{CONFIG_MAPS}?fieldManager=me"), &config_map("a", &json!({}))).await;
    c.get(&format!("{CONFIG_MAPS}/a")).await;
    c.get(&format!("{CONFIG_MAPS}/b")).await;
    let journal = c.sandbox.requests();
    assert_eq!((journal.total(), journal.writes()), (3, 1));
    assert_eq!(journal.counts()[&(Verb::Get, "configmaps".to_owned(), 404)], 1);
    let writes = journal.find(|e| e.verb.writes());
    assert_eq!((writes[0].name.as_str(), writes[0].manager.as_str(), writes[0].code), ("a", "me", 201));
}

#[tokio::test]
async fn the_sandbox_is_reachable_from_this_machine_only_and_asks_for_its_token() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options { listen: ([0, 0, 0, 0], 0).into(), token: None };
    assert!(matches!(Sandbox::start(options).await, Err(SandboxError::NotLoopback(_))));
    let options = Options { token: Some("s3cret".into()), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/version", sandbox.url());
    assert_eq!(http.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(http.get(&url).bearer_auth("s3cret").send().await.unwrap().status(), 200);
    assert!(sandbox.kubeconfig_yaml().contains("s3cret"));
}
