//! What came of the story, for people and for machines.

use std::time::Duration;

use serde::Serialize;

use super::stage::Stage;
use super::story::Failure;

/// How commit A went live.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct First {
    pub applications: usize,
    pub objects: usize,
    #[serde(rename = "readyMs", serialize_with = "milliseconds")]
    pub ready: Duration,
}

/// What was measured of one failure.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the daemon says is wrong: the first line.
    pub message: String,
    /// From B's push, or from the beginning of the outage, until that was said.
    pub reported: Duration,
    /// From C's push until the API server held C's object.
    pub live: Duration,
    /// As `live`, from the moment the Git server was back.
    pub live_after_outage: Option<Duration>,
}

/// What was measured of a push that changes only a Secret.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// From the push until the API server held the rolled workload.
    #[serde(rename = "rolledMs", serialize_with = "milliseconds")]
    pub rolled: Duration,
    /// From the push until all of its Pods were new.
    #[serde(rename = "servedMs", serialize_with = "milliseconds")]
    pub served: Duration,
    pub rollouts: usize,
    /// Names and keys.
    pub cause: String,
}

/// All that `-o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    version: &'static str,
    cluster: String,
    commit_a: First,
    pub failures: Vec<Played>,
    /// How many failures the story has, and how many of them were repaired.
    planned: usize,
    repaired: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    seconds: f64,
    /// What `flux` says is about.
    flux_basis: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Played {
    id: &'static str,
    pub title: &'static str,
    explanation: &'static str,
    pub announced: bool,
    pub repaired: bool,
    message: String,
    #[serde(rename = "reportedMs", serialize_with = "optional_milliseconds")]
    reported: Option<Duration>,
    #[serde(rename = "liveMs", serialize_with = "optional_milliseconds")]
    pub live: Option<Duration>,
    #[serde(
        rename = "liveAfterOutageMs",
        serialize_with = "optional_milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub live_after_outage: Option<Duration>,
    pub flux: &'static str,
}

impl Summary {
    pub fn new(stage: &Stage, commit_a: First) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cluster: stage.server().to_owned(),
            commit_a,
            failures: Vec::new(),
            planned: super::story::FAILURES.len(),
            repaired: 0,
            rotation: None,
            seconds: 0.0,
            flux_basis: super::story::FLUX_BASIS,
        }
    }

    pub fn played(&mut self, failure: &'static Failure, outcome: Outcome) {
        self.repaired += 1;
        self.failures.push(Played {
            repaired: true,
            message: outcome.message,
            reported: Some(outcome.reported),
            live: Some(outcome.live),
            live_after_outage: outcome.live_after_outage,
            ..Played::of(failure)
        });
    }

    pub fn stuck(&mut self, failure: &'static Failure, error: &anyhow::Error) {
        self.failures.push(Played { message: format!("{error:#}"), ..Played::of(failure) });
    }

    pub fn finish(&mut self, took: Duration) {
        self.seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
    }

    pub fn repaired_all(&self) -> bool {
        self.repaired == self.planned
    }

    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl Played {
    fn of(failure: &'static Failure) -> Self {
        Self {
            id: failure.id,
            title: failure.title,
            explanation: failure.explanation,
            announced: failure.is_announced(),
            repaired: false,
            message: String::new(),
            reported: None,
            live: None,
            live_after_outage: None,
            flux: failure.flux,
        }
    }
}

/// With a tenth: what a reader can tell apart.
fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn optional_milliseconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
