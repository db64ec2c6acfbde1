//! The kustomization file: its fields as kustomize knows them, and which of them are served.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::budget::Budget;
use super::folded;
use super::selector::Selector;
use super::spec::Origins;
use super::vars::Var;
use crate::manifest::SourceError;
use crate::manifest::yaml::{self, PathSegment};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Kustomization {
    pub api_version: String,
    pub kind: String,
    pub metadata: Value,
    pub resources: Vec<String>,
    pub bases: Vec<String>,
    pub components: Vec<String>,
    pub namespace: String,
    pub name_prefix: String,
    pub name_suffix: String,
    pub labels: Vec<Labels>,
    pub common_labels: BTreeMap<String, Text>,
    pub common_annotations: BTreeMap<String, Text>,
    pub patches: Vec<Patch>,
    pub patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json6902: Vec<Patch>,
    pub images: Vec<Image>,
    pub image_tags: Vec<Image>,
    pub replicas: Vec<Replica>,
    pub config_map_generator: Vec<Generator>,
    pub secret_generator: Vec<Generator>,
    pub generator_options: Option<GeneratorOptions>,
    pub replacements: Vec<Replacement>,
    pub configurations: Vec<String>,
    pub sort_options: Option<SortOptions>,
    pub build_metadata: Vec<Metadata>,
    pub openapi: Option<OpenApi>,
    pub crds: Vec<String>,
    pub vars: Vec<Var>,
    pub generators: Vec<String>,
    pub transformers: Vec<String>,
    pub validators: Vec<String>,
}

/// Which schema says how lists merge.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenApi {
    pub path: Option<String>,
    pub version: Option<String>,
}

/// What is noted on objects about their build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Metadata {
    ManagedByLabel,
    OriginAnnotations,
    TransformerAnnotations,
}

/// Text, or a number or boolean that stands for its text: kustomize's own reader is as lenient.
#[derive(Clone, Debug, Default)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Null => Ok(Self::default()),
            other => Err(serde::de::Error::custom(format!("invalid type: `{other}`, expected a string: quote it"))),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Labels {
    pub pairs: BTreeMap<String, Text>,
    pub include_selectors: bool,
    pub include_templates: bool,
    pub fields: Vec<super::field_spec::FieldSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Patch {
    pub path: String,
    pub patch: String,
    pub target: Option<Selector>,
    pub options: Option<PatchOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct PatchOptions {
    pub allow_name_change: bool,
    pub allow_kind_change: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Image {
    pub name: String,
    pub new_name: String,
    pub new_tag: String,
    pub tag_suffix: String,
    pub digest: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replica {
    pub name: String,
    pub count: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generator {
    pub name: String,
    pub namespace: String,
    pub behavior: String,
    pub literals: Vec<String>,
    pub files: Vec<String>,
    pub envs: Vec<String>,
    pub env: String,
    pub options: Option<GeneratorOptions>,
    /// Of Secrets.
    #[serde(rename = "type")]
    pub secret_type: String,
}

impl Generator {
    /// The older spelling of one file is an entry of `envs`.
    pub fn take_env(&mut self) {
        if !self.env.is_empty() {
            self.envs.push(std::mem::take(&mut self.env));
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct GeneratorOptions {
    pub labels: BTreeMap<String, Text>,
    pub annotations: BTreeMap<String, Text>,
    pub disable_name_suffix_hash: bool,
    pub immutable: bool,
}

impl GeneratorOptions {
    /// A generator's own options, completed by those of the file.
    pub fn merged(own: Option<&Self>, general: Option<&Self>) -> Self {
        let mut options = own.cloned().unwrap_or_default();
        if let Some(general) = general {
            for (key, value) in &general.labels {
                options.labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
            for (key, value) in &general.annotations {
                options.annotations.entry(key.clone()).or_insert_with(|| value.clone());
            }
            options.disable_name_suffix_hash |= general.disable_name_suffix_hash;
            options.immutable |= general.immutable;
        }
        options
    }
}

/// Written in the file, or in a file of its own (`path`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Replacement {
    pub path: String,
    pub source: Option<ReplacementSource>,
    pub source_value: Option<String>,
    pub targets: Vec<ReplacementTarget>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ReplacementSource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub field_path: String,
    pub options: Option<FieldOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ReplacementTarget {
    pub select: Option<Selector>,
    pub reject: Vec<Selector>,
    pub field_paths: Vec<String>,
    pub options: Option<FieldOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldOptions {
    pub delimiter: String,
    pub index: i64,
    pub encoding: String,
    pub create: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct SortOptions {
    pub order: String,
    pub legacy_sort_options: Option<LegacySortOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct LegacySortOptions {
    pub order_first: Vec<String>,
    pub order_last: Vec<String>,
}

const KUSTOMIZATION: (&str, &str) = ("Kustomization", "kustomize.config.k8s.io/v1beta1");
const COMPONENT: (&str, &str) = ("Component", "kustomize.config.k8s.io/v1alpha1");

/// A kustomization file that was read, for errors at its fields.
pub struct File {
    pub path: String,
    pub text: String,
    pub fields: Kustomization,
    /// As written, where a field's name is in another case than kustomize's own.
    pub folded: Option<Value>,
    /// It says nothing but what it is: kustomize refuses that, Flux takes it at the path of its object.
    pub is_empty: bool,
    /// What the Kustomization object has added.
    pub origins: Origins,
}

impl File {
    pub fn read(path: &str, text: String, budget: &Budget<'_>) -> Result<Self, SourceError> {
        let document = yaml::single_while(path, text.as_bytes(), &|| budget.go_on().is_ok())?;
        // `field` as it is written
        let at = |field: &str, message: String| {
            let (line, column) = yaml::locate(&text, document.index, &[field.into()]).unwrap_or((document.line, 1));
            SourceError::new(path, &text, line, column, message)
        };
        let mut given = match &document.value {
            Value::Object(map) => map.clone(),
            Value::Null => serde_json::Map::new(),
            _ => {
                return Err(SourceError::new(
                    path,
                    &text,
                    document.line,
                    1,
                    "the kustomization is no mapping of fields",
                ));
            }
        };
        // null counts as absent
        given.retain(|_, value| !value.is_null());
        for (field, hint) in UNSERVED {
            if let Some(written) = given.keys().find(|key| folded::is(field, key)) {
                return Err(at(written, format!("`{field}` is not served by this version of Afresh")).with_hint(hint));
            }
        }
        // field by field, so that an error has its place
        let mut is_folded = false;
        for (field, value) in &given {
            let alone = || Value::Object([(field.clone(), value.clone())].into_iter().collect());
            if serde_json::from_value::<Kustomization>(alone()).is_ok() {
                continue;
            }
            is_folded = true;
            if let Err(error) = folded::read::<Kustomization>(alone()) {
                let message = error.to_string();
                return Err(match message.strip_prefix("unknown field") {
                    Some(_) if message.contains(&format!("`{field}`")) => {
                        at(field, format!("a kustomization has no field `{field}`"))
                    }
                    _ => at(field, format!("`{field}`: {message}")),
                });
            }
        }
        let mut fields: Kustomization = folded::read(Value::Object(given.clone()))
            .map_err(|error| SourceError::new(path, &text, document.line, 1, error.to_string()))?;
        let is_empty = given.keys().all(|key| folded::is("apiVersion", key) || folded::is("kind", key));
        if fields.kind.is_empty() {
            fields.kind = KUSTOMIZATION.0.into();
        }
        let Some((_, version)) = [KUSTOMIZATION, COMPONENT].into_iter().find(|(kind, _)| *kind == fields.kind) else {
            return Err(at("kind", format!("kind `{}` is neither Kustomization nor Component", fields.kind)));
        };
        if !fields.api_version.is_empty() && fields.api_version != version {
            return Err(at("apiVersion", format!("the API version of a {} is `{version}`", fields.kind)));
        }
        fields.images.append(&mut fields.image_tags);
        for generator in fields.config_map_generator.iter_mut().chain(&mut fields.secret_generator) {
            generator.take_env();
        }
        let folded = is_folded.then_some(document.value);
        let file = Self { path: path.to_owned(), text, fields, folded, is_empty, origins: Origins::default() };
        match file.fields.components.iter().position(String::is_empty) {
            Some(index) => Err(file.error(&["components".into(), index.into()], "this component has no name")),
            None => Ok(file),
        }
    }

    pub fn is_component(&self) -> bool {
        self.fields.kind == COMPONENT.0
    }

    /// An error at one of its fields.
    pub fn error(&self, path: &[PathSegment], message: impl Into<String>) -> SourceError {
        if let Some(field) = self.origins.field(path) {
            return SourceError::whole_file(&field, message);
        }
        if self.text.is_empty() {
            return SourceError::whole_file(&self.path, message);
        }
        let (line, column) = self.locate(path).unwrap_or((1, 1));
        SourceError::new(&self.path, &self.text, line, column, message)
    }

    /// Where one of its fields stands.
    pub fn locate(&self, path: &[PathSegment]) -> Option<(u32, u32)> {
        match &self.folded {
            Some(written) => yaml::locate(&self.text, 0, &folded::as_written(written, path)),
            None => yaml::locate(&self.text, 0, path),
        }
    }
}

/// Fields of kustomize that are refused by name, and what helps.
const UNSERVED: [(&str, &str); 3] = [
    ("helmGlobals", "render the chart and commit the result"),
    ("helmCharts", "render the chart and commit the result"),
    ("helmChartInflationGenerator", "render the chart and commit the result"),
];
