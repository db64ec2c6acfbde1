//! Digests and decisions for many references: `cargo bench --bench hashing`.
//!
//! 1,000 workloads that read ten Secrets each, of four keys with 64 bytes: what an attempt does for them before it knows
//! that nothing is to be rolled, and what a 1 MiB Secret costs.

#[path = "support/table.rs"]
#[expect(dead_code, reason = "other benches use more of it")]
mod table;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use afresh::manifest::DigestKey;
use afresh::rollout::{Configuration, Kind, Live, Reading, References, Situation, content_digests, decide, references};
use anyhow::ensure;
use serde_json::json;

use table::Table;

const WORKLOADS: usize = 1_000;
const REFERENCES_EACH: usize = 10;
const KEYS: [&str; 4] = ["user", "password", "host", "port"];
const ROUNDS: usize = 20;
/// An attempt in which nothing changed must stay cheap on a small machine.
const ALL_MAX: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let key = DigestKey::new([7; 32]);
    let all = (0..ROUNDS).map(|_| round(&key)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut table = Table::default();
    report("10,000 references: followed, hashed, decided", all.clone());
    let large = vec![0x5a; 1 << 20];
    let secret = Configuration::new(Kind::Secret, "large");
    let one = |_| {
        let began = Instant::now();
        let digests = content_digests(&key, "shop", &secret, [("blob", large.as_slice())]);
        assert_eq!(digests.len(), 1);
        began.elapsed()
    };
    report("one Secret of 1 MiB: hashed", (0..ROUNDS).map(one).collect());
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let measured = milliseconds(median(all));
    table.row("10,000 references, median".to_owned(), measured, milliseconds(ALL_MAX), "ms");
    table.finish()
}

/// From Pod specifications and bytes to decisions that nothing is to be done.
fn round(key: &DigestKey) -> anyhow::Result<Duration> {
    let content: Vec<(String, Vec<u8>)> = KEYS.iter().map(|name| ((*name).to_owned(), vec![0x5a; 64])).collect();
    let pods: Vec<_> = (0..WORKLOADS)
        .map(|workload| {
            let sources = (0..REFERENCES_EACH).map(|n| json!({"secretRef": {"name": format!("s-{workload}-{n}")}}));
            json!({"containers": [{"name": "main", "envFrom": sources.collect::<Vec<_>>()}]})
        })
        .collect();
    let began = Instant::now();
    for pod in &pods {
        let references: References = references(pod);
        ensure!(references.len() == REFERENCES_EACH, "a reference was lost");
        let readings: BTreeMap<Configuration, Reading> = references
            .keys()
            .map(|configuration| {
                let content = content.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
                let digests = content_digests(key, "shop", configuration, content);
                (configuration.clone(), Reading::Content { digests, live: true, sealed: false })
            })
            .collect();
        let mut live = Live::default();
        for at in 0..2 {
            let decision = decide(&Situation {
                references: &references,
                readings: &readings,
                live: Some(&live),
                template: "template",
                now: at,
                asked: false,
                makes_pods: true,
                key,
            });
            ensure!(decision.rolls.is_empty() && !decision.too_much, "nothing changed");
            live = Live { record: Some(decision.record), hash: decision.hash };
        }
    }
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn report(what: &str, times: Vec<Duration>) {
    let most = times.iter().max().copied().unwrap_or_default();
    println!("{what:<52} median {:>10.3?}   most {most:>10.3?}", median(times));
}
