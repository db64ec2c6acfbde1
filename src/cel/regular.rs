//! Regular expressions: `matches`, `find`, `findAll`, in time linear in the text. They are Go's.

use regex::Regex;

use super::EvaluationError;
use super::evaluate::{Budget, Evaluated, no_overload};
use super::functions::{cost, other};
use super::value::Value;
use crate::manifest::regular::translated;

/// Compiled expressions beyond this are refused: what they match is short.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// To compile one takes about as long as so many steps.
const REGEX_STEPS: usize = 2_000;

/// A regular expression. One that is written out is compiled with the program, one that is made each time.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Pattern {
    pub fn new(pattern: &str) -> Result<Pattern, String> {
        let built = regex::RegexBuilder::new(&translated(pattern)?).size_limit(REGEX_BYTES_MAX).build();
        let told = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        built.map(Pattern).map_err(told)
    }

    pub fn made(pattern: &str, budget: &Budget) -> Result<Pattern, EvaluationError> {
        budget.take(REGEX_STEPS)?;
        Self::new(pattern).map_err(|why| other(format!("the regular expression is wrong: {why}")))
    }
}

/// `matches`, `find` and `findAll`.
pub fn search<'a>(
    function: &str,
    text: &Value<'_>,
    Pattern(regex): &Pattern,
    rest: &[Value<'_>],
    budget: &Budget,
) -> Evaluated<'a> {
    budget.take(cost(text))?;
    let Value::Text(within) = text else { return Err(no_overload(function, &[text])) };
    let within = within.as_str();
    let limit = match rest {
        [] => usize::MAX,
        [Value::Int(limit)] if function == "findAll" => usize::try_from(*limit).unwrap_or(usize::MAX),
        _ => return Err(no_overload(function, &rest.iter().collect::<Vec<_>>())),
    };
    Ok(match function {
        "matches" => Value::Bool(regex.is_match(within)),
        "find" => Value::text(regex.find(within).map_or("", |found| found.as_str())),
        _ => Value::list(regex.find_iter(within).take(limit).map(|found| Value::text(found.as_str())).collect()),
    })
}
