//! The story: what commit B breaks, in which way, and what everyone would see. Data only; the player plays it.
//!
//! The platform is `examples/platform` on a dev cluster. Every C undoes what B did and brings the next release of the
//! web API, which is how anyone can see from outside that C is live.

use std::borrow::Cow;

use serde_json::Value;

use super::sight;

/// Where the example's objects live, and what shows the release.
pub const NAMESPACE: &str = "platform-dev";
/// The Kustomization and the Deployment of the web API.
pub const APPLICATION: &str = "api";
pub const WORKLOAD: &str = "api";
/// What admission refuses in [`NAMESPACE`].
pub const REFUSED_SERVICE: &str = "api-debug";
/// The release that the example declares.
pub const FIRST_RELEASE: u32 = 2;

/// The chapter in which nothing is broken, as it is printed.
pub const ROTATION_TITLE: &str = "nothing broken: only a Secret changes";
pub const ROTATION_EXPLANATION: &str = "The S3 gateway's identities change; the gateway, which reads them, is rolled.";
pub const ROTATION_FLUX: &str = "never, without Reloader";
/// What is rolled when only a Secret changes, and how that changes: the gateway gets another identity.
pub const GATEWAY: &str = "storage";
pub const ROTATION: &[Edit] = &[replace(
    "templates/storage/identities.yaml",
    "      \"identities\": [\n",
    "      \"identities\": [\n        {\n          \"name\": \"reports\",\n          \"credentials\": [{\"accessKey\": \"reports\", \
     \"secretKey\": \"${s3_secret_key}\"}],\n          \"actions\": [\"Read:{{ values.storage.bucket }}\"]\n        },\n",
)];

/// What to try by hand in a clone: it breaks the web API.
pub const HOW_TO_BREAK: &str = "sed -i 's/values.api.image/values.api.imgae/' templates/api/api.yaml";

/// What the last column is taken from.
pub const FLUX_BASIS: &str = "Flux's column is read from its documented defaults (the source is polled every minute, \
    a Kustomization has interval 10m and no retryInterval, its dependencies are looked at every 30 s, failures of the \
    Git server double the pause up to 15 min). It is not a measurement.";

/// A change of one commit.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The first occurrence of a text.
    Replace {
        path: &'static str,
        old: Cow<'static, str>,
        new: Cow<'static, str>,
    },
    Add {
        path: &'static str,
        text: &'static str,
    },
    /// All files whose path begins so.
    RemoveFolder {
        path: &'static str,
    },
}

const fn replace(path: &'static str, old: &'static str, new: &'static str) -> Edit {
    Edit::Replace { path, old: Cow::Borrowed(old), new: Cow::Borrowed(new) }
}

/// How C comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// With an announcement right after the push, as by a webhook.
    Announced,
    /// Nobody tells the daemon.
    Unannounced,
    /// While the Git server can't be reached.
    AcrossOutage,
}

/// One way of being broken.
#[derive(Debug)]
pub struct Failure {
    /// For machines.
    pub id: &'static str,
    pub title: &'static str,
    /// What B does, in one line.
    pub explanation: &'static str,
    pub edits: &'static [Edit],
    pub repair: Repair,
    /// The Kustomization that says what is wrong, and what it must say.
    pub application: &'static str,
    sign: &'static str,
    /// How long Flux would take.
    pub flux: &'static str,
}

/// One chapter of the story.
#[derive(Clone, Copy, Debug)]
pub enum Chapter {
    /// B breaks, C repairs.
    Broken(&'static Failure),
    /// A push that changes nothing but a Secret.
    Rotated,
}

/// Where among the chapters the one stands in which nothing is broken: it is the ninth.
pub const ROTATED_AT: usize = 8;

/// The story from its beginning.
pub fn chapters() -> impl Iterator<Item = Chapter> {
    let (before, after) = FAILURES.split_at(ROTATED_AT);
    let rotated = std::iter::once(Chapter::Rotated);
    before.iter().map(Chapter::Broken).chain(rotated).chain(after.iter().map(Chapter::Broken))
}

impl Failure {
    pub fn is_announced(&self) -> bool {
        self.repair != Repair::Unannounced
    }

    /// The first line of the condition that names this failure, if the application says so.
    pub fn sign_in(&self, application: &Value) -> Option<String> {
        let said = sight::conditions(application).filter(|said| said.kind != "Ready" || said.status != "True");
        let mut named = said.filter(|said| said.message.contains(self.sign));
        named.next().map(|said| sight::first_line(&said.message))
    }
}

pub fn version(release: u32) -> String {
    format!("6.9.{release}")
}

/// Brings the next release.
pub fn release(from: u32, to: u32) -> Edit {
    let image = |release| Cow::Owned(format!("podinfo:{}\n", version(release)));
    Edit::Replace { path: "values/common.yaml", old: image(from), new: image(to) }
}

/// Whether the API server holds that release.
pub fn is_release(workload: &Value, version: &str) -> bool {
    let image = workload.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str);
    image.and_then(|image| image.rsplit_once(':')).is_some_and(|(_, tag)| tag == version)
}

const NEXT_LOOK: &str = "~1 s by webhook, ≤ 1 min by poll";

pub const FAILURES: &[Failure] = &[
    Failure {
        id: "bad-yaml",
        title: "bad YAML",
        explanation: "A brace that is opened in templates/api/public.yaml is never closed.",
        edits: &[replace("templates/api/public.yaml", "port: 80, targetPort: http}", "port: 80, targetPort: http")],
        repair: Repair::Announced,
        application: APPLICATION,
        sign: "public.yaml",
        flux: NEXT_LOOK,
    },
    Failure {
        id: "template-error",
        title: "a template error",
        explanation: "templates/api/api.yaml asks for `values.api.imgae`: there is no such value.",
        edits: &[replace("templates/api/api.yaml", "values.api.image", "values.api.imgae")],
        repair: Repair::Announced,
        application: APPLICATION,
        sign: "api.yaml",
        flux: NEXT_LOOK,
    },
    Failure {
        id: "missing-path",
        title: "a missing path",
        explanation: "The folder envs/dev/api is gone, and the Kustomization still points to it.",
        edits: &[Edit::RemoveFolder { path: "envs/dev/api/" }],
        repair: Repair::Announced,
        application: APPLICATION,
        sign: "envs/dev/api",
        flux: NEXT_LOOK,
    },
    Failure {
        id: "invalid-object",
        title: "an object that the API server refuses",
        explanation: "The Deployment is to have -1 replicas.",
        edits: &[replace("envs/dev/values.yaml", "api:\n", "api:\n  replicas: -1\n")],
        repair: Repair::Announced,
        application: APPLICATION,
        sign: "-1",
        flux: NEXT_LOOK,
    },
    Failure {
        id: "admission",
        title: "an object that admission refuses",
        explanation: "B opens a port on every node with a Service of type NodePort; a policy forbids it.",
        edits: &[Edit::Add { path: "templates/api/debug.yaml", text: REFUSED }],
        repair: Repair::Announced,
        application: APPLICATION,
        sign: "NodePort",
        flux: NEXT_LOOK,
    },
    Failure {
        id: "crash-loop",
        title: "a crashing image, under a 10 min health wait",
        explanation: "The new image ends as soon as it starts; `wait: true` with `timeout: 10m` waits for it.",
        edits: &[replace("values/common.yaml", "podinfo:", "podinfo:crash-")],
        repair: Repair::Announced,
        application: APPLICATION,
        sign: "CrashLoopBackOff",
        flux: "≤ 10 min, until B's wait ends",
    },
    Failure {
        id: "dependency",
        title: "a dependency broken in the same commit",
        explanation: "The database's Service gets a port that does not exist; the API, changed too, waits for it.",
        edits: &[
            replace("templates/database/postgres.yaml", "port: 5432, targetPort", "port: 543200, targetPort"),
            replace("envs/dev/values.yaml", "logLevel: debug", "logLevel: info"),
        ],
        repair: Repair::Announced,
        application: APPLICATION,
        sign: "Service/platform-dev/database",
        flux: "+ ≤ 30 s for each dependency",
    },
    Failure {
        id: "git-outage",
        title: "a Git server that is gone across the fix",
        explanation: "B has a typo; then the Git server is unreachable for 10 s, and C is pushed half way.",
        edits: &[replace("templates/api/api.yaml", "values.api.logLevel", "values.api.loglevel")],
        repair: Repair::AcrossOutage,
        application: APPLICATION,
        sign: "api.yaml",
        flux: "~ the outage again (back-off)",
    },
    Failure {
        id: "bad-yaml-unannounced",
        title: "bad YAML again, and nobody announces C",
        explanation: "No webhook, no annotation: a source with something broken is looked at every 5 s.",
        edits: &[replace("templates/api/public.yaml", "port: 80, targetPort: http}", "port: 80, targetPort: http")],
        repair: Repair::Unannounced,
        application: APPLICATION,
        sign: "public.yaml",
        flux: "≤ 1 min, the next poll",
    },
];

const REFUSED: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: api-debug
  namespace: {{ values.namespace }}
spec:
  type: NodePort
  selector: {app.kubernetes.io/name: api}
  ports:
  - {name: http, port: 80, targetPort: http}
";

#[cfg(test)]
mod tests {
    use super::super::platform::Tree;
    use super::*;

    #[test]
    fn every_failure_can_be_made_of_every_release_of_the_example() {
        let mut good = Tree::embedded();
        for (number, failure) in (FIRST_RELEASE..).zip(FAILURES) {
            assert_ne!(good.edited(failure.edits).unwrap(), good, "{}", failure.id);
            good = good.edited(&[release(number, number + 1)]).unwrap();
        }
    }

    #[test]
    fn the_ninth_chapter_changes_nothing_but_a_secret() {
        let before = Tree::embedded();
        let after = before.edited(ROTATION).unwrap();
        let changed: Vec<_> = before.changes_to(&after).into_iter().map(|(path, _)| path).collect();
        assert_eq!(changed, ["templates/storage/identities.yaml"]);
    }

    #[test]
    fn what_is_printed_in_one_line_fits_in_one() {
        for failure in FAILURES {
            let Failure { title, explanation, flux, .. } = failure;
            assert!(title.len() <= 44 && explanation.len() <= 96 && flux.chars().count() <= 34, "{title}");
        }
        assert!(ROTATION_TITLE.len() <= 44 && ROTATION_EXPLANATION.len() <= 96 && ROTATION_FLUX.len() <= 34);
    }

    #[test]
    fn the_ninth_chapter_breaks_nothing() {
        let told: Vec<_> = chapters().collect();
        assert!(matches!(told[8], Chapter::Rotated));
        assert_eq!(told.len(), FAILURES.len() + 1);
    }
}
