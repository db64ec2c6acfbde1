//! Logs on stderr: for people, or one JSON object a line.

use tracing_subscriber::EnvFilter;

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

/// Sends the process's logs to stderr. `AFRESH_LOG` holds tracing's directives.
pub fn install(format: LogFormat) {
    let base = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(std::io::stderr).with_target(false);
    // a second subscriber in one process (tests) keeps the first
    let _ = match format {
        LogFormat::Human => base.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => base.json().flatten_event(true).try_init(),
    };
}

/// Sends the process's logs to a file, as [`install`] does for people.
pub fn install_into(file: std::fs::File) {
    let to_file = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(file).with_target(false);
    let _ = to_file.with_ansi(false).try_init();
}

/// The HTTP client's own lines about an answer name no object; whoever asked tells what it means.
const DEFAULT: &str = "info,kube_client=off";

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("AFRESH_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT))
}
