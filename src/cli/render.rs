//! `afresh render PATH`: what an application would declare, without a cluster.
//!
//! Objects go to stdout; errors, with the lines that they are about, to stderr. Values of Secrets are shown as `***`
//! unless `--show-secrets` is given.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::bases::{Refused, TreeWithBases};
use super::directory::{DirectoryTree, repository_root};
use crate::manifest::{Object, yaml};
use crate::render::{AppRef, Failed, Overlay, Rendered, Request, Substitution, render};

/// Show what a folder of a working copy would declare.
#[derive(Args, Clone, Debug)]
pub struct RenderArgs {
    /// The folder: what `spec.path` would name.
    pub path: PathBuf,
    /// The root of the repository; default: that of the Git repository around the folder, else the folder itself.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The application's name, as templates see it; default: the folder's name.
    #[arg(long)]
    pub name: Option<String>,
    /// The application's namespace, as templates see it.
    #[arg(long, short, default_value = "flux-system")]
    pub namespace: String,
    /// `spec.targetNamespace`.
    #[arg(long, value_name = "NAMESPACE")]
    pub target_namespace: Option<String>,
    /// A variable of `spec.postBuild.substitute`; can be given more than once.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    #[arg(long, short, value_enum, default_value_t = Format::Yaml)]
    pub output: Format,
    /// Fetch what kustomizations name in other Git repositories, as `afresh run --allow-remote-bases` does.
    #[arg(long)]
    pub allow_remote_bases: bool,
    /// Show the values of Secrets.
    #[arg(long)]
    pub show_secrets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Documents in the order of the files, each with the place it comes from.
    Yaml,
    /// One List.
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
        Err(Error::Folder { path, reason }) => {
            let _ = writeln!(errors, "error: can't read `{}`: {reason}", path.display());
            ExitCode::FAILURE
        }
        Err(Error::Fetch(message)) => {
            let _ = writeln!(errors, "error: {message}");
            ExitCode::FAILURE
        }
        Err(Error::Render(failed)) => {
            let _ = write!(errors, "{}", failed.error.render(color));
            ExitCode::FAILURE
        }
    }
}

enum Error {
    Folder { path: PathBuf, reason: String },
    Render(Box<Failed>),
    Fetch(String),
}

fn rendered(args: &RenderArgs) -> Result<Rendered, Error> {
    let absolute = |path: &Path| {
        let reason = |error: io::Error| Error::Folder { path: path.to_owned(), reason: error.to_string() };
        path.canonicalize().map_err(reason)
    };
    let folder = absolute(&args.path)?;
    let root = match &args.root {
        Some(root) => absolute(root)?,
        None => repository_root(&folder).unwrap_or(&folder).to_owned(),
    };
    let Ok(inside) = folder.strip_prefix(&root) else {
        return Err(Error::Folder { path: folder, reason: format!("it is not below `{}`", root.display()) });
    };
    let path: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let last = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let variables: BTreeMap<String, String> = args.set.iter().cloned().collect();
    let mut tree = TreeWithBases::new(DirectoryTree::new(root), args.allow_remote_bases);
    tree.render(|tree| {
        render(&Request {
            tree,
            path: &path.join("/"),
            app: &AppRef {
                name: args.name.clone().or(last.clone()).unwrap_or_else(|| "app".to_owned()),
                namespace: args.namespace.clone(),
            },
            overlay: Overlay { target_namespace: args.target_namespace.as_deref(), ..Overlay::default() },
            common_metadata: None,
            substitution: Substitution::WithVariables(&variables),
            cancelled: &|| false,
        })
    })
    .map_err(|refused| match refused {
        Refused::Render(failed) => Error::Render(failed),
        Refused::Fetch(message) => Error::Fetch(message),
    })
}

fn print(rendered: &Rendered, args: &RenderArgs) -> String {
    let values =
        rendered.objects.iter().map(|object| if args.show_secrets { object.value.clone() } else { masked(object) });
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
        // kubectl keeps the whole object in there.
        if let Some(Value::Object(annotations)) = value.pointer_mut("/metadata/annotations") {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    value
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
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
            Err(Error::Render(failed)) => panic!("{failed}"),
            Err(Error::Fetch(message)) => panic!("{message}"),
            Err(Error::Folder { path, reason }) => panic!("{path:?}: {reason}"),
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
        assert!(shown(&["-o", "json", "--show-secrets"]).contains("aHVudGVyMg=="));
    }
}
