//! `afresh check PATH`: what policies say of a tree, rendered as the daemon would, without a cluster.
//!
//! Findings go to stdout, errors to stderr. Exit codes: 0 nothing is denied, 1 something is, 2 it could not be told.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use serde_json::{Value, json};

use super::bases::BasesArgs;
use super::directory::repository_root;
use super::kustomization::{self, absolute, account_name, assignment};
use super::render::{self, Format, RenderArgs};
use crate::manifest::SourceError;
use crate::policy::{Action, Allowance, Finding, PolicySet, Resources, Subject, User, place, snapshot};
use crate::render::Rendered;
use crate::source::Listing;
use crate::source::listing::of_working_copy;
use crate::trigger::read_policies;

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
    /// File with age identities, for files that are encrypted with SOPS
    #[arg(long, value_name = "FILE", env = "SOPS_AGE_KEY_FILE")]
    sops_age_key_file: Option<PathBuf>,
    #[command(flatten)]
    bases: BasesArgs,
    /// Who applies, for policies that ask, where the Kustomization names no service account: as `afresh run` is told
    #[arg(long, value_name = "NAME", value_parser = account_name)]
    default_service_account: Option<String>,
    /// How it is printed
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

/// A finding and the place in the source that it is about.
struct Placed {
    finding: Finding,
    at: SourceError,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    let color = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let policies = match args.policies.as_deref().map(read_policies).transpose() {
        Ok(policies) => policies.unwrap_or_default(),
        Err(error) => {
            anstream::eprintln!("error: {error}");
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
        bases: args.bases.clone(),
        sops_age_key_file: args.sops_age_key_file.clone(),
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
        Err(render::Error::Fetch(message) | render::Error::Keys(message)) => {
            anstream::eprintln!("error: {message}");
            return ExitCode::from(FAILED);
        }
        Err(render::Error::Input(error)) => {
            anstream::eprint!("{}", error.render(color));
            return ExitCode::from(FAILED);
        }
    };
    let root = args.root.clone().or_else(|| repository_root(&absolute(&args.path).ok()?).map(Path::to_owned));
    let root = root.unwrap_or_else(|| args.path.clone());
    let mut found = match repository_findings(&policies, &root, &args.namespace) {
        Ok(found) => found,
        Err(error) => {
            anstream::eprintln!("error: {error}");
            return ExitCode::from(FAILED);
        }
    };
    found.extend(findings(&policies, &rendered, account(args).as_ref()));
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

/// The service account that the Kustomization names, else the one that the flag does.
fn account(args: &CheckArgs) -> Option<User> {
    let (mut named, mut namespace) = (None, None);
    if let Some(file) = &args.kustomization {
        // it was read before
        let object = kustomization::read(file, args.name.as_deref(), &args.namespace).ok()?;
        named = object.spec.service_account_name.filter(|name| !name.is_empty());
        namespace = object.metadata.namespace;
    }
    let name = named.as_ref().or(args.default_service_account.as_ref())?;
    Some(User::service_account(namespace.as_ref().unwrap_or(&args.namespace), name))
}

/// What is said of each object, in the order of the objects.
fn findings(policies: &PolicySet, rendered: &Rendered, user: Option<&User>) -> Vec<Placed> {
    let resources = Resources::of(rendered.objects.iter().map(AsRef::as_ref));
    let namespaces: BTreeMap<&str, &Value> = rendered
        .objects
        .iter()
        .filter(|object| object.id.group.is_empty() && object.id.kind == "Namespace")
        .map(|object| (object.id.name.as_str(), &object.value))
        .collect();
    let (mut found, allowance) = (Vec::new(), Allowance::default());
    let redaction = LazyCell::new(|| rendered.redaction([]));
    for (index, object) in rendered.objects.iter().enumerate() {
        let (resource, namespaced) = resources.find(&object.id.group, &object.id.kind);
        let subject = Subject {
            group: &object.id.group,
            version: &object.version,
            kind: &object.id.kind,
            resource: &resource,
            namespaced,
            object: &object.value,
            old_object: None,
            namespace_object: namespaces.get(object.id.namespace.as_str()).copied(),
            user,
        };
        for mut finding in policies.evaluate_within(&subject, &allowance) {
            redaction.apply(&mut finding.message);
            let at =
                rendered.error_at(index, &place(&subject, &finding), format!("{}: {}", object.id, finding.message));
            found.push(Placed::new(finding, at));
        }
    }
    found
}

/// What is said of the repository that the folder is in, as it would be committed.
fn repository_findings(policies: &PolicySet, root: &Path, namespace: &str) -> Result<Vec<Placed>, String> {
    if !policies.has_repository_rules() {
        return Ok(Vec::new());
    }
    let Some(listing) = of_working_copy(root) else {
        anstream::eprintln!(
            "note: `{}` is in no Git repository: the rules for repositories are not evaluated",
            root.display()
        );
        return Ok(Vec::new());
    };
    let listing = listing.map_err(|error| format!("the files of `{}` can't be listed: {error}", root.display()))?;
    let object = snapshot(namespace, "working-copy", &json!({}), &listing);
    let findings = policies.evaluate(&Subject::repository(&object));
    Ok(findings.into_iter().map(|finding| placed_at_file(finding, &listing)).collect())
}

/// A finding that names files is placed at the first of them.
fn placed_at_file(finding: Finding, listing: &Listing) -> Placed {
    let known = |word: &&str| listing.files.binary_search_by(|file| file.path.as_str().cmp(word)).is_ok();
    let apart = |c: char| c.is_whitespace() || matches!(c, ',' | '`' | ':' | ';' | '"' | '\'');
    let path = finding.message.split(apart).find(known).unwrap_or(".").to_owned();
    let at = SourceError::whole_file(&path, finding.message.clone());
    Placed::new(finding, at)
}

impl Placed {
    fn new(finding: Finding, at: SourceError) -> Self {
        let note = format!("policy `{}` with binding `{}`", finding.policy, finding.binding);
        Self { finding, at: at.with_note(note) }
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
        "path": at.path, "line": at.line.max(1), "column": at.column.max(1), "severity": severity(finding.action),
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
    format!("::{command} file={file},line={},title={title}::{}\n", at.line.max(1), text(&at.message))
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
