//! `afresh sandbox`, and the playground that `run --sandbox` and the demo share with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterOptions};
use crate::sandbox::{self, Options, Sandbox, controllers, kubelet};

#[derive(clap::Args, Debug)]
pub struct SandboxArgs {
    /// A loopback address to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// Where to write a kubeconfig for it
    #[arg(long, value_name = "FILE", default_value = "sandbox.kubeconfig")]
    kubeconfig_out: PathBuf,
}

/// An embedded API server with its controllers and a kubelet without containers. Ends when dropped.
pub struct Playground {
    pub sandbox: Sandbox,
    pub cluster: Cluster,
}

impl Playground {
    /// Starts all of it and writes the kubeconfig.
    pub async fn start(options: Options, kubeconfig: &Path, cancel: &CancellationToken) -> anyhow::Result<Self> {
        let sandbox = Sandbox::start(options).await?;
        sandbox.write_kubeconfig(kubeconfig)?;
        let client = client(kubeconfig).await?;
        tokio::spawn(controllers::run(client.clone(), cancel.clone()));
        tokio::spawn(kubelet::run(client, None, cancel.clone()));
        let cluster = Cluster::connect(Some(kubeconfig), None, ClusterOptions::default()).await?;
        Ok(Self { sandbox, cluster })
    }
}

/// A client for what belongs to the cluster rather than to the daemon.
async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
    kube::Client::try_from(config).context("the sandbox's own kubeconfig is not usable")
}

pub async fn run(args: SandboxArgs) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let options = sandbox::Options { listen: args.listen, ..Default::default() };
    let playground = Playground::start(options, &args.kubeconfig_out, &cancel).await?;
    let file = args.kubeconfig_out.display();
    anstream::eprintln!(
        "the sandbox listens on {}; it keeps everything in memory and is not a place for production",
        playground.sandbox.url()
    );
    anstream::eprintln!("try: kubectl --kubeconfig {file} get all -A");
    anstream::eprintln!("     afresh crds | kubectl --kubeconfig {file} apply --server-side -f -");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cancel.cancel();
    playground.sandbox.shutdown().await;
    Ok(())
}
