//! Promise 5, in requests: what a commit changed is sent once, and for what it did not change nothing is asked.

use afresh::api::{APPLY_MANAGER, STATUS_MANAGER};
use afresh::sandbox::Subresource;
use serde_json::Value;

use crate::support::env::{Cluster, Env};
use crate::support::manifests::config_map;
use crate::support::scenarios;

scenarios! {
    a_commit_costs_one_apply_for_each_changed_object_and_two_status_writes_for_each_changed_application,
}

/// A write of the daemon.
#[derive(Debug, Clone)]
struct Write {
    /// Ends with the object's name, or `<name>/status`.
    path: String,
    dry_run: bool,
}

impl Write {
    fn is_status_of(&self, application: &str) -> bool {
        self.path.ends_with(&format!("kustomizations/{application}/status"))
    }
}

/// All writes of the daemon so far, dry-runs too, but for Leases and Events.
async fn writes(env: &Env) -> Vec<Write> {
    let all: Vec<Write> = match &env.cluster {
        Cluster::Sandbox(sandbox) => {
            let daemon = ["afresh", APPLY_MANAGER, STATUS_MANAGER];
            let by_daemon = sandbox.requests().find(|e| daemon.contains(&e.manager.as_str()) && e.verb.writes());
            let path = |e: &afresh::sandbox::Entry| {
                let plural = e.resource.split('.').next().unwrap_or_default();
                let status = if e.subresource == Subresource::Status { "/status" } else { "" };
                format!("{plural}/{}{status}", e.name)
            };
            by_daemon.iter().map(|e| Write { path: path(e), dry_run: e.dry_run }).collect()
        }
        Cluster::Real(plane) => {
            let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let entries = plane.audit().expect("the audit log can be read");
            let by_daemon = entries.iter().filter(|entry| {
                text(entry, "userAgent").starts_with("afresh")
                    && text(entry, "requestURI").contains(&env.namespace)
                    && matches!(&*text(entry, "verb"), "create" | "update" | "patch" | "delete")
            });
            let write = |entry: &Value| {
                let uri = text(entry, "requestURI");
                let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
                Write { path: path.to_owned(), dry_run: query.contains("dryRun") }
            };
            by_daemon.map(write).collect()
        }
    };
    all.into_iter().filter(|write| !write.path.contains("leases") && !write.path.contains("events")).collect()
}

fn application(number: usize) -> String {
    format!("app-{number}")
}

async fn a_commit_costs_one_apply_for_each_changed_object_and_two_status_writes_for_each_changed_application(
    env: &mut Env,
) {
    const APPLICATIONS: usize = 10;
    const CHANGED: usize = 4;
    let objects = |number: usize, value: &'static str| {
        let name = application(number);
        (0..3).map(move |n| (format!("{name}/{n}.yaml"), config_map(&format!("{name}-{n}"), value)))
    };
    let push = |env: &Env, message: &str, files: Vec<(String, String)>| {
        env.push(message, &files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>())
    };
    let a = push(env, "A", (0..APPLICATIONS).flat_map(|number| objects(number, "a")).collect());
    env.source(|_| {}).await;
    for number in 0..APPLICATIONS {
        env.kustomization(&application(number), |_| {}).await;
    }
    env.start();
    for number in 0..APPLICATIONS {
        env.ready_at(&application(number), &a).await;
    }

    // two of three objects of each of four applications
    let before = writes(env).await.len();
    let changed = (0..CHANGED).flat_map(|number| objects(number, "b").take(2));
    let b = push(env, "B", changed.collect());
    env.announce().await;
    for number in 0..APPLICATIONS {
        env.ready_at(&application(number), &b).await;
    }
    let after = writes(env).await;
    for number in 0..APPLICATIONS {
        let name = application(number);
        let of_status = after[before..].iter().filter(|write| write.is_status_of(&name)).count();
        let at_most = if number < CHANGED { 2 } else { 1 };
        assert!(of_status <= at_most, "{name}: {of_status} status writes\n{:#?}", &after[before..]);
        for n in 0..3 {
            let path = format!("configmaps/{name}-{n}");
            let of_object = after[before..].iter().filter(|write| write.path.ends_with(&path));
            let (asked, applied): (Vec<&Write>, Vec<&Write>) = of_object.partition(|write| write.dry_run);
            let is_changed = number < CHANGED && n < 2;
            assert_eq!(applied.len(), usize::from(is_changed), "{path} is applied once if it was changed: {applied:?}");
            assert!(asked.len() <= usize::from(is_changed), "{path}: {asked:?}");
        }
    }

    // a daemon that starts, of this version or another, knows all that without asking
    env.daemon.take().unwrap().stop().await.unwrap();
    let before = writes(env).await.len();
    env.start();
    env.eventually("metrics are served", async || env.daemon.as_ref()?.ask("/metrics").await).await;
    for number in 0..APPLICATIONS {
        let name = application(number);
        env.eventually(&format!("{name} is looked after again"), async || {
            let labels = [("name", &*name), ("result", "applied")];
            env.measured("afresh_attempts_total", &labels).await.filter(|attempts| *attempts >= 1.0)
        })
        .await;
    }
    let after = writes(env).await;
    assert!(after.len() == before, "{:#?}", &after[before..]);
}
