//! Writing objects and lists as JSON text, in the form that was asked for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::api::List;
use super::events;
use super::metadata;
use super::request::{Request, View};
use super::resource::{Form, Resource};
use super::store::Stored;
use super::table::{IncludeObject, Table};

/// Writes the objects of one request.
#[derive(Clone, Debug)]
pub struct Printer {
    resource: Arc<Resource>,
    view: View,
    /// `"kind":…,"apiVersion":…` of a whole object.
    head: Bytes,
    include: IncludeObject,
}

impl Printer {
    pub fn new(request: &Request) -> Self {
        let resource = Arc::clone(&request.resource);
        let head = format!(
            "\"kind\":{},\"apiVersion\":{}",
            Value::from(resource.kind.as_str()),
            Value::from(resource.api_version())
        );
        let include = IncludeObject::parse(request.query.get("includeObject"));
        Self { resource, view: request.view, head: head.into(), include }
    }

    pub fn view(&self) -> View {
        self.view
    }

    /// One object, in the form that was asked for.
    pub fn object(&self, out: &mut BytesMut, object: &Arc<Stored>) {
        match self.view {
            View::Whole => self.whole(out, object),
            View::Metadata => out.put_slice(object.metadata_json()),
            View::Table => {
                let table = Table::new(&self.resource, self.include);
                table.write(
                    out,
                    std::slice::from_ref(object),
                    &json!({ "resourceVersion": object.version.to_string() }),
                );
            }
        }
    }

    fn whole(&self, out: &mut BytesMut, object: &Stored) {
        out.put_u8(b'{');
        out.put_slice(&self.head);
        self.rest(out, object, true);
    }

    /// The object without its kind and version, without the opening brace.
    fn rest(&self, out: &mut BytesMut, object: &Stored, after_head: bool) {
        let converted;
        let body: &[u8] = match self.resource.form {
            Form::Stored => object.body(),
            Form::EventsGroup => {
                let mut value = object.value.clone();
                events::from_stored(&mut value);
                converted = metadata::json_without_type(&value);
                converted.as_bytes()
            }
        };
        // `{}` has nothing after its brace that a comma could separate
        if after_head && body.len() > 2 {
            out.put_u8(b',');
        }
        out.put_slice(&body[1..]);
    }

    /// A list. Items of built-in kinds carry no kind of their own, those of custom kinds do.
    pub fn list(&self, list: &List) -> Bytes {
        let mut metadata = json!({ "resourceVersion": list.version.to_string() });
        if let Some(token) = &list.continue_token {
            metadata["continue"] = token.clone().into();
        }
        if let Some(remaining) = list.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let mut out = BytesMut::new();
        if self.view == View::Table {
            Table::new(&self.resource, self.include).write(&mut out, &list.objects, &metadata);
            return out.freeze();
        }
        let (kind, api_version) = match self.view {
            View::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
            _ => (self.resource.list_kind.as_str(), self.resource.api_version()),
        };
        let head =
            format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[");
        out.put_slice(head.as_bytes());
        for (i, object) in list.objects.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            match self.view {
                View::Metadata => out.put_slice(object.metadata_json()),
                _ if self.resource.custom.is_some() => self.whole(&mut out, object),
                _ => {
                    out.put_u8(b'{');
                    self.rest(&mut out, object, false);
                }
            }
        }
        out.put_slice(b"]}");
        out.freeze()
    }
}

/// A bookmark for a client that watches Tables.
pub fn bookmark_table(resource: &Resource, metadata: Value) -> Value {
    let object = json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata });
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": { "resourceVersion": metadata["resourceVersion"] },
        "columnDefinitions": [],
        "rows": [{ "cells": [], "object": object }],
    })
}
