//! Regular expressions as Go reads them, for those who write them for programs in Go.
//!
//! In: an expression in Go's syntax. Out: one that means the same to `regex`. Go takes a `{` that counts nothing for itself,
//! as in `${NAME}`; knows `\Q…\E`, and no sets within sets; `\d`, `\w` and `\s` are of ASCII; a repetition is not repeated.
//! What this never does: compile it.

/// More repetitions are refused, as Go does.
const REPEAT_MAX: u32 = 1_000;

/// An expression of Go's in the words of `regex`; else why Go refuses it.
pub fn translated(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // what was before is a repetition, which can't be repeated
    let mut repeated = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let mut repeats = false;
        rest = match c {
            '\\' => escape(after, false, &mut out)?,
            '[' => class(after, &mut out)?,
            '(' => group(after, &mut out)?,
            '*' | '+' | '?' | '{' => match repetition(rest)? {
                Some(_) if repeated => return Err("a repetition can't be repeated".to_owned()),
                Some(length) => {
                    let lazy = usize::from(rest[length..].starts_with('?'));
                    out.push_str(&rest[..length + lazy]);
                    repeats = true;
                    &rest[length + lazy..]
                }
                None => {
                    out.push_str("\\{");
                    after
                }
            },
            // a lone one is a text
            '}' => {
                out.push_str("\\}");
                after
            }
            c => {
                out.push(c);
                after
            }
        };
        repeated = repeats;
    }
    Ok(out)
}

/// How long the repetition is that a text begins with; `None`: it begins with a brace that is none.
fn repetition(text: &str) -> Result<Option<usize>, String> {
    let Some(within) = text.strip_prefix('{') else { return Ok(Some(1)) };
    let Some((counts, _)) = within.split_once('}') else { return Ok(None) };
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if least.is_empty() || !digits(least) || !digits(most) {
        return Ok(None);
    }
    let fits = |text: &str| text.is_empty() || text.parse::<u32>().is_ok_and(|count| count <= REPEAT_MAX);
    if fits(least) && fits(most) {
        Ok(Some(counts.len() + 2))
    } else {
        Err(format!("`{{{counts}}}` repeats more than {REPEAT_MAX} times"))
    }
}

/// What follows an opening parenthesis: flags are those of Go.
fn group<'p>(rest: &'p str, out: &mut String) -> Result<&'p str, String> {
    out.push('(');
    let Some(flags) = rest.strip_prefix('?') else { return Ok(rest) };
    out.push('?');
    if flags.starts_with(['P', '<']) {
        return Ok(flags);
    }
    let end = flags.find([':', ')']).unwrap_or(flags.len());
    match flags[..end].chars().find(|flag| !"imsU-".contains(*flag)) {
        Some(flag) => Err(format!("`{flag}` is no flag")),
        None => Ok(flags),
    }
}

/// What follows a backslash.
fn escape<'p>(rest: &'p str, in_class: bool, out: &mut String) -> Result<&'p str, String> {
    let Some(c) = rest.chars().next() else { return Err("it ends in `\\`".to_owned()) };
    let after = &rest[c.len_utf8()..];
    let of_ascii = match c {
        'd' | 'D' => "0-9",
        'w' | 'W' => "0-9A-Za-z_",
        's' | 'S' => "\\t\\n\\f\\r ",
        _ => "",
    };
    match c {
        'd' | 'w' | 's' if in_class => out.push_str(of_ascii),
        'd' | 'w' | 's' => out.push_str(&format!("[{of_ascii}]")),
        'D' | 'W' | 'S' => out.push_str(&format!("[^{of_ascii}]")),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'Q' if !in_class => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(literal));
            return Ok(after);
        }
        'p' | 'P' | 'x' if after.starts_with('{') => {
            let end = 1 + after.find('}').ok_or_else(|| format!("`\\{c}{{` lacks its `}}`"))?;
            out.push('\\');
            out.push(c);
            out.push_str(&after[..end]);
            return Ok(&after[end..]);
        }
        'u' | 'U' => return Err(format!("`\\{c}` is no escape")),
        // what stands for itself
        c if c.is_ascii_punctuation() => out.push_str(&regex::escape(&c.to_string())),
        c => {
            out.push('\\');
            out.push(c);
        }
    }
    Ok(after)
}

/// What follows an opening bracket, up to its closing one: no classes within it, and no sums of them.
fn class<'p>(rest: &'p str, out: &mut String) -> Result<&'p str, String> {
    out.push('[');
    let mut rest = rest;
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut first = true;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            ']' if !first => {
                out.push(']');
                return Ok(after);
            }
            '\\' => escape(after, true, out)?,
            '[' => match after.strip_prefix(':').and_then(|name| name.split_once(":]")) {
                Some((name, after)) => {
                    out.push_str(&format!("[:{name}:]"));
                    after
                }
                None => {
                    out.push_str("\\[");
                    after
                }
            },
            ']' | '&' | '~' => {
                out.push('\\');
                out.push(c);
                after
            }
            c => {
                out.push(c);
                after
            }
        };
        first = false;
    }
    Err("a class lacks its `]`".to_owned())
}
