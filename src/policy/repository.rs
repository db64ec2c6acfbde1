//! A repository as policies see it: one object of kind `Snapshot` in the group `afresh.dev`, which no API server has.

use serde_json::{Value, json};

use super::Subject;
use crate::source::Listing;

pub const GROUP: &str = "afresh.dev";
pub const VERSION: &str = "v1";
pub const KIND: &str = "Snapshot";
pub const RESOURCE: &str = "snapshots";

/// The object: `spec.files[{path,size,mode}]` and `spec.commit{author,message}`, under the name of the source.
pub fn snapshot(namespace: &str, name: &str, labels: &Value, listing: &Listing) -> Value {
    let files: Vec<Value> =
        listing.files.iter().map(|file| json!({"path": file.path, "size": file.size, "mode": file.mode})).collect();
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"files": files, "commit": {"author": listing.author, "message": listing.message}},
    })
}

impl<'a> Subject<'a> {
    /// Of what [`snapshot`] makes.
    pub fn repository(object: &'a Value) -> Subject<'a> {
        Subject {
            group: GROUP,
            version: VERSION,
            kind: KIND,
            resource: RESOURCE,
            namespaced: true,
            object,
            old_object: None,
            namespace_object: None,
            user: None,
        }
    }

    pub(super) fn is_repository(&self) -> bool {
        self.group == GROUP && self.kind == KIND
    }
}
