//! What expressions of policies may name, with the types that an API server declares for it. Manifests are of any type.

use crate::cel::{Record, Shape};

pub const NAMES: [&str; 4] = ["object", "oldObject", "request", "namespaceObject"];

pub const RECORDS: [(&str, &Record); 2] = [("request", &REQUEST), ("namespaceObject", &NAMESPACE)];

static REQUEST: Record = Record {
    name: "kubernetes.AdmissionRequest",
    fields: &[
        ("kind", Shape::Record(&KIND)),
        ("resource", Shape::Record(&RESOURCE)),
        ("subResource", Shape::Text),
        ("requestKind", Shape::Record(&KIND)),
        ("requestResource", Shape::Record(&RESOURCE)),
        ("requestSubResource", Shape::Text),
        ("name", Shape::Text),
        ("namespace", Shape::Text),
        ("operation", Shape::Text),
        ("userInfo", Shape::Record(&USER)),
        ("dryRun", Shape::Bool),
        ("options", Shape::Any),
    ],
};

static KIND: Record = Record {
    name: "kubernetes.GroupVersionKind",
    fields: &[("group", Shape::Text), ("version", Shape::Text), ("kind", Shape::Text)],
};

static RESOURCE: Record = Record {
    name: "kubernetes.GroupVersionResource",
    fields: &[("group", Shape::Text), ("version", Shape::Text), ("resource", Shape::Text)],
};

static USER: Record = Record {
    name: "kubernetes.UserInfo",
    fields: &[("username", Shape::Text), ("uid", Shape::Text), ("groups", Shape::Texts), ("extra", Shape::TextsByName)],
};

static NAMESPACE: Record = Record {
    name: "kubernetes.Namespace",
    fields: &[
        ("metadata", Shape::Record(&NAMESPACE_METADATA)),
        ("spec", Shape::Record(&NAMESPACE_SPEC)),
        ("status", Shape::Record(&NAMESPACE_STATUS)),
    ],
};

/// Times are texts here.
static NAMESPACE_METADATA: Record = Record {
    name: "kubernetes.NamespaceMetadata",
    fields: &[
        ("name", Shape::Text),
        ("generateName", Shape::Text),
        ("namespace", Shape::Text),
        ("labels", Shape::TextByName),
        ("annotations", Shape::TextByName),
        ("UID", Shape::Text),
        ("creationTimestamp", Shape::Any),
        ("deletionGracePeriodSeconds", Shape::Int),
        ("deletionTimestamp", Shape::Any),
        ("generation", Shape::Int),
        ("resourceVersion", Shape::Text),
        ("finalizers", Shape::Texts),
    ],
};

static NAMESPACE_SPEC: Record = Record { name: "kubernetes.NamespaceSpec", fields: &[("finalizers", Shape::Texts)] };

static NAMESPACE_STATUS: Record =
    Record { name: "kubernetes.NamespaceStatus", fields: &[("conditions", Shape::Any), ("phase", Shape::Text)] };
