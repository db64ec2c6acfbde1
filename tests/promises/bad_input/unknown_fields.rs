//! Fields that the API server doesn't know.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::env::Env;
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    an_unknown_field_is_left_out_and_named_with_its_own_line,
    an_unknown_field_is_refused_with_its_own_line_where_that_is_asked_for,
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: { app: web }
  ports:
  - name: metrics
    port: 9090
  - name: http
    port: 80
    targetport: 8080
";

async fn until_told(env: &Env, place: &str) {
    env.eventually(&format!("an Event names {place}"), async || {
        let told = |(reason, text): &(String, String)| {
            reason == "UnknownField" && text.starts_with(&format!("{place}: ")) && text.contains("`.spec.ports[")
        };
        env.events("app").await.iter().any(told).then_some(())
    })
    .await;
}

async fn an_unknown_field_is_left_out_and_named_with_its_own_line(env: &mut Env) {
    env.begin(&[("app/web.yaml", SERVICE)]).await;
    until_told(env, "app/web.yaml:12").await;

    // The same objects, further down in their file: what is sent again is told at its new place.
    let moved = env.push("B", &[("app/web.yaml", &format!("# The web.\n# It has two ports.\n{SERVICE}"))]);
    env.announce().await;
    env.ready_at("app", &moved).await;
    let change = json!({ "spec": { "selector": { "app": "another" } } });
    env.objects("Service").patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    env.until_live("Service", "web", "it is corrected", |web| web["spec"]["selector"]["app"] == "web").await;
    until_told(env, "app/web.yaml:14").await;
}

async fn an_unknown_field_is_refused_with_its_own_line_where_that_is_asked_for(env: &mut Env) {
    env.arguments.extend(["--field-validation".to_owned(), "strict".to_owned()]);
    env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let b = env.push("B", &[("app/web.yaml", SERVICE)]);
    env.announce().await;
    env.failed_at("app", &b, "app/web.yaml:12").await;
    assert!(env.live("Service", "web").await.is_none());
    let c = env.push("C", &[("app/web.yaml", &SERVICE.replace("targetport", "targetPort"))]);
    env.announce().await;
    env.ready_at("app", &c).await;
}
