//! Traces: one for each attempt, with a span for each stage, sent to a collector by OTLP (HTTP, protocol buffers).
//!
//! Off unless an endpoint is configured; then nothing is recorded at all. Spans go through a bounded queue to a thread of
//! its own: a collector that hangs, or is not there, costs spans and nothing else.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Span as _, SpanBuilder, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use super::metrics::Stage;
use crate::api::Key;

/// Bound on one delivery to the collector.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the end of the process waits for spans that were not sent yet.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// The path at which collectors take traces, below the configured endpoint.
const TRACES_PATH: &str = "v1/traces";
/// Status descriptions are short by convention; conditions hold the whole message.
const MESSAGE_CHARS_MAX: usize = 500;

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces can't be sent to `{endpoint}`: {why}\nhint: give a collector's address as `http://host:4318`")]
pub struct TracesError {
    endpoint: String,
    why: String,
}

/// Where traces go; cheap to clone. The default records nothing.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Sending>>);

struct Sending {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Traces of the daemon in this version go to the collector at `endpoint`, an `http(s)://…` without the path of the
    /// signal.
    pub fn to(endpoint: &str, version: &str) -> Result<Self, TracesError> {
        let failed = |why: String| TracesError { endpoint: endpoint.to_owned(), why };
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(failed("it is not an address of HTTP".into()));
        }
        let url = format!("{}/{TRACES_PATH}", endpoint.trim_end_matches('/'));
        let client = client(endpoint).map_err(|error| failed(error.to_string()))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let version = KeyValue::new("service.version", version.to_owned());
        let resource = Resource::builder().with_service_name("afresh").with_attribute(version).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let tracer = provider.tracer("afresh");
        Ok(Self(Some(Arc::new(Sending { provider, tracer }))))
    }

    /// An attempt that began at `since`.
    pub fn attempt(&self, app: &Key, cause: &'static str, since: Instant) -> AttemptTrace {
        let Some(sending) = &self.0 else { return AttemptTrace(None) };
        let attributes = vec![
            KeyValue::new("afresh.kind", "Kustomization"),
            KeyValue::new("afresh.namespace", app.namespace.clone()),
            KeyValue::new("afresh.name", app.name.clone()),
            KeyValue::new("afresh.cause", cause),
        ];
        let span = SpanBuilder::from_name("attempt").with_attributes(attributes).with_start_time(when(since));
        let span = sending.tracer.build_with_context(span, &Context::new());
        AttemptTrace(Some((sending.tracer.clone(), Context::new().with_span(span))))
    }

    /// Sends what is left, as far as that is quickly done.
    pub fn shut_down(self) {
        let Some(sending) = self.0 else { return };
        let (done, wait) = mpsc::channel();
        // the provider's own end would wait for a collector that hangs
        std::thread::spawn(move || {
            let _ = done.send(sending.provider.shutdown());
            // whoever still holds it may not be the one that waits
            drop(sending);
        });
        if wait.recv_timeout(GOODBYE_MAX).is_err() {
            tracing::warn!("the collector of traces does not answer: the last of them are lost");
        }
    }
}

/// The trace of one attempt. Dropped without an end: it gave way.
pub struct AttemptTrace(Option<(SdkTracer, Context)>);

impl AttemptTrace {
    /// A stage that begins now and ends when this is dropped.
    pub fn stage(&self, stage: Stage) -> StageTrace {
        let Some((tracer, attempt)) = &self.0 else { return StageTrace { _span: None } };
        StageTrace { _span: Some(tracer.build_with_context(SpanBuilder::from_name(stage.label()), attempt)) }
    }

    /// A stage that is over.
    pub fn was(&self, stage: Stage, from: Instant, to: Instant) {
        let Some((tracer, attempt)) = &self.0 else { return };
        let span = SpanBuilder::from_name(stage.label()).with_start_time(when(from));
        tracer.build_with_context(span, attempt).end_with_timestamp(when(to));
    }

    /// What the attempt came to; `failure`: reason and message.
    pub fn ended(&self, result: &'static str, revision: Option<&str>, failure: Option<(&str, &str)>) {
        let Some((_, attempt)) = &self.0 else { return };
        let span = attempt.span();
        span.set_attribute(KeyValue::new("afresh.result", result));
        if let Some(revision) = revision {
            span.set_attribute(KeyValue::new("afresh.revision", revision.to_owned()));
        }
        if let Some((reason, message)) = failure {
            span.set_attribute(KeyValue::new("afresh.reason", reason.to_owned()));
            span.set_status(Status::error(message.chars().take(MESSAGE_CHARS_MAX).collect::<String>()));
        }
        span.end();
    }
}

/// A span that ends with it.
pub struct StageTrace {
    _span: Option<Span>,
}

fn when(instant: Instant) -> SystemTime {
    SystemTime::now() - instant.elapsed()
}

/// A blocking client is made and used outside of the runtime.
fn client(endpoint: &str) -> Result<reqwest::blocking::Client, reqwest::Error> {
    let plain = endpoint.starts_with("http://");
    let make = move || {
        let builder = || reqwest::blocking::Client::builder().timeout(TIMEOUT);
        // a machine without system certificates can speak plain HTTP
        builder().build().or_else(|error| if plain { builder().tls_certs_only([]).build() } else { Err(error) })
    };
    std::thread::scope(|scope| scope.spawn(make).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
