//! SOPS' own part of an encrypted file: who can open it, which values are encrypted, and the MAC.

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::ENCRYPTED;

/// Keys of files that say nothing else are left in the clear if their names end so.
const UNENCRYPTED_SUFFIX: &str = "_unencrypted";
/// Recipients of one file; each is tried with each key.
const RECIPIENTS_MAX: usize = 64;
/// Lists and mappings within one another that a name spells: `key_groups__list_0__map_age__list_0__map_enc` has four.
const NESTED_MAX: usize = 8;
/// A compiled expression of a file, which anybody who can push writes.
const REGEX_BYTES_MAX: usize = 1 << 18;

pub(super) struct Metadata {
    pub recipients: Vec<Recipient>,
    /// Encrypted, for `last_modified`.
    pub mac: String,
    pub last_modified: String,
    pub mac_only_encrypted: bool,
    rule: Rule,
}

/// Who can open the file.
pub(super) struct Recipient {
    pub name: String,
    /// The data key, encrypted for the recipient and armoured.
    pub data_key: String,
}

/// Which values are encrypted.
enum Rule {
    EncryptedSuffix(String),
    UnencryptedSuffix(String),
    Encrypted(Regex),
    Unencrypted(Regex),
    /// A comment beside the value says it: the value itself shows whether it is.
    Comment,
}

/// Services whose keys can open a file and which Afresh has no access to, by their field.
const OTHERS: [(&str, &str); 6] = [
    ("pgp", "PGP"),
    ("kms", "AWS KMS"),
    ("gcp_kms", "Google Cloud KMS"),
    ("azure_kv", "Azure Key Vault"),
    ("hc_vault", "Vault"),
    ("hckms", "Huawei Cloud KMS"),
];

impl Metadata {
    /// Reads the value of `sops`.
    pub(super) fn of(value: &Value) -> Result<Self, String> {
        let Value::Object(fields) = value else { return Err("`sops` is not a mapping".into()) };
        let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (mac, last_modified) = (text("mac"), text("lastmodified"));
        if mac.is_empty() || last_modified.is_empty() {
            return Err("`sops` lacks `mac` or `lastmodified`: the file can't be told from a changed one".into());
        }
        if fields.get("key_groups").and_then(Value::as_array).is_some_and(|groups| !groups.is_empty()) {
            return Err("`sops.key_groups`: a data key that is split among groups is not served".into());
        }
        let truth = fields.get("mac_only_encrypted");
        let mac_only_encrypted = truth.is_some_and(|v| v.as_bool() == Some(true) || v.as_str() == Some("true"));
        Ok(Self { recipients: recipients(fields)?, mac, last_modified, mac_only_encrypted, rule: rule(fields)? })
    }

    /// Whether the value at `path` is one that SOPS encrypts.
    pub(super) fn encrypts(&self, path: &[String], text: &str) -> bool {
        match &self.rule {
            Rule::EncryptedSuffix(suffix) => path.iter().any(|key| key.ends_with(suffix)),
            Rule::UnencryptedSuffix(suffix) => !path.iter().any(|key| key.ends_with(suffix)),
            Rule::Encrypted(regex) => path.iter().any(|key| regex.is_match(key)),
            Rule::Unencrypted(regex) => !path.iter().any(|key| regex.is_match(key)),
            Rule::Comment => text.starts_with(ENCRYPTED),
        }
    }
}

fn recipients(fields: &Map<String, Value>) -> Result<Vec<Recipient>, String> {
    let entries = |field: &str| fields.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut recipients = Vec::new();
    for entry in entries("age") {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        recipients.push(Recipient { name: text("recipient"), data_key: text("enc") });
    }
    if recipients.len() > RECIPIENTS_MAX {
        return Err(format!("the file has more than {RECIPIENTS_MAX} recipients"));
    }
    if recipients.is_empty() {
        let others: Vec<&str> =
            OTHERS.iter().filter(|(field, _)| !entries(field).is_empty()).map(|(_, name)| *name).collect();
        return Err(match others.as_slice() {
            [] => "`sops` names nobody who can open the file".into(),
            others => format!(
                "the file is encrypted for {} only, which is not served: add an age recipient with `sops updatekeys`",
                others.join(" and ")
            ),
        });
    }
    Ok(recipients)
}

fn rule(fields: &Map<String, Value>) -> Result<Rule, String> {
    let given = |field: &str| fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let regex = |field: &str, text: &str| {
        let built = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
        built.map_err(|_| format!("`sops.{field}` is not a regular expression"))
    };
    let rules = [
        given("encrypted_suffix").map(|text| Ok(Rule::EncryptedSuffix(text.to_owned()))),
        given("unencrypted_suffix").map(|text| Ok(Rule::UnencryptedSuffix(text.to_owned()))),
        given("encrypted_regex").map(|text| regex("encrypted_regex", text).map(Rule::Encrypted)),
        given("unencrypted_regex").map(|text| regex("unencrypted_regex", text).map(Rule::Unencrypted)),
        given("encrypted_comment_regex").map(|_| Ok(Rule::Comment)),
        given("unencrypted_comment_regex").map(|_| Ok(Rule::Comment)),
    ];
    let mut rules = rules.into_iter().flatten();
    let first = rules.next().unwrap_or_else(|| Ok(Rule::UnencryptedSuffix(UNENCRYPTED_SUFFIX.to_owned())))?;
    match rules.next() {
        None => Ok(first),
        Some(_) => Err("`sops` has more than one rule of what is encrypted".into()),
    }
}

/// Metadata that a format without lists spells in the names of keys: `age__list_0__map_enc`.
pub(super) fn unflatten(flat: impl IntoIterator<Item = (String, String)>) -> Result<Value, String> {
    let mut root = Value::Object(Map::new());
    for (name, text) in flat {
        let mut place = &mut root;
        let mut rest = name.as_str();
        for nested in 0.. {
            if nested > NESTED_MAX {
                return Err(format!("`sops`: a name is nested deeper than {NESTED_MAX} levels"));
            }
            let next = ["__map_", "__list_"]
                .into_iter()
                .filter_map(|mark| rest.find(mark).map(|at| (at, mark)))
                .min_by_key(|(at, _)| *at);
            let (head, mark) = next.map_or((rest, None), |(at, mark)| (&rest[..at], Some(mark)));
            place = step(place, head).ok_or_else(|| format!("`sops`: `{name}` has no place"))?;
            let Some(mark) = mark else { break };
            rest = &rest[head.len() + mark.len()..];
            if place.is_null() {
                *place = if mark == "__list_" { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
            }
        }
        *place = Value::String(text);
    }
    Ok(root)
}

/// The place of a key or of an item, which is made if it is the next one.
fn step<'a>(place: &'a mut Value, head: &str) -> Option<&'a mut Value> {
    match place {
        Value::Object(map) => Some(map.entry(head).or_insert(Value::Null)),
        Value::Array(items) => {
            let index: usize = head.parse().ok().filter(|index| *index <= items.len() && *index < RECIPIENTS_MAX)?;
            if index == items.len() {
                items.push(Value::Null);
            }
            items.get_mut(index)
        }
        _ => None,
    }
}
