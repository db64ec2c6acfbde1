//! `afresh render PATH`: what an application would declare, without a cluster.
//!
//! Objects go to stdout; errors, with the lines that they are about, to stderr. Values of Secrets are shown as `***`
//! unless `--show-secrets` is given.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::bases::{BasesArgs, Refused, WorkingCopy};
use super::directory::{DirectoryTree, repository_root};
use super::identities::identities;
use super::kustomization::{self, InputError, absolute, assignment};
use crate::api::{Kustomization, KustomizationSpec, LAST_APPLIED};
use crate::engine::request;
use crate::manifest::{Object, Redaction, yaml};
use crate::render::{AppRef, Failed, Keys, Rendered, render};

/// Show what a folder of a working copy would declare.
#[derive(Args, Clone, Debug)]
pub struct RenderArgs {
    /// The folder: what `spec.path` would name. With `--kustomization` the root of the repository will do, too
    pub path: PathBuf,
    /// A file with the Kustomization whose spec is rendered: its path, targetNamespace, postBuild and so on
    #[arg(long, value_name = "FILE", conflicts_with = "target_namespace")]
    pub kustomization: Option<PathBuf>,
    /// The root of the repository; default: that of the Git repository around the folder, else the folder itself
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The application's name, as templates see it; default: the folder's name. With `--kustomization`: which of the
    /// file's
    #[arg(long)]
    pub name: Option<String>,
    /// The application's namespace, as templates see it, where the file doesn't say
    #[arg(long, short, default_value = "flux-system")]
    pub namespace: String,
    /// `spec.targetNamespace`
    #[arg(long, value_name = "NAMESPACE")]
    pub target_namespace: Option<String>,
    /// A variable of `spec.postBuild`, in place of what the Kustomization says or takes from the cluster; can be given
    /// more than once
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t = Format::Yaml)]
    pub output: Format,
    #[command(flatten)]
    pub bases: BasesArgs,
    /// File with age identities, for files that are encrypted with SOPS
    #[arg(long, value_name = "FILE", env = "SOPS_AGE_KEY_FILE")]
    pub sops_age_key_file: Option<PathBuf>,
    /// Show the values of Secrets, and what was decrypted
    #[arg(long)]
    pub show_secrets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Documents in the order of the files, each with the place it comes from
    Yaml,
    /// One List
    Json,
}

/// Prints the objects (exit code 0) or the error (1).
pub fn run(args: &RenderArgs) -> ExitCode {
    let mut errors = anstream::stderr();
    let color = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    match rendered(args) {
        Ok(rendered) => {
            let text = print(&rendered, args);
            // A closed pipe is the reader's choice.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Error::Input(error)) => {
            let _ = write!(errors, "{}", error.render(color));
            ExitCode::FAILURE
        }
        Err(Error::Fetch(message) | Error::Keys(message)) => {
            let _ = writeln!(errors, "error: {message}");
            ExitCode::FAILURE
        }
        Err(Error::Render { failed, from }) => {
            let _ = write!(errors, "{}", failed.error.render(color));
            if !from.is_empty() {
                let _ = writeln!(
                    errors,
                    "note: `spec.postBuild.substituteFrom` names {}, which only the cluster has: give their variables with `--set NAME=VALUE`",
                    from.join(" and ")
                );
            }
            ExitCode::FAILURE
        }
    }
}

pub(super) enum Error {
    Input(InputError),
    /// Another repository can't be had.
    Fetch(String),
    /// `from`: what variables are taken from that can't be read here.
    Render {
        failed: Box<Failed>,
        from: Vec<String>,
    },
    /// There are no identities.
    Keys(String),
}

impl From<InputError> for Error {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

pub(super) fn rendered(args: &RenderArgs) -> Result<Rendered, Error> {
    let folder = absolute(&args.path)?;
    let (object, root) = match &args.kustomization {
        Some(file) => {
            let object = kustomization::read(file, args.name.as_deref(), &args.namespace)?;
            let path = object.spec.path.as_deref().unwrap_or_default();
            let root = kustomization::root_of(&folder, args.root.as_deref(), path)?;
            (object, root)
        }
        None => {
            let root = match &args.root {
                Some(root) => absolute(root)?,
                None => repository_root(&folder).unwrap_or(&folder).to_owned(),
            };
            let Ok(inside) = folder.strip_prefix(&root) else {
                return Err(InputError::NotBelow { folder, root }.into());
            };
            let path: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            let last = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            let mut object = Kustomization::new(
                &args.name.clone().or(last).unwrap_or_else(|| "app".to_owned()),
                spec(&path.join("/"), args.target_namespace.as_deref()),
            );
            object.metadata.namespace = Some(args.namespace.clone());
            (object, root)
        }
    };
    let post_build = object.spec.post_build.clone().unwrap_or_default();
    let mut variables: BTreeMap<String, String> = post_build.substitute;
    variables.extend(args.set.iter().cloned());
    let app = AppRef {
        name: object.metadata.name.clone().unwrap_or_default(),
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
    };
    // without `postBuild` the daemon substitutes nothing
    let substituted = object.spec.post_build.is_some() || !args.set.is_empty();
    let variables = substituted.then_some(&variables);
    let keys = match &args.sops_age_key_file {
        Some(file) => Some(identities(file).map_err(Error::Keys)?),
        None => object.spec.decryption.as_ref().map(|_| Keys::default()),
    };
    // the daemon opens nothing where the Kustomization doesn't say so
    let keys = keys.as_ref().filter(|_| args.kustomization.is_none() || object.spec.decryption.is_some());
    let mut tree = WorkingCopy::new(DirectoryTree::new(root), args.bases.clone());
    tree.render(|tree| render(&request(&object.spec, &app, tree, variables, keys, &|| false))).map_err(|refused| {
        match refused {
            Refused::Render(failed) => {
                let from = post_build.substitute_from.iter();
                Error::Render {
                    failed,
                    from: from.map(|source| format!("{} `{}`", source.kind, source.name)).collect(),
                }
            }
            Refused::Fetch(message) => Error::Fetch(message),
        }
    })
}

/// A spec that says no more than where and into which namespace.
fn spec(path: &str, target_namespace: Option<&str>) -> KustomizationSpec {
    let spec = json!({
        "interval": "10m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "working-copy"},
        "path": path, "targetNamespace": target_namespace,
    });
    serde_json::from_value(spec).expect("a spec with all that is required")
}

fn print(rendered: &Rendered, args: &RenderArgs) -> String {
    let decrypted = Decrypted::of(rendered);
    let values = rendered.objects.iter().map(|object| match args.show_secrets {
        true => object.value.clone(),
        false => decrypted.masked(masked(object)),
    });
    match args.output {
        Format::Yaml => {
            let documents = rendered.objects.iter().zip(values);
            documents.map(|(object, value)| format!("---\n# {}\n{}", object.origin, yaml::write(&value))).collect()
        }
        Format::Json => {
            let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": values.collect::<Vec<_>>() });
            format!("{list:#}\n")
        }
    }
}

/// The object without a Secret's values.
fn masked(object: &Object) -> Value {
    let mut value = object.value.clone();
    if object.id.group.is_empty() && object.id.kind == "Secret" {
        for field in ["data", "stringData"] {
            match value.get_mut(field) {
                Some(Value::Object(data)) => data.values_mut().for_each(|value| *value = "***".into()),
                Some(other) => *other = "***".into(),
                None => {}
            }
        }
        // a value under a mistyped name, or in the wrong place, is no less secret
        if let Value::Object(fields) = &mut value {
            let shown = |field: &str, value: &Value| match field {
                "apiVersion" | "kind" | "metadata" | "type" | "data" | "stringData" => true,
                _ => value.is_boolean() || value.is_null(),
            };
            let others = fields.iter_mut().filter(|(field, value)| !shown(field, value));
            others.for_each(|(_, value)| *value = "***".into());
        }
        // kubectl keeps the whole object in there.
        if let Some(Value::Object(annotations)) = value.pointer_mut("/metadata/annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    value
}

/// What was decrypted: a template or a patch may have put it anywhere.
struct Decrypted<'a> {
    values: HashSet<&'a str>,
    parts: Redaction,
}

impl<'a> Decrypted<'a> {
    fn of(rendered: &'a Rendered) -> Self {
        let values = || rendered.secrets.iter().map(String::as_str);
        Self { values: values().collect(), parts: Redaction::of(values()) }
    }

    /// The object without it, but for what says which object it is.
    fn masked(&self, mut value: Value) -> Value {
        if self.values.is_empty() {
            return value;
        }
        let Value::Object(fields) = &mut value else { return value };
        for (field, value) in fields {
            match (field.as_str(), value) {
                ("apiVersion" | "kind", _) => {}
                ("metadata", Value::Object(metadata)) => {
                    let others = metadata.iter_mut().filter(|(key, _)| !matches!(key.as_str(), "name" | "namespace"));
                    others.for_each(|(_, value)| self.mask(value));
                }
                (_, value) => self.mask(value),
            }
        }
        value
    }

    fn mask(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.values_mut().for_each(|value| self.mask(value)),
            Value::Array(items) => items.iter_mut().for_each(|value| self.mask(value)),
            Value::String(text) if self.values.contains(text.as_str()) => *text = "***".to_owned(),
            Value::String(text) => self.parts.apply(text),
            Value::Null => {}
            other if self.values.contains(other.to_string().as_str()) => *other = "***".into(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: RenderArgs,
    }

    fn args(folder: &Path, more: &[&str]) -> RenderArgs {
        let folder = folder.to_string_lossy();
        let words = ["render", &folder].into_iter().chain(more.iter().copied()).map(str::to_owned);
        <Command as clap::Parser>::try_parse_from(words.collect::<Vec<_>>()).expect("arguments").args
    }

    #[test]
    fn secrets_are_masked_and_the_repository_around_the_folder_is_the_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, content: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            std::fs::write(path, content).expect("a file");
        };
        write(".git/HEAD", "ref: refs/heads/main\n");
        write("shared/a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: hunter2}\n");
        write("app/pictures/x.png", "not yaml");
        write("app/.sourceignore", "left-out.yaml\n");
        write("app/left-out.yaml", "not: [yaml");
        write("app/b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"${name:=b}\"}\n");
        #[cfg(unix)]
        std::os::unix::fs::symlink("../shared/a.yaml", folder.path().join("app/a.yaml")).expect("a symlink");
        let app = folder.path().join("app");
        let shown = |more: &[&str]| match rendered(&args(&app, more)) {
            Ok(rendered) => print(&rendered, &args(&app, more)),
            Err(Error::Render { failed, .. }) => panic!("{failed}"),
            Err(Error::Fetch(message) | Error::Keys(message)) => panic!("{message}"),
            Err(Error::Input(error)) => panic!("{error}"),
        };
        insta::assert_snapshot!(shown(&["--set", "name=c", "--target-namespace", "shop"]), @r"
        ---
        # app/a.yaml:1
        apiVersion: v1
        data:
          password: '***'
        kind: Secret
        metadata:
          name: a
          namespace: shop
        ---
        # app/b.yaml:1
        apiVersion: v1
        kind: ConfigMap
        metadata:
          name: c
          namespace: shop
        ");
        assert!(!shown(&["-o", "json"]).contains("aHVudGVyMg=="));
        let mistyped =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nimmutable: hunter2\nstringDate: {password: hunter2}\n";
        write("shared/a.yaml", mistyped);
        assert!(!shown(&[]).contains("hunter2"), "{}", shown(&[]));
        write("shared/a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: hunter2}\n");
        assert!(shown(&["-o", "json", "--show-secrets"]).contains("aHVudGVyMg=="));
    }
}
