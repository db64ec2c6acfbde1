//! Traces: one for each attempt, a span for each stage; and a collector that hangs delays nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::support::env::Env;
use crate::support::manifests::{config_map, deployment};
use crate::support::receiver::{Answers, Receiver};
use crate::support::scenarios;

scenarios! {
    an_attempt_is_one_trace_with_a_span_for_each_stage,
    a_collector_that_hangs_delays_nothing,
}

fn spans(collector: &Receiver) -> Vec<Span> {
    let requests = collector.received();
    let decoded = requests.iter().filter(|request| request.path == "/v1/traces").map(|request| {
        assert_eq!(request.header("content-type"), "application/x-protobuf");
        ExportTraceServiceRequest::decode(request.body.clone()).expect("OTLP")
    });
    decoded.flat_map(|export| export.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Any::StringValue(text)) => text,
        _ => String::new(),
    }
}

async fn an_attempt_is_one_trace_with_a_span_for_each_stage(env: &mut Env) {
    let collector = Receiver::start(&env.canaries).await;
    env.arguments.extend(["--otlp-endpoint".into(), collector.url.clone()]);
    let a = env.push("A", &[("app/web.yaml", &deployment("web", "web:1")), ("app/x.yaml", &config_map("x", "a"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |spec| spec["wait"] = serde_json::json!(true)).await;
    env.start();
    env.ready_at("app", &a).await;
    let b = env.push_changes("B", &[("app/x.yaml", None)]);
    env.announce().await;
    env.ready_at("app", &b).await;
    let of = |revision: &str| {
        let spans = spans(&collector);
        let root =
            spans.iter().find(|span| span.name == "attempt" && attribute(span, "afresh.revision") == revision)?;
        let stages = spans.iter().filter(|span| span.parent_span_id == root.span_id && span.trace_id == root.trace_id);
        let names: BTreeSet<String> = stages.map(|span| span.name.clone()).collect();
        Some((root.clone(), names))
    };
    let (root, stages) = env.eventually("the trace of B", async || of(&b)).await;
    assert_eq!(stages, ["apply", "fetch", "health", "probe", "prune", "render"].map(str::to_owned).into());
    assert_eq!(attribute(&root, "afresh.result"), "applied");
    assert_eq!(attribute(&root, "afresh.name"), "app");
    let all = spans(&collector);
    for span in all.iter().filter(|span| span.trace_id == root.trace_id) {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        assert!(span.start_time_unix_nano + 1_000_000 >= root.start_time_unix_nano, "{} begins before it", span.name);
    }
    let broken = env.push("C", &[("app/web.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/web.yaml").await;
    let (root, _) = env.eventually("the trace of C", async || of(&broken)).await;
    assert_eq!(attribute(&root, "afresh.reason"), "BuildFailed");
    assert!(root.status.is_some_and(|status| status.message.contains("app/web.yaml")));
}

async fn a_collector_that_hangs_delays_nothing(env: &mut Env) {
    let collector = Receiver::start(&env.canaries).await;
    collector.answer(Answers::Never);
    env.arguments.extend(["--otlp-endpoint".into(), collector.url.clone()]);
    env.begin(&[("app/x.yaml", &config_map("x", "a"))]).await;
    env.eventually("something is sent", async || (!collector.received().is_empty()).then_some(())).await;
    let begun = std::time::Instant::now();
    let b = env.push("B", &[("app/x.yaml", &config_map("x", "b"))]);
    env.announce().await;
    env.ready_at("app", &b).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // neither does it hold up the end
    env.daemon.take().unwrap().stop().await.unwrap();
}
