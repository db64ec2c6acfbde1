//! Get and list.

use std::sync::Arc;

use super::api::{Answer, Api, List};
use super::refusal::Refusal;
use super::request::{Request, Subresource};
use super::scale;
use super::selector::{FieldSelector, LabelSelector};
use super::store::{Stored, continue_token, read_continue_token};

/// The selectors of a list or watch.
#[derive(Clone, Debug)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    namespace: String,
}

impl Selection {
    pub fn of(request: &Request) -> Result<Self, Refusal> {
        let resource = &request.resource;
        Ok(Self {
            labels: LabelSelector::parse(request.query.get("labelSelector"))?,
            fields: FieldSelector::parse(request.query.get("fieldSelector"), &resource.group, &resource.plural)?,
            namespace: request.namespace.clone(),
        })
    }

    /// True if every object of the kind (in the namespace, if there is one) is selected.
    fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields == FieldSelector::default()
    }

    pub fn matches(&self, object: &Stored) -> bool {
        let metadata = &object.value["metadata"];
        (self.namespace.is_empty() || metadata["namespace"] == *self.namespace)
            && (self.labels.is_empty() || self.labels.matches(&object.value))
            && self.fields.matches(&object.value)
    }
}

impl Api {
    pub fn get(&self, request: &Request) -> Result<Answer, Refusal> {
        let object = self.find(request)?;
        if request.subresource == Subresource::Scale {
            return Ok(Answer::Value { code: 200, value: scale::read(&request.resource, &object.value) });
        }
        Ok(Answer::ok(object))
    }

    pub fn list(&self, request: &Request) -> Result<Answer, Refusal> {
        self.select(request).map(Answer::List)
    }

    /// The objects that a list or a deletion of a collection is about.
    pub fn select(&self, request: &Request) -> Result<List, Refusal> {
        let selection = Selection::of(request)?;
        self.check_version(request)?;
        let collection = &request.resource.collection;
        let (mut objects, mut version) = match selection.fields.name() {
            Some(name) if !request.namespace.is_empty() || !request.resource.namespaced => {
                let version = self.store.version();
                let key = super::store::ObjectKey::new(request.namespace.clone(), name);
                (self.store.get(collection, &key).into_iter().collect(), version)
            }
            _ => self.store.list(collection, &request.namespace),
        };
        if !selection.is_everything() {
            objects.retain(|object| selection.matches(object));
        }
        let token = request.query.get("continue");
        if !token.is_empty() {
            let (at, after) = read_continue_token(token)
                .ok_or_else(|| Refusal::bad_request("invalid continue token: continue key is not valid"))?;
            version = at;
            objects.retain(|object| object.key() > after);
        }
        let limit = request.query.get("limit").parse::<usize>().unwrap_or(0);
        let (mut continue_at, mut remaining) = (None, None);
        if limit > 0 && objects.len() > limit {
            if selection.is_everything() {
                remaining = Some(objects.len() - limit);
            }
            objects.truncate(limit);
            continue_at = objects.last().map(|last| continue_token(version, &last.key()));
        }
        Ok(List { objects, version, continue_token: continue_at, remaining })
    }

    /// A version from the future cannot be served.
    fn check_version(&self, request: &Request) -> Result<(), Refusal> {
        let text = request.query.get("resourceVersion");
        if text.is_empty() {
            return Ok(());
        }
        let version = read_version(text)?;
        let current = self.store.version();
        if version > current {
            return Err(Refusal::injected(
                504,
                format!("Timeout: Too large resource version: {version}, current: {current}"),
            ));
        }
        Ok(())
    }

    /// What a watch begins with.
    pub fn initial(&self, request: &Request, selection: &Selection) -> (Vec<Arc<Stored>>, u64) {
        let (mut objects, version) = self.store.list(&request.resource.collection, &request.namespace);
        objects.retain(|object| selection.matches(object));
        (objects, version)
    }
}

pub fn read_version(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| {
        Refusal::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": \
             invalid syntax"
        ))
    })
}
