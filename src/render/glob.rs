//! Shell patterns as Flux's substitution reads them: `*`, `?`, `[a-z]`, `[^a-z]`, `\x`; `*` and `?` match `/`, too.
//!
//! In: a pattern and a text. Out: how much of the text's beginning the pattern matches. One pass over the text, whatever
//! the pattern.

/// A step of a pattern.
enum Token {
    /// `*`
    Any,
    /// `?`
    One,
    Char(char),
    /// `[…]`, with its ranges.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// What is compared at most: steps of the pattern times bytes of the text.
const WORK_MAX: usize = 1 << 28;

/// Lengths in bytes of the beginnings that a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefixes {
    pub shortest: usize,
    pub longest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The non-empty beginnings of a text that a pattern matches; `None` if there are none, or it is no pattern.
pub(super) fn prefixes(pattern: &str, text: &str) -> Result<Option<Prefixes>, TooLong> {
    let Some(tokens) = tokens(pattern) else { return Ok(None) };
    if tokens.len().saturating_mul(text.len()) > WORK_MAX {
        return Err(TooLong);
    }
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    skip_any(&tokens, &mut reached);
    let mut found: Option<Prefixes> = None;
    for (index, c) in text.char_indices() {
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match token {
                Token::Any => next[at] = true,
                token if token.fits(c) => next[at + 1] = true,
                _ => {}
            }
        }
        skip_any(&tokens, &mut next);
        reached = next;
        if reached[tokens.len()] {
            let longest = index + c.len_utf8();
            found = Some(Prefixes { shortest: found.map_or(longest, |found| found.shortest), longest });
        }
        if !reached.contains(&true) {
            break;
        }
    }
    Ok(found)
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Char(wanted) => *wanted == c,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

/// `*` may match nothing.
fn skip_any(tokens: &[Token], reached: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if reached[at] && matches!(token, Token::Any) {
            reached[at + 1] = true;
        }
    }
}

/// `None`: a class that doesn't end, or a `\` at the end.
fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut rest = pattern.chars();
    let mut tokens = Vec::new();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Char(rest.next()?),
            '[' => class(&mut rest)?,
            c => Token::Char(c),
        });
    }
    Some(tokens)
}

fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if rest.as_str().starts_with(']') && !ranges.is_empty() {
            rest.next();
            return Some(Token::Class { negated, ranges });
        }
        let low = member(rest)?;
        let mut high = low;
        if rest.as_str().starts_with('-') {
            rest.next();
            high = member(rest)?;
        }
        ranges.push((low, high));
    }
}

fn member(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_and_the_longest_beginning_are_found_in_one_pass() {
        for (pattern, text, wanted) in [
            ("*.", "a.b.c", Some((2, 4))),
            ("*", "abc", Some((1, 3))),
            ("?", "äb", Some((2, 2))),
            ("[a-c]*", "cab", Some((1, 3))),
            ("[^a-c]", "cab", None),
            ("a\\*b", "a*bc", Some((3, 3))),
            ("*/", "/a/b", Some((1, 3))),
            ("", "abc", None),
            ("abc", "ab", None),
            ("[ab", "ab", None),
            ("a\\", "a", None),
        ] {
            let wanted = wanted.map(|(shortest, longest)| Prefixes { shortest, longest });
            assert_eq!(prefixes(pattern, text), Ok(wanted), "{pattern} in {text}");
        }
    }

    #[test]
    fn a_pattern_made_to_take_for_ever_does_not() {
        let text = "a".repeat(20_000);
        assert_eq!(prefixes(&format!("{}b", "a*".repeat(500)), &text), Ok(None));
        assert_eq!(prefixes(&"a*".repeat(20_000), &text), Err(TooLong));
    }
}
