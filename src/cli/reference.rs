//! Every flag and environment variable of every command, as a table for the docs: the code is where they are written.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// A section with a table for each command.
pub fn text(cli: Command) -> String {
    let mut text = String::new();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let mut rows: Vec<_> = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(row).collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "#### `afresh {}`\n\n{about}.\n", command.get_name());
        text.push_str("| Flag | Environment | Default | |\n|---|---|---|---|\n");
        for row in rows {
            text.push_str(&row);
        }
        text.push('\n');
    }
    text
}

fn row(arg: &Arg) -> Option<String> {
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().unwrap_or_default().iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let mut flag = match arg.get_long() {
        Some("help" | "version") => return None,
        Some(long) => format!("--{long}"),
        None => String::new(),
    };
    if takes_value && !value.is_empty() {
        let value = value.join(" ");
        flag = if flag.is_empty() { value } else { format!("{flag} {value}") };
    }
    let environment = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if takes_value && !default.is_empty() { format!("`{}`", default.join(" ")) } else { String::new() };
    let choices: Vec<_> = match takes_value {
        true => arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect(),
        false => Vec::new(),
    };
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    if !choices.is_empty() {
        let _ = write!(help, ": {}", choices.join(", "));
    }
    Some(format!("| `{flag}` | {environment} | {default} | {help} |\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_docs_have_every_flag_as_the_code_has_it() {
        let docs = include_str!("../../docs/operations.md");
        let generated = super::text(super::super::Cli::command());
        let (begin, end) = ("<!-- generated: afresh reference -->\n\n", "<!-- end of what is generated -->");
        let section = docs.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(section, _)| section);
        assert!(
            section == Some(generated.as_str()),
            "the flags in docs/operations.md are outdated: put what `afresh reference` prints between the two comments:\n{generated}"
        );
    }
}
