//! The kubeconfig that leads clients to the sandbox.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

/// A kubeconfig with one context named `sandbox`. It is written as JSON, which is YAML.
pub fn yaml(url: &str, token: Option<&str>) -> String {
    let user: Value = token.map_or_else(|| json!({}), |token| json!({ "token": token }));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "sandbox", "cluster": { "server": url } }],
        "users": [{ "name": "sandbox", "user": user }],
        "contexts": [{ "name": "sandbox", "context": { "cluster": "sandbox", "user": "sandbox", "namespace": "default" } }],
        "current-context": "sandbox",
    });
    let mut text = serde_json::to_string_pretty(&config).expect("JSON without foreign types always serialises");
    text.push('\n');
    text
}

/// Replaces the file as a whole; readable by its owner only.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
