//! Regular expressions as kustomize reads them, which is as Go does.
//!
//! In: an expression in Go's syntax. Out: one that means the same here. Go takes a `{` that counts nothing for itself, as in
//! `${NAME}`; knows `\Q…\E`, and no sets within sets; `\d`, `\w` and `\s` are of ASCII; a repetition is not repeated.

use regex::Regex;

/// What Go repeats at most.
const REPEATED_MAX: usize = 1000;

pub fn compile(expression: &str) -> Result<Regex, String> {
    read(expression, |translated| translated)
}

/// The same, for whole values.
pub fn compile_whole(expression: &str) -> Result<Regex, String> {
    read(expression, |translated| format!("^(?:{translated})$"))
}

fn read(expression: &str, put: impl FnOnce(String) -> String) -> Result<Regex, String> {
    let regex = translated(expression).and_then(|translated| Regex::new(&put(translated)).ok());
    regex.ok_or_else(|| format!("`{expression}` is not a regular expression"))
}

/// `None` where Go refuses what would be taken here.
fn translated(expression: &str) -> Option<String> {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    let mut is_repeated = false;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        let repetition = match next {
            '*' | '+' | '?' => Some((1, true)),
            '{' => repetition(rest),
            _ => None,
        };
        if let Some((length, is_counted)) = repetition {
            if is_repeated || !is_counted {
                return None;
            }
            let length = length + usize::from(rest[length..].starts_with('?'));
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            is_repeated = true;
            continue;
        }
        is_repeated = false;
        rest = match next {
            '{' => {
                out.push_str(r"\{");
                after
            }
            // what is asked after `(?` repeats nothing
            '(' if after.starts_with('?') => {
                out.push_str("(?");
                &after[1..]
            }
            '[' => set(after, &mut out),
            '\\' => match after.strip_prefix('Q') {
                Some(literal) => {
                    let (literal, after) = literal.split_once(r"\E").unwrap_or((literal, ""));
                    out.push_str(&regex::escape(literal));
                    after
                }
                None => escape(after, &mut out),
            },
            other => {
                out.push(other);
                after
            }
        };
    }
    Some(out)
}

/// The length of `{2}`, `{2,}` or `{2,3}`, and whether Go counts so far. `None` for a brace that counts nothing.
fn repetition(text: &str) -> Option<(usize, bool)> {
    let end = text.find('}')?;
    let (least, most) = text[1..end].split_once(',').unwrap_or((&text[1..end], ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if least.is_empty() || !is_number(least) || !is_number(most) {
        return None;
    }
    let counts = |count: &str| count.is_empty() || count.parse().is_ok_and(|count: usize| count <= REPEATED_MAX);
    Some((end + 1, counts(least) && counts(most)))
}

/// What follows a backslash, inside of a set as well as outside.
fn escape<'a>(text: &'a str, out: &mut String) -> &'a str {
    let Some(escaped) = text.chars().next() else {
        out.push('\\');
        return text;
    };
    match escaped {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'b' => out.push_str(r"(?-u:\b)"),
        '<' | '>' => out.push(escaped),
        'p' | 'P' | 'x' if text[1..].starts_with('{') => {
            let end = text.find('}').map_or(text.len(), |end| end + 1);
            out.push('\\');
            out.push_str(&text[..end]);
            return &text[end..];
        }
        _ => {
            out.push('\\');
            out.push(escaped);
        }
    }
    &text[escaped.len_utf8()..]
}

/// What follows `[`, up to the end of the set.
fn set<'a>(text: &'a str, out: &mut String) -> &'a str {
    out.push('[');
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut is_first = true;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = match next {
            ']' if !is_first => {
                out.push(']');
                return after;
            }
            '[' if after.starts_with(':') && after.contains(":]") => {
                let end = rest.find(":]").map_or(rest.len(), |end| end + 2);
                out.push_str(&rest[..end]);
                &rest[end..]
            }
            '[' | ']' | '&' | '~' => {
                out.push('\\');
                out.push(next);
                after
            }
            '\\' => escape(after, out),
            other => {
                out.push(other);
                after
            }
        };
        is_first = false;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_means_what_it_means_in_go() {
        for (expression, text, wanted) in [
            (r"\${NAME}", "${NAME}", true),
            (r"\${NAME}-[0-9]{2,3}", "${NAME}-12", true),
            (r"a{,2}", "a{,2}", true),
            (r"a{2}", "aa", true),
            (r"a{2,}?b", "aaab", true),
            (r"{a}", "{a}", true),
            (r"\Qa.b*\E.", "a.b*c", true),
            (r"\Qa.b*\E.", "axb*c", false),
            (r"[[]a]", "[a]", true),
            (r"[]a]", "]", true),
            (r"[^]a]", "b", true),
            (r"[a&&b]", "&", true),
            (r"[[:digit:][]+", "1[2", true),
            (r"[\w.]+", "a_1.b", true),
            (r"[^\W]", "_", true),
            (r"\d", "٣", false),
            (r"\<\>", "<>", true),
            (r"\p{Greek}\x{61}", "αa", true),
            (r"(?i)WEB|db", "Db", true),
            (r"web|", "", true),
            (r"a\b.b", "a-b", true),
        ] {
            let matches = compile_whole(expression).map(|regex| regex.is_match(text));
            assert_eq!(matches, Ok(wanted), "{expression} for {text}");
        }
        for expression in
            ["(", ")", "a)(b", "*", "a**", "a+?*", "a{2}{3}", "a{1001}", "a{2,1001}", "[a", r"a\", "{2}", r"\Z"]
        {
            assert!(compile(expression).is_err(), "{expression}");
        }
    }
}
