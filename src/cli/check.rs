//! `afresh check PATH`: what policies say of a tree, rendered as the daemon would, without a cluster.
//!
//! Findings go to stdout, errors to stderr. Exit codes: 0 nothing is denied, 1 something is, 2 it could not be told.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use serde_json::{Value, json};

use super::kustomization::assignment;
use super::render::{self, Format, RenderArgs};
use crate::manifest::{Object, SourceError, yaml};
use crate::policy::{Action, Document, Finding, PolicySet, Subject};
use crate::render::{Rendered, is_cluster_scoped};

#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// The folder: what `spec.path` would name
    path: PathBuf,
    /// A folder of ValidatingAdmissionPolicies, their bindings and parameters; without it the tree is only rendered
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// A file with the Kustomization whose spec is rendered
    #[arg(long, value_name = "FILE")]
    kustomization: Option<PathBuf>,
    /// The root of the repository; default: that of the Git repository around the folder, else the folder itself
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The application's name; with `--kustomization` which of the file's
    #[arg(long)]
    name: Option<String>,
    /// The application's namespace, where the file doesn't say
    #[arg(long, short, default_value = "flux-system")]
    namespace: String,
    /// A variable of `spec.postBuild`; can be given more than once
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Fetch what kustomizations name in other Git repositories, as `afresh run --allow-remote-bases` does
    #[arg(long)]
    allow_remote_bases: bool,
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// With the lines that it is about
    Text,
    Json,
    /// For code scanning
    Sarif,
    /// As annotations of a GitHub workflow
    Github,
}

/// A denial or a failure to render.
const FOUND: u8 = 1;
const FAILED: u8 = 2;
/// Files of one folder of policies, and bytes of one: more is a mistake.
const FILES_MAX: usize = 1_000;

/// A finding and the place in the source that it is about.
struct Placed {
    finding: Finding,
    at: SourceError,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    let color = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let policies = match args.policies.as_deref().map(policies).transpose() {
        Ok(policies) => policies.unwrap_or_default(),
        Err(errors) => {
            errors.iter().for_each(|error| anstream::eprintln!("error: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let of_render = RenderArgs {
        path: args.path.clone(),
        kustomization: args.kustomization.clone(),
        root: args.root.clone(),
        name: args.name.clone(),
        namespace: args.namespace.clone(),
        target_namespace: None,
        set: args.set.clone(),
        allow_remote_bases: args.allow_remote_bases,
        output: Format::Yaml,
        show_secrets: false,
    };
    let rendered = match render::rendered(&of_render) {
        Ok(rendered) => rendered,
        // a tree that does not render is what a check is to find
        Err(render::Error::Render { failed, .. }) => {
            anstream::eprint!("{}", failed.error.render(color));
            return ExitCode::from(FOUND);
        }
        Err(render::Error::Fetch(message)) => {
            anstream::eprintln!("error: {message}");
            return ExitCode::from(FAILED);
        }
        Err(render::Error::Input(error)) => {
            anstream::eprint!("{}", error.render(color));
            return ExitCode::from(FAILED);
        }
    };
    let found = findings(&policies, &rendered);
    anstream::print!("{}", printed(&found, args.output));
    let denied = found.iter().filter(|placed| placed.finding.action == Action::Deny).count();
    let objects = rendered.objects.len();
    anstream::eprintln!(
        "{objects} objects, {} policies: {denied} denied, {} noted",
        policies.len(),
        found.len() - denied
    );
    if denied > 0 { ExitCode::from(FOUND) } else { ExitCode::SUCCESS }
}

/// Compiles the YAML files of a folder, or says all that is wrong with them.
pub fn policies(folder: &Path) -> Result<PolicySet, Vec<String>> {
    let unreadable =
        |path: &Path, error: &dyn std::fmt::Display| vec![format!("can't read `{}`: {error}", path.display())];
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() || files.len() > FILES_MAX {
        let message = format!("`{}` has {} YAML files: it should have 1 to {FILES_MAX}", folder.display(), files.len());
        return Err(vec![message]);
    }
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        let shown = file.display().to_string();
        let size = file.metadata().map_err(|error| unreadable(&file, &error))?.len();
        if size > yaml::MAX_FILE_BYTES {
            errors.push(format!("`{shown}` is larger than {} bytes", yaml::MAX_FILE_BYTES));
            continue;
        }
        let content = std::fs::read(&file).map_err(|error| unreadable(&file, &error))?;
        match yaml::documents(&shown, &content) {
            Ok(read) => documents.extend(
                read.into_iter().filter(|document| !document.value.is_null()).map(|document| Document {
                    path: shown.clone(),
                    line: document.line,
                    value: document.value,
                }),
            ),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    PolicySet::compile(documents).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn findings(policies: &PolicySet, rendered: &Rendered) -> Vec<Placed> {
    let definitions = definitions(rendered);
    let namespaces: BTreeMap<&str, &Value> = rendered
        .objects
        .iter()
        .filter(|object| object.id.group.is_empty() && object.id.kind == "Namespace")
        .map(|object| (object.id.name.as_str(), &object.value))
        .collect();
    let mut found = Vec::new();
    for (index, object) in rendered.objects.iter().enumerate() {
        let key = (object.id.group.as_str(), object.id.kind.as_str());
        let defined = definitions.get(&key);
        let guessed = plural(&object.id.kind);
        let subject = Subject {
            group: &object.id.group,
            version: &object.version,
            kind: &object.id.kind,
            resource: defined.map_or(guessed.as_str(), |(plural, _)| *plural),
            namespaced: defined.map_or_else(|| !is_cluster_scoped(key.0, key.1), |(_, namespaced)| *namespaced),
            object: &object.value,
            old_object: None,
            namespace_object: namespaces.get(object.id.namespace.as_str()).copied(),
            user: "",
        };
        for finding in policies.evaluate(&subject) {
            let at = rendered.error_at(index, &[], format!("{}: {}", object.id, finding.message));
            let note = format!("policy `{}` with binding `{}`", finding.policy, finding.binding);
            found.push(Placed { finding, at: at.with_note(note) });
        }
    }
    found
}

/// Plural and scope of the kinds that definitions of the tree bring.
fn definitions<'r>(rendered: &'r Rendered) -> BTreeMap<(&'r str, &'r str), (&'r str, bool)> {
    let of = |object: &'r std::sync::Arc<Object>| -> Option<((&'r str, &'r str), (&'r str, bool))> {
        if object.id.group != "apiextensions.k8s.io" || object.id.kind != "CustomResourceDefinition" {
            return None;
        }
        let spec = object.value.get("spec")?;
        let names = spec.get("names")?;
        let key = (spec.get("group")?.as_str()?, names.get("kind")?.as_str()?);
        Some((key, (names.get("plural")?.as_str()?, spec.get("scope")?.as_str()? == "Namespaced")))
    };
    rendered.objects.iter().filter_map(of).collect()
}

/// As apimachinery guesses it; right for all built-in kinds.
fn plural(kind: &str) -> String {
    let singular = kind.to_ascii_lowercase();
    match singular.as_bytes() {
        _ if singular == "endpoints" => singular,
        [.., b's'] => format!("{singular}es"),
        [.., b'y'] => format!("{}ies", &singular[..singular.len() - 1]),
        _ => format!("{singular}s"),
    }
}

fn severity(action: Action) -> &'static str {
    match action {
        Action::Deny => "error",
        Action::Warn => "warning",
        Action::Audit => "note",
    }
}

fn printed(found: &[Placed], output: Output) -> String {
    match output {
        Output::Text => found.iter().map(|placed| placed.at.render(false)).collect(),
        Output::Json => {
            let items: Vec<Value> = found.iter().map(as_json).collect();
            format!("{:#}\n", json!({ "findings": items }))
        }
        Output::Github => found.iter().map(as_annotation).collect(),
        Output::Sarif => format!("{:#}\n", sarif(found)),
    }
}

fn as_json(placed: &Placed) -> Value {
    let Placed { finding, at } = placed;
    json!({
        "path": at.path, "line": at.line, "column": at.column, "severity": severity(finding.action),
        "policy": finding.policy, "binding": finding.binding, "reason": finding.reason, "message": at.message,
    })
}

/// `::error file=…,line=…::message`, escaped as workflow commands are.
fn as_annotation(placed: &Placed) -> String {
    let text = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |value: &str| text(value).replace(':', "%3A").replace(',', "%2C");
    let Placed { finding, at } = placed;
    let command = if finding.action == Action::Audit { "notice" } else { severity(finding.action) };
    let (file, title) = (property(&at.path), property(&finding.policy));
    format!("::{command} file={file},line={},title={title}::{}\n", at.line, text(&at.message))
}

fn sarif(found: &[Placed]) -> Value {
    let mut rules: Vec<&str> = found.iter().map(|placed| placed.finding.policy.as_str()).collect();
    rules.sort_unstable();
    rules.dedup();
    let results: Vec<Value> = found
        .iter()
        .map(|Placed { finding, at }| {
            json!({
                "ruleId": finding.policy, "level": severity(finding.action), "message": { "text": at.message },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": at.path },
                    "region": { "startLine": at.line.max(1), "startColumn": at.column.max(1) },
                } }],
            })
        })
        .collect();
    let rules: Vec<Value> = rules.iter().map(|id| json!({ "id": id })).collect();
    let driver = json!({ "name": "afresh", "version": env!("CARGO_PKG_VERSION"), "rules": rules });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
        "runs": [{ "tool": { "driver": driver }, "results": results }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_those_of_the_built_in_kinds() {
        for (kind, expected) in [
            ("Deployment", "deployments"),
            ("Ingress", "ingresses"),
            ("NetworkPolicy", "networkpolicies"),
            ("Endpoints", "endpoints"),
            ("StorageClass", "storageclasses"),
        ] {
            assert_eq!(plural(kind), expected);
        }
    }

    #[test]
    fn annotations_keep_to_one_line() {
        let finding = Finding {
            policy: "a,b".into(),
            binding: "b".into(),
            action: Action::Deny,
            message: "m".into(),
            reason: "Invalid".into(),
        };
        let at = SourceError::new("app/x.yaml", "a: 1\n", 1, 1, "50% of\ntwo lines");
        assert_eq!(
            as_annotation(&Placed { finding, at }),
            "::error file=app/x.yaml,line=1,title=a%2Cb::50%25 of%0Atwo lines\n"
        );
    }
}
