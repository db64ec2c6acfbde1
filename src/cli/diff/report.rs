//! What `afresh diff` says: the differences, what stands in the way of them, a summary, and the exit code that it comes to.
//! Comes in: a preview. Values of Secrets go no further than here.

use anstyle::{AnsiColor, Style};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::masking::{Secrets, mask_secret};
use super::{DIFFERENT, EQUAL, FAILED, text};
use crate::api::{CONFIRM_PRUNE, Key};
use crate::apply::{Fate, Kept};
use crate::cluster::ApiError;
use crate::engine::preview::{Deletions, Expected, Preview, Roll};
use crate::manifest::ObjectId;
use crate::policy::Action;

/// What is printed, and what the exit code comes to.
pub struct Report {
    key: Key,
    revision: String,
    secrets: Secrets,
    out: String,
    err: String,
    created: usize,
    changed: usize,
    recreated: usize,
    deleted: usize,
    guarded: usize,
    rolled: usize,
    same: usize,
    failed: usize,
    denied: usize,
}

const BOLD: Style = Style::new().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const RED: Style = AnsiColor::Red.on_default().bold();

impl Report {
    pub fn new(key: &Key, revision: &str, preview: &Preview) -> Self {
        let secrets = Secrets::new(preview.secrets.iter().map(|secret| secret.expose_secret().to_owned()));
        let (out, err) = (String::new(), String::new());
        let (key, revision) = (key.clone(), revision.to_owned());
        Self {
            key,
            revision,
            secrets,
            out,
            err,
            created: 0,
            changed: 0,
            recreated: 0,
            deleted: 0,
            guarded: 0,
            rolled: 0,
            same: 0,
            failed: 0,
            denied: 0,
        }
    }

    pub fn note(&mut self, text: &str) {
        self.err.push_str(&format!("{BOLD}note{BOLD:#}: {text}\n"));
    }

    fn warn(&mut self, text: &str) {
        self.err.push_str(&format!("{YELLOW}warning{YELLOW:#}: {text}\n"));
    }

    fn fail(&mut self, text: &str) {
        self.failed += 1;
        self.err.push_str(&format!("{RED}error{RED:#}: {text}\n"));
    }

    pub fn finding(&mut self, action: Action, text: &str) {
        match action {
            Action::Deny => {
                self.denied += 1;
                self.err.push_str(&format!("{RED}error{RED:#}: {text}\n"));
            }
            Action::Warn => self.warn(text),
            Action::Audit => self.note(text),
        }
    }

    /// Prints all and gives the exit code.
    pub fn print(mut self, preview: Preview) -> u8 {
        for (id, other) in &preview.contested {
            self.fail(&format!(
                "{id} is declared by Kustomization `{other}` already\nhint: declare each object in one Kustomization only"
            ));
        }
        for expected in preview.objects {
            self.object(expected);
        }
        self.deletions(preview.deletions);
        for Roll { id, causes } in preview.rolls {
            self.rolled += 1;
            self.out.push_str(&format!("{BOLD}# rolled: {id}{BOLD:#} because of {}\n", causes.join("; ")));
        }
        for (action, text) in preview.findings {
            self.finding(action, &text);
        }
        if preview.denied_beyond > 0 {
            self.denied += preview.denied_beyond;
            self.note(&format!("{} more are denied", preview.denied_beyond));
        }
        for what in preview.unseen {
            self.fail(&format!("can't look at {what}"));
        }
        let code = self.code();
        let summary = self.summary();
        let (out, err) = (self.secrets.out_of(self.out), self.secrets.out_of(self.err));
        anstream::print!("{out}");
        anstream::eprint!("{err}{summary}");
        code
    }

    fn code(&self) -> u8 {
        let different = self.created + self.changed + self.recreated + self.deleted + self.guarded;
        match () {
            () if self.failed + self.denied > 0 => FAILED,
            () if different > 0 => DIFFERENT,
            () => EQUAL,
        }
    }

    fn summary(&self) -> String {
        let of = match self.revision.as_str() {
            "" => format!("Kustomization `{}` with this working copy", self.key),
            revision => format!("Kustomization `{}` at {revision}", self.key),
        };
        let counts = [
            (self.created, "created"),
            (self.changed, "changed"),
            (self.recreated, "deleted and created anew"),
            (self.deleted, "deleted"),
            (self.guarded, "waiting for consent"),
            (self.rolled, "rolled"),
        ];
        let mut parts: Vec<_> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if parts.is_empty() {
            parts.push("nothing would change".to_owned());
        }
        if self.same > 0 {
            parts.push(format!("{} as declared", self.same));
        }
        if self.denied > 0 {
            parts.push(format!("{} denied by policies, so that nothing of it would be applied", self.denied));
        }
        if self.failed > 0 {
            parts.push(format!("{} could not be told", self.failed));
        }
        format!("{of}: {}\n", parts.join(", "))
    }

    fn object(&mut self, expected: Expected) {
        let Expected { id, version, origin, outlook } = expected;
        for dropped in &outlook.dropped {
            self.warn(&format!(
                "{origin}: {id} has a field that the API server doesn't know: `{}` would be left out",
                dropped.path
            ));
        }
        for warning in &outlook.warnings {
            self.warn(&format!("{origin}: {id}: {warning}"));
        }
        let live = outlook.live;
        match outlook.fate {
            Fate::Applied(would) => {
                if live.as_ref() == Some(&would) {
                    self.same += 1;
                } else if live.is_none() {
                    self.created += 1;
                    self.show("created", &id, &version, &format!("({origin})"), None, Some(would));
                } else {
                    self.changed += 1;
                    self.show("changed", &id, &version, &format!("({origin})"), live, Some(would));
                }
            }
            Fate::Unasked { declared, why } => {
                self.created += 1;
                let note = format!("({origin}; {why}, so this is what would be sent)");
                self.show("created", &id, &version, &note, None, Some(declared));
            }
            Fate::Recreated { becomes, why } => {
                self.recreated += 1;
                let note = format!("({origin}): {}", first_line(&why));
                self.show("deleted and created anew", &id, &version, &note, live, Some(becomes));
            }
            Fate::Left(why) => {
                self.same += 1;
                self.note(&format!("{origin}: {id} would be left alone: {why}"));
            }
            Fate::Refused(error) if error.is_only_immutable() => {
                self.fail(&format!(
                    "{origin}: {id} can't be changed in place: {error}\nhint: delete the object, or declare it under a new name"
                ));
            }
            Fate::Refused(error) => self.fail(&with_hint(&format!("{origin}: {id} would be refused: {error}"), &error)),
            Fate::Unreadable(error) => self.fail(&with_hint(&format!("{origin}: {id} can't be read: {error}"), &error)),
        }
    }

    fn deletions(&mut self, deletions: Deletions) {
        for (id, version, live) in deletions.deleted {
            self.deleted += 1;
            self.show("deleted", &id, &version, "(no longer declared)", Some(live), None);
        }
        for (id, other) in deletions.handed_over {
            self.note(&format!("{id} is handed over to Kustomization `{other}`, which declares it now"));
        }
        for (id, why) in deletions.kept {
            let why = match why {
                Kept::NotOurs => "its labels name another owner",
                Kept::Marked => "a label or annotation says so",
                Kept::Flux => "it is Flux's own",
                Kept::Absent => continue,
            };
            self.note(&format!("{id} is no longer declared and stays: {why}"));
        }
        for id in deletions.forgotten {
            self.note(&format!("{id} is no longer declared and stays: `spec.prune` is false"));
        }
        for id in deletions.grounded {
            self.note(&format!("{id} is no longer declared and stays: the Kustomization itself stands on it"));
        }
        for id in deletions.unagreed {
            self.guarded += 1;
            let revision = if self.revision.is_empty() { "REVISION" } else { &self.revision };
            self.warn(&format!(
                "{id} would not be deleted without consent on itself: with it all objects of its kind go\nhint: kubectl annotate --overwrite crd {} {CONFIRM_PRUNE}='{revision}'",
                id.name
            ));
        }
        if !deletions.guarded.is_empty() {
            self.guarded += deletions.guarded.len();
            let names: Vec<_> = deletions.guarded.iter().map(ToString::to_string).collect();
            let why = if deletions.emptied { "nothing is declared any more" } else { "deleting it loses data" };
            let (namespace, name) = (&self.key.namespace, &self.key.name);
            let revision = if self.revision.is_empty() { "REVISION" } else { &self.revision };
            self.warn(&format!(
                "{} would not be deleted without consent: {why}\nhint: kubectl annotate --overwrite kustomization/{name} -n {namespace} {CONFIRM_PRUNE}='{revision}'",
                names.join(", ")
            ));
        }
        if let Some((ids, others)) = deletions.put_off {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            let others: Vec<_> = others.iter().map(|key| format!("`{key}`")).collect();
            self.fail(&format!(
                "deletions would be put off: Kustomization {} can't be rendered and may declare {}",
                others.join(", "),
                ids.join(", ")
            ));
        }
        for (id, error) in deletions.unreadable {
            self.fail(&with_hint(&format!("{id} is no longer declared, and can't be read: {error}"), &error));
        }
    }

    fn show(
        &mut self,
        what: &str,
        id: &ObjectId,
        version: &str,
        note: &str,
        mut live: Option<Value>,
        mut would: Option<Value>,
    ) {
        if id.group.is_empty() && id.kind == "Secret" {
            mask_secret(live.as_mut(), would.as_mut());
        }
        self.secrets.mask(live.as_mut(), would.as_mut());
        let diff = text::unified(&text::file_name(id, version), live.as_ref(), would.as_ref());
        self.out.push_str(&format!("{BOLD}# {what}: {id}{BOLD:#} {note}\n{diff}"));
    }
}

fn first_line(error: &ApiError) -> String {
    error.message.lines().next().unwrap_or_default().to_owned()
}

fn with_hint(text: &str, error: &ApiError) -> String {
    error.hint().map_or_else(|| text.to_owned(), |hint| format!("{text}\nhint: {hint}"))
}
