//! What nobody may be told: secrets that a scenario plants or uses, and a watch over all that the daemon says.
//!
//! Every line of a daemon's log, at its most talkative, is looked at as it is written. What stands in the cluster and
//! what the daemon answers is looked at when a scenario ends (`Env::assert_nothing_is_told`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use afresh::manifest::yaml;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde_json::Value;

/// Shorter values are words of any log.
const VALUE_BYTES_MIN: usize = 8;
/// How much is shown of what tells one.
const SHOWN_CHARS: usize = 400;
/// More of the same explains nothing.
const TOLD_MAX: usize = 20;

#[derive(Clone, Default)]
pub struct Canaries(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    kept: Vec<Canary>,
    /// Finds any of them.
    pattern: Option<Regex>,
    told: Vec<String>,
}

/// The beginning of a long value tells as much as all of it.
const LOOKED_FOR_BYTES: usize = 1024;

struct Canary {
    what: String,
    spellings: Vec<String>,
}

impl Canaries {
    /// A new value that stands nowhere else.
    pub fn plant(&self, what: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let value = format!("canary{:08x}{number}", number.wrapping_mul(0x9e37_79b1) ^ std::process::id());
        self.keep(what, &value);
        value
    }

    /// As [`Canaries::plant`]; the same value for the same thing.
    pub fn planted(&self, what: &str) -> String {
        let known = self.state().kept.iter().find(|canary| canary.what == what).map(|c| c.spellings[0].clone());
        known.unwrap_or_else(|| self.plant(what))
    }

    /// From now on nobody may be told this value.
    pub fn keep(&self, what: &str, value: &str) {
        if value.len() < VALUE_BYTES_MIN {
            return;
        }
        let value = &value[..value.floor_char_boundary(LOOKED_FOR_BYTES)];
        let mut state = self.state();
        state.kept.push(Canary { what: what.to_owned(), spellings: spellings(value) });
        let all: Vec<_> = state.kept.iter().flat_map(|canary| &canary.spellings).map(|s| regex::escape(s)).collect();
        state.pattern = Some(Regex::new(&all.join("|")).expect("a pattern of texts"));
    }

    /// Keeps the values of the Secrets among manifests.
    pub fn keep_secrets_of(&self, path: &str, text: &str) {
        let Ok(documents) = yaml::documents(path, text.as_bytes()) else { return };
        for secret in documents.iter().map(|document| &document.value).filter(|value| value["kind"] == "Secret") {
            for (key, value) in values_of(secret, "stringData") {
                self.keep(&format!("`{key}` of a Secret in {path}"), value);
            }
            for (key, value) in values_of(secret, "data") {
                let decoded = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                self.keep(&format!("`{key}` of a Secret in {path}"), decoded.as_deref().unwrap_or_default());
            }
        }
    }

    /// Looks for them in what is said in `place`.
    pub fn look(&self, place: &str, text: &str) {
        let mut state = self.state();
        let Some(found) = state.pattern.as_ref().and_then(|pattern| pattern.find(text)) else { return };
        let canary = state.kept.iter().find(|canary| canary.spellings.iter().any(|s| s == found.as_str()));
        let what = canary.map_or("a secret", |canary| canary.what.as_str());
        let begin = text[..found.start()].char_indices().rev().nth(SHOWN_CHARS / 2).map_or(0, |(at, _)| at);
        let shown: String = text[begin..].chars().take(SHOWN_CHARS).collect();
        let told = format!("{place} tells {what}: {shown}");
        if state.told.len() < TOLD_MAX {
            state.told.push(told);
        }
    }

    /// What was told of them so far.
    pub fn told(&self) -> Vec<String> {
        self.state().told.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn values_of<'a>(secret: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let values = secret[field].as_object().into_iter().flatten();
    values.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// A value as it is, quoted, and as it looks within anything in base64.
fn spellings(value: &str) -> Vec<String> {
    let quoted = Value::from(value).to_string();
    let mut spellings = vec![value.to_owned(), quoted[1..quoted.len() - 1].to_owned()];
    for offset in 0..3 {
        let encoded = STANDARD.encode([&[0; 2][..offset], value.as_bytes()].concat());
        let (begin, end) = (if offset == 0 { 0 } else { 4 }, (offset + value.len()) / 3 * 4);
        spellings.extend(encoded.get(begin..end).filter(|part| part.len() >= VALUE_BYTES_MIN).map(str::to_owned));
    }
    spellings.dedup();
    spellings
}
