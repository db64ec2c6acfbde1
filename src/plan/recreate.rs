//! Which objects may be deleted to be created anew, when they can't be changed in place.

use crate::manifest::ObjectId;

/// Whether an object may be deleted to be created anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recreation {
    /// Nobody has asked for it.
    Never,
    Freely,
    /// With it data may go: a person has to agree on the object itself.
    WithConsent,
}

/// Kinds whose deletion takes data along, or all that is in them.
const GUARDED: [(&str, &str); 5] = [
    ("", "PersistentVolumeClaim"),
    ("", "PersistentVolume"),
    ("", "Namespace"),
    ("apps", "StatefulSet"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
];

impl Recreation {
    /// `forced`: by `spec.force`, or by the annotation on the object. Jobs need neither: they hold no state but their
    /// result.
    pub fn of(id: &ObjectId, forced: bool) -> Self {
        match (id.group.as_str(), id.kind.as_str()) {
            ("batch", "Job") => Self::Freely,
            _ if !forced => Self::Never,
            kind if GUARDED.contains(&kind) => Self::WithConsent,
            _ => Self::Freely,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_data_needs_consent_and_jobs_need_nothing() {
        for (group, kind, unforced, forced) in [
            ("batch", "Job", Recreation::Freely, Recreation::Freely),
            ("", "Service", Recreation::Never, Recreation::Freely),
            ("apps", "Deployment", Recreation::Never, Recreation::Freely),
            ("apps", "StatefulSet", Recreation::Never, Recreation::WithConsent),
            ("", "PersistentVolumeClaim", Recreation::Never, Recreation::WithConsent),
            ("", "Namespace", Recreation::Never, Recreation::WithConsent),
            ("apiextensions.k8s.io", "CustomResourceDefinition", Recreation::Never, Recreation::WithConsent),
        ] {
            let id = ObjectId::new(group, kind, "n", "x");
            assert_eq!((Recreation::of(&id, false), Recreation::of(&id, true)), (unforced, forced), "{kind}");
        }
    }
}
