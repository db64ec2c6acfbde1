//! The YAML reader against the answers of the Go library that kubectl and Flux use (`cases.json`).

mod examples;

use afresh::manifest::yaml;
use serde_json::Value;

#[derive(serde::Deserialize)]
struct Recorded {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    yaml: String,
    json: Option<String>,
    error: Option<String>,
    strict_error: Option<String>,
}

fn first(case: &Case) -> Result<Value, String> {
    let documents = yaml::documents("case.yaml", case.yaml.as_bytes()).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().next().map_or(Value::Null, |document| document.value))
}

/// Numbers as Go's decoder holds them: integers if they fit 64 bits, else doubles.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64() && a.as_i64() == b.as_i64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => ours == theirs,
    }
}

#[test]
fn hard_documents_are_read_as_kubectl_reads_them() {
    let recorded: Recorded = serde_json::from_str(include_str!("cases.json")).expect("cases.json is JSON");
    assert_eq!(recorded.cases.len(), 113);
    let mut wrong = Vec::new();
    for case in &recorded.cases {
        let ours = first(case);
        // What go-yaml refuses in strict mode only: a key given twice is our error too, an overridden merge isn't.
        let duplicate = case.strict_error.is_some() && !case.yaml.contains("<<");
        let equal = match (&ours, &case.json, &case.error) {
            (Err(_), _, Some(_)) => true,
            (Err(_), Some(_), None) => duplicate,
            (Ok(ours), Some(json), None) => {
                !duplicate && same(ours, &serde_json::from_str(json).expect("recorded JSON"))
            }
            _ => false,
        };
        if !equal {
            wrong.push(format!("{}: {:?}, recorded {:?} {:?}", case.name, ours, case.json, case.error));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), recorded.cases.len(), wrong.join("\n"));
}
