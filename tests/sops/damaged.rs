//! Files that were cut off, torn, mixed up or forged: an error, never a panic, and nothing of what they held is told.

use std::sync::LazyLock;

use afresh::manifest::MemoryTree;
use afresh::render::Keys;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value;

use super::{GENERATED, MANIFESTS, built, generator_tree, keys, read};

/// Shorter values may be part of any word.
const TOLD_BYTES_MIN: usize = 6;

static KEYS: LazyLock<Keys> = LazyLock::new(|| keys(&["stranger", "team"]));
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let of = |name: &'static str| {
        let content = read(&format!("encrypted/{name}"));
        let mut file = File { name, content, encrypted: Vec::new(), told: Vec::new() };
        let opened = file.rendered(file.content.clone()).expect("the undamaged one is read").1;
        let text = String::from_utf8_lossy(&file.content);
        let may_tell = |value: &&String| value.len() >= TOLD_BYTES_MIN && !text.contains(value.as_str());
        file.told = opened.iter().filter(may_tell).cloned().collect();
        file.encrypted = opened;
        file
    };
    MANIFESTS.into_iter().chain(GENERATED).map(of).collect()
});

struct File {
    name: &'static str,
    content: Vec<u8>,
    /// What was encrypted, in its order.
    encrypted: Vec<String>,
    /// That of it which stands nowhere else, and tells something.
    told: Vec<String>,
}

impl File {
    /// The objects that come of such a file, and what was decrypted.
    fn rendered(&self, content: Vec<u8>) -> Result<(String, Vec<String>), String> {
        let tree = match GENERATED.contains(&self.name) {
            true => generator_tree("secretGenerator", &[(self.name, content)]),
            false => MemoryTree::new().with(&self.name.replace(".json", ".yaml"), content),
        };
        let rendered = built(&tree, Some(&KEYS))?;
        let objects: Vec<_> = rendered.objects.iter().map(|object| with_values(&object.value)).collect();
        Ok((objects.join("\n"), rendered.secrets))
    }

    fn check(&self, damaged: Vec<u8>) {
        let text = String::from_utf8_lossy(&damaged).into_owned();
        match self.rendered(damaged) {
            Err(error) => {
                for value in &self.told {
                    assert!(!error.contains(value.as_str()), "{}: {value:?} is told:\n{error}\n{text}", self.name);
                }
            }
            // Either nothing of it was opened, or all that was encrypted is as it was. (Of what is in the clear, SOPS
            // vouches for values, and for keys not at all.)
            Ok((objects, opened)) => {
                let harmless = opened.is_empty() || opened == self.encrypted;
                assert!(harmless, "{}: a changed file was opened:\n{objects}\n{text}", self.name);
                assert!(!opened.is_empty() || !objects.contains("ENC[AES256_GCM"), "{}:\n{objects}", self.name);
            }
        }
    }
}

/// An object, and what its `data` is in base64.
fn with_values(object: &Value) -> String {
    let data = object["data"].as_object().into_iter().flat_map(|data| data.values()).filter_map(Value::as_str);
    let decoded = data.filter_map(|text| STANDARD.decode(text.replace('\n', "")).ok());
    let decoded: Vec<_> = decoded.map(|content| String::from_utf8_lossy(&content).into_owned()).collect();
    format!("{object}\n{}", decoded.join("\n"))
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
    Byte(usize, u8),
    SwapLines(usize, usize),
    /// A line of another file in the place of one.
    Foreign(usize, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || any::<usize>();
    prop_oneof![
        place().prop_map(Damage::Cut),
        (place(), 1..80_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        (place(), 1..80_usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (place(), prop::sample::select(b"\n :#'\"|>[]{},&*!%=AZ09".to_vec()))
            .prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (place(), place()).prop_map(|(a, b)| Damage::SwapLines(a, b)),
        (place(), place(), place()).prop_map(|(at, file, line)| Damage::Foreign(at, file, line)),
    ]
}

fn lines(content: &[u8]) -> Vec<Vec<u8>> {
    content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn damaged(mut content: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let length = content.len().max(1);
    let range = |at: usize, count: usize, content: &[u8]| {
        (at % length).min(content.len())..(at % length + count).min(content.len())
    };
    match *damage {
        Damage::Cut(at) => content.truncate(at % length),
        Damage::Remove(at, count) => drop(content.drain(range(at, count, &content))),
        Damage::Repeat(at, count) => {
            let range = range(at, count, &content);
            let part = content[range.clone()].to_vec();
            content.splice(range.start..range.start, part);
        }
        Damage::Byte(at, byte) => {
            if let Some(place) = content.get_mut(at % length) {
                *place = byte;
            }
        }
        Damage::SwapLines(a, b) => {
            let mut lines = lines(&content);
            let count = lines.len().max(1);
            if !lines.is_empty() {
                lines.swap(a % count, b % count);
            }
            content = lines.concat();
        }
        Damage::Foreign(at, file, line) => {
            let mut lines = lines(&content);
            let others = self::lines(&FILES[file % FILES.len()].content);
            let count = lines.len().max(1);
            if let Some(place) = lines.get_mut(at % count) {
                place.clone_from(&others[line % others.len()]);
            }
            content = lines.concat();
        }
    }
    content
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_an_error_that_tells_nothing(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let file = &FILES[file.index(FILES.len())];
        file.check(damages.iter().fold(file.content.clone(), damaged));
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused_or_has_nothing_in_it() {
    for file in FILES.iter() {
        // everywhere costs minutes: each line's end, and some places within each line
        let ends = file.content.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let places = ends.flat_map(|end| [end, end + 1, end + 9]).filter(|at| *at < file.content.len());
        for at in places {
            file.check(file.content[..at].to_vec());
        }
    }
}

#[test]
fn forged_metadata_is_refused_with_what_is_wrong() {
    let secret = String::from_utf8(read("encrypted/secret.yaml")).expect("text");
    let key = secret.lines().find(|line| line.contains("-----BEGIN AGE")).expect("a data key").trim().to_owned();
    let with = |from: &str, to: &str| {
        let forged = secret.replacen(from, to, 1);
        assert_ne!(forged, secret, "`{from}` is there");
        forged
    };
    let many = format!("    age:\n{}", "        - recipient: age1x\n          enc: x\n".repeat(65));
    let regex = "    encrypted_regex: ^(data|stringData)$\n";
    let cases = [
        (with("    age:\n", &many), "more than 64 recipients"),
        (with(&key, "-----BEGIN AGE ENCRYPTED FIL-----"), "none of the 2 age identities opens the file"),
        (
            with(regex, "    encrypted_regex: ((((a{99}){99}){99}){99})\n"),
            "`sops.encrypted_regex` is not a regular expression",
        ),
        (with(regex, "    encrypted_regex: (\n"), "`sops.encrypted_regex` is not a regular expression"),
        (with(regex, &format!("{regex}    encrypted_suffix: x\n")), "more than one rule"),
        // what was in the clear would count as encrypted, and the other way round
        (with(regex, "    unencrypted_regex: ^(data|stringData)$\n"), "an encrypted value was expected here"),
        (with(regex, "    encrypted_regex: ^(data)$\n"), "changed after it was encrypted"),
        (with(regex, &format!("{regex}    mac_only_encrypted: true\n")), "changed after it was encrypted"),
        (with("    lastmodified: \"20", "    lastmodified: \"19"), "changed after it was encrypted"),
        (with(regex, &format!("{regex}    key_groups: [{{age: []}}]\n")), "split among groups"),
    ];
    for (forged, wanted) in cases {
        let error = built(&MemoryTree::new().with("s.yaml", forged), Some(&KEYS)).map(|_| ()).expect_err(wanted);
        assert!(error.contains(wanted) && error.contains("s.yaml"), "{wanted}:\n{error}");
    }
    let env = String::from_utf8(read("encrypted/app.env")).expect("text");
    let deep = format!("{env}sops_x{}=1\n", "__map_y".repeat(100_000));
    for (forged, wanted) in [
        (deep, "nested deeper than 8 levels"),
        (format!("{env}sops_age__list_4000000000__map_enc=x\n"), "has no place"),
        (format!("{env}no assignment\n"), "a line `KEY=value` was expected here"),
    ] {
        let tree = generator_tree("secretGenerator", &[("app.env", forged.into_bytes())]);
        let error = built(&tree, Some(&KEYS)).map(|_| ()).expect_err(wanted);
        assert!(error.contains(wanted) && error.contains("app.env"), "{wanted}:\n{error}");
    }
    for (field, name) in [
        ("pgp", "PGP"),
        ("kms", "AWS KMS"),
        ("gcp_kms", "Google Cloud KMS"),
        ("azure_kv", "Azure Key Vault"),
        ("hc_vault", "Vault"),
        ("hckms", "Huawei Cloud KMS"),
    ] {
        let other = with("    age:\n", &format!("    {field}:\n"));
        let error = built(&MemoryTree::new().with("s.yaml", other), Some(&KEYS)).map(|_| ()).expect_err(name);
        assert!(error.contains(&format!("encrypted for {name} only, which is not served")), "{error}");
    }
}
