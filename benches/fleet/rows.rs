//! The table: a row for each thing that happens, with what it took, what the limit was and what was promised.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub struct Rows {
    pub began: Instant,
    rows: Vec<Row>,
}

pub struct Row {
    what: String,
    seconds: Option<f64>,
    /// What a bare client takes for the same writes.
    limit: Option<f64>,
    requests: BTreeMap<String, u64>,
    cpu_s: f64,
    resident_mib: f64,
    anonymous_mib: f64,
    promises: Vec<Promise>,
}

struct Promise {
    what: &'static str,
    measured: f64,
    bar: f64,
}

impl Row {
    pub fn new(what: &str, took: Duration) -> Self {
        Self { seconds: Some(took.as_secs_f64()), ..Self::untimed(what) }
    }

    fn untimed(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            seconds: None,
            limit: None,
            requests: BTreeMap::new(),
            cpu_s: 0.0,
            resident_mib: 0.0,
            anonymous_mib: 0.0,
            promises: Vec::new(),
        }
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit.as_secs_f64());
        self
    }

    pub fn bar_seconds(mut self, bar: f64) -> Self {
        let measured = self.seconds.unwrap_or(f64::NAN);
        self.promises.push(Promise { what: "s", measured, bar });
        self
    }

    pub fn bar_ratio(mut self, bar: f64) -> Self {
        let measured = self.ratio().unwrap_or(f64::NAN);
        self.promises.push(Promise { what: "× the bare client", measured, bar });
        self
    }

    pub fn own_requests(mut self, measured: f64, bar: f64) -> Self {
        self.promises.push(Promise { what: "requests of its own", measured, bar });
        self
    }

    pub fn own_writes(mut self, measured: f64, bar: f64) -> Self {
        self.promises.push(Promise { what: "writes", measured, bar });
        self
    }

    pub fn used(mut self, requests: BTreeMap<String, u64>, cpu_s: f64, [resident, anonymous]: [f64; 2]) -> Self {
        (self.requests, self.cpu_s) = (requests, cpu_s);
        (self.resident_mib, self.anonymous_mib) = (resident, anonymous);
        self
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.seconds? / self.limit?)
    }

    fn text(&self) -> String {
        let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let requests: Vec<_> = self.requests.iter().map(|(verb, count)| format!("{count} {verb}")).collect();
        let promises: Vec<_> = self.promises.iter().map(Promise::text).collect();
        let requests = if requests.is_empty() { "none".to_owned() } else { requests.join(", ") };
        let line = format!(
            "{:<40} {:>8} {:>8} {:>6} {:>7.2} {:>8.1} {:>8.1}  {requests}",
            self.what,
            optional(self.seconds),
            optional(self.limit),
            optional(self.ratio()),
            self.cpu_s,
            self.resident_mib,
            self.anonymous_mib,
        );
        promises.into_iter().fold(line, |line, promise| format!("{line}\n    {promise}"))
    }

    fn json(&self) -> Value {
        let promises: Vec<_> = self.promises.iter().map(Promise::json).collect();
        json!({
            "row": self.what, "seconds": self.seconds, "limitSeconds": self.limit, "ratio": self.ratio(),
            "requests": self.requests, "cpuSeconds": self.cpu_s, "residentMiB": self.resident_mib,
            "anonymousMiB": self.anonymous_mib, "promises": promises,
        })
    }
}

impl Promise {
    fn is_met(&self) -> bool {
        self.measured <= self.bar
    }

    fn text(&self) -> String {
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        format!("{:.2} {}, at most {}: {verdict}", self.measured, self.what, self.bar)
    }

    fn json(&self) -> Value {
        json!({ "what": self.what, "measured": self.measured, "bar": self.bar, "met": self.is_met() })
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self { began: Instant::now(), rows: Vec::new() }
    }
}

impl Rows {
    /// Shows it at once, for those who wait.
    pub fn add(&mut self, row: Row) {
        eprintln!("{}", row.text());
        self.rows.push(row);
    }

    /// The most memory of any row so far, beside what is allowed: resident and anonymous, in MiB.
    pub fn add_peak(&mut self, bars: [Option<f64>; 2]) {
        let peak = |of: fn(&Row) -> f64| self.rows.iter().map(of).fold(0.0, f64::max);
        let peaks = [peak(|row| row.resident_mib), peak(|row| row.anonymous_mib)];
        let mut row = Row::untimed("memory at its peak").used(BTreeMap::new(), 0.0, peaks);
        for ((what, measured), bar) in ["MiB resident", "MiB anonymous"].into_iter().zip(peaks).zip(bars) {
            row.promises.extend(bar.map(|bar| Promise { what, measured, bar }));
        }
        self.add(row);
    }

    pub fn print(&self) {
        println!(
            "\n{:<40} {:>8} {:>8} {:>6} {:>7} {:>8} {:>8}  requests",
            "", "seconds", "limit", "ratio", "CPU s", "MiB", "anon."
        );
        for row in &self.rows {
            println!("{}", row.text());
        }
    }

    pub fn json(&self, apps: usize, ballast_mib: usize) -> Value {
        json!({ "applications": apps, "ballastMiB": ballast_mib, "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>() })
    }
}
