//! `generators`, `transformers` and `validators`: kustomize's builtins, configured by objects in files or in place.
//!
//! What is not builtin would be a program or a container: it is refused by name, and nothing is ever run.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::build::{Build, Built};
use super::current::Current;
use super::field_spec::FieldSpec;
use super::file::{Generator, Image, Patch as PatchEntry, PatchOptions, Replacement, Replica};
use super::folded;
use super::generate::{self, Kind};
use super::node::{self, Node, Scalar, Tag};
use super::origin::{self, Configuration, Origin};
use super::resource::Resource;
use super::selector::Selector;
use super::step::Step;
use super::steps::{Asked, Planned, is_in_place, merge_entry};
use super::transform::{Affix, Namespace, Pairs, Subjects};
use super::value_add::{Target, ValueAdd};
use crate::manifest::yaml;
use crate::render::error::RenderError;
use crate::render::path;

const GENERATORS: [&str; 3] = ["ConfigMapGenerator", "SecretGenerator", "IAMPolicyGenerator"];
const TRANSFORMERS: [&str; 14] = [
    "AnnotationsTransformer",
    "HashTransformer",
    "ImageTagTransformer",
    "LabelTransformer",
    "NamespaceTransformer",
    "PatchJson6902Transformer",
    "PatchStrategicMergeTransformer",
    "PatchTransformer",
    "PrefixSuffixTransformer",
    "PrefixTransformer",
    "ReplacementTransformer",
    "ReplicaCountTransformer",
    "SuffixTransformer",
    "ValueAddTransformer",
];

/// The object that configures a builtin.
struct Plugin {
    kind: String,
    name: String,
    namespace: String,
    config: Value,
    asked: Asked,
    origin: Origin,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct LabelConfig {
    labels: Pairs,
    #[serde(alias = "FieldSpecs")]
    field_specs: Vec<FieldSpec>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct AnnotationConfig {
    annotations: Pairs,
    #[serde(alias = "FieldSpecs")]
    field_specs: Vec<FieldSpec>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct ImageConfig {
    image_tag: Image,
    #[serde(alias = "FieldSpecs")]
    field_specs: Vec<FieldSpec>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct ReplicaConfig {
    replica: Replica,
    #[serde(alias = "FieldSpecs")]
    field_specs: Vec<FieldSpec>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct NamespaceConfig {
    #[serde(alias = "FieldSpecs")]
    field_specs: Vec<FieldSpec>,
    unset_only: bool,
    set_role_binding_subjects: Subjects,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct AffixConfig {
    prefix: String,
    suffix: String,
    #[serde(alias = "FieldSpecs")]
    field_specs: Option<Vec<FieldSpec>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct PatchConfig {
    path: String,
    patch: String,
    target: Option<Selector>,
    options: Option<PatchOptions>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct JsonPatchConfig {
    path: String,
    json_op: String,
    target: Option<Selector>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MergeConfig {
    paths: Vec<String>,
    patches: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReplacementConfig {
    replacements: Vec<Replacement>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct ValueAddConfig {
    value: String,
    targets: Vec<Target>,
    target_file_path: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct IamConfig {
    cloud: String,
    kubernetes_service: IamAccount,
    service_account: IamAccount,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct IamAccount {
    name: String,
    namespace: String,
    project_id: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NoConfig {}

impl Build<'_> {
    /// `transformers`, as steps.
    pub(super) fn transformers(&mut self, current: &Current) -> Result<Vec<Planned>, RenderError> {
        let plugins = self.plugins(current, "transformers", &current.file.fields.transformers)?;
        plugins.into_iter().map(|plugin| self.transformer(current, plugin)).collect()
    }

    /// `validators`: transformers that may change nothing, which leaves them to find what they can't do.
    pub(super) fn validate(&mut self, current: &Current, all: &[Resource]) -> Result<(), RenderError> {
        let plugins = self.plugins(current, "validators", &current.file.fields.validators)?;
        for plugin in plugins {
            let (name, planned) = (plugin.name.clone(), self.transformer(current, plugin)?);
            let mut after = all.to_vec();
            let validated = planned.step.apply(&mut after, &self.schema, &self.budget);
            validated.map_err(|stopped| self.failed(current, planned.asked, stopped.message))?;
            let same = after.len() == all.len() && after.iter().zip(all).all(|(after, before)| same(after, before));
            if !same {
                let message = format!("validator `{name}` changes objects, which only transformers may");
                return Err(self.failed(current, planned.asked, message));
            }
        }
        Ok(())
    }

    /// What `generators` make.
    pub(super) fn external_generators(&mut self, current: &Current, built: &mut Built) -> Result<(), RenderError> {
        for plugin in self.plugins(current, "generators", &current.file.fields.generators)? {
            let (asked, origin) = (plugin.asked, plugin.origin.clone());
            let failed = |message: String| self.failed(current, asked, message);
            let mut made = match plugin.kind.as_str() {
                "ConfigMapGenerator" => self.config_of(current, &plugin, Kind::ConfigMap)?,
                "SecretGenerator" => self.config_of(current, &plugin, Kind::Secret)?,
                "IAMPolicyGenerator" => {
                    let config = read(&plugin).map_err(failed)?;
                    Resource::new(service_account(&config).map_err(failed)?, self.place_asked(current, asked))
                }
                kind => return Err(failed(format!("{kind} is no generator: name it in `transformers`"))),
            };
            if self.is_tracked {
                origin.note_unless_known(&mut made);
            }
            generate::absorb(&mut built.resources, made).map_err(failed)?;
        }
        Ok(())
    }

    fn config_of(&self, current: &Current, plugin: &Plugin, kind: Kind) -> Result<Resource, RenderError> {
        let mut generator: Generator = read(plugin).map_err(|message| self.failed(current, plugin.asked, message))?;
        if generator.name.is_empty() {
            generator.name.clone_from(&plugin.name);
        }
        if generator.namespace.is_empty() {
            generator.namespace.clone_from(&plugin.namespace);
        }
        generator.take_env();
        let options = generator.options.clone().unwrap_or_default();
        self.generated(current, plugin.asked, kind, &generator, &options)
    }

    /// The objects that entries of a list name, or are.
    fn plugins(
        &mut self,
        current: &Current,
        field: &'static str,
        entries: &[String],
    ) -> Result<Vec<Plugin>, RenderError> {
        let mut plugins = Vec::new();
        let mut named = Vec::new();
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.is_empty()) {
            let asked = Asked::Entry(field, index);
            if !is_in_place(entry) {
                named.push((index, entry));
                continue;
            }
            // those in files come after them
            let documents = node::documents(&current.file.path, entry.as_bytes(), &self.budget);
            let documents = documents.map_err(|error| self.failed(current, asked, error.message.clone()))?;
            for document in documents {
                let resource = Resource::new(document.node, self.place_asked(current, asked));
                let origin = current.origin.join(current.file_name());
                plugins.push(self.plugin(current, resource, asked, origin)?);
            }
        }
        for (index, entry) in named {
            // what a directory brings to names and labels here is not for the objects outside of it
            for resource in self.resource(current, field, index, entry, &mut Built::empty())? {
                let (asked, origin) = (Asked::Object(resource.place), origin::of(&resource));
                plugins.push(self.plugin(current, resource, asked, origin)?);
            }
        }
        Ok(plugins)
    }

    fn plugin(
        &self,
        current: &Current,
        resource: Resource,
        asked: Asked,
        origin: Origin,
    ) -> Result<Plugin, RenderError> {
        let failed = |message: String| self.failed(current, asked, message);
        let (gvk, name, namespace) = (resource.gvk(), resource.name().to_owned(), resource.namespace().to_owned());
        let kind = gvk.kind.clone();
        if !gvk.group.is_empty() || gvk.version != "builtin" {
            return Err(failed(format!(
                "`{kind}` is not builtin: programs and containers are never run; only `apiVersion: builtin` is served"
            )));
        }
        if kind == "HelmChartInflationGenerator" {
            return Err(failed(format!("`{kind}` is not served: render the chart and commit the result")));
        }
        if !GENERATORS.contains(&kind.as_str()) && !TRANSFORMERS.contains(&kind.as_str()) {
            let known: Vec<&str> = GENERATORS.iter().chain(&TRANSFORMERS).copied().collect();
            return Err(failed(format!("there is no builtin `{kind}`, but {}", known.join(", "))));
        }
        let mut config = resource.node.value().map_err(failed)?;
        if let Some(config) = config.as_object_mut() {
            config.retain(|field, value| {
                !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") && !value.is_null()
            });
        }
        let by = Configuration {
            api_version: "builtin".into(),
            kind: kind.clone(),
            name: name.clone(),
            namespace: namespace.clone(),
        };
        Ok(Plugin { kind, name, namespace, config, asked, origin: origin.by(by) })
    }

    fn transformer(&self, current: &Current, plugin: Plugin) -> Result<Planned, RenderError> {
        let step = self.step_of(current, &plugin)?;
        Ok(Planned { step, asked: plugin.asked, origin: plugin.origin })
    }

    fn step_of(&self, current: &Current, plugin: &Plugin) -> Result<Step, RenderError> {
        let asked = plugin.asked;
        let failed = |message: String| self.failed(current, asked, message);
        Ok(match plugin.kind.as_str() {
            "AnnotationsTransformer" => {
                let config: AnnotationConfig = read(plugin).map_err(failed)?;
                Step::Annotations { pairs: config.annotations, specs: config.field_specs }
            }
            "LabelTransformer" => {
                let config: LabelConfig = read(plugin).map_err(failed)?;
                Step::Labels { pairs: config.labels, specs: config.field_specs }
            }
            "ImageTagTransformer" => {
                let config: ImageConfig = read(plugin).map_err(failed)?;
                Step::Image { image: config.image_tag, specs: config.field_specs }
            }
            "ReplicaCountTransformer" => {
                let config: ReplicaConfig = read(plugin).map_err(failed)?;
                Step::Replicas { replica: config.replica, specs: config.field_specs }
            }
            "NamespaceTransformer" => {
                let config: NamespaceConfig = read(plugin).map_err(failed)?;
                Step::Namespace(Namespace {
                    namespace: plugin.namespace.clone(),
                    specs: config.field_specs,
                    unset_only: config.unset_only,
                    subjects: config.set_role_binding_subjects,
                })
            }
            "PrefixTransformer" | "SuffixTransformer" | "PrefixSuffixTransformer" => {
                let config: AffixConfig = read(plugin).map_err(failed)?;
                let specs = config.field_specs.ok_or_else(|| failed("it needs `fieldSpecs`".into()))?;
                for (field, text, other) in
                    [("prefix", &config.prefix, "SuffixTransformer"), ("suffix", &config.suffix, "PrefixTransformer")]
                {
                    if plugin.kind == other && !text.is_empty() {
                        return Err(failed(format!("`{other}` has no field `{field}`")));
                    }
                }
                let affix = |side, text: &str| Step::Affix { side, text: text.to_owned(), specs: specs.clone() };
                match plugin.kind.as_str() {
                    "PrefixTransformer" => affix(Affix::Prefix, &config.prefix),
                    "SuffixTransformer" => affix(Affix::Suffix, &config.suffix),
                    _ => Step::Both(Box::new([
                        affix(Affix::Prefix, &config.prefix),
                        affix(Affix::Suffix, &config.suffix),
                    ])),
                }
            }
            "PatchTransformer" => {
                let PatchConfig { path, patch, target, options } = read(plugin).map_err(failed)?;
                let entry = PatchEntry { path, patch, target, options };
                Step::Patch { patch: self.patch(current, asked, &entry)?, target: entry.target }
            }
            "PatchJson6902Transformer" => {
                let JsonPatchConfig { path, json_op: patch, target } = read(plugin).map_err(failed)?;
                self.json_patch(current, asked, &PatchEntry { path, patch, target, options: None })?
            }
            "PatchStrategicMergeTransformer" => {
                let config: MergeConfig = read(plugin).map_err(failed)?;
                let mut entries: Vec<PatchEntry> = config.paths.iter().map(|path| merge_entry(path)).collect();
                if !config.patches.is_empty() {
                    entries.push(PatchEntry { patch: config.patches, ..PatchEntry::default() });
                }
                if entries.is_empty() {
                    return Err(failed("it needs `paths` or `patches`".into()));
                }
                let patches = entries.iter().map(|entry| self.patch(current, asked, entry));
                Step::Merge(patches.collect::<Result<_, _>>()?)
            }
            "ReplacementTransformer" => {
                let config: ReplacementConfig = read(plugin).map_err(failed)?;
                self.replacements(current, &config.replacements, |_| asked)?
            }
            "ValueAddTransformer" => self.value_add(current, plugin)?,
            "HashTransformer" => {
                let NoConfig {} = read(plugin).map_err(failed)?;
                Step::Hash
            }
            kind => return Err(failed(format!("{kind} is no transformer: name it in `generators`"))),
        })
    }

    fn value_add(&self, current: &Current, plugin: &Plugin) -> Result<Step, RenderError> {
        let failed = |message: String| self.failed(current, plugin.asked, message);
        let mut config: ValueAddConfig = read(plugin).map_err(failed)?;
        if !config.target_file_path.is_empty() {
            #[derive(Default, Deserialize)]
            #[serde(deny_unknown_fields, default)]
            struct Targets {
                targets: Vec<Target>,
            }
            let (path, text) = self.beside(current, plugin.asked, &config.target_file_path)?;
            let document = yaml::single(&path, text.as_bytes())?;
            let more: Targets = folded::read(document.value).map_err(|error| failed(format!("`{path}`: {error}")))?;
            config.targets.extend(more.targets);
        }
        let value = match config.value.trim() {
            "" => path::split(&current.directory).1.to_owned(),
            value => value.to_owned(),
        };
        if value.is_empty() {
            return Err(failed("at the root of the repository a `value` is needed: there is no name to take".into()));
        }
        let value_add = ValueAdd { value, targets: config.targets };
        value_add.check().map_err(failed)?;
        Ok(Step::ValueAdd(value_add))
    }
}

fn read<T: DeserializeOwned>(plugin: &Plugin) -> Result<T, String> {
    folded::read(plugin.config.clone()).map_err(|error| format!("`{}`: {error}", plugin.kind))
}

/// Whether a validator left an object alone.
fn same(after: &Resource, before: &Resource) -> bool {
    after.node == before.node && after.previous_ids().eq(before.previous_ids())
}

/// The account that stands for one of Google's cloud.
fn service_account(config: &IamConfig) -> Result<Node, String> {
    if config.cloud != "gke" {
        return Err(format!("`cloud` must be `gke`, not `{}`", config.cloud));
    }
    let (account, service) = (&config.service_account, &config.kubernetes_service);
    let plain = |text: &str| Node::Scalar(Scalar::plain(text, Tag::Any));
    let email = format!("{}@{}.iam.gserviceaccount.com", account.name, account.project_id);
    let annotations = Node::Map(vec![("iam.gke.io/gcp-service-account".into(), plain(&email))]);
    let mut metadata = Node::Map(vec![("annotations".into(), annotations), ("name".into(), plain(&service.name))]);
    if !service.namespace.is_empty() {
        metadata.set("namespace", plain(&service.namespace));
    }
    Ok(Node::Map(vec![
        ("apiVersion".into(), Node::string("v1")),
        ("kind".into(), Node::string("ServiceAccount")),
        ("metadata".into(), metadata),
    ]))
}
