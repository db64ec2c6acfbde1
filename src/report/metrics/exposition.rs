//! The text exposition format, written straight into one string: a thousand objects have some ten thousand series, and
//! a scrape should not build a tree of each of them.

use std::fmt::{Display, Write as _};

use super::catalogue::Definition;

/// Cumulative counts by upper bound, as Prometheus wants them.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what lies above them all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub fn observe(&mut self, value: f64) {
        let place = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[place] += 1;
        self.sum += value;
    }
}

/// One family after the other: all series of a metric stand together.
#[derive(Default)]
pub struct Exposition(String);

impl Exposition {
    pub fn begin(&mut self, definition: &Definition) {
        let Definition { name, r#type, help, .. } = definition;
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {}\n", r#type.as_str()));
    }

    /// `labels` as they stand between the braces; `more` is one label besides.
    pub fn sample(&mut self, definition: &Definition, labels: &str, more: Option<(&str, &str)>, value: impl Display) {
        self.series(definition.name, "", labels, more, value);
    }

    pub fn histogram(&mut self, definition: &Definition, labels: &str, histogram: &Histogram) {
        let mut total = 0;
        for (count, bound) in histogram.counts.iter().zip(histogram.bounds.iter().map(Some).chain([None])) {
            total += count;
            let bound = bound.map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            self.series(definition.name, "_bucket", labels, Some(("le", &bound)), total);
        }
        self.series(definition.name, "_sum", labels, None, histogram.sum);
        self.series(definition.name, "_count", labels, None, total);
    }

    pub fn into_text(self) -> String {
        self.0
    }

    fn series(&mut self, name: &str, suffix: &str, labels: &str, more: Option<(&str, &str)>, value: impl Display) {
        let out = &mut self.0;
        for part in [name, suffix, "{", labels] {
            out.push_str(part);
        }
        if let Some((label, value)) = more {
            for part in [",", label, "=\"", value, "\""] {
                out.push_str(part);
            }
        }
        // writing to a string does not fail
        let _ = writeln!(out, "}} {value}");
    }
}

/// A label as it stands between the braces.
pub fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{READY, RECOVERY};
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_with_everything() {
        let mut histogram = Histogram::new(&[0.5, 10.0]);
        for value in [0.5, 0.6, 11.0] {
            histogram.observe(value);
        }
        let mut out = Exposition::default();
        out.histogram(&RECOVERY, &label("name", "a"), &histogram);
        let lines = [
            r#"afresh_time_to_recovery_seconds_bucket{name="a",le="0.5"} 1"#,
            r#"afresh_time_to_recovery_seconds_bucket{name="a",le="10"} 2"#,
            r#"afresh_time_to_recovery_seconds_bucket{name="a",le="+Inf"} 3"#,
            r#"afresh_time_to_recovery_seconds_sum{name="a"} 12.1"#,
            r#"afresh_time_to_recovery_seconds_count{name="a"} 3"#,
        ];
        assert_eq!(out.into_text().lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn what_has_a_meaning_in_the_format_is_escaped() {
        let mut out = Exposition::default();
        out.sample(&READY, &label("name", "a\"b\\c\nd"), None, 1);
        assert_eq!(out.into_text(), "afresh_ready{name=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
