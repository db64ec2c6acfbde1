//! The command line: one file per command; the only place that prints, and that reads the environment.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, of `migrate --check` 3:
//! something is there that is not served, and of `diff` as of kubectl's: 1 different, 2 failed.

mod allocator;
mod bases;
mod check;
mod connect;
mod crds;
pub mod daemon;
mod demo;
mod diff;
mod get;
mod identities;
mod kustomization;
pub mod logging;
mod migrate;
mod reconcile;
mod reference;
mod rollouts;
mod sandbox;

pub mod directory;
pub mod render;
pub mod run;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// A GitOps daemon that speaks Flux's API and never lets a broken push hold back its fix.
#[derive(Parser)]
#[command(name = "afresh", version, propagate_version = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Follow Git and keep a cluster as it declares
    Run(run::RunArgs),
    /// Show the sources and applications of a cluster
    Get(get::GetArgs),
    /// Ask for a reconciliation now and wait for its end
    Reconcile(reconcile::ReconcileArgs),
    /// Stop reconciling an application; what runs keeps running
    Suspend(reconcile::TargetArgs),
    /// Go on reconciling a suspended application
    Resume(reconcile::TargetArgs),
    /// Show what a folder of a working copy would declare
    Render(render::RenderArgs),
    /// Show what would change in a cluster, by dry-run
    Diff(diff::DiffArgs),
    /// Show what policies say of a folder of a working copy
    Check(check::CheckArgs),
    /// Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -`
    Crds,
    /// Serve the embedded Kubernetes API server
    Sandbox(sandbox::SandboxArgs),
    /// Play the story that the project exists for: a broken push, and its fix
    Demo(demo::DemoArgs),
    /// Say what becomes of a cluster that Flux serves now
    Migrate(migrate::MigrateArgs),
    /// Print every flag and environment variable, as docs/operations.md has them
    #[command(hide = true)]
    Reference,
    /// Print the version
    Version,
}

/// Parses, runs, and turns the result into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Get(args) => on_runtime(get::run(args)),
        Command::Reconcile(args) => on_runtime(reconcile::reconcile(args)),
        Command::Suspend(args) => on_runtime(reconcile::suspend(args, true)),
        Command::Resume(args) => on_runtime(reconcile::suspend(args, false)),
        Command::Render(args) => return render::run(&args),
        Command::Check(args) => return check::run(&args),
        Command::Diff(args) => return on_runtime(async { Ok(diff::run(args).await) }).unwrap_or(ExitCode::from(2)),
        Command::Crds => crds::run(),
        Command::Sandbox(args) => on_runtime(sandbox::run(args)),
        Command::Demo(args) => demo::run(&args),
        Command::Migrate(args) => match on_runtime(migrate::run(args)) {
            Ok(false) => return ExitCode::from(migrate::NOT_ALL_SERVED),
            other => other.map(drop),
        },
        Command::Reference => {
            anstream::print!("{}", reference::text(Cli::command()));
            Ok(())
        }
        Command::Version => {
            anstream::println!("afresh {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each once.
fn print_error(error: &anyhow::Error) {
    let red = anstyle::AnsiColor::Red.on_default().effects(anstyle::Effects::BOLD);
    anstream::eprintln!("{red}error{red:#}: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            anstream::eprintln!("  because: {cause}");
            said = cause;
        }
    }
}

fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
