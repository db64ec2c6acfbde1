//! Types with fields of their own, for names that are declared with one. They are written down where the names are.

use super::check::Type;

/// A type that has these fields, and no others.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    pub name: &'static str,
    pub fields: &'static [(&'static str, Shape)],
}

/// Of what type a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Known when it is evaluated.
    Any,
    Bool,
    Int,
    Text,
    Texts,
    TextByName,
    TextsByName,
    Record(&'static Record),
}

impl Record {
    pub fn field(&self, name: &str) -> Option<Type> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, shape)| shape.kind())
    }
}

impl Shape {
    fn kind(self) -> Type {
        const TEXT: Type = Type::Of("string");
        let texts = || Type::List(Box::new(TEXT));
        match self {
            Shape::Any => Type::Any,
            Shape::Bool => Type::Of("bool"),
            Shape::Int => Type::Of("int"),
            Shape::Text => TEXT,
            Shape::Texts => texts(),
            Shape::TextByName => Type::Map(Box::new(TEXT)),
            Shape::TextsByName => Type::Map(Box::new(texts())),
            Shape::Record(record) => Type::Record(record),
        }
    }
}
