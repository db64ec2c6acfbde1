//! What a page tells people to type, and what it says they will see.

use std::path::Path;

/// A command, and what it prints.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    pub prints: Vec<String>,
}

/// The commands in a section of `docs/migrate-from-flux.md`, in their order: blocks of `console`, commands behind `$ `.
pub fn steps(section: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrate-from-flux.md");
    let text = std::fs::read_to_string(path).expect("the page");
    let heading = format!("\n## {section}\n");
    let (_, section) = text.split_once(&heading).unwrap_or_else(|| panic!("no section `{section}`"));
    read(section.split("\n## ").next().unwrap_or_default())
}

fn read(section: &str) -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for line in section.lines() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (true, "```") => inside = false,
            (true, line) => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), prints: Vec::new() }),
                (None, Some(step)) => step.prints.push(line.to_owned()),
                (None, None) => panic!("output without a command: {line}"),
            },
            (false, _) => {}
        }
    }
    steps
}

/// Whether lines are as the page says: `…` stands for anything within a line, and alone for any number of lines. White
/// space counts as one blank.
pub fn is_as_said(said: &[String], lines: &[String]) -> bool {
    match said.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "…" => (0..=lines.len()).any(|skip| is_as_said(rest, &lines[skip..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, lines)| line_is(first, line) && is_as_said(rest, lines))
        }
    }
}

fn line_is(said: &str, line: &str) -> bool {
    let one_blank = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (said, line) = (one_blank(said), one_blank(line));
    let mut parts = said.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_stand_for_anything() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        for (said, printed, same) in [
            ("a  b", "a b", true),
            ("a b", "a c", false),
            ("app  …  True  at …", "app   5m   True   at main@sha1:1", true),
            ("app … True", "app 5m False", false),
            ("one\n…\nfour", "one\ntwo\nthree\nfour", true),
            ("one\n…", "one", true),
            ("one", "one\ntwo", false),
            ("", "two", false),
        ] {
            assert_eq!(is_as_said(&lines(said), &lines(printed)), same, "{said:?} {printed:?}");
        }
    }

    #[test]
    fn commands_come_with_what_they_print() {
        let step = |command: &str, prints: &[&str]| Step {
            command: command.to_owned(),
            prints: prints.iter().map(|line| (*line).to_owned()).collect(),
        };
        let section = "Words.\n```console\n$ one\nsaid\n$ two\n```\n```yaml\n$ three\n```\n";
        assert_eq!(read(section), [step("one", &["said"]), step("two", &[])]);
    }
}
