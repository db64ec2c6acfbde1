//! Kustomize: overlays of plain manifests, as `kubectl kustomize` builds them.
//!
//! ```text
//!  kustomization ─▶ resources, bases ─▶ generators ─▶ components ─▶ patches, namespace, names, labels, images … ─┐
//!       ▲                  └── each directory by itself, then together                                          │
//!       └──────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!  at the root: hashes into names ─▶ references follow renamed objects ─▶ drafts
//! ```
//! In: a directory that has a kustomization file. Out: drafts with the places of the files that they come from. Never
//! leaves the tree, runs nothing, fetches nothing; what is not served is refused by name.

mod budget;
mod build;
mod configuration;
mod crds;
mod current;
mod embedded;
mod field_spec;
mod file;
mod folded;
mod generate;
mod json6902;
mod merge;
mod merge_keys;
mod names;
mod node;
mod origin;
mod patch;
mod plugin;
mod regular;
mod remote;
mod replace;
mod resource;
mod resources;
mod scalar;
mod selector;
mod sort;
mod spec;
mod step;
mod steps;
mod tables;
mod transform;
mod value_add;
mod vars;

pub(super) use build::{Item, build, build_generated};
pub use remote::{Pin, RemoteBase};
pub use selector::{Matcher, Selector};

#[cfg(test)]
mod tests;
