//! Plays the story: pushes, announces, watches and measures.
//!
//! In: a stage and a failure of the story. Out: how long it took until the daemon said what is wrong with B, and until
//! the API server held C. It asks nothing at intervals; every moment is that of an event of a watch.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::sleep_until;

use super::outcome::{First, Outcome, Rotation};
use super::platform::Tree;
use super::screen::Screen;
use super::sight::{self, Sight, Stuck};
use super::stage::{SOURCE, Stage};
use super::story::{self, Failure, Repair};
use crate::api;
use crate::rollout::Record;

/// How long the Git server is gone, and when in that time C is pushed.
const OUTAGE: Duration = Duration::from_secs(10);
const FIX_IN_OUTAGE: Duration = Duration::from_secs(5);

pub struct Player<'a> {
    stage: &'a Stage,
    sources: Sight,
    applications: Sight,
    workloads: Sight,
    /// What the newest good commit holds, and what the newest commit holds.
    good: Tree,
    tip: Tree,
    /// The release that the newest good commit declares.
    release: u32,
}

/// A commit that is in the bare repository.
struct Pushed {
    revision: String,
    at: Instant,
}

/// What the daemon said is wrong, and how long that took.
struct Report {
    message: String,
    after: Duration,
}

impl<'a> Player<'a> {
    /// Commits A, declares source and applications, and opens the watches.
    pub async fn new(stage: &'a Stage) -> anyhow::Result<Self> {
        Ok(Self {
            stage,
            sources: stage.sources().await,
            applications: stage.applications().await,
            workloads: stage.workloads().await,
            good: Tree::embedded(),
            tip: Tree::default(),
            release: story::FIRST_RELEASE,
        })
    }

    /// Pushes commit A and waits until every application is Ready at it.
    pub async fn go_live(&mut self) -> anyhow::Result<First> {
        let pushed = self.push("A: the platform", self.good.clone())?;
        self.stage.declare().await?;
        self.live().await?;
        self.settle(&pushed.revision).await?;
        let applications = self.applications.objects().count();
        let objects = self.applications.objects().map(inventory_size).sum();
        Ok(First { applications, objects, ready: pushed.at.elapsed() })
    }

    /// B breaks, C repairs. Returns once the platform is at rest again.
    pub async fn play(&mut self, failure: &Failure, screen: &mut Screen) -> anyhow::Result<Outcome> {
        screen.status("B is pushed; what does the daemon say?");
        let broken = self.push(&format!("B: {}", failure.title), self.good.edited(failure.edits)?)?;
        self.stage.announce().await?;
        let report = self.reported(failure, broken.at).await?;
        let (pushed, outcome) = match failure.repair {
            Repair::Announced => self.repair(report, true, screen).await?,
            Repair::Unannounced => self.repair(report, false, screen).await?,
            Repair::AcrossOutage => self.repair_across_outage(screen).await?,
        };
        screen.status("C is live; its rollout ends");
        self.settle(&pushed.revision).await?;
        Ok(outcome)
    }

    /// A push that changes nothing but a Secret: what reads it is rolled, once, and serves with what is new.
    pub async fn rotate(&mut self, screen: &mut Screen) -> anyhow::Result<Rotation> {
        let mut templates = Vec::new();
        note_template(&mut templates, self.workloads.get(story::GATEWAY));
        self.good = self.good.edited(story::ROTATION)?;
        screen.status("a push that changes only a Secret; is what reads it rolled?");
        let pushed = self.push("an identity for the S3 gateway", self.good.clone())?;
        self.stage.announce().await?;
        let rolled = self
            .workloads
            .until(story::GATEWAY, "the gateway is rolled", |object| note_template(&mut templates, object) > 1)
            .await
            .map(|(_, at)| at - pushed.at)?;
        let served = self
            .workloads
            .until(story::GATEWAY, "the gateway's Pods are new", |object| {
                note_template(&mut templates, object) > 1 && is_rolled_out(object)
            })
            .await
            .map(|(_, at)| at - pushed.at)?;
        self.settle(&pushed.revision).await?;
        let gateway = self.workloads.get(story::GATEWAY);
        let rollouts = note_template(&mut templates, gateway) - 1;
        let cause = gateway.pointer("/metadata/annotations").and_then(|a| a.get(api::CONFIG)?.as_str());
        let cause = cause.and_then(Record::read).and_then(|record| record.rolled).unwrap_or_default().by.join("; ");
        Ok(Rotation { rolled, served, rollouts, cause })
    }

    async fn reported(&mut self, failure: &Failure, since: Instant) -> anyhow::Result<Report> {
        let what = format!("`{}` says what is wrong", failure.application);
        let (application, at) =
            self.applications.until(failure.application, &what, |object| failure.sign_in(object).is_some()).await?;
        let message = failure.sign_in(&application).unwrap_or_default();
        Ok(Report { message, after: at - since })
    }

    async fn repair(
        &mut self,
        report: Report,
        announced: bool,
        screen: &mut Screen,
    ) -> anyhow::Result<(Pushed, Outcome)> {
        let pushed = self.push_repair()?;
        screen.status("C is pushed; when is it live?");
        if announced {
            self.stage.announce().await?;
        }
        let live = self.live().await? - pushed.at;
        let outcome = Outcome { message: report.message, reported: report.after, live, live_after_outage: None };
        Ok((pushed, outcome))
    }

    /// The Git server vanishes, C is pushed meanwhile, and its announcement comes to nothing.
    async fn repair_across_outage(&mut self, screen: &mut Screen) -> anyhow::Result<(Pushed, Outcome)> {
        let gone = tokio::time::Instant::now();
        let outage = self.stage.git_outage();
        screen.status("the Git server is gone for ten seconds; C is pushed meanwhile");
        let what = "the source is reported as unreachable";
        let (source, seen) = self.sources.until(SOURCE, what, sight::is_unready).await?;
        let message = sight::ready(&source).map(|ready| sight::first_line(&ready.message)).unwrap_or_default();

        sleep_until(gone + FIX_IN_OUTAGE).await;
        let pushed = self.push_repair()?;
        self.stage.announce().await?;
        sleep_until(gone + OUTAGE).await;
        drop(outage);
        let back = Instant::now();
        screen.status("the Git server is back; when is C live?");
        let live = self.live().await?;
        let outcome = Outcome {
            message,
            reported: seen - gone.into_std(),
            live: live - pushed.at,
            live_after_outage: Some(live - back),
        };
        Ok((pushed, outcome))
    }

    /// Commits and pushes in one: the commit is written straight into the bare repository.
    fn push(&mut self, message: &str, tree: Tree) -> anyhow::Result<Pushed> {
        let commit = self.stage.commit(message, &self.tip.changes_to(&tree))?;
        let at = Instant::now();
        self.tip = tree;
        Ok(Pushed { revision: format!("main@sha1:{commit}"), at })
    }

    /// C undoes what B did and brings the next release.
    fn push_repair(&mut self) -> anyhow::Result<Pushed> {
        let next = self.release + 1;
        self.good = self.good.edited(&[story::release(self.release, next)])?;
        self.release = next;
        self.push(&format!("C: release {}", story::version(next)), self.good.clone())
    }

    /// The moment at which the API server shows the newest release.
    async fn live(&mut self) -> anyhow::Result<Instant> {
        let version = story::version(self.release);
        let what = format!("release {version} is live");
        let seen = self.workloads.until(story::WORKLOAD, &what, |object| story::is_release(object, &version)).await;
        // who holds it back says why
        seen.map(|(_, at)| at).map_err(|stuck| self.explained(stuck)).context("C did not go live")
    }

    fn explained(&mut self, stuck: Stuck) -> anyhow::Error {
        Stuck { said: sight::said_of(self.applications.get(story::APPLICATION)), ..stuck }.into()
    }

    /// Waits until every application is Ready at a revision.
    async fn settle(&mut self, revision: &str) -> anyhow::Result<()> {
        for application in self.stage.application_names() {
            let what = format!("`{application}` is Ready at {revision}");
            self.applications.until(application, &what, |object| sight::is_applied(object, revision)).await?;
        }
        Ok(())
    }
}

/// Keeps each pod template that follows another; answers how many there were. (The generation would count annotations
/// of a Deployment, too.)
fn note_template(templates: &mut Vec<Value>, workload: &Value) -> usize {
    let now = workload.pointer("/spec/template").unwrap_or(&Value::Null);
    if templates.last() != Some(now) {
        templates.push(now.clone());
    }
    templates.len()
}

/// True once all Pods are of the newest template and available.
fn is_rolled_out(workload: &Value) -> bool {
    let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let wanted = number("/spec/replicas");
    number("/status/observedGeneration") == number("/metadata/generation")
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .into_iter()
            .all(|field| number(&format!("/status/{field}")) == wanted)
}

fn inventory_size(application: &Value) -> usize {
    application.pointer("/status/inventory/entries").and_then(Value::as_array).map_or(0, Vec::len)
}
