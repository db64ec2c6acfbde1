//! Bad input is a clear error on the application that it is of; every other one is served on, and the fix heals.

mod disk;
mod manifests;
mod paths;
mod sources;
mod ssh;
mod templates;
mod unknown_fields;

use crate::support::env::{Env, message};
use crate::support::manifests::config_map;

/// One way of being broken: what a commit puts into the folder of an application that is well.
struct Broken {
    /// Of the application and its folder.
    name: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    /// Paths and targets.
    links: Vec<(&'static str, &'static str)>,
    /// What the condition says, the file's place first.
    says: Vec<String>,
}

impl Broken {
    /// By a file of this text.
    fn by_file(name: &'static str, file: &'static str, text: impl Into<Vec<u8>>, says: &[&str]) -> Broken {
        Broken { name, files: vec![(file, text.into())], links: Vec::new(), says: Broken::words(name, file, says) }
    }

    fn with_file(mut self, file: &'static str, text: &str) -> Broken {
        self.files.push((file, text.into()));
        self
    }

    /// By a symlink.
    fn by_link(name: &'static str, link: &'static str, target: &'static str, says: &[&str]) -> Broken {
        Broken { name, files: Vec::new(), links: vec![(link, target)], says: Broken::words(name, link, says) }
    }

    fn words(name: &str, file: &str, says: &[&str]) -> Vec<String> {
        std::iter::once(format!("{name}/{file}")).chain(says.iter().map(|word| (*word).to_owned())).collect()
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }
}

/// Breaks all applications in one commit that also changes another one, which is served; the next commit mends them.
async fn each_is_named_and_mended(env: &mut Env, cases: &[Broken]) {
    let good: Vec<_> = cases.iter().map(|case| (case.path("good.yaml"), config_map(case.name, "a"))).collect();
    let mut first: Vec<(&str, &str)> = good.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let other = config_map("other", "a");
    first.push(("other/other.yaml", &other));
    let a = env.push("A", &first);
    env.source(|_| {}).await;
    for name in cases.iter().map(|case| case.name).chain(["other"]) {
        env.kustomization(name, |_| {}).await;
    }
    env.start();
    for case in cases {
        env.ready_at(case.name, &a).await;
    }

    let b = break_all(env, cases);
    env.announce().await;
    env.ready_at("other", &b).await;
    for case in cases {
        let failed = env.failed_at(case.name, &b, "").await;
        let said = message(&failed);
        for word in &case.says {
            assert!(said.contains(word), "{}: `{word}` is not in: {said}", case.name);
        }
        let live = env.live("ConfigMap", case.name).await.unwrap_or_else(|| panic!("{} lost its object", case.name));
        assert_eq!(live["data"]["value"], "a");
    }
    assert_eq!(env.live("ConfigMap", "other").await.unwrap()["data"]["value"], "b");

    let paths: Vec<String> = cases
        .iter()
        .flat_map(|case| {
            let links = case.links.iter().map(|(link, _)| *link);
            case.files.iter().map(|(file, _)| *file).chain(links).map(|file| case.path(file))
        })
        .collect();
    let removed: Vec<(&str, Option<&str>)> = paths.iter().map(|path| (path.as_str(), None)).collect();
    let c = env.push_changes("C", &removed);
    env.announce().await;
    for case in cases {
        env.ready_at(case.name, &c).await;
    }
}

/// Commits all of it; links need a commit of their own.
fn break_all(env: &Env, cases: &[Broken]) -> String {
    let links: Vec<_> =
        cases.iter().flat_map(|case| case.links.iter().map(|(link, target)| (case.path(link), *target))).collect();
    if !links.is_empty() {
        let links: Vec<(&str, &str)> = links.iter().map(|(link, target)| (link.as_str(), *target)).collect();
        env.repository.commit_symlinks("links", &links).unwrap();
    }
    let files = cases.iter().flat_map(|case| case.files.iter().map(|(file, text)| (case.path(file), text.as_slice())));
    let files: Vec<_> = files.collect();
    let other = config_map("other", "b");
    let mut all: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    all.push(("other/other.yaml", other.as_bytes()));
    format!("main@sha1:{}", env.repository.commit_bytes("B", &all).unwrap())
}
