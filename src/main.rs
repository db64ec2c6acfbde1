//! Parses the command line, installs the TLS provider, runs the command and turns its result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("the first statement of the process installs the only TLS provider");
    afresh::cli::main()
}
