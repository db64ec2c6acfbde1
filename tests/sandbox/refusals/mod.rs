//! The sandbox refuses what a real API server refuses, in its words.
//!
//! `cases.json` holds requests, `answers.json` what kube-apiserver answered to the last request of each. After a change
//! of the cases, or of the server's version:
//!
//! ```text
//! KUBEBUILDER_ASSETS=$(tests/tools/build) cargo test --test sandbox -- --ignored record_the_answers
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::support::{PATIENCE, cluster};

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    method: String,
    path: String,
    #[serde(default, rename = "type")]
    content_type: String,
    #[serde(default)]
    body: Value,
}

/// The comparable part of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Answer {
    code: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    details: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/refusals")
}

fn cases() -> Vec<Case> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("cases.json")).unwrap()).unwrap()
}

/// Differences that say nothing: uids, and the dumps of Go structs that some messages end with.
fn normal(text: &str) -> String {
    let text = text.split("\n@@").next().unwrap_or_default();
    let text = &without_objects(text);
    let is_uid = |candidate: &str| {
        candidate.len() == 36
            && candidate.char_indices().all(|(i, c)| match i {
                8 | 13 | 18 | 23 => c == '-',
                _ => c.is_ascii_hexdigit(),
            })
    };
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        if rest.get(..36).is_some_and(is_uid) {
            out.push_str("<uid>");
            rest = &rest[36..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Whole objects in messages are printed by Go's own rules.
fn without_objects(text: &str) -> String {
    let from = text.find("value: {").or_else(|| text.find("value: [{"));
    match (from, text.rfind('}')) {
        (Some(start), Some(end)) if start < end => format!("{}value: OBJECT{}", &text[..start], &text[end + 1..]),
        _ => text.to_owned(),
    }
}

fn normal_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = normal(text),
        Value::Array(list) => list.iter_mut().for_each(normal_value),
        Value::Object(map) => map.values_mut().for_each(normal_value),
        _ => {}
    }
}

async fn send(client: &Client, step: &Step) -> Answer {
    let mut request = http::Request::builder().method(step.method.as_str()).uri(&step.path);
    request = request.header("accept", "application/json");
    if !step.content_type.is_empty() {
        request = request.header("content-type", &step.content_type);
    }
    let body = if step.body.is_null() { Vec::new() } else { step.body.to_string().into_bytes() };
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|w| w.to_str().unwrap_or_default().to_owned()).collect();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if body["kind"] != "Status" || body["status"] != "Failure" {
        return Answer { code, warnings, ..Answer::default() };
    }
    let mut details = body["details"].clone();
    normal_value(&mut details);
    Answer {
        code,
        reason: body["reason"].as_str().unwrap_or_default().to_owned(),
        message: normal(body["message"].as_str().unwrap_or_default()),
        details,
        warnings,
    }
}

/// A kind that was just defined is served within moments.
async fn send_patiently(client: &Client, step: &Step) -> Answer {
    let custom = step.path.starts_with("/apis/example.com/");
    let attempt = async {
        loop {
            let answer = send(client, step).await;
            if !custom || answer.code != 404 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, attempt).await.unwrap()
}

async fn run(client: &Client, case: &Case) -> Answer {
    let mut last = Answer::default();
    for step in &case.steps {
        last = send_patiently(client, step).await;
    }
    last
}

#[tokio::test]
async fn refusals_are_those_of_a_real_api_server() {
    let answers: BTreeMap<String, Answer> =
        serde_json::from_str(&std::fs::read_to_string(folder().join("answers.json")).unwrap()).unwrap();
    let mut differences = String::new();
    for case in cases() {
        let c = cluster().await;
        let answer = run(&c.client, &case).await;
        let Some(expected) = answers.get(&case.name) else { panic!("`{}` was not recorded", case.name) };
        let mut expected = expected.clone();
        expected.message = normal(&expected.message);
        normal_value(&mut expected.details);
        if answer != expected {
            let show = |answer: &Answer| serde_json::to_string(answer).unwrap();
            writeln!(differences, "{}\n  real    {}\n  sandbox {}", case.name, show(&expected), show(&answer)).unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[tokio::test]
#[ignore = "writes answers.json from a real API server"]
async fn record_the_answers() {
    let plane = ControlPlane::start().await.unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let step = |method: &str, path: &str, content_type: &str, body: Value| Step {
        method: method.into(),
        path: path.into(),
        content_type: content_type.into(),
        body,
    };
    let mut lines = Vec::new();
    for (i, mut case) in cases().into_iter().enumerate() {
        // a namespace of its own for each case; the answers speak of `default`
        let namespace = format!("case-{i}");
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        send(&client, &step("POST", "/api/v1/namespaces", "application/json", made)).await;
        let account = step("GET", &format!("/api/v1/namespaces/{namespace}/serviceaccounts/default"), "", Value::Null);
        let ready = async {
            while send(&client, &account).await.code != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap();
        for step in &mut case.steps {
            step.path = step.path.replace("/namespaces/default/", &format!("/namespaces/{namespace}/"));
        }
        let answer = serde_json::to_string(&run(&client, &case).await).unwrap().replace(&namespace, "default");
        lines.push(format!("{}: {answer}", Value::from(case.name.as_str())));
        let widgets = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
        send(&client, &step("DELETE", widgets, "", Value::Null)).await;
        let gone = async {
            while send(&client, &step("GET", widgets, "", Value::Null)).await.code != 404 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }
    std::fs::write(folder().join("answers.json"), format!("{{\n{}\n}}\n", lines.join(",\n"))).unwrap();
}
