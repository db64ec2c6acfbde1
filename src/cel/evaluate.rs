//! From a tree and variables to a value, in a bounded number of steps.
//!
//! `&&` and `||` don't mind an error on one side if the other decides; `all` and `exists` neither, as CEL has it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::syntax::{Comprehension, Expr, Kind, Node, Operator};
use super::tokens::Literal;
use super::value::{Key, List, Mapping, Text, Value};
use super::{EvaluationError, Program, functions, lists, regular, time};

pub type Evaluated<'a> = Result<Value<'a>, EvaluationError>;

/// How much may be done: a step is a node, an item or a few bytes. Shared by all that belongs together.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Budget {
    pub fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    pub fn take(&self, steps: usize) -> Result<(), EvaluationError> {
        match self.0.get().checked_sub(steps as u64) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => {
                self.0.set(0);
                Err(EvaluationError::TooCostly)
            }
        }
    }

    pub fn left(&self) -> u64 {
        self.0.get()
    }
}

/// Bytes that a step may move.
const BYTES_A_STEP: usize = 64;

/// What an expression can see.
pub struct Environment<'a> {
    pub variables: Vec<(&'a str, Value<'a>)>,
    /// `variables.name`: evaluated when first asked for.
    pub composed: &'a [(String, Program)],
    pub known: RefCell<Vec<Option<Evaluated<'a>>>>,
    pub budget: &'a Budget,
}

impl<'a> Environment<'a> {
    pub fn new(variables: Vec<(&'a str, Value<'a>)>, composed: &'a [(String, Program)], budget: &'a Budget) -> Self {
        let known = RefCell::new(vec![None; composed.len()]);
        Self { variables, composed, known, budget }
    }

    pub fn evaluate(&self, program: &Program) -> Evaluated<'a> {
        self.value(&program.tree, None)
    }

    fn composed(&self, name: &str) -> Evaluated<'a> {
        let at = self.composed.iter().position(|(known, _)| known == name);
        let Some(at) = at else { return Err(EvaluationError::no_such_key(name)) };
        if let Some(known) = &self.known.borrow()[at] {
            return known.clone();
        }
        let value = self.value(&self.composed[at].1.tree, None);
        self.known.borrow_mut()[at] = Some(value.clone());
        value
    }

    fn value(&self, expr: &Expr, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        self.budget.take(1)?;
        match &expr.node {
            Node::Literal(literal) => Ok(self.literal(literal)),
            Node::Ident(name) => self.variable(name, scope),
            Node::Select { operand, field, optional } => {
                if let Node::Ident(root) = &operand.node
                    && root == "variables"
                    && !self.composed.is_empty()
                    && scope.is_none_or(|scope| scope.find(root).is_none())
                {
                    return self.composed(field);
                }
                let operand = self.value(operand, scope)?;
                select(operand, field, *optional)
            }
            Node::Has { operand, field } => match self.value(operand, scope)? {
                Value::Map(map) => Ok(Value::Bool(map.field(field).is_some())),
                Value::Optional(None) => Ok(Value::Bool(false)),
                Value::Optional(Some(inner)) => match &*inner {
                    Value::Map(map) => Ok(Value::Bool(map.field(field).is_some())),
                    other => Err(no_overload("has", &[other])),
                },
                other => Err(no_overload("has", &[&other])),
            },
            Node::Index { operand, index, optional } => {
                let (operand, index) = (self.value(operand, scope)?, self.value(index, scope)?);
                self.index(operand, &index, *optional)
            }
            Node::Call { function, target, arguments, pattern: Some(pattern) } => {
                let text = target.as_deref().or(arguments.first()).map(|text| self.value(text, scope)).transpose()?;
                let rest = arguments.iter().skip(if target.is_some() { 1 } else { 2 });
                let rest = rest.map(|argument| self.value(argument, scope)).collect::<Result<Vec<_>, _>>()?;
                regular::search(function, &text.unwrap_or(Value::Null), pattern, &rest, self.budget)
            }
            Node::Call { function, target, arguments, pattern: None } => {
                let target = target.as_ref().map(|target| self.value(target, scope)).transpose()?;
                // what an optional holds may make its alternative needless
                if let (Some(Value::Optional(Some(inner))), "or" | "orValue") = (&target, function.as_str()) {
                    return Ok(if function == "or" { Value::Optional(Some(inner.clone())) } else { (**inner).clone() });
                }
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(self.value(argument, scope)?);
                }
                functions::call(function, target, values, self.budget)
            }
            Node::And(all) => self.logic(all, scope, false),
            Node::Or(all) => self.logic(all, scope, true),
            Node::Not(inner) => match self.value(inner, scope)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                other => Err(no_overload("!", &[&other])),
            },
            Node::Negate(inner) => match self.value(inner, scope)? {
                Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(EvaluationError::Overflow),
                Value::Double(value) => Ok(Value::Double(-value)),
                other => Err(no_overload("-", &[&other])),
            },
            Node::Binary { operator, left, right } => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                self.binary(*operator, left, right)
            }
            Node::If { condition, then, otherwise } => match self.value(condition, scope)? {
                Value::Bool(true) => self.value(then, scope),
                Value::Bool(false) => self.value(otherwise, scope),
                other => Err(no_overload("?:", &[&other])),
            },
            Node::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    match (self.value(item, scope)?, optional) {
                        (value, false) => values.push(value),
                        (Value::Optional(value), true) => values.extend(value.map(|value| (*value).clone())),
                        (other, true) => return Err(no_overload("[?]", &[&other])),
                    }
                }
                Ok(Value::list(values))
            }
            Node::Map(entries) => {
                let mut fields = BTreeMap::new();
                for (key, value, optional) in entries {
                    let key = self.value(key, scope)?;
                    let key = Key::of(&key).ok_or_else(|| no_overload("{}", &[&key]))?;
                    let value = match (self.value(value, scope)?, optional) {
                        (value, false) => value,
                        (Value::Optional(Some(value)), true) => (*value).clone(),
                        (Value::Optional(None), true) => continue,
                        (other, true) => return Err(no_overload("{?}", &[&other])),
                    };
                    // of a key that is there twice the last counts, as in an API server
                    fields.insert(key, value);
                }
                Ok(Value::Map(Mapping::Made(Rc::new(fields))))
            }
            Node::Comprehension(inner) => self.comprehension(inner, scope),
            Node::OptMap { target, variable, body, flat } => match self.value(target, scope)? {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(inner)) => {
                    let inner = Scope { name: variable, value: (*inner).clone(), above: scope };
                    let value = self.value(body, Some(&inner))?;
                    match (flat, value) {
                        (false, value) => Ok(Value::some(value)),
                        (true, value @ Value::Optional(_)) => Ok(value),
                        (true, other) => Err(no_overload("optFlatMap", &[&other])),
                    }
                }
                other => Err(no_overload("optMap", &[&other])),
            },
        }
    }

    fn literal(&self, literal: &Literal) -> Value<'a> {
        match literal {
            Literal::Null => Value::Null,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Uint(value) => Value::Uint(*value),
            Literal::Double(value) => Value::Double(*value),
            Literal::Text(text) => Value::text(text.as_str()),
            Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
        }
    }

    fn variable(&self, name: &str, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        if let Some(value) = scope.and_then(|scope| scope.find(name)) {
            return Ok(value.clone());
        }
        if let Some((_, value)) = self.variables.iter().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        functions::type_named(name)
            .map(Value::Type)
            .ok_or_else(|| EvaluationError::Other(format!("`{name}` is not known")))
    }

    fn index(&self, operand: Value<'a>, index: &Value<'a>, optional: bool) -> Evaluated<'a> {
        let (operand, optional) = match operand {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, optional),
        };
        let found = match &operand {
            Value::List(list) => match Key::of(index) {
                Some(Key::Int(at)) => usize::try_from(at).ok().and_then(|at| list.get(at)),
                _ => return Err(no_overload("[]", &[&operand, index])),
            },
            Value::Map(map) => Key::of(index).and_then(|key| map.get(&key)),
            _ => return Err(no_overload("[]", &[&operand, index])),
        };
        match (found, optional) {
            (Some(value), false) => Ok(value),
            (Some(value), true) => Ok(Value::some(value)),
            (None, true) => Ok(Value::Optional(None)),
            (None, false) => Err(match (&operand, index) {
                (Value::List(_), _) => EvaluationError::Other("index out of bounds".to_owned()),
                (_, Value::Text(text)) => EvaluationError::no_such_key(text.as_str()),
                _ => EvaluationError::no_such_key("?"),
            }),
        }
    }

    /// `deciding`: what one side alone makes of the whole.
    fn logic(&self, all: &[Expr], scope: Option<&Scope<'_, 'a>>, deciding: bool) -> Evaluated<'a> {
        let mut failed = None;
        for expr in all {
            match self.value(expr, scope) {
                Ok(Value::Bool(value)) if value == deciding => return Ok(Value::Bool(deciding)),
                Ok(Value::Bool(_)) => {}
                Ok(other) => drop(failed.get_or_insert(no_overload(if deciding { "||" } else { "&&" }, &[&other]))),
                Err(EvaluationError::TooCostly) => return Err(EvaluationError::TooCostly),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!deciding)), Err)
    }

    fn binary(&self, operator: Operator, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
        use Operator::{
            Add, Divide, Equal, Greater, GreaterOrEqual, In, Less, LessOrEqual, Multiply, NotEqual, Remainder, Subtract,
        };
        let none = || no_overload(operator.sign(), &[&left, &right]);
        let whole = |value: Option<i64>| value.map(Value::Int).ok_or(EvaluationError::Overflow);
        let natural = |value: Option<u64>| value.map(Value::Uint).ok_or(EvaluationError::Overflow);
        match operator {
            Equal | NotEqual => {
                self.budget.take(weight(&left).min(weight(&right)))?;
                Ok(Value::Bool(left.equals(&right) == (operator == Equal)))
            }
            Less | LessOrEqual | Greater | GreaterOrEqual => {
                self.budget.take(weight(&left).min(weight(&right)))?;
                let Some(order) = left.compare(&right) else {
                    let nan = |value: &Value<'_>| matches!(value, Value::Double(value) if value.is_nan());
                    return if nan(&left) || nan(&right) { Ok(Value::Bool(false)) } else { Err(none()) };
                };
                Ok(Value::Bool(match operator {
                    Less => order.is_lt(),
                    LessOrEqual => order.is_le(),
                    Greater => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            In => match &right {
                Value::List(list) => {
                    for item in list.iter() {
                        self.budget.take(1 + weight(&item).min(weight(&left)))?;
                        if item.equals(&left) {
                            return Ok(Value::Bool(true));
                        }
                    }
                    Ok(Value::Bool(false))
                }
                Value::Map(map) => Ok(Value::Bool(Key::of(&left).is_some_and(|key| map.get(&key).is_some()))),
                _ => Err(none()),
            },
            Add => match (&left, &right) {
                (Value::Int(a), Value::Int(b)) => whole(a.checked_add(*b)),
                (Value::Uint(a), Value::Uint(b)) => natural(a.checked_add(*b)),
                (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
                (Value::Text(a), Value::Text(b)) => {
                    self.budget.take((a.as_str().len() + b.as_str().len()) / BYTES_A_STEP)?;
                    Ok(Value::text([a.as_str(), b.as_str()].concat()))
                }
                (Value::Bytes(a), Value::Bytes(b)) => {
                    self.budget.take((a.len() + b.len()) / BYTES_A_STEP)?;
                    Ok(Value::Bytes([&**a, &**b].concat().into()))
                }
                (Value::List(a), Value::List(b)) => {
                    self.budget.take(a.len() + b.len())?;
                    Ok(Value::list(a.iter().chain(b.iter()).collect()))
                }
                _ => time::add(&left, &right)?.ok_or_else(none),
            },
            Subtract => match (&left, &right) {
                (Value::Int(a), Value::Int(b)) => whole(a.checked_sub(*b)),
                (Value::Uint(a), Value::Uint(b)) => natural(a.checked_sub(*b)),
                (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
                _ => time::subtract(&left, &right)?.ok_or_else(none),
            },
            Multiply => match (&left, &right) {
                (Value::Int(a), Value::Int(b)) => whole(a.checked_mul(*b)),
                (Value::Uint(a), Value::Uint(b)) => natural(a.checked_mul(*b)),
                (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
                _ => Err(none()),
            },
            Divide | Remainder => match (&left, &right) {
                (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
                    Err(EvaluationError::Other("division by zero".to_owned()))
                }
                (Value::Int(a), Value::Int(b)) if operator == Divide => whole(a.checked_div(*b)),
                (Value::Int(a), Value::Int(b)) => whole(a.checked_rem(*b)),
                (Value::Uint(a), Value::Uint(b)) if operator == Divide => natural(a.checked_div(*b)),
                (Value::Uint(a), Value::Uint(b)) => natural(a.checked_rem(*b)),
                (Value::Double(a), Value::Double(b)) if operator == Divide => Ok(Value::Double(a / b)),
                _ => Err(none()),
            },
        }
    }

    fn comprehension(&self, inner: &Comprehension, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let range = self.value(&inner.range, scope)?;
        let items: Vec<(Value<'a>, Value<'a>)> = match &range {
            Value::List(list) => {
                self.budget.take(list.len())?;
                list.iter().enumerate().map(|(at, item)| (Value::Int(at as i64), item)).collect()
            }
            Value::Map(map) => {
                self.budget.take(map.len())?;
                map.entries()
            }
            other => return Err(no_overload("comprehension", &[other])),
        };
        let is_map = matches!(range, Value::Map(_));
        if is_map && inner.kind == Kind::SortBy {
            return Err(no_overload("sortBy", &[&range]));
        }
        let mut outcome = Outcome::default();
        for (key, value) in items {
            // one variable goes over the keys of a map, and over the items of a list
            let (first, second) = match (inner.variables.len(), is_map) {
                (1, true) => (key.clone(), None),
                (1, false) => (value.clone(), None),
                _ => (key.clone(), Some(value.clone())),
            };
            let outer = Scope { name: &inner.variables[0], value: first, above: scope };
            let both = second.map(|value| Scope { name: &inner.variables[1], value, above: Some(&outer) });
            let seen = both.as_ref().unwrap_or(&outer);
            if let Some(filter) = &inner.filter {
                match self.value(filter, Some(seen))? {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    other => return Err(no_overload("filter", &[&other])),
                }
            }
            let made = self.value(&inner.body, Some(seen));
            if matches!(made, Err(EvaluationError::TooCostly)) {
                return made;
            }
            match inner.kind {
                Kind::Map | Kind::TransformList => outcome.items.push(made?),
                Kind::SortBy => {
                    outcome.keys.push(made?);
                    outcome.items.push(value);
                }
                Kind::TransformMap => {
                    let key = Key::of(&key).ok_or_else(|| no_overload("transformMap", &[&key]))?;
                    outcome.fields.insert(key, made?);
                }
                Kind::TransformMapEntry => match made? {
                    Value::Map(entry) => {
                        self.budget.take(entry.len())?;
                        for (key, value) in entry.entries() {
                            let key = Key::of(&key).ok_or_else(|| no_overload("transformMapEntry", &[&key]))?;
                            if outcome.fields.insert(key, value).is_some() {
                                return Err(EvaluationError::Other("`transformMapEntry` makes a key twice".to_owned()));
                            }
                        }
                    }
                    other => return Err(no_overload("transformMapEntry", &[&other])),
                },
                _ => {
                    let item = if is_map { key } else { value };
                    if outcome.judge(inner.kind, made, item)? {
                        break;
                    }
                }
            }
        }
        if inner.kind == Kind::SortBy {
            return lists::sorted_by("sortBy", outcome.items, &outcome.keys, self.budget).map(Value::list);
        }
        outcome.value(inner.kind)
    }
}

/// What a comprehension has come to so far.
#[derive(Default)]
struct Outcome<'a> {
    decided: bool,
    count: usize,
    failed: Option<EvaluationError>,
    items: Vec<Value<'a>>,
    /// What the items are sorted by.
    keys: Vec<Value<'a>>,
    fields: BTreeMap<Key, Value<'a>>,
}

impl<'a> Outcome<'a> {
    /// True if the rest doesn't matter any more.
    fn judge(&mut self, kind: Kind, made: Evaluated<'a>, item: Value<'a>) -> Result<bool, EvaluationError> {
        let held = match made {
            Ok(Value::Bool(held)) => held,
            Ok(other) => return Err(no_overload("comprehension", &[&other])),
            // an error counts only if no other item decides
            Err(error) if matches!(kind, Kind::All | Kind::Exists) => {
                self.failed.get_or_insert(error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        match kind {
            Kind::All => self.decided = !held,
            Kind::Exists => self.decided = held,
            Kind::ExistsOne => self.count += usize::from(held),
            _ if held => self.items.push(item),
            _ => {}
        }
        Ok(self.decided)
    }

    fn value(self, kind: Kind) -> Evaluated<'a> {
        match kind {
            Kind::All | Kind::Exists if self.decided => Ok(Value::Bool(kind == Kind::Exists)),
            Kind::All | Kind::Exists => self.failed.map_or(Ok(Value::Bool(kind == Kind::All)), Err),
            Kind::ExistsOne => Ok(Value::Bool(self.count == 1)),
            Kind::TransformMap | Kind::TransformMapEntry => Ok(Value::Map(Mapping::Made(Rc::new(self.fields)))),
            Kind::Filter | Kind::Map | Kind::SortBy | Kind::TransformList => Ok(Value::list(self.items)),
        }
    }
}

/// Variables of comprehensions, the innermost first.
struct Scope<'s, 'a> {
    name: &'s str,
    value: Value<'a>,
    above: Option<&'s Scope<'s, 'a>>,
}

impl<'a> Scope<'_, 'a> {
    fn find(&self, name: &str) -> Option<&Value<'a>> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if here.name == name {
                return Some(&here.value);
            }
            scope = here.above;
        }
        None
    }
}

fn select<'a>(operand: Value<'a>, field: &str, optional: bool) -> Evaluated<'a> {
    let (operand, optional) = match operand {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => ((*inner).clone(), true),
        other => (other, optional),
    };
    match (operand, optional) {
        (Value::Map(map), false) => map.field(field).ok_or_else(|| EvaluationError::no_such_key(field)),
        (Value::Map(map), true) => Ok(map.field(field).map_or(Value::Optional(None), Value::some)),
        (other, _) => Err(no_overload(&format!(".{field}"), &[&other])),
    }
}

pub(super) fn no_overload(function: &str, values: &[&Value<'_>]) -> EvaluationError {
    let types = values.iter().map(|value| value.type_name()).collect::<Vec<_>>().join(", ");
    EvaluationError::NoOverload { function: function.to_owned(), types }
}

/// About how many bytes two values are compared by.
fn weight(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.as_str().len() / BYTES_A_STEP,
        Value::Bytes(bytes) => bytes.len() / BYTES_A_STEP,
        Value::List(List::Borrowed(items)) => items.iter().map(|item| 1 + weight(&Value::of(item))).sum(),
        Value::List(list) => list.len() * 4,
        Value::Map(map) => map.entries().iter().map(|(_, value)| 1 + weight(value)).sum(),
        _ => 0,
    }
}

impl<'a> From<Text<'a>> for Value<'a> {
    fn from(text: Text<'a>) -> Self {
        Value::Text(text)
    }
}
