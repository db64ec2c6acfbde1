//! Puts counting into a template, so that it can't use unbounded memory.
//!
//! Fuel bounds an engine's steps, and its output can be bounded where it is written, but one step can double a text
//! (`x ~ x`) and a block that is captured isn't written anywhere. So before a template is compiled
//! - the operands of `~` and `+`, and slices, pass a filter that counts their length: `a ~ b` becomes
//!   `a|__counted ~ b|__counted`. Filters bind tighter than operators, so nothing else changes;
//! - the operands of `*` pass a filter that lets numbers through only;
//! - bodies of loops, macros, calls and files begin or end with `{% do __text(n) %}`, n being their text in bytes.
//!
//! Positions in the changed text lead back to the template's own.

use std::collections::BTreeMap;

use minijinja::machinery::{Span, Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

pub(super) const COUNTED: &str = "__counted";
pub(super) const NUMBER: &str = "__number";
pub(super) const TEXT: &str = "__text";

/// A template with counting in it.
pub(super) struct Guarded {
    pub text: String,
    /// Where something was put in, by its place in `text`, and how long it is.
    insertions: Vec<(usize, usize)>,
}

impl Guarded {
    /// Where a place in the changed text was before.
    pub(super) fn original(&self, offset: usize) -> usize {
        let mut shift = 0;
        for (at, length) in &self.insertions {
            if *at >= offset {
                break;
            }
            // Inside of an insertion: where it was put in.
            shift += (*length).min(offset - at);
        }
        offset - shift
    }
}

/// Puts the counting in. A template with a syntax error stays as it is: the engine will say what is wrong.
pub(super) fn guard(source: &str, syntax: &SyntaxConfig) -> Guarded {
    let tokens = parse(source, "", syntax.clone())
        .and_then(|_| tokenize(source, false, syntax.clone()).collect::<Result<Vec<_>, _>>());
    let insertions = tokens.map(|tokens| Plan::new(source, &tokens).insertions()).unwrap_or_default();
    let mut guarded = Guarded { text: String::with_capacity(source.len() + 64), insertions: Vec::new() };
    let mut from = 0;
    for (offset, insertion) in insertions {
        guarded.text.push_str(&source[from..offset]);
        guarded.insertions.push((guarded.text.len(), insertion.len()));
        guarded.text.push_str(&insertion);
        from = offset;
    }
    guarded.text.push_str(&source[from..]);
    guarded
}

type Tokens<'a> = [(Token<'a>, Span)];

struct Plan<'a> {
    source: &'a str,
    tokens: &'a Tokens<'a>,
    insertions: BTreeMap<usize, String>,
}

/// A part of a template that can be run again and again.
struct Body {
    /// Where its first instruction goes, and how the tag before ends; none for the file, which counts at its end.
    start: Option<(usize, &'static str)>,
    text_bytes: usize,
}

impl<'a> Plan<'a> {
    fn new(source: &'a str, tokens: &'a Tokens<'a>) -> Self {
        Self { source, tokens, insertions: BTreeMap::new() }
    }

    fn insertions(mut self) -> BTreeMap<usize, String> {
        let mut bodies = vec![Body { start: None, text_bytes: 0 }];
        for index in 0..self.tokens.len() {
            match &self.tokens[index].0 {
                Token::TemplateData(text) => {
                    if let Some(body) = bodies.last_mut() {
                        body.text_bytes += text.len();
                    }
                }
                Token::BlockStart => self.tag(index, &mut bodies),
                Token::Tilde | Token::Plus => self.operands(index, COUNTED),
                Token::Mul => self.operands(index, NUMBER),
                Token::BracketOpen => self.slice(index),
                _ => {}
            }
        }
        if let Some(file) = bodies.first() {
            self.count(file);
        }
        self.insertions
    }

    /// A tag that begins or ends a body.
    fn tag(&mut self, start: usize, bodies: &mut Vec<Body>) {
        let Some((Token::Ident(keyword), _)) = self.tokens.get(start + 1) else { return };
        match *keyword {
            "for" | "macro" | "call" => {
                let end = self.tokens[start..].iter().find(|(token, _)| matches!(token, Token::BlockEnd));
                let Some((_, span)) = end else { return };
                let offset = span.end_offset as usize;
                let marker = match &self.source[..offset] {
                    before if before.ends_with("-%}") => "-%}",
                    before if before.ends_with("+%}") => "+%}",
                    before if before.ends_with("%}") => "%}",
                    _ => return,
                };
                bodies.push(Body { start: Some((offset, marker)), text_bytes: 0 });
            }
            "endfor" | "endmacro" | "endcall" if bodies.len() > 1 => {
                if let Some(body) = bodies.pop() {
                    self.count(&body);
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, body: &Body) {
        if body.text_bytes == 0 {
            return;
        }
        match body.start {
            Some((offset, marker)) => self.insert(offset, &format!("{{% do {TEXT}({}) {marker}", body.text_bytes)),
            None => self.insert(self.source.len(), &format!("{{%+ do {TEXT}({}) %}}", body.text_bytes)),
        }
    }

    /// Passes both operands of an operator through a filter.
    fn operands(&mut self, operator: usize, filter: &str) {
        let Some(left) = operator.checked_sub(1) else { return };
        // `*` before an argument isn't an operator, nor is `+` at the beginning of a tag.
        if !self.ends_operand(left) {
            return;
        }
        self.insert_filter(left, filter);
        if let Some(right) = self.operand_end(operator + 1) {
            self.insert_filter(right, filter);
        }
    }

    /// Passes a slice through the counting filter: `x[1:]`.
    fn slice(&mut self, open: usize) {
        let is_subscript = open.checked_sub(1).is_some_and(|before| self.ends_operand(before));
        let Some(close) = self.matching(open).filter(|_| is_subscript) else { return };
        let mut depth = 0;
        let has_colon = self.tokens[open + 1..close].iter().any(|(token, _)| {
            match token {
                Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => depth += 1,
                Token::BracketClose | Token::ParenClose | Token::BraceClose => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(token, Token::Colon)
        });
        let goes_on = matches!(self.kind(close + 1), Some(Token::Dot | Token::BracketOpen | Token::ParenOpen));
        if has_colon && !goes_on {
            self.insert_filter(close, COUNTED);
        }
    }

    /// The last token of the operand that begins at a token: a value with its attributes, subscripts and calls.
    fn operand_end(&self, start: usize) -> Option<usize> {
        let mut at = start;
        while matches!(self.kind(at), Some(Token::Minus | Token::Ident("not"))) {
            at += 1;
        }
        let mut end = match self.kind(at)? {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => self.matching(at)?,
            _ if self.ends_operand(at) => at,
            _ => return None,
        };
        loop {
            match self.kind(end + 1) {
                Some(Token::Dot) => end += 2,
                Some(Token::ParenOpen | Token::BracketOpen) => end = self.matching(end + 1)?,
                // Neighbouring texts are one.
                Some(Token::Str(_) | Token::String(_)) => end += 1,
                _ => return (end < self.tokens.len()).then_some(end),
            }
        }
    }

    fn kind(&self, index: usize) -> Option<&Token<'a>> {
        self.tokens.get(index).map(|(token, _)| token)
    }

    fn ends_operand(&self, index: usize) -> bool {
        const KEYWORDS: [&str; 10] = ["and", "or", "not", "in", "is", "if", "else", "elif", "recursive", "set"];
        match self.kind(index) {
            Some(Token::Ident(name)) => !KEYWORDS.contains(name),
            Some(Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_)) => true,
            Some(Token::ParenClose | Token::BracketClose | Token::BraceClose) => true,
            _ => false,
        }
    }

    /// The token that closes a bracket.
    fn matching(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        for (index, (token, _)) in self.tokens.iter().enumerate().skip(open) {
            match token {
                Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => depth += 1,
                Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(index);
                    }
                }
                Token::VariableEnd | Token::BlockEnd => return None,
                _ => {}
            }
        }
        None
    }

    fn insert_filter(&mut self, after: usize, filter: &str) {
        let offset = self.tokens[after].1.end_offset as usize;
        let text = format!("|{filter}");
        // The same operand may stand between two operators.
        if self.insertions.get(&offset).is_none_or(|there| !there.contains(&text)) {
            self.insert(offset, &text);
        }
    }

    fn insert(&mut self, offset: usize, text: &str) {
        self.insertions.entry(offset).or_default().push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syntax() -> SyntaxConfig {
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()
            .expect("syntax")
    }

    #[test]
    fn operands_slices_and_bodies_are_counted() {
        for (source, wanted) in [
            ("{{ a ~ b }}", "{{ a|__counted ~ b|__counted }}"),
            ("{{ a.b[c](d) ~ -x.y|upper }}", "{{ a.b[c](d)|__counted ~ -x.y|__counted|upper }}"),
            ("{{ a ~ 'x' ~ c }}", "{{ a|__counted ~ 'x'|__counted ~ c|__counted }}"),
            ("{{ (a ~ b) + [c] }}", "{{ (a|__counted ~ b|__counted)|__counted + [c]|__counted }}"),
            ("{{ 2 * x + 1 }}", "{{ 2|__number * x|__number|__counted + 1|__counted }}"),
            ("{{ f(*args, **kwargs) }}", "{{ f(*args, **kwargs) }}"),
            ("{{ 2 ** 3 }}", "{{ 2 ** 3 }}"),
            ("{{ x[1:] }}{{ x[1] }}{{ x[{'a': 1}] }}", "{{ x[1:]|__counted }}{{ x[1] }}{{ x[{'a': 1}] }}"),
            ("{{ x[1:].y }}{{ [1, x[:2]] }}", "{{ x[1:].y }}{{ [1, x[:2]|__counted] }}"),
            ("{%+ if a ~ b %}{%+ endif +%}", "{%+ if a|__counted ~ b|__counted %}{%+ endif +%}"),
            ("{% for x in y %}\n  abc\n{%- endfor %}", "{% for x in y %}{% do __text(5) %}\n  abc\n{%- endfor %}"),
            ("{% for x in y -%} a {% endfor %}", "{% for x in y -%}{% do __text(2) -%} a {% endfor %}"),
            (
                "{% macro m(a=1 ~ 2) %}ab{% for x in y %}cde{% endfor %}{% endmacro %}f",
                "{% macro m(a=1|__counted ~ 2|__counted) %}{% do __text(2) %}ab{% for x in y %}{% do __text(3) %}cde{% endfor %}{% endmacro %}f{%+ do __text(1) %}",
            ),
            ("{% raw %}{{ a ~ b }}{% endraw %}", "{% raw %}{{ a ~ b }}{% endraw %}{%+ do __text(11) %}"),
            ("{# a ~ b #}{{ '}} ~' }}", "{# a ~ b #}{{ '}} ~' }}"),
            ("{{ a ~", "{{ a ~"),
        ] {
            assert_eq!(guard(source, &syntax()).text, wanted);
        }
    }

    #[test]
    fn positions_lead_back() {
        let source = "{% for x in y %}text{% endfor %}{{ a ~ b }}{{ nope }}";
        let guarded = guard(source, &syntax());
        for (there, here) in [("text{% e", "text"), ("a|", "a ~"), ("~", "~"), ("b|", "b }}"), ("nope", "nope")] {
            let offset = guarded.text.find(there).expect("it is there");
            assert_eq!(Some(guarded.original(offset)), source.find(here), "{there}");
        }
    }
}
