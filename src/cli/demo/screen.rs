//! What the demo prints: lines that stay, and on a terminal one line of status that is redrawn.
//!
//! With `-o json` all of it goes to stderr. Readable without colour and at most [`WIDTH`] columns wide.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Effects, Style};

use super::outcome::{First, Outcome, Played, Rotation, Summary};
use super::stage::Stage;
use super::story::{self, Failure};

const WIDTH: usize = 100;
/// The column of explanations, and what is left for them.
const INDENT: &str = "    ";
/// The daemon's words on one failure: more is in its log.
const MESSAGE_LINES_MAX: usize = 3;

const BOLD: Style = Style::new().effects(Effects::BOLD);
const DIM: Style = Style::new().effects(Effects::DIMMED);
const GREEN: Style = AnsiColor::Green.on_default().effects(Effects::BOLD);
const RED: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);

pub struct Screen {
    out: Box<dyn Write + Send>,
    terminal: bool,
    /// Whether the cursor stands in a line of status.
    has_status: bool,
    rows: usize,
}

impl Screen {
    pub fn new(on_stderr: bool) -> Self {
        let (out, terminal): (Box<dyn Write + Send>, _) = if on_stderr {
            (Box::new(anstream::stderr()), io::stderr().is_terminal())
        } else {
            (Box::new(anstream::stdout()), io::stdout().is_terminal())
        };
        Self { out, terminal, has_status: false, rows: 0 }
    }

    /// A line that stays. Who no longer reads is no reason to stop.
    pub fn line(&mut self, text: &str) {
        self.clear_status();
        let _ = writeln!(self.out, "{text}");
    }

    /// A line that is cut where the screen ends.
    pub fn short_line(&mut self, text: &str) {
        self.line(&shortened(text, WIDTH));
    }

    /// What is under way; shown on a terminal only, until the next line.
    pub fn status(&mut self, text: &str) {
        if !self.terminal {
            return;
        }
        self.clear_status();
        let _ = write!(self.out, "{DIM}{INDENT}… {}{DIM:#}", shortened(text, WIDTH - 8));
        let _ = self.out.flush();
        self.has_status = true;
    }

    pub fn clear_status(&mut self) {
        if std::mem::take(&mut self.has_status) {
            let _ = write!(self.out, "\r\x1b[K");
        }
    }

    pub fn introduction(&mut self, stage: &Stage) {
        self.line(&format!("{BOLD}Afresh demo: a broken push never holds back its fix{BOLD:#}"));
        self.line("");
        let cluster = if stage.is_sandbox() { "the embedded sandbox" } else { "yours" };
        self.line(&format!("  cluster  {cluster}, {}", stage.server()));
        self.line(&format!("  Git      examples/platform, served at {}", stage.git_url()));
        self.line(&format!("  daemon   as `afresh run` runs it; its log: {}", stage.log().display()));
        self.line("");
    }

    pub fn first(&mut self, first: &First) {
        self.line(&format!(
            "Commit A is live: {} applications with {} objects are Ready after {}.",
            first.applications,
            first.objects,
            in_words(first.ready),
        ));
        self.line("");
        for line in wrapped(
            "Now commit B breaks the platform in one way after the other; the daemon says what is wrong. Then commit C \
             repairs it and brings the next release of the web API: it is live when the API server holds that. Both \
             times begin with the push, which is announced as by a webhook (annotation \
             `reconcile.fluxcd.io/requestedAt`), but for the last C.",
            WIDTH,
        ) {
            self.line(&line);
        }
        self.line("");
        self.line(&format!("{DIM}{:<62}{:>16}{:>16}{DIM:#}", " #  commit B:", "B is reported", "C is live"));
    }

    /// A failure that was repaired: times, what was done, and the daemon's words.
    pub fn row(&mut self, failure: &Failure, outcome: &Outcome) {
        let live = live(Some(outcome.live), outcome.live_after_outage);
        let live = format!("{GREEN}{live:>16}{GREEN:#}");
        self.title(failure.title, failure.explanation, &in_words(outcome.reported), &live);
        self.quote(&outcome.message);
    }

    /// The chapter in which nothing is broken.
    pub fn rotation(&mut self, rotation: &Rotation) {
        let live = format!("{GREEN}{:>16}{GREEN:#}", in_words(rotation.served));
        self.title(story::ROTATION_TITLE, story::ROTATION_EXPLANATION, "", &live);
        let times = if rotation.rollouts == 1 { "once".to_owned() } else { format!("{} times", rotation.rollouts) };
        let (rolled, cause) = (in_words(rotation.rolled), &rotation.cause);
        self.short_line(&format!("{DIM}{INDENT}> rolled {times}, after {rolled}, because of {cause}{DIM:#}"));
    }

    /// A failure that was not repaired, and why.
    pub fn stuck(&mut self, failure: &Failure, error: &anyhow::Error) {
        let never = format!("{RED}{:>16}{RED:#}", "not repaired");
        self.title(failure.title, failure.explanation, "", &never);
        for line in wrapped(&format!("{error:#}"), WIDTH - INDENT.len()) {
            self.line(&format!("{INDENT}{line}"));
        }
    }

    pub fn summary(&mut self, summary: &Summary) {
        self.line("");
        let head = format!("{:<48}{:>15}   {}", " #  commit B:", "C is live", "Flux, by its documented defaults");
        self.line(&format!("{DIM}{head}{DIM:#}"));
        let of_failure = |played: &Played| (played.title, live(played.live, played.live_after_outage), played.flux);
        let mut rows: Vec<_> = summary.failures.iter().map(of_failure).collect();
        if let Some(rotation) = &summary.rotation {
            let row = (story::ROTATION_TITLE, in_words(rotation.served), story::ROTATION_FLUX);
            rows.insert(story::ROTATED_AT.min(rows.len()), row);
        }
        for (number, (title, live, flux)) in rows.into_iter().enumerate() {
            self.line(&format!("{:>2}  {title:<44}{live:>15}   {flux}", number + 1));
        }
        self.line("");
        let verdict = verdict(summary);
        for line in wrapped(&verdict, WIDTH) {
            self.line(&line);
        }
        for line in wrapped(story::FLUX_BASIS, WIDTH) {
            self.line(&format!("{DIM}{line}{DIM:#}"));
        }
    }

    fn title(&mut self, title: &str, explanation: &str, reported: &str, live: &str) {
        self.rows += 1;
        self.line(&format!("{:>2}  {BOLD}{title:<58}{BOLD:#}{reported:>16}{live}", self.rows));
        self.line(&format!("{INDENT}{explanation}"));
    }

    fn quote(&mut self, message: &str) {
        let lines = wrapped(message, WIDTH - INDENT.len() - 4);
        let more = lines.len() > MESSAGE_LINES_MAX;
        for (number, line) in lines.iter().take(MESSAGE_LINES_MAX).enumerate() {
            let end = if more && number + 1 == MESSAGE_LINES_MAX { " …" } else { "" };
            self.line(&format!("{DIM}{INDENT}> {line}{end}{DIM:#}"));
        }
    }
}

/// One sentence about all rows.
fn verdict(summary: &Summary) -> String {
    let all = summary.failures.len();
    let repaired: Vec<&Played> = summary.failures.iter().filter(|played| played.repaired).collect();
    let mut announced: Vec<_> = repaired
        .iter()
        .filter(|played| played.announced && played.live_after_outage.is_none())
        .filter_map(|played| played.live)
        .collect();
    announced.sort();
    let times = match announced.as_slice() {
        [] => String::new(),
        times => format!(
            " Announced, with the Git server up, C was live after {} at the median and {} at most.",
            in_words(times[times.len() / 2]),
            in_words(times[times.len() - 1]),
        ),
    };
    let rolled = if summary.rotation.is_some() { ", and the one changed Secret rolled out," } else { "" };
    format!("{} of {all} repaired{rolled} in {:.0} s.{times}", repaired.len(), summary.seconds())
}

/// From the push until C was live; across an outage, what was left of that and the time after it.
fn live(live: Option<Duration>, after_outage: Option<Duration>) -> String {
    match (live, after_outage) {
        (None, _) => "never".to_owned(),
        (Some(live), None) => in_words(live),
        (Some(live), Some(after)) => format!("{} + {}", in_words(live.saturating_sub(after)), in_words(after)),
    }
}

/// Three digits are enough.
pub fn in_words(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 999.5 { format!("{milliseconds:.0} ms") } else { format!("{:.1} s", milliseconds / 1000.0) }
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width - 1).collect();
    short.push('…');
    short
}

/// Lines of at most `width` columns, broken at spaces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let cases = [(0.0004, "0 ms"), (0.031, "31 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (12.34, "12.3 s")];
        for (seconds, text) in cases {
            assert_eq!(in_words(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_stand_alone() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a incomprehensibilities b", 5), ["a", "incomprehensibilities", "b"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
