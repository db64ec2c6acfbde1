//! `afresh crds`, and what `run --config` does with them.

use crate::cluster::{ApplyOptions, Cluster, FieldValidation};
use crate::manifest::ObjectId;

pub fn run() -> anyhow::Result<()> {
    anstream::print!("{}", crate::api::definitions_yaml());
    Ok(())
}

/// Installs our definitions, as `afresh crds | kubectl apply --server-side -f -` does.
pub async fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let kind = cluster.resolve("apiextensions.k8s.io", "CustomResourceDefinition", Some("v1")).await?;
    for definition in crate::api::definitions() {
        let value = serde_json::to_value(&definition)?;
        let name = definition.metadata.name.clone().unwrap_or_default();
        let id = ObjectId::new("apiextensions.k8s.io", "CustomResourceDefinition", "", name);
        let options =
            ApplyOptions { manager: "afresh-config", force: true, dry_run: false, validation: FieldValidation::Strict };
        cluster.apply(&kind, &id, &value, options).await?;
    }
    Ok(())
}
