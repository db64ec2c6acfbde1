//! Replays the requests in `typed/*.cases.json` and compares each answer with the one that a real API server gave to
//! the same request (`typed/*.answers.json`, made by `record`).

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Cluster, cluster};

const DEFINITIONS: &str = include_str!("typed/definitions.json");

fn list(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// One answer, without what differs from one run to the next.
#[derive(Debug, PartialEq)]
struct Outcome {
    code: u64,
    body: Value,
    /// How many versions of the object there have been.
    version: u64,
    warnings: Vec<String>,
}

impl Outcome {
    fn new(code: u64, body: &Value, version: u64, warnings: Vec<String>) -> Self {
        let body = if body["kind"] == "Status" { status(body) } else { object(body.clone()) };
        // The server warns of more than fields that it doesn't know, and also when it refuses.
        let ours = |text: &String| code < 300 && text.contains("unknown field");
        let mut warnings: Vec<_> = warnings.into_iter().filter(ours).collect();
        warnings.sort();
        Self { code, body, version, warnings }
    }
}

/// The causes of a refusal in no particular order, or its message where it names none.
fn status(status: &Value) -> Value {
    let mut causes: Vec<Value> = items(&status["details"]["causes"]).to_vec();
    for cause in &mut causes {
        cause["message"] = plain(cause["message"].as_str().unwrap_or_default()).into();
    }
    causes.sort_by_key(Value::to_string);
    let message = if causes.is_empty() { plain(status["message"].as_str().unwrap_or_default()) } else { String::new() };
    json!({ "reason": status["reason"], "message": message, "causes": causes })
}

/// A message without what only the real server's own types can print: whole objects and their differences.
fn plain(message: &str) -> String {
    let message = message.split("\n@@").next().unwrap_or_default();
    if let Some((before, after)) = message.split_once("in record (") {
        let after = after.split_once(')').map_or("", |(_, after)| after);
        return format!("{before}in record (VERSION){after}");
    }
    if message.starts_with("Duplicate value: {\"Name\"") || message.starts_with("Duplicate value: {\"AppProtocol\"") {
        return "Duplicate value: OBJECT".into();
    }
    for (open, close) in
        [("value: {", "}: "), ("value: [{", "}]: "), ("value: \"{", "}\": "), ("value: \"OBJECT", "\": ")]
    {
        if let (Some(start), Some(end)) = (message.find(open), message.rfind(close))
            && start < end
        {
            return format!("{}value: OBJECT: {}", &message[..start], &message[end + close.len()..]);
        }
    }
    message.to_owned()
}

/// An object, or a list, a Table or events of objects, without what differs from one run to the next.
fn object(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = object(item.take())),
        Value::Object(map) => {
            map.remove("resourceVersion");
            for (field, word) in [
                ("uid", "UID"),
                ("creationTimestamp", "TIME"),
                ("deletionTimestamp", "TIME"),
                ("lastTransitionTime", "TIME"),
            ] {
                if map.get(field).is_some_and(|value| !value.is_null()) {
                    map.insert(field.into(), word.into());
                }
            }
            if map.get("clusterIP").is_some_and(|ip| ip != "None") {
                map.insert("clusterIP".into(), "IP".into());
                map.insert("clusterIPs".into(), json!(["IP"]));
            }
            for column in map.get_mut("columnDefinitions").and_then(Value::as_array_mut).into_iter().flatten() {
                column.as_object_mut().unwrap().remove("description");
            }
            if let Some(port) = map.get_mut("nodePort") {
                *port = 0.into();
            }
            for entry in map.values_mut() {
                *entry = object(entry.take());
            }
            if let Some(entries) = map.get_mut("managedFields").and_then(Value::as_array_mut) {
                entries.iter_mut().for_each(|entry| entry["time"] = "TIME".into());
                // Entries are ordered by their times, which differ by the second.
                entries
                    .sort_by_key(|entry| format!("{}{}{}", entry["operation"], entry["manager"], entry["subresource"]));
            }
        }
        // the age of what was just made
        Value::String(text) if text.strip_suffix('s').is_some_and(|n| n.parse::<u8>().is_ok()) => *text = "0s".into(),
        _ => {}
    }
    value
}

fn uids(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = match rest.get(..36) {
            Some(uid) if is_uid(uid) => {
                out.push_str("UID");
                36
            }
            _ => {
                out.push(next);
                next.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

/// `xxxxxxxx-xxxx-4xxx-xxxx-xxxxxxxxxxxx`
fn is_uid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        14 => byte == b'4',
        _ => byte.is_ascii_hexdigit(),
    })
}

#[test]
fn a_uid_is_taken_for_one_whatever_its_digits() {
    for uid in ["01234567-89ab-4def-8123-456789abcdef", "4a4a4a4a-4a4a-4a4a-8a4a-4a4a4a4a4a4a"] {
        assert_eq!(uids(&format!("é-4 {uid}, {uid}-4")), "é-4 UID, UID-4");
    }
    assert_eq!(uids("case-4-of-many"), "case-4-of-many");
}

/// `version` is the object's newest, for a body that says `VERSION`.
async fn carry_out(cluster: &Cluster, namespace: &str, step: &Value, version: &str) -> (u64, Value, Vec<String>) {
    let text = |name: &str| step[name].as_str().unwrap_or_default();
    let at = text("at").replace("/ns/", &format!("/{namespace}/"));
    let (collection, _) = at.rsplit_once('/').unwrap();
    let mut query = match text("do") {
        "get" | "list" | "watch" | "delete" => String::new(),
        _ => format!("fieldManager={}", step["as"].as_str().unwrap_or("-")),
    };
    if !text("query").is_empty() {
        query = format!("{query}&{}", text("query"));
    }
    let kind = step["type"].as_str().unwrap_or("application/json");
    let (method, path, kind) = match text("do") {
        "create" => ("POST", collection, kind),
        "post" => ("POST", at.as_str(), kind),
        "replace" => ("PUT", at.as_str(), kind),
        "merge" => ("PATCH", at.as_str(), "application/merge-patch+json"),
        "json" => ("PATCH", at.as_str(), "application/json-patch+json"),
        "strategic" => ("PATCH", at.as_str(), "application/strategic-merge-patch+json"),
        "apply" => {
            query = format!("{query}&force={}", step["force"] == true);
            ("PATCH", at.as_str(), "application/apply-patch+yaml")
        }
        "get" | "list" => ("GET", at.as_str(), kind),
        "watch" => {
            query = format!("{query}&watch=1&timeoutSeconds=1");
            ("GET", at.as_str(), kind)
        }
        "delete" => ("DELETE", at.as_str(), kind),
        other => panic!("unknown verb `{other}`"),
    };
    let own = format!("\"{namespace}\"");
    let body = match step.get("base64") {
        Some(bytes) => base64::engine::general_purpose::STANDARD.decode(bytes.as_str().unwrap()).unwrap(),
        None if step["body"].is_null() => Vec::new(),
        None => {
            let text = step["body"].to_string().replace("\"ns\"", &own);
            text.replace("\"VERSION\"", &format!("\"{version}\"")).into_bytes()
        }
    };
    let accept = step["accept"].as_str().unwrap_or("application/json");
    let mut raw = cluster.send_bytes(method, &format!("/{path}?{query}"), kind, accept, body).await;
    if text("do") == "watch" && raw.code == 200 {
        let lines = raw.body.as_str().map_or_else(|| raw.body.to_string(), str::to_owned);
        raw.body = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    }
    let answer = uids(&raw.body.to_string()).replace(namespace, "ns");
    let warnings = raw
        .warnings
        .iter()
        .map(|w| w.trim_start_matches("299 - \"").strip_suffix('"').unwrap_or(w).to_owned())
        .collect();
    // The version stays beside the body, for it is not compared.
    let mut body: Value = serde_json::from_str(&answer).unwrap();
    if body["metadata"]["resourceVersion"].is_string() {
        body["metadata"]["resourceVersion"] = raw.body["metadata"]["resourceVersion"].clone();
    }
    (u64::from(raw.code), body, warnings)
}

/// Steps that the sandbox answers otherwise on purpose, each with the reason; one that no longer differs is an error.
const ON_PURPOSE: [(&str, usize, &str); 4] = [
    ("events by their object", 0, ABSENT_TIMES),
    ("events by their object", 1, ABSENT_TIMES),
    ("events by their object", 2, ABSENT_TIMES),
    ("events by their object", 3, ABSENT_TIMES),
];

const ABSENT_TIMES: &str = "a time that isn't there is left out, not null";

async fn replay(cases: &str, answers: &str) {
    let cluster = cluster().await;
    for definition in list(DEFINITIONS) {
        let answer = cluster.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
    }
    let mut failures = Vec::new();
    for (number, (case, recorded)) in list(cases).iter().zip(&list(answers)).enumerate() {
        assert_eq!(case["name"], recorded["name"], "the recording is of other cases: run `record`");
        let namespace = format!("case-{number}-of-many");
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        cluster.post("/api/v1/namespaces", &object).await;
        let mut versions: Vec<(String, String, u64)> = Vec::new();
        for (i, (step, expected)) in items(&case["steps"]).iter().zip(items(&recorded["steps"])).enumerate() {
            let at = step["at"].as_str().unwrap().trim_end_matches("/status").to_owned();
            let newest = versions.iter().find(|(of, ..)| *of == at).map_or("", |(_, version, _)| version).to_owned();
            let (code, body, warnings) = carry_out(&cluster, &namespace, step, &newest).await;
            let version = body["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            let known = match versions.iter_mut().find(|(of, ..)| *of == at) {
                Some(known) => known,
                None => {
                    versions.push((at, String::new(), 0));
                    versions.last_mut().unwrap()
                }
            };
            // a list has the version of everything
            if step["do"] != "list" && !version.is_empty() && known.1 != version {
                (known.1, known.2) = (version, known.2 + 1);
            }
            let got = Outcome::new(code, &body, known.2, warnings);
            let texts = |value: &Value| items(value).iter().map(|w| w.as_str().unwrap().to_owned()).collect();
            let want = Outcome::new(
                expected["code"].as_u64().unwrap(),
                &expected["body"],
                expected["version"].as_u64().unwrap(),
                texts(&expected["warnings"]),
            );
            let on_purpose = ON_PURPOSE.iter().find(|(name, step, _)| case["name"] == *name && *step == i);
            if let Some((name, step, reason)) = on_purpose {
                assert!(got != want, "{name} [{step}] is as recorded now, but listed as different because {reason}");
            } else if got != want {
                failures.push(format!("{} [{i}]\n{}", case["name"], differences(&want, &got).join("\n")));
            }
        }
    }
    assert!(failures.is_empty(), "{} answers differ\n\n{}", failures.len(), failures.join("\n\n"));
}

fn differences(want: &Outcome, got: &Outcome) -> Vec<String> {
    let mut out = Vec::new();
    if want.code != got.code {
        return vec![format!("  code {}, not {}: {} instead of {}", got.code, want.code, got.body, want.body)];
    }
    if want.version != got.version {
        out.push(format!("  {} versions, not {}", got.version, want.version));
    }
    if want.warnings != got.warnings {
        out.push(format!("  warnings {:?}, not {:?}", got.warnings, want.warnings));
    }
    compare("", &want.body, &got.body, &mut out);
    out
}

fn compare(path: &str, want: &Value, got: &Value, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for name in want.keys().chain(got.keys().filter(|name| !want.contains_key(*name))) {
                let null = Value::Null;
                compare(
                    &format!("{path}.{name}"),
                    want.get(name).unwrap_or(&null),
                    got.get(name).unwrap_or(&null),
                    out,
                );
            }
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            for (i, (want, got)) in want.iter().zip(got).enumerate() {
                compare(&format!("{path}[{i}]"), want, got, out);
            }
        }
        (want, got) if want == got => {}
        (want, got) => out.push(format!("  {path}\n    want {want}\n    got  {got}")),
    }
}

macro_rules! recorded {
    ($test:ident, $file:literal) => {
        #[tokio::test]
        async fn $test() {
            let cases = include_str!(concat!("typed/", $file, ".cases.json"));
            replay(cases, include_str!(concat!("typed/", $file, ".answers.json"))).await;
        }
    };
}

recorded!(applies_are_answered_as_by_a_real_server, "apply");
recorded!(updates_are_answered_as_by_a_real_server, "update");
recorded!(custom_resources_are_answered_as_by_a_real_server, "custom");
recorded!(defaults_are_those_of_a_real_server, "defaults");
recorded!(refusals_are_those_of_a_real_server, "refusals");
recorded!(leases_are_answered_as_by_a_real_server, "leases");
recorded!(each_kind_of_request_is_answered_as_by_a_real_server, "requests");
