//! The text of an expression becomes words and signs, as the grammar of CEL says (cel-spec, langdef.md, "Syntax").
//!
//! Comes in: a text. Goes out: tokens and where each begins, or the first place that begins nothing.

use super::{CompileError, Position};

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Literal(Literal),
    Ident(String),
    Sign(&'static str),
    End,
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

/// Longer ones first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ".", ",",
    ":", "?", "=",
];

/// All tokens, each with where it begins, in bytes; the last is the end.
pub fn read(source: &str) -> Result<Vec<(Token, usize)>, CompileError> {
    Lexer { source, at: 0 }.all()
}

impl Lexer<'_> {
    fn all(mut self) -> Result<Vec<(Token, usize)>, CompileError> {
        let mut tokens = Vec::new();
        loop {
            self.skip_blanks();
            let at = self.at;
            let token = self.token()?;
            let end = token == Token::End;
            tokens.push((token, at));
            if end {
                return Ok(tokens);
            }
        }
    }

    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn error(&self, at: usize, message: impl Into<String>) -> CompileError {
        CompileError { position: Position::of(self.source, at), message: message.into() }
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start().len();
            self.at += blanks;
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn token(&mut self) -> Result<Token, CompileError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number();
        }
        if let Some((raw, bytes, quote)) = quoted(rest) {
            return self.text(raw, bytes, quote);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let word = rest[..length].to_owned();
            self.at += length;
            return Ok(match word.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                _ => Token::Ident(word),
            });
        }
        match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            Some(sign) if sign != "=" => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            _ => Err(self.error(self.at, format!("`{first}` begins nothing that is known"))),
        }
    }

    fn number(&mut self) -> Result<Token, CompileError> {
        let (start, rest) = (self.at, self.rest());
        let wrong = |lexer: &Self, text: &str| lexer.error(start, format!("`{text}` is no number in range"));
        if let Some(digits) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let length = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let (text, unsigned) = (&digits[..length], digits[length..].starts_with(['u', 'U']));
            let value = u64::from_str_radix(text, 16).map_err(|_| wrong(self, text))?;
            let token = if unsigned {
                Literal::Uint(value)
            } else {
                Literal::Int(i64::try_from(value).map_err(|_| wrong(self, text))?)
            };
            self.at += 2 + length + usize::from(unsigned);
            return Ok(Token::Literal(token));
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut length = digits(rest);
        let mut double = false;
        if rest[length..].starts_with('.') && rest[length + 1..].starts_with(|c: char| c.is_ascii_digit()) {
            double = true;
            length += 1 + digits(&rest[length + 1..]);
        }
        if rest[length..].starts_with(['e', 'E']) {
            let exponent = &rest[length + 1..];
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let more = digits(&exponent[sign..]);
            if more > 0 {
                double = true;
                length += 1 + sign + more;
            }
        }
        let text = &rest[..length];
        let unsigned = !double && rest[length..].starts_with(['u', 'U']);
        let literal = match (double, unsigned) {
            (true, _) => Literal::Double(text.parse().map_err(|_| wrong(self, text))?),
            (_, true) => Literal::Uint(text.parse().map_err(|_| wrong(self, text))?),
            // its sign comes before it: the smallest is one more than the largest
            _ if text == "9223372036854775808" => Literal::Int(i64::MIN),
            _ => Literal::Int(text.parse().map_err(|_| wrong(self, text))?),
        };
        self.at += length + usize::from(unsigned);
        Ok(Token::Literal(literal))
    }

    fn text(&mut self, raw: bool, bytes: bool, quote: &'static str) -> Result<Token, CompileError> {
        let start = self.at;
        self.at += usize::from(raw) + usize::from(bytes) + quote.len();
        let mut out: Vec<u8> = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(c) = rest.chars().next().filter(|c| quote.len() == 3 || *c != '\n') else {
                return Err(self.error(start, "the text lacks its closing quote"));
            };
            if c == '\\' && !raw {
                self.escape(bytes, &mut out)?;
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += c.len_utf8();
            }
        }
        if bytes {
            return Ok(Token::Literal(Literal::Bytes(out)));
        }
        let text = String::from_utf8(out).map_err(|_| self.error(start, "the text is not UTF-8"))?;
        Ok(Token::Literal(Literal::Text(text)))
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), CompileError> {
        let rest = &self.source[self.at + 1..];
        let Some(c) = rest.chars().next() else { return Err(self.error(self.at, "an escape without its letter")) };
        let simple = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => Some(c as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            self.at += 2;
            return Ok(());
        }
        let (skip, length, radix) = match c {
            'x' | 'X' => (1, 2, 16),
            'u' if !bytes => (1, 4, 16),
            'U' if !bytes => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => return Err(self.error(self.at, format!("`\\{c}` is no escape"))),
        };
        let digits = rest.get(skip..skip + length);
        let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let Some(code) = code else { return Err(self.error(self.at, format!("`\\{c}` needs {length} digits"))) };
        match u8::try_from(code) {
            Ok(byte) if bytes && length <= 3 => out.push(byte),
            _ => {
                let Some(c) = char::from_u32(code) else { return Err(self.error(self.at, "no such character")) };
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        self.at += 1 + skip + length;
        Ok(())
    }
}

/// Whether a text begins here: raw, bytes, and its quote.
fn quoted(rest: &str) -> Option<(bool, bool, &'static str)> {
    let prefix = rest.find(['"', '\'']).filter(|at| *at <= 2)?;
    let (letters, text) = rest.split_at(prefix);
    let letters = letters.to_ascii_lowercase();
    let (raw, bytes) = match letters.as_str() {
        "" => (false, false),
        "r" => (true, false),
        "b" => (false, true),
        "br" | "rb" => (true, true),
        _ => return None,
    };
    ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| text.starts_with(quote)).map(|quote| (raw, bytes, quote))
}
