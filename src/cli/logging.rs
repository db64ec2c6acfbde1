//! Logs on stderr: for people, or one JSON object a line.

use std::io::IsTerminal as _;

use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

/// Sends the process's logs to stderr. `AFRESH_LOG` holds tracing's directives.
pub fn install(format: LogFormat) {
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // a second subscriber in one process (tests) keeps the first
    let _ = tracing_subscriber::registry().with(lines.with_filter(allowed()).with_filter(filter())).try_init();
}

/// Sends the process's logs to a file, as [`install`] does for people.
pub fn install_into(file: std::fs::File) {
    let lines = fmt::layer().with_writer(file).with_target(false).with_ansi(false);
    let _ = tracing_subscriber::registry().with(lines.with_filter(allowed()).with_filter(filter())).try_init();
}

/// What [`LogFormat::Json`] writes with these directives.
pub fn json<W>(directives: &str, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer::<Registry>().with_writer(writer).with_target(false).json().flatten_event(true);
    tracing_subscriber::registry().with(lines.with_filter(allowed()).with_filter(EnvFilter::new(directives)))
}

const DEFAULT: &str = "info";

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("AFRESH_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT))
}

/// Libraries that log what is sent and answered, or proxies with their passwords, hence values of Secrets: they have no
/// say, whatever is asked for. (An answer of the API server would name no object either; whoever asked tells what it means.)
const SILENT: [&str; 2] = ["kube_client", "reqwest"];

fn allowed() -> FilterFn<fn(&Metadata<'_>) -> bool> {
    FilterFn::new(|metadata| {
        let of = |library: &str| {
            metadata.target().strip_prefix(library).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        !SILENT.into_iter().any(of)
    })
}
