//! ConfigMaps and Secrets made from literals and files, and the hash that goes into their names.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::file::{Generator, GeneratorOptions};
use super::node::{Node, Scalar, Tag};
use super::origin;
use super::resource::{Behaviour, Resource};
use crate::render::decryption::Format;
use crate::render::objects::Place;

/// Kustomize breaks base64 into lines of this length.
const BASE64_LINE: usize = 70;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Reads a file that a generator names; a Secret's may be encrypted in the format of its key.
pub type Load<'a> = dyn FnMut(&str, Format) -> Result<Vec<u8>, Failure> + 'a;

/// What stops a generator: something it says, or the tree.
pub enum Failure {
    Said(String),
    Render(crate::render::RenderError),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Said(message)
    }
}

pub fn resource(
    kind: Kind,
    generator: &Generator,
    options: &GeneratorOptions,
    place: Place,
    load: &mut Load<'_>,
) -> Result<Resource, Failure> {
    if generator.name.is_empty() {
        return Err(Failure::Said(format!("a generated {} needs a `name`", kind.name())));
    }
    let pairs = pairs(generator, load)?;
    let mut metadata = Node::Map(vec![("name".into(), Node::string(&generator.name))]);
    if !generator.namespace.is_empty() {
        metadata.set("namespace", Node::string(&generator.namespace));
    }
    for (field, map) in [("labels", &options.labels), ("annotations", &options.annotations)] {
        if !map.is_empty() {
            let entries = map.iter().map(|(key, value)| (key.clone(), Node::string(&value.0))).collect();
            metadata.set(field, Node::Map(entries));
        }
    }
    let mut node = Node::Map(vec![
        ("apiVersion".into(), Node::string("v1")),
        ("kind".into(), Node::string(kind.name())),
        ("metadata".into(), metadata),
    ]);
    if kind == Kind::Secret {
        let given = generator.secret_type.as_str();
        node.set("type", Node::string(if given.is_empty() { "Opaque" } else { given }));
        node.set("data", Node::Map(Vec::new()));
    } else if !generator.secret_type.is_empty() {
        return Err(Failure::Said("a ConfigMap has no `type`".into()));
    }
    for (key, bytes) in pairs {
        let (field, text) = match (kind, String::from_utf8(bytes)) {
            (Kind::ConfigMap, Ok(text)) => ("data", text),
            (Kind::ConfigMap, Err(error)) => ("binaryData", lines(error.as_bytes())),
            (Kind::Secret, Ok(text)) => ("data", lines(text.as_bytes())),
            (Kind::Secret, Err(error)) => ("data", lines(error.as_bytes())),
        };
        if let Some(map) = node.map_at(field) {
            map.set(&key, Node::string(text));
        }
    }
    if options.immutable {
        node.set("immutable", Node::Scalar(Scalar::plain("true", Tag::Bool)));
    }
    let mut resource = Resource::new(node, place);
    resource.needs_hash = !options.disable_name_suffix_hash;
    resource.behaviour = match generator.behavior.as_str() {
        "replace" => Behaviour::Replace,
        "merge" => Behaviour::Merge,
        // kustomize takes any other word for `create`
        _ => Behaviour::Create,
    };
    Ok(resource)
}

fn lines(bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    let lines: Vec<&str> =
        text.as_bytes().chunks(BASE64_LINE).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    match lines.len() {
        0 | 1 => text,
        // every line ends
        _ => lines.iter().map(|line| format!("{line}\n")).collect(),
    }
}

fn pairs(generator: &Generator, load: &mut Load<'_>) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut all = Vec::new();
    for path in &generator.envs {
        let format = match Format::of(path) {
            Format::Binary => Format::Dotenv,
            format => format,
        };
        let content = load(path, format)?;
        let text = String::from_utf8(content).map_err(|_| format!("`{path}` is not UTF-8 text"))?;
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            if key.is_empty() {
                continue;
            }
            check_key(key, || format!("what stands before `=` in line {} of `{path}`", index + 1))?;
            all.push((key.to_owned(), value.as_bytes().to_vec()));
        }
    }
    for literal in &generator.literals {
        match literal.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                check_key(key, || "what stands before `=` in a literal".to_owned())?;
                all.push((key.to_owned(), unquoted(value).as_bytes().to_vec()));
            }
            // the literal itself may be secret
            _ => return Err(Failure::Said("a literal is not `key=value`".into())),
        }
    }
    for source in &generator.files {
        let (key, path) = match source.split('=').collect::<Vec<_>>()[..] {
            [path] => (path.rsplit('/').next().unwrap_or(path), path),
            ["", path] => return Err(Failure::Said(format!("file `{path}` has no key before `=`"))),
            [key, ""] => return Err(Failure::Said(format!("key `{key}` has no file after `=`"))),
            [key, path] => (key, path),
            _ => return Err(Failure::Said(format!("`{source}` has more than one `=`"))),
        };
        check_key(key, || format!("`{key}`"))?;
        let format = Format::of(source.split('=').next().unwrap_or(path));
        all.push((key.to_owned(), load(path, format)?));
    }
    let mut pairs = BTreeMap::new();
    for (key, value) in all {
        if pairs.insert(key.clone(), value).is_some() {
            return Err(Failure::Said(format!("key `{key}` is given twice")));
        }
    }
    Ok(pairs)
}

/// `what` says which key: one that is none may be a value in the wrong place.
fn check_key(key: &str, what: impl Fn() -> String) -> Result<(), Failure> {
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        let what = what();
        return Err(Failure::Said(format!("{what} is not a key: letters, digits, `-`, `_` and `.` make one")));
    }
    Ok(())
}

/// One pair of quotes around a value is not part of it.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if value.len() >= 2 && value.starts_with(quote) && value.ends_with(quote) {
            return &value[1..value.len() - 1];
        }
    }
    value
}

/// Adds a generated object, or changes the one that is there.
pub fn absorb(all: &mut Vec<Resource>, mut made: Resource) -> Result<(), String> {
    let id = made.id();
    let matches: Vec<usize> = (0..all.len()).filter(|index| all[*index].is_or_was(&id)).collect();
    match (matches[..].len(), made.behaviour) {
        (0, Behaviour::Create) => {
            all.push(made);
            Ok(())
        }
        (0, _) => Err(format!("there is no `{id}` to merge with or to replace")),
        (1, Behaviour::Create) => {
            Err(format!("`{id}` is declared already: `behavior` must be merge or replace to change it"))
        }
        (1, behaviour) => {
            let old = &all[matches[0]];
            inherit(&mut made, old);
            if behaviour == Behaviour::Merge {
                origin::keep(&mut made, old);
                for field in ["data", "binaryData"] {
                    let Some(Node::Map(entries)) = old.node.at(&[field]) else { continue };
                    let Some(map) = made.node.map_at(field) else { continue };
                    for (key, value) in entries {
                        if map.get(key).is_none() {
                            map.set(key, value.alone());
                        }
                    }
                }
            }
            all[matches[0]] = made;
            Ok(())
        }
        _ => Err(format!("more than one object is, or was, `{id}`")),
    }
}

/// Name, labels and history of the object that is replaced.
fn inherit(made: &mut Resource, old: &Resource) {
    for field in ["labels", "annotations"] {
        let inherited = old.text_map(field);
        if inherited.is_empty() {
            continue;
        }
        let Some(map) = made.node.map_at("metadata").and_then(|metadata| metadata.map_at(field)) else { continue };
        for (key, value) in inherited {
            if map.get(&key).is_none() {
                map.set(&key, Node::string(value));
            }
        }
    }
    made.set_name(old.name());
    made.set_namespace(old.namespace());
    made.needs_hash &= old.needs_hash;
    made.take_history(old);
}

/// The suffix that tells one content from another.
pub fn hash(resource: &Resource) -> Result<String, String> {
    let value = resource.node.value()?;
    let field = |name: &str| value.get(name).cloned().unwrap_or_else(|| json!(""));
    // the name is left empty, by a slip of kustomize's that every hash in use has
    let mut content = json!({ "kind": resource.gvk().kind, "name": "", "data": field("data") });
    let more: &[&str] = match resource.gvk().kind.as_str() {
        "ConfigMap" => &["binaryData"],
        _ => {
            content["type"] = field("type");
            &["stringData"]
        }
    };
    for name in more {
        if field(name).is_object() {
            content[*name] = field(name);
        }
    }
    let digest = hex::encode(Sha256::digest(as_go_writes(content.to_string()).as_bytes()));
    let letter = |c| match c {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        c => c,
    };
    Ok(digest.chars().take(10).map(letter).collect())
}

/// Go's JSON has some characters by number, for pages of HTML.
pub fn as_go_writes(json: String) -> String {
    let mut text = json;
    for (c, number) in
        [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")]
    {
        text = text.replace(c, number);
    }
    text
}
