//! Tables: what `kubectl get` shows, with the columns of the built-in kinds and those that definitions add.

mod cells;
mod columns;
mod duration;
mod json_path;
mod workload;

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::definition::Column;
use super::metadata;
use super::resource::Resource;
use super::store::Stored;

use json_path::JsonPath;

/// What of each object comes along with its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(text: &str) -> Self {
        match text {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// Makes the Tables of one resource.
pub struct Table<'a> {
    resource: &'a Resource,
    include: IncludeObject,
    now: Timestamp,
}

impl<'a> Table<'a> {
    pub fn new(resource: &'a Resource, include: IncludeObject) -> Self {
        Self { resource, include, now: Timestamp::now() }
    }

    /// Writes a Table with a row for each object.
    pub fn write(&self, out: &mut BytesMut, objects: &[Arc<Stored>], list_metadata: &Value) {
        let custom = self.resource.custom.as_deref().map(|c| CustomColumns::new(&c.columns));
        let columns = match &custom {
            Some(custom) => custom.definitions(),
            None => columns::definitions(&self.resource.group, &self.resource.kind),
        };
        let rows: Vec<Value> = objects
            .iter()
            .map(|object| {
                let cells = match &custom {
                    Some(custom) => custom.cells(&object.value, self.now),
                    None => cells::cells(&self.resource.group, &self.resource.kind, &object.value, self.now),
                };
                let mut row = json!({ "cells": cells });
                match self.include {
                    IncludeObject::None => row["object"] = Value::Null,
                    IncludeObject::Metadata => row["object"] = metadata::partial(&object.value),
                    IncludeObject::Object => {
                        let mut value = object.value.clone();
                        value["kind"] = self.resource.kind.clone().into();
                        value["apiVersion"] = self.resource.api_version().into();
                        row["object"] = value;
                    }
                }
                row
            })
            .collect();
        let table = json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": list_metadata,
            "columnDefinitions": columns,
            "rows": rows,
        });
        out.put_slice(table.to_string().as_bytes());
    }
}

/// A column definition as clients get it.
fn definition(name: &str, kind: &str, format: &str, priority: i64, description: &str) -> Value {
    json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority })
}

/// The columns of a custom kind: its name, then what the definition says, or its age where it says nothing.
struct CustomColumns<'a> {
    columns: Vec<(&'a Column, Option<JsonPath>)>,
}

impl<'a> CustomColumns<'a> {
    fn new(columns: &'a [Column]) -> Self {
        Self { columns: columns.iter().map(|c| (c, JsonPath::parse(&c.path))).collect() }
    }

    fn definitions(&self) -> Vec<Value> {
        let mut definitions = vec![definition("Name", "string", "name", 0, "The name of the object")];
        if self.columns.is_empty() {
            definitions.push(definition("Age", "date", "", 0, "Time since the object was created"));
        }
        let custom = self.columns.iter();
        definitions.extend(custom.map(|(c, _)| definition(&c.name, &c.kind, &c.format, c.priority, &c.description)));
        definitions
    }

    fn cells(&self, value: &Value, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![metadata::name(value).into()];
        if self.columns.is_empty() {
            cells.push(duration::age(metadata::field(value, "creationTimestamp"), now).into());
        }
        for (column, path) in &self.columns {
            let found = path.as_ref().and_then(|path| path.first(value));
            cells.push(match (column.kind.as_str(), found) {
                (_, None) => Value::Null,
                ("string", Some(Value::String(text))) => text.clone().into(),
                ("string", Some(other)) => other.to_string().into(),
                ("date", Some(Value::String(text))) => duration::age(text, now).into(),
                ("integer", Some(found)) => found.as_i64().map_or(Value::Null, Value::from),
                ("number", Some(found)) => found.as_f64().map_or(Value::Null, Value::from),
                ("boolean", Some(found)) => found.as_bool().map_or(Value::Null, Value::from),
                _ => Value::Null,
            });
        }
        cells
    }
}
