//! The text of an expression becomes a tree, as the grammar of CEL says (cel-spec, langdef.md, "Syntax").
//!
//! Macros are expanded here: a comprehension is a node of its own, so that going through a list costs one step an item.
//! Bounded in length and depth.

use super::regular::Pattern;
use super::tokens::{self, Literal, Token};
use super::{CompileError, Position};

/// Kubernetes bounds expressions by their cost; nobody writes one that is longer.
const SOURCE_BYTES_MAX: usize = 16 * 1024;
/// The evaluator goes down as deep.
const DEPTH_MAX: usize = 120;
/// Brackets and branches within each other: the reader goes down a dozen calls for each.
const NESTING_MAX: usize = 40;

/// A node and where it begins in the text, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub at: usize,
    pub node: Node,
    depth: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Literal(Literal),
    Ident(String),
    /// `operand.field`; `optional` for `operand.?field`.
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(operand.field)`
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// `operand[index]`, `operand[?index]`
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// `f(…)`, `target.f(…)`, and qualified names: `sets.contains(…)`.
    Call {
        function: String,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
        /// The regular expression among the arguments, if it is written out: compiled once.
        pattern: Option<Pattern>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary {
        operator: Operator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    If {
        condition: Box<Expr>,
        then: Box<Expr>,
        otherwise: Box<Expr>,
    },
    /// Items with `?` before them are left out if they have no value.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    Comprehension(Box<Comprehension>),
    /// `optMap` (`flat`: `optFlatMap`)
    OptMap {
        target: Box<Expr>,
        variable: String,
        body: Box<Expr>,
        flat: bool,
    },
}

/// A call, with what of it is compiled once. What is wrong with a pattern is said when types are checked.
fn called(function: String, target: Option<Box<Expr>>, arguments: Vec<Expr>) -> Node {
    let at = match function.as_str() {
        "matches" | "find" | "findAll" => Some(usize::from(target.is_none())),
        _ => None,
    };
    let pattern = at.and_then(|at| match &arguments.get(at)?.node {
        Node::Literal(Literal::Text(text)) => Pattern::new(text).ok(),
        _ => None,
    });
    Node::Call { function, target, arguments, pattern }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Comprehension {
    pub range: Expr,
    /// The item; of two, the index or key first.
    pub variables: Vec<String>,
    pub kind: Kind,
    /// Of `map` and the transforms with three parts: which items.
    pub filter: Option<Expr>,
    pub body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    SortBy,
    TransformList,
    TransformMap,
    TransformMapEntry,
}

/// Reads one expression.
pub fn parse(source: &str) -> Result<Expr, CompileError> {
    if source.len() > SOURCE_BYTES_MAX {
        let message = format!("the expression is longer than {SOURCE_BYTES_MAX} bytes");
        return Err(CompileError { position: Position::START, message });
    }
    let tokens = tokens::read(source)?;
    let mut parser = Parser { source, tokens, next: 0, nesting: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.unexpected(&other.clone(), "an operator or the end")),
    }
}

const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<(Token, usize)>,
    next: usize,
    nesting: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)].0
    }

    fn at(&self) -> usize {
        self.tokens[self.next.min(self.tokens.len() - 1)].1
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), CompileError> {
        if self.eat(sign) { Ok(()) } else { Err(self.unexpected(&self.peek().clone(), &format!("`{sign}`"))) }
    }

    fn error(&self, at: usize, message: impl Into<String>) -> CompileError {
        CompileError { position: Position::of(self.source, at), message: message.into() }
    }

    fn unexpected(&self, token: &Token, wanted: &str) -> CompileError {
        let found = match token {
            Token::End => "the end".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::Ident(name) => format!("`{name}`"),
            Token::Literal(_) => "a literal".to_owned(),
        };
        self.error(self.at(), format!("{found} where {wanted} belongs"))
    }

    fn make(&self, at: usize, node: Node) -> Result<Expr, CompileError> {
        let below = |all: &[&Expr]| all.iter().map(|expr| expr.depth).max().unwrap_or(0);
        let depth = 1 + match &node {
            Node::Literal(_) | Node::Ident(_) => 0,
            Node::Select { operand, .. } | Node::Has { operand, .. } => operand.depth,
            Node::Not(inner) | Node::Negate(inner) => inner.depth,
            Node::Index { operand, index, .. } => below(&[operand, index]),
            Node::Binary { left, right, .. } => below(&[left, right]),
            Node::If { condition, then, otherwise } => below(&[condition, then, otherwise]),
            Node::OptMap { target, body, .. } => below(&[target, body]),
            Node::Call { target, arguments, .. } => {
                below(&target.iter().map(|t| &**t).chain(arguments).collect::<Vec<_>>())
            }
            Node::And(all) | Node::Or(all) => below(&all.iter().collect::<Vec<_>>()),
            Node::List(items) => below(&items.iter().map(|(item, _)| item).collect::<Vec<_>>()),
            Node::Map(entries) => below(&entries.iter().flat_map(|(key, value, _)| [key, value]).collect::<Vec<_>>()),
            Node::Comprehension(inner) => {
                below(&[&inner.range, &inner.body]).max(inner.filter.as_ref().map_or(0, |filter| filter.depth))
            }
        };
        if depth > DEPTH_MAX {
            return Err(self.error(at, format!("the expression is nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Expr { at, node, depth })
    }

    fn expression(&mut self) -> Result<Expr, CompileError> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(self.error(self.at(), format!("the expression is nested deeper than {NESTING_MAX} levels")));
        }
        let at = self.at();
        let condition = self.or()?;
        let expr = if self.eat("?") {
            let then = Box::new(self.or()?);
            self.expect(":")?;
            let otherwise = Box::new(self.expression()?);
            self.make(at, Node::If { condition: Box::new(condition), then, otherwise })?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(expr)
    }

    fn or(&mut self) -> Result<Expr, CompileError> {
        let at = self.at();
        let mut all = vec![self.and()?];
        while self.eat("||") {
            all.push(self.and()?);
        }
        if all.len() == 1 { Ok(all.remove(0)) } else { self.make(at, Node::Or(all)) }
    }

    fn and(&mut self) -> Result<Expr, CompileError> {
        let at = self.at();
        let mut all = vec![self.relation()?];
        while self.eat("&&") {
            all.push(self.relation()?);
        }
        if all.len() == 1 { Ok(all.remove(0)) } else { self.make(at, Node::And(all)) }
    }

    fn relation(&mut self) -> Result<Expr, CompileError> {
        const RELATIONS: [Operator; 7] = [
            Operator::Equal,
            Operator::NotEqual,
            Operator::LessOrEqual,
            Operator::GreaterOrEqual,
            Operator::Less,
            Operator::Greater,
            Operator::In,
        ];
        self.chain(&RELATIONS, Self::sum)
    }

    fn sum(&mut self) -> Result<Expr, CompileError> {
        self.chain(&[Operator::Add, Operator::Subtract], Self::product)
    }

    fn product(&mut self) -> Result<Expr, CompileError> {
        self.chain(&[Operator::Multiply, Operator::Divide, Operator::Remainder], Self::unary)
    }

    /// Operators of one precedence, from left to right.
    fn chain(
        &mut self,
        operators: &[Operator],
        below: fn(&mut Self) -> Result<Expr, CompileError>,
    ) -> Result<Expr, CompileError> {
        let at = self.at();
        let mut left = below(self)?;
        while let Some(operator) = operators.iter().copied().find(|operator| self.eat(operator.sign())) {
            let right = Box::new(below(self)?);
            left = self.make(at, Node::Binary { operator, left: Box::new(left), right })?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        let at = self.at();
        if self.eat("!") {
            let mut count = 1;
            while self.eat("!") {
                count += 1;
            }
            let inner = self.member()?;
            // an even number of them changes nothing but that it must be a boolean
            let once = self.make(at, Node::Not(Box::new(inner)))?;
            return if count % 2 == 1 { Ok(once) } else { self.make(at, Node::Not(Box::new(once))) };
        }
        if self.eat("-") {
            let mut negative = true;
            while self.eat("-") {
                negative = !negative;
            }
            let inner = self.member()?;
            return match (&inner.node, negative) {
                (Node::Literal(Literal::Int(i64::MIN)), true) => Ok(inner),
                (_, true) => self.make(at, Node::Negate(Box::new(inner))),
                (_, false) => {
                    let once = self.make(at, Node::Negate(Box::new(inner)))?;
                    self.make(at, Node::Negate(Box::new(once)))
                }
            };
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, CompileError> {
        let at = self.at();
        let mut expr = self.primary()?;
        if matches!(expr.node, Node::Literal(Literal::Int(i64::MIN))) && !self.source[..at].trim_end().ends_with('-') {
            return Err(self.error(at, "`9223372036854775808` is no number in range"));
        }
        loop {
            if self.eat(".") {
                let optional = self.eat("?");
                let Token::Ident(field) = self.take() else {
                    self.next -= 1;
                    return Err(self.unexpected(&self.peek().clone(), "the name of a field"));
                };
                let operand = Box::new(expr);
                expr = if !optional && self.eat("(") {
                    let arguments = self.arguments()?;
                    self.member_call(at, *operand, field, arguments)?
                } else {
                    self.make(at, Node::Select { operand, field, optional })?
                };
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = Box::new(self.expression()?);
                self.expect("]")?;
                expr = self.make(at, Node::Index { operand: Box::new(expr), index, optional })?;
            } else if matches!(self.peek(), Token::Sign("{"))
                && matches!(expr.node, Node::Ident(_) | Node::Select { .. })
            {
                return Err(self.error(self.at(), "messages can't be made here: write a map, as in `{\"key\": value}`"));
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        let at = self.at();
        match self.take() {
            Token::Literal(literal) => self.make(at, Node::Literal(literal)),
            Token::Ident(name) if RESERVED.contains(&name.as_str()) => {
                Err(self.error(at, format!("`{name}` is a reserved word")))
            }
            Token::Ident(name) => {
                if self.eat("(") {
                    let arguments = self.arguments()?;
                    return self.call(at, name, arguments);
                }
                self.make(at, Node::Ident(name))
            }
            // a name from the outermost scope
            Token::Sign(".") => match self.take() {
                Token::Ident(name) => self.make(at, Node::Ident(name)),
                _ => Err(self.error(at, "a name belongs after `.`")),
            },
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let mut items = Vec::new();
                while !self.eat("]") {
                    let optional = self.eat("?");
                    items.push((self.expression()?, optional));
                    if !self.eat(",") {
                        self.expect("]")?;
                        break;
                    }
                }
                self.make(at, Node::List(items))
            }
            Token::Sign("{") => {
                let mut entries = Vec::new();
                while !self.eat("}") {
                    let optional = self.eat("?");
                    let key = self.expression()?;
                    self.expect(":")?;
                    entries.push((key, self.expression()?, optional));
                    if !self.eat(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                self.make(at, Node::Map(entries))
            }
            _ => {
                self.next -= 1;
                Err(self.unexpected(&self.peek().clone(), "a value"))
            }
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, CompileError> {
        let mut arguments = Vec::new();
        if self.eat(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if !self.eat(",") {
                self.expect(")")?;
                return Ok(arguments);
            }
        }
    }

    fn call(&mut self, at: usize, function: String, mut arguments: Vec<Expr>) -> Result<Expr, CompileError> {
        if function == "has" {
            let selected = (arguments.len() == 1).then(|| arguments.remove(0).node);
            let Some(Node::Select { operand, field, optional: false }) = selected else {
                return Err(self.error(at, "`has()` takes one field, as in `has(object.spec)`"));
            };
            return self.make(at, Node::Has { operand, field });
        }
        self.make(at, called(function, None, arguments))
    }

    fn member_call(
        &mut self,
        at: usize,
        target: Expr,
        function: String,
        mut arguments: Vec<Expr>,
    ) -> Result<Expr, CompileError> {
        let kind = match (function.as_str(), arguments.len()) {
            ("all", 2 | 3) => Some(Kind::All),
            ("exists", 2 | 3) => Some(Kind::Exists),
            ("exists_one", 2 | 3) | ("existsOne", 3) => Some(Kind::ExistsOne),
            ("filter", 2) => Some(Kind::Filter),
            ("map", 2 | 3) => Some(Kind::Map),
            ("sortBy", 2) => Some(Kind::SortBy),
            ("transformList", 3 | 4) => Some(Kind::TransformList),
            ("transformMap", 3 | 4) => Some(Kind::TransformMap),
            ("transformMapEntry", 3 | 4) => Some(Kind::TransformMapEntry),
            ("optMap" | "optFlatMap", 2) => {
                let (body, variable) = (arguments.remove(1), self.variable(&arguments[0])?);
                let (target, body) = (Box::new(target), Box::new(body));
                return self.make(at, Node::OptMap { target, variable, body, flat: function == "optFlatMap" });
            }
            _ => None,
        };
        let Some(kind) = kind else {
            let target = Some(Box::new(target));
            // a namespace is not a value
            if let Some(Expr { node: Node::Ident(namespace), .. }) = target.as_deref()
                && (NAMESPACES.contains(&namespace.as_str())
                    || QUALIFIED.contains(&(namespace.as_str(), function.as_str())))
            {
                let function = format!("{namespace}.{function}");
                return self.make(at, called(function, None, arguments));
            }
            return self.make(at, called(function, target, arguments));
        };
        let two = match kind {
            Kind::TransformList | Kind::TransformMap | Kind::TransformMapEntry => true,
            Kind::All | Kind::Exists | Kind::ExistsOne => arguments.len() == 3,
            Kind::Filter | Kind::Map | Kind::SortBy => false,
        };
        let mut variables = Vec::new();
        for argument in arguments.drain(..1 + usize::from(two)) {
            variables.push(self.variable(&argument)?);
        }
        if two && variables[0] == variables[1] {
            return Err(self.error(at, format!("`{}` names both variables of `{function}`", variables[0])));
        }
        let filter = (arguments.len() == 2).then(|| arguments.remove(0));
        let body = arguments.remove(0);
        self.make(at, Node::Comprehension(Box::new(Comprehension { range: target, variables, kind, filter, body })))
    }

    fn variable(&self, expr: &Expr) -> Result<String, CompileError> {
        match &expr.node {
            Node::Ident(name) => Ok(name.clone()),
            _ => Err(self.error(expr.at, "the name of a variable belongs here")),
        }
    }
}

/// Names before a function's that are no values.
const NAMESPACES: [&str; 7] = ["sets", "math", "optional", "format", "lists", "base64", "cel"];
/// Functions in namespaces whose names people give to variables as well.
const QUALIFIED: [(&str, &str); 2] = [("ip", "isCanonical"), ("strings", "quote")];
