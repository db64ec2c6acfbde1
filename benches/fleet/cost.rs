//! What the daemon has used: requests by verb from its metrics, processor time and memory from the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use crate::support::process::Daemon;

/// Between two looks at the memory.
const SAMPLE: Duration = Duration::from_millis(20);

/// Totals since the daemon began.
#[derive(Clone, Default)]
pub struct Used {
    requests: BTreeMap<String, u64>,
    cpu_s: f64,
}

impl Used {
    pub async fn read(daemon: &Daemon, metrics: &str) -> anyhow::Result<Self> {
        let text = reqwest::get(format!("http://{metrics}/metrics")).await?.text().await?;
        let mut requests = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("afresh_api_requests_total{")) {
            let verb = line.split("verb=\"").nth(1).and_then(|rest| rest.split('"').next()).context("a verb")?;
            let count: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
            *requests.entry(verb.to_owned()).or_default() += count as u64;
        }
        Ok(Self { requests, cpu_s: daemon.cpu_s()? })
    }

    /// Requests by verb since then; watches are open all the time and don't count.
    pub fn requests_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let since = |(verb, count): (&String, &u64)| {
            (verb.clone(), count - before.requests.get(verb).copied().unwrap_or_default())
        };
        self.requests.iter().map(since).filter(|(verb, count)| verb != "watch" && *count > 0).collect()
    }

    pub fn cpu_s_since(&self, before: &Self) -> f64 {
        self.cpu_s - before.cpu_s
    }
}

/// Looks at the memory of a process all the time, in a thread of its own.
pub struct Memory {
    peaks: Arc<[AtomicU64; 2]>,
    stop: Arc<AtomicBool>,
}

impl Memory {
    pub fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        let status = daemon.status_file()?;
        let (peaks, stop) = (Arc::new([AtomicU64::new(0), AtomicU64::new(0)]), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (peaks.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok(text) = std::fs::read_to_string(&status) else { return };
                for (peak, field) in noted.iter().zip(["VmRSS:", "RssAnon:"]) {
                    let line = text.lines().find_map(|line| line.strip_prefix(field));
                    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
                    peak.fetch_max(kib.unwrap_or(0), Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE);
            }
        });
        Ok(Self { peaks, stop })
    }

    /// Resident and anonymous, in MiB, since `forget`.
    pub fn peaks(&self) -> [f64; 2] {
        [0, 1].map(|index| self.peaks[index].load(Ordering::Relaxed) as f64 / 1024.0)
    }

    pub fn forget(&self) {
        self.peaks.iter().for_each(|peak| peak.store(0, Ordering::Relaxed));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
