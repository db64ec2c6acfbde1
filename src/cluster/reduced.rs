//! The few fields of an object that its health depends on; everything else is dropped while decoding.
//!
//! Custom resources may have anything under these names, so a field of an unexpected type counts as absent, never as
//! an error: one odd object must not end a watch.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};

/// What is kept of an object's `spec` and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduced {
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    #[serde(deserialize_with = "lenient_number")]
    pub replicas: Option<i64>,
    #[serde(deserialize_with = "lenient_flag")]
    pub paused: Option<bool>,
    #[serde(deserialize_with = "lenient_flag")]
    pub suspend: Option<bool>,
    #[serde(rename = "type", deserialize_with = "lenient_text")]
    pub kind: Option<Box<str>>,
    #[serde(deserialize_with = "lenient_struct")]
    pub update_strategy: Option<Box<UpdateStrategy>>,
    #[serde(deserialize_with = "lenient_struct")]
    template: Option<Template>,
    #[serde(deserialize_with = "lenient_struct")]
    job_template: Option<JobTemplate>,
}

/// Of a pod template, what we have put there ourselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Template {
    #[serde(deserialize_with = "lenient_struct")]
    metadata: Option<TemplateMetadata>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct TemplateMetadata {
    #[serde(deserialize_with = "lenient_struct")]
    annotations: Option<TemplateAnnotations>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct TemplateAnnotations {
    // `api::CONFIG_HASH`
    #[serde(rename = "afresh.dev/config-hash", deserialize_with = "lenient_text")]
    config_hash: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct JobTemplate {
    #[serde(deserialize_with = "lenient_struct")]
    spec: Option<JobSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct JobSpec {
    #[serde(deserialize_with = "lenient_struct")]
    template: Option<Template>,
}

impl Spec {
    /// What the pod template's annotation `afresh.dev/config-hash` says; that of a CronJob's Jobs included.
    pub fn config_hash(&self) -> Option<&str> {
        let of_jobs = || self.job_template.as_ref()?.spec.as_ref()?.template.as_ref();
        let template = self.template.as_ref().or_else(of_jobs)?;
        template.metadata.as_ref()?.annotations.as_ref()?.config_hash.as_deref()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UpdateStrategy {
    #[serde(rename = "type", deserialize_with = "lenient_text")]
    pub kind: Option<Box<str>>,
    #[serde(deserialize_with = "lenient_struct")]
    pub rolling_update: Option<Box<RollingUpdate>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingUpdate {
    #[serde(deserialize_with = "lenient_number")]
    pub partition: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    #[serde(deserialize_with = "lenient_number")]
    pub observed_generation: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub replicas: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub ready_replicas: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub available_replicas: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub updated_replicas: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub current_replicas: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub fully_labeled_replicas: Option<i64>,
    #[serde(deserialize_with = "lenient_text")]
    pub current_revision: Option<Box<str>>,
    #[serde(deserialize_with = "lenient_text")]
    pub update_revision: Option<Box<str>>,
    #[serde(deserialize_with = "lenient_number")]
    pub desired_number_scheduled: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub current_number_scheduled: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub updated_number_scheduled: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub number_available: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub number_ready: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub active: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub succeeded: Option<i64>,
    #[serde(deserialize_with = "lenient_number")]
    pub failed: Option<i64>,
    #[serde(deserialize_with = "lenient_text")]
    pub start_time: Option<Box<str>>,
    #[serde(deserialize_with = "lenient_text")]
    pub phase: Option<Box<str>>,
    #[serde(deserialize_with = "lenient_struct")]
    pub load_balancer: Option<LoadBalancer>,
    #[serde(deserialize_with = "lenient_list")]
    pub conditions: Vec<SeenCondition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    /// Addresses handed out.
    #[serde(deserialize_with = "lenient_count")]
    pub ingress: usize,
}

/// One entry of `status.conditions`, without its times: an object that only says "still so" has not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SeenCondition {
    #[serde(rename = "type", deserialize_with = "text_or_empty")]
    pub kind: Box<str>,
    #[serde(deserialize_with = "text_or_empty")]
    pub status: Box<str>,
    #[serde(deserialize_with = "text_or_empty")]
    pub reason: Box<str>,
    #[serde(deserialize_with = "text_or_empty")]
    pub message: Box<str>,
}

/// Conditions kept of one object: some controllers write one for each thing they manage.
const CONDITIONS_MAX: usize = 64;

impl Status {
    pub fn condition(&self, kind: &str) -> Option<&SeenCondition> {
        self.conditions.iter().find(|c| &*c.kind == kind)
    }
}

/// A value of the type that is hoped for, or nothing.
struct Lenient<T>(PhantomData<T>);

macro_rules! anything_else_is_nothing {
    ($($method:ident($type:ty)),*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        $(fn $method<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        })*
    };
}

macro_rules! no_map {
    () => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

macro_rules! no_seq {
    () => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

impl<'de> Visitor<'de> for Lenient<i64> {
    type Value = Option<i64>;
    anything_else_is_nothing!(visit_bool(bool), visit_str(&str), visit_f64(f64));
    no_map!();
    no_seq!();
    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Ok(Some(n))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(n).ok())
    }
}

impl<'de> Visitor<'de> for Lenient<bool> {
    type Value = Option<bool>;
    anything_else_is_nothing!(visit_str(&str), visit_f64(f64), visit_i64(i64), visit_u64(u64));
    no_map!();
    no_seq!();
    fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
        Ok(Some(b))
    }
}

impl<'de> Visitor<'de> for Lenient<Box<str>> {
    type Value = Option<Box<str>>;
    anything_else_is_nothing!(visit_bool(bool), visit_f64(f64), visit_i64(i64), visit_u64(u64));
    no_map!();
    no_seq!();
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.into()))
    }
}

/// A map that is decoded as `T`.
struct LenientStruct<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned + Default> Visitor<'de> for LenientStruct<T> {
    type Value = Option<T>;
    anything_else_is_nothing!(visit_bool(bool), visit_str(&str), visit_f64(f64), visit_i64(i64), visit_u64(u64));
    no_seq!();
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

/// A list of which the entries that are maps are decoded as `T`.
struct LenientList<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned + Default> Visitor<'de> for LenientList<T> {
    type Value = Vec<T>;
    anything_else_is_nothing!(visit_bool(bool), visit_str(&str), visit_f64(f64), visit_i64(i64), visit_u64(u64));
    no_map!();
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Item(item)) = seq.next_element::<Item<T>>()? {
            if items.len() < CONDITIONS_MAX {
                items.extend(item);
            }
        }
        Ok(items)
    }
}

/// One entry of a lenient list.
struct Item<T>(Option<T>);

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientStruct(PhantomData)).map(Item)
    }
}

/// The length of a list.
struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = usize;
    anything_else_is_nothing!(visit_bool(bool), visit_str(&str), visit_f64(f64), visit_i64(i64), visit_u64(u64));
    no_map!();
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut count = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

pub(super) fn lenient_number<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    d.deserialize_any(Lenient::<i64>(PhantomData))
}

pub(super) fn lenient_flag<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    d.deserialize_any(Lenient::<bool>(PhantomData))
}

pub(super) fn lenient_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
    d.deserialize_any(Lenient::<Box<str>>(PhantomData))
}

pub(super) fn text_or_empty<'de, D: Deserializer<'de>>(d: D) -> Result<Box<str>, D::Error> {
    Ok(lenient_text(d)?.unwrap_or_default())
}

pub(super) fn lenient_struct<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    d: D,
) -> Result<Option<T>, D::Error> {
    d.deserialize_any(LenientStruct(PhantomData))
}

pub(super) fn lenient_list<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(d: D) -> Result<Vec<T>, D::Error> {
    d.deserialize_any(LenientList(PhantomData))
}

fn lenient_count<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    d.deserialize_any(Count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_unexpected_types_count_as_absent() {
        for odd in [
            json!({"replicas": "3", "phase": {"a": 1}, "conditions": "none", "loadBalancer": [1], "observedGeneration": 1.5}),
            json!({"replicas": [1], "phase": 7, "conditions": {"a": {}}, "loadBalancer": null, "observedGeneration": true}),
            json!({"replicas": null, "phase": null, "conditions": null, "loadBalancer": "x", "observedGeneration": {}}),
        ] {
            assert_eq!(serde_json::from_str::<Status>(&odd.to_string()).unwrap(), Status::default(), "{odd}");
        }
    }

    #[test]
    fn the_hash_of_a_pod_template_is_kept() {
        let template = json!({"metadata": {"annotations": {crate::api::CONFIG_HASH: "h", "more": "x"}}, "spec": {}});
        for (spec, expected) in [
            (json!({"template": template}), Some("h")),
            (json!({"jobTemplate": {"spec": {"template": template}}}), Some("h")),
            (json!({"template": {"metadata": {"annotations": null}}}), None),
            (json!({"template": 7, "jobTemplate": []}), None),
        ] {
            assert_eq!(serde_json::from_str::<Spec>(&spec.to_string()).unwrap().config_hash(), expected, "{spec}");
        }
    }

    #[test]
    fn what_health_needs_is_kept() {
        let status: Status = serde_json::from_str(
            r#"{"observedGeneration":2,"phase":"Bound","loadBalancer":{"ingress":[{"ip":"1.2.3.4"}]},"unknown":{"a":[1]},
                "conditions":[{"type":"Ready","status":"False","reason":"R","message":"M","lastTransitionTime":"x"},7,{"type":3}]}"#,
        )
        .unwrap();
        assert_eq!((status.observed_generation, status.phase.as_deref()), (Some(2), Some("Bound")));
        assert_eq!(status.load_balancer.as_ref().map(|l| l.ingress), Some(1));
        assert_eq!(status.conditions.len(), 2);
        assert_eq!(status.condition("Ready").map(|c| (&*c.status, &*c.reason, &*c.message)), Some(("False", "R", "M")));
    }
}
