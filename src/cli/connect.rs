//! Which cluster a command talks to: the flags that all of them share.

use std::path::PathBuf;

use crate::cluster::{Cluster, ClusterOptions};
use crate::config;

#[derive(clap::Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// The kubeconfig file
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl ClusterArgs {
    /// `--kubeconfig`, else `~/.kube/config` where there is one, else the Pod's service account.
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        self.kubeconfig.clone().or_else(|| {
            let file = std::env::home_dir()?.join(".kube/config");
            file.exists().then_some(file)
        })
    }

    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let options = ClusterOptions { request_timeout: config::API_REQUEST_TIMEOUT, ..Default::default() };
        Ok(Cluster::connect(self.kubeconfig().as_deref(), self.context.as_deref(), options).await?)
    }
}
