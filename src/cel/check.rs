//! What can be known to be wrong before anything is evaluated: names that nobody declares, functions that do not exist
//! or get the wrong arguments, types that don't go together, a result of the wrong type.
//!
//! As in an API server, manifests are of any type here: what depends on them is found out when it is evaluated.

use super::formatting::{self, Part};
use super::functions::{self, SIGNATURES, UNSERVED};
use super::record::Record;
use super::regular::Pattern;
use super::syntax::{Comprehension, Expr, Kind, Node, Operator};
use super::time::{self, DURATION, TIMESTAMP};
use super::tokens::Literal;
use super::{CompileError, Position};

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Known when it is evaluated.
    Any,
    /// By CEL's name.
    Of(&'static str),
    List(Box<Type>),
    Map(Box<Type>),
    Optional(Box<Type>),
    Record(&'static Record),
}

impl Type {
    pub fn name(&self) -> &'static str {
        match self {
            Type::Any => "dyn",
            Type::Of(name) => name,
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Optional(_) => "optional_type",
            Type::Record(record) => record.name,
        }
    }

    fn of(name: &'static str) -> Type {
        match name {
            "" => Type::Any,
            "list" => Type::List(Box::new(Type::Any)),
            "map" => Type::Map(Box::new(Type::Any)),
            "optional_type" => Type::Optional(Box::new(Type::Any)),
            name => Type::Of(name),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Type::Of("int" | "uint" | "double"))
    }

    /// Whether a value can be of both types.
    fn goes_with(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Any, _) | (_, Type::Any) => true,
            (Type::List(a), Type::List(b)) | (Type::Map(a), Type::Map(b)) | (Type::Optional(a), Type::Optional(b)) => {
                a.goes_with(b)
            }
            (a, b) => a == b,
        }
    }

    /// What a value of either type is.
    fn either(self, other: Type) -> Type {
        if self == other { self } else { Type::Any }
    }
}

const BOOL: Type = Type::Of("bool");

/// What is declared: names, and what `variables.name` comes to.
pub struct Declared<'a> {
    pub names: &'a [&'static str],
    /// Of these the fields are known, of all others nothing.
    pub records: &'a [(&'static str, &'static Record)],
    pub composed: &'a [(String, Type)],
}

struct Checker<'a> {
    source: &'a str,
    declared: &'a Declared<'a>,
    /// Names that nobody declares are of any type.
    open: bool,
    /// Lists are of what a format takes, which may be anything.
    mixed: bool,
    scopes: Vec<(String, Type)>,
}

/// The type of an expression, or the first thing that is wrong with it.
pub fn check(source: &str, expr: &Expr, declared: &Declared<'_>) -> Result<Type, CompileError> {
    Checker { source, declared, open: false, mixed: false, scopes: Vec::new() }.check(expr)
}

/// As [`check`], where any name may be used.
pub fn check_open(source: &str, expr: &Expr) -> Result<Type, CompileError> {
    let declared = Declared { names: &[], records: &[], composed: &[] };
    Checker { source, declared: &declared, open: true, mixed: true, scopes: Vec::new() }.check(expr)
}

/// True for what may be of a type whose values have an order.
fn orders(kind: &Type) -> bool {
    of_time(kind) || matches!(kind, Type::Any | Type::Of("bool" | "int" | "uint" | "double" | "string" | "bytes"))
}

fn of_time(kind: &Type) -> bool {
    matches!(kind, Type::Of(DURATION | TIMESTAMP))
}

/// What becomes of moments and durations; `None`: nothing.
fn time_of(operator: Operator, left: &Type, right: &Type) -> Option<Type> {
    const LENGTH: Type = Type::Of(DURATION);
    const MOMENT: Type = Type::Of(TIMESTAMP);
    let adds = operator == Operator::Add;
    Some(match (left, right) {
        (&LENGTH, &LENGTH) => LENGTH,
        (&MOMENT, &LENGTH) => MOMENT,
        (&LENGTH, &MOMENT) if adds => MOMENT,
        (&MOMENT, &MOMENT) if !adds => LENGTH,
        (&MOMENT, Type::Any) if adds => MOMENT,
        (Type::Any, &MOMENT) => {
            if adds {
                MOMENT
            } else {
                LENGTH
            }
        }
        (&LENGTH, Type::Any) if !adds => LENGTH,
        (&LENGTH | &MOMENT, Type::Any) | (Type::Any, &LENGTH) => Type::Any,
        _ => return None,
    })
}

impl Checker<'_> {
    fn error(&self, at: usize, message: impl Into<String>) -> CompileError {
        CompileError { position: Position::of(self.source, at), message: message.into() }
    }

    fn overload(&self, at: usize, function: &str, types: &[&Type]) -> CompileError {
        let types: Vec<_> = types.iter().map(|kind| kind.name()).collect();
        self.error(at, format!("`{function}` is not for ({})", types.join(", ")))
    }

    fn boolean(&mut self, expr: &Expr, function: &str) -> Result<(), CompileError> {
        match self.check(expr)? {
            Type::Any | BOOL => Ok(()),
            other => Err(self.overload(expr.at, function, &[&other])),
        }
    }

    fn check(&mut self, expr: &Expr) -> Result<Type, CompileError> {
        match &expr.node {
            Node::Literal(literal) => Ok(Type::Of(match literal {
                Literal::Null => "null_type",
                Literal::Bool(_) => "bool",
                Literal::Int(_) => "int",
                Literal::Uint(_) => "uint",
                Literal::Double(_) => "double",
                Literal::Text(_) => "string",
                Literal::Bytes(_) => "bytes",
            })),
            Node::Ident(name) => self.name(expr.at, name),
            Node::Select { operand, field, optional } => self.select(expr.at, operand, field, *optional),
            Node::Has { operand, field } => match self.check(operand)? {
                Type::Any | Type::Map(_) | Type::Optional(_) => Ok(BOOL),
                Type::Record(record) if record.field(field).is_some() => Ok(BOOL),
                other => Err(self.error(expr.at, format!("a {} has no field `{field}`", other.name()))),
            },
            Node::Index { operand, index, optional } => {
                let (of, index) = (self.check(operand)?, self.check(index)?);
                let (of, optional) = match of {
                    Type::Optional(inner) => (*inner, true),
                    of => (of, *optional),
                };
                let item = match (&of, &index) {
                    (Type::Any, _) => Type::Any,
                    (Type::List(item), Type::Any) => (**item).clone(),
                    (Type::List(item), Type::Of("int")) => (**item).clone(),
                    (Type::Map(value), _) => (**value).clone(),
                    _ => return Err(self.overload(expr.at, "[]", &[&of, &index])),
                };
                Ok(if optional { Type::Optional(Box::new(item)) } else { item })
            }
            Node::Call { function, target, arguments, .. } => {
                self.call(expr.at, function, target.as_deref(), arguments)
            }
            Node::And(all) | Node::Or(all) => {
                let sign = if matches!(expr.node, Node::And(_)) { "&&" } else { "||" };
                for one in all {
                    self.boolean(one, sign)?;
                }
                Ok(BOOL)
            }
            Node::Not(inner) => self.boolean(inner, "!").map(|()| BOOL),
            Node::Negate(inner) => match self.check(inner)? {
                kind @ (Type::Any | Type::Of("int" | "double")) => Ok(kind),
                other => Err(self.overload(expr.at, "-", &[&other])),
            },
            Node::Binary { operator, left, right } => {
                let (left, right) = (self.check(left)?, self.check(right)?);
                self.binary(expr.at, *operator, left, right)
            }
            Node::If { condition, then, otherwise } => {
                self.boolean(condition, "?:")?;
                let (then, otherwise) = (self.check(then)?, self.check(otherwise)?);
                if !then.goes_with(&otherwise) {
                    return Err(self.overload(expr.at, "?:", &[&BOOL, &then, &otherwise]));
                }
                Ok(then.either(otherwise))
            }
            Node::List(items) => {
                let mut kind: Option<Type> = None;
                for (item, optional) in items {
                    let item = match (self.check(item)?, optional) {
                        (Type::Optional(inner), true) => *inner,
                        (item, _) => item,
                    };
                    kind = Some(self.alike(expr.at, kind, item)?);
                }
                Ok(Type::List(Box::new(kind.unwrap_or(Type::Any))))
            }
            Node::Map(entries) => {
                let mut kind: Option<Type> = None;
                for (key, value, optional) in entries {
                    let named = self.check(key)?;
                    if !matches!(named, Type::Any | Type::Of("string" | "int" | "uint" | "bool")) {
                        return Err(self.error(key.at, format!("a {} can't be a key", named.name())));
                    }
                    let (value_at, value) = match (value.at, self.check(value)?) {
                        (at, Type::Optional(inner)) if *optional => (at, *inner),
                        other => other,
                    };
                    kind = Some(self.alike(value_at, kind, value)?);
                }
                Ok(Type::Map(Box::new(kind.unwrap_or(Type::Any))))
            }
            Node::Comprehension(inner) => self.comprehension(expr.at, inner),
            Node::OptMap { target, variable, body, flat } => {
                let inner = match self.check(target)? {
                    Type::Optional(inner) => *inner,
                    Type::Any => Type::Any,
                    other => return Err(self.overload(expr.at, "optMap", &[&other])),
                };
                self.scopes.push((variable.clone(), inner));
                let body = self.check(body)?;
                self.scopes.pop();
                Ok(if *flat { body } else { Type::Optional(Box::new(body)) })
            }
        }
    }

    /// What is written out as a list or a map holds values of one type, as API servers want it.
    fn alike(&self, at: usize, before: Option<Type>, item: Type) -> Result<Type, CompileError> {
        let Some(before) = before else { return Ok(item) };
        if !self.mixed && !before.goes_with(&item) {
            let message = format!("a list or a map is of one type, but has {} and {}", before.name(), item.name());
            return Err(self.error(at, message));
        }
        Ok(before.either(item))
    }

    fn name(&self, at: usize, name: &str) -> Result<Type, CompileError> {
        if let Some((_, kind)) = self.scopes.iter().rev().find(|(known, _)| known == name) {
            return Ok(kind.clone());
        }
        if self.open {
            return Ok(Type::Any);
        }
        if name == "authorizer" {
            return Err(self.error(at, "`authorizer` asks an API server for rights, which is not done here"));
        }
        if self.declared.names.contains(&name) {
            let record = self.declared.records.iter().find(|(known, _)| *known == name);
            return Ok(record.map_or(Type::Any, |(_, record)| Type::Record(record)));
        }
        if functions::type_named(name).is_some() {
            return Ok(Type::Of("type"));
        }
        let known = self.declared.names.join("`, `");
        Err(self.error(at, format!("`{name}` is not declared; there is `{known}`")))
    }

    fn select(&mut self, at: usize, operand: &Expr, field: &str, optional: bool) -> Result<Type, CompileError> {
        if let Node::Ident(root) = &operand.node
            && root == "variables"
            && !self.open
            && !self.scopes.iter().any(|(name, _)| name == root)
        {
            let found = self.declared.composed.iter().find(|(name, _)| name == field);
            return found
                .map(|(_, kind)| kind.clone())
                .ok_or_else(|| self.error(at, format!("`variables.{field}` is not declared before it is used")));
        }
        let (of, optional) = match self.check(operand)? {
            Type::Optional(inner) => (*inner, true),
            of => (of, optional),
        };
        let field = match of {
            Type::Any => Type::Any,
            Type::Map(value) => *value,
            Type::Record(record) if record.field(field).is_some() => record.field(field).unwrap_or(Type::Any),
            other => return Err(self.error(at, format!("a {} has no field `{field}`", other.name()))),
        };
        Ok(if optional { Type::Optional(Box::new(field)) } else { field })
    }

    fn call(
        &mut self,
        at: usize,
        function: &str,
        target: Option<&Expr>,
        arguments: &[Expr],
    ) -> Result<Type, CompileError> {
        let on = target.map(|target| self.check(target)).transpose()?;
        let named: Vec<_> = SIGNATURES.iter().filter(|s| s.name == function && s.member == target.is_some()).collect();
        if named.is_empty() {
            let why = if UNSERVED.contains(&function) {
                "is not served"
            } else if SIGNATURES.iter().any(|s| s.name == function) {
                "is called otherwise"
            } else {
                "is no function"
            };
            return Err(self.error(at, format!("`{function}` {why}")));
        }
        let mut types = Vec::with_capacity(arguments.len());
        let mixed = self.mixed;
        self.mixed |= function == "format";
        for argument in arguments {
            types.push(self.check(argument)?);
        }
        self.mixed = mixed;
        let first = on.as_ref().or(types.first()).cloned().unwrap_or(Type::Any);
        let fits = |signature: &&&functions::Signature| {
            (signature.least..=signature.most).contains(&arguments.len())
                && (signature.on.is_empty() || first == Type::Any || first.name() == signature.on)
        };
        let all: Vec<&Type> = on.iter().chain(&types).collect();
        let Some(signature) = named.iter().find(fits) else { return Err(self.overload(at, function, &all)) };
        // texts are compared with texts
        let on_text = first.name() == "string"
            && !matches!(
                function,
                "string" | "size" | "format" | "dyn" | "type" | "int" | "uint" | "double" | "bool" | "bytes"
            );
        if on_text
            && let Some(wrong) = types
                .iter()
                .skip(usize::from(on.is_none()))
                .take(1)
                .find(|kind| !matches!(kind, Type::Any | Type::Of("string" | "int")))
            && !matches!(function, "semver" | "isSemver")
        {
            return Err(self.overload(at, function, &[&first, wrong]));
        }
        if matches!(function, "matches" | "find" | "findAll")
            && let Some(Expr { at, node: Node::Literal(Literal::Text(pattern)), .. }) =
                arguments.iter().rev().find(|a| matches!(a.node, Node::Literal(Literal::Text(_))))
            && let Err(why) = Pattern::new(pattern)
        {
            return Err(self.error(*at, format!("the regular expression is wrong: {why}")));
        }
        if let ("duration" | "timestamp", [Expr { at, node: Node::Literal(Literal::Text(text)), .. }]) =
            (function, arguments)
            && !(if function == "duration" { time::duration(text).is_some() } else { time::moment(text).is_some() })
        {
            return Err(self.error(*at, format!("the text is no {function}")));
        }
        let fits = match (function, &first) {
            ("sort" | "isSorted" | "min" | "max", Type::List(item)) => orders(item) || item.name() == "null_type",
            ("sum", Type::List(item)) => item.is_number() || matches!(**item, Type::Any | Type::Of(DURATION)),
            ("size", kind) => matches!(kind, Type::Any | Type::Of("string" | "bytes") | Type::List(_) | Type::Map(_)),
            _ => true,
        };
        if !fits {
            return Err(self.overload(at, function, &all));
        }
        if let ("format", Some(Expr { node: Node::Literal(Literal::Text(pattern)), .. }), [values]) =
            (function, target, arguments)
        {
            self.format(at, pattern, values)?;
        }
        Ok(match (function, &first) {
            ("orValue", Type::Optional(inner)) => (**inner).clone().either(types[0].clone()),
            ("value", Type::Optional(inner)) => (**inner).clone(),
            ("or", Type::Optional(_)) => first.clone(),
            ("optional.of" | "optional.ofNonZeroValue", inner) => Type::Optional(Box::new(inner.clone())),
            ("min" | "max" | "sum", Type::List(item)) => (**item).clone(),
            ("format.named", _) => Type::Optional(Box::new(Type::Of(super::format::FORMAT))),
            ("validate", _) => Type::Optional(Box::new(Type::List(Box::new(Type::Of("string"))))),
            ("sort" | "distinct" | "reverse" | "slice", Type::List(_)) => first.clone(),
            ("lists.range", _) => Type::List(Box::new(Type::Of("int"))),
            ("split" | "findAll", _) => Type::List(Box::new(Type::Of("string"))),
            _ => Type::of(signature.result),
        })
    }

    /// A format that is written out, with values that are, too.
    fn format(&mut self, at: usize, pattern: &str, values: &Expr) -> Result<(), CompileError> {
        let parts = formatting::parts(pattern).map_err(|why| self.error(at, why))?;
        let Node::List(items) = &values.node else { return Ok(()) };
        let verbs = parts.iter().filter_map(|part| match part {
            Part::Value { verb, .. } => Some(*verb),
            Part::Text(_) => None,
        });
        let verbs: Vec<char> = verbs.collect();
        if verbs.len() != items.len() && items.iter().all(|(_, optional)| !optional) {
            let message = format!("the format has {} verbs, but {} values", verbs.len(), items.len());
            return Err(self.error(at, message));
        }
        for (verb, (item, optional)) in verbs.into_iter().zip(items) {
            let mixed = std::mem::replace(&mut self.mixed, true);
            let kind = self.check(item);
            self.mixed = mixed;
            let kind = kind?;
            if kind != Type::Any && !optional && !formatting::takes(verb, kind.name()) {
                return Err(self.error(item.at, format!("`%{verb}` is not for a {}", kind.name())));
            }
        }
        Ok(())
    }

    fn binary(&self, at: usize, operator: Operator, left: Type, right: Type) -> Result<Type, CompileError> {
        use Operator::{Add, Divide, Equal, In, Multiply, NotEqual, Remainder, Subtract};
        let wrong = || Err(self.overload(at, operator.sign(), &[&left, &right]));
        let known = left != Type::Any && right != Type::Any;
        match operator {
            Equal | NotEqual => {
                // null is compared with anything that can be absent
                let null = left.name() == "null_type" || right.name() == "null_type";
                let scalar =
                    |kind: &Type| matches!(kind, Type::Of("bool" | "int" | "uint" | "double" | "string" | "bytes"));
                let composed = |kind: &Type| matches!(kind, Type::List(_) | Type::Map(_)) || scalar(kind);
                let differ = !left.goes_with(&right);
                if differ && (!null || composed(&left) || composed(&right)) { wrong() } else { Ok(BOOL) }
            }
            In => match &right {
                Type::Any | Type::Map(_) => Ok(BOOL),
                Type::List(item) if item.goes_with(&left) => Ok(BOOL),
                _ => wrong(),
            },
            Add | Subtract if of_time(&left) || of_time(&right) => {
                time_of(operator, &left, &right).map_or_else(wrong, Ok)
            }
            Add | Subtract | Multiply | Divide | Remainder => {
                let takes = |kind: &Type| match (operator, kind) {
                    (_, Type::Any | Type::Of("int" | "uint")) => true,
                    (Remainder, _) => false,
                    (_, Type::Of("double")) => true,
                    (Add, Type::Of("string" | "bytes") | Type::List(_)) => true,
                    _ => false,
                };
                if !takes(&left) || !takes(&right) || (known && left.name() != right.name()) {
                    return wrong();
                }
                Ok(match (left, right) {
                    (Type::Any, known) | (known, Type::Any) => known,
                    (left, right) => left.either(right),
                })
            }
            _ => {
                let alike = left.name() == right.name() || (left.is_number() && right.is_number());
                if orders(&left) && orders(&right) && (!known || alike) { Ok(BOOL) } else { wrong() }
            }
        }
    }

    fn comprehension(&mut self, at: usize, inner: &Comprehension) -> Result<Type, CompileError> {
        let range = self.check(&inner.range)?;
        let (key, item) = match &range {
            Type::Any => (Type::Any, Type::Any),
            Type::List(item) => (Type::Of("int"), (**item).clone()),
            Type::Map(value) => (Type::Any, (**value).clone()),
            other => return Err(self.error(at, format!("a {} has no items", other.name()))),
        };
        let before = self.scopes.len();
        match (&*inner.variables, &range) {
            ([one], Type::Map(_)) => self.scopes.push((one.clone(), key)),
            ([one], _) => self.scopes.push((one.clone(), item.clone())),
            ([first, second], _) => {
                self.scopes.push((first.clone(), key));
                self.scopes.push((second.clone(), item.clone()));
            }
            _ => {}
        }
        if let Some(filter) = &inner.filter {
            self.boolean(filter, "filter")?;
        }
        let body = match inner.kind {
            Kind::Map | Kind::TransformList | Kind::TransformMap => self.check(&inner.body)?,
            Kind::TransformMapEntry => match self.check(&inner.body)? {
                Type::Map(value) => *value,
                Type::Any => Type::Any,
                other => return Err(self.overload(at, "transformMapEntry", &[&other])),
            },
            Kind::SortBy => match (self.check(&inner.body)?, &range) {
                // null might be of a type that has an order
                (by, Type::Any | Type::List(_)) if orders(&by) || by.name() == "null_type" => by,
                (by, _) => return Err(self.overload(at, "sortBy", &[&range, &by])),
            },
            _ => {
                self.boolean(&inner.body, "comprehension")?;
                BOOL
            }
        };
        self.scopes.truncate(before);
        Ok(match inner.kind {
            Kind::All | Kind::Exists | Kind::ExistsOne => BOOL,
            Kind::Filter if matches!(range, Type::Map(_)) => Type::List(Box::new(Type::Any)),
            Kind::Filter | Kind::SortBy => Type::List(Box::new(item)),
            Kind::Map | Kind::TransformList => Type::List(Box::new(body)),
            Kind::TransformMap | Kind::TransformMapEntry => Type::Map(Box::new(body)),
        })
    }
}
