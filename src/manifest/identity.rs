//! Which object is meant, in Flux's spelling, so that inventories carry over in both directions.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A kind without its version: an object keeps its identity when its API version changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
}

/// An object's identity. Cheap to clone: many maps know an object, and share what it is called.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(Arc<Identity>);

/// Group, kind, namespace and name, but not the version.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

impl ObjectId {
    pub fn new(
        group: impl Into<String>,
        kind: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        let (group, kind) = (group.into(), kind.into());
        Self(Arc::new(Identity { group, kind, namespace: namespace.into(), name: name.into() }))
    }

    /// What an object of a cluster-scoped kind is called, whatever namespace was written into it.
    #[must_use]
    pub fn without_namespace(&self) -> Self {
        Self::new(&*self.group, &*self.kind, "", &*self.name)
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    /// The id of a Flux inventory entry: `<namespace>_<name>_<group>_<kind>`, with `:` in names written as `__`.
    pub fn inventory_id(&self) -> String {
        format!("{}_{}_{}_{}", self.namespace, self.name.replace(':', "__"), self.group, self.kind)
    }

    /// Reads an inventory id; `None` if it is not one.
    pub fn from_inventory_id(id: &str) -> Option<Self> {
        let (rest, kind) = id.rsplit_once('_')?;
        let (rest, group) = rest.rsplit_once('_')?;
        let (namespace, name) = rest.split_once('_')?;
        if kind.is_empty() || name.is_empty() {
            return None;
        }
        Some(Self::new(group, kind, namespace, name.replace("__", ":")))
    }
}

impl Deref for ObjectId {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `Kind/namespace/name`, or `Kind/name` where there is no namespace, as Flux prints it.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_id_reads_back_as_the_identity_it_was_made_from() {
        for id in [
            ObjectId::new("apps", "Deployment", "shop", "web"),
            ObjectId::new("", "Namespace", "", "shop"),
            ObjectId::new("rbac.authorization.k8s.io", "ClusterRole", "", "system:shop:reader"),
        ] {
            assert_eq!(ObjectId::from_inventory_id(&id.inventory_id()), Some(id));
        }
        assert_eq!(ObjectId::new("apps", "Deployment", "shop", "web").inventory_id(), "shop_web_apps_Deployment");
        assert_eq!(ObjectId::from_inventory_id("nonsense"), None);
    }
}
