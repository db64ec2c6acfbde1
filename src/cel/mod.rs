//! The Common Expression Language, as Kubernetes uses it: of policies, health checks, dependencies and notifications.
//!
//! ```text
//!  text ─ syntax ─▶ tree ─ check ─▶ Program ─ evaluate (variables, Budget) ─▶ Value, or an error
//! ```
//!
//! Comes in: an expression and the names that it may use. Goes out: a program, or where and why it is none. Evaluating
//! copies nothing of the manifests and takes a bounded number of steps. What of Kubernetes' libraries is not here is
//! refused by name when the expression is compiled, not when it is evaluated.

pub mod check;
mod evaluate;
mod format;
mod formatting;
mod functions;
mod lists;
mod network;
mod quantity;
mod record;
mod regular;
mod semver;
mod syntax;
mod text;
mod time;
mod tokens;
mod url;
mod value;

use std::fmt;

pub use check::{Declared, Type};
pub use evaluate::{Budget, Environment};
pub use record::{Record, Shape};
pub use value::Value;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Program {
    tree: syntax::Expr,
    /// What it comes to, as far as that is known.
    pub kind: Type,
}

/// A place in an expression, from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    const START: Position = Position { line: 1, column: 1 };

    fn of(source: &str, at: usize) -> Position {
        let before = &source[..at.min(source.len())];
        let line = before.matches('\n').count() as u32 + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1;
        Position { line, column }
    }
}

/// What is wrong with an expression, before it is evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at {}:{})", position.line, position.column)]
pub struct CompileError {
    pub position: Position,
    pub message: String,
}

/// Why an expression has no value for these variables. Holds no value of a manifest but the names of fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("no such key: {0}")]
    NoSuchKey(String),
    #[error("`{function}` is not for ({types})")]
    NoOverload { function: String, types: String },
    #[error("a number is too large")]
    Overflow,
    /// The budget is used up.
    #[error("the evaluation takes too long")]
    TooCostly,
    #[error("{0}")]
    Other(String),
}

impl EvaluationError {
    fn no_such_key(name: &str) -> Self {
        Self::NoSuchKey(name.to_owned())
    }
}

impl Program {
    pub fn compile(source: &str, declared: &Declared<'_>) -> Result<Program, CompileError> {
        let tree = syntax::parse(source)?;
        let kind = check::check(source, &tree, declared)?;
        Ok(Program { tree, kind })
    }

    /// An expression that may use any name: what there is turns out when it is evaluated. Its value has to be of this
    /// type, as far as that is known.
    pub fn compile_open(wanted: &'static str, source: &str) -> Result<Program, CompileError> {
        let tree = syntax::parse(source)?;
        let kind = check::check_open(source, &tree)?;
        if kind != Type::Any && kind != Type::Of(wanted) {
            return Err(not_of(wanted, &kind));
        }
        Ok(Program { tree, kind })
    }

    /// As [`Program::compile`]; its value has to be of this type.
    pub fn compile_as(wanted: &'static str, source: &str, declared: &Declared<'_>) -> Result<Program, CompileError> {
        let program = Self::compile(source, declared)?;
        if program.kind == Type::Of(wanted) {
            return Ok(program);
        }
        Err(not_of(wanted, &program.kind))
    }
}

fn not_of(wanted: &str, kind: &Type) -> CompileError {
    let message = format!("it must be of type {wanted}, but is of type {}", kind.name());
    CompileError { position: Position::START, message }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
