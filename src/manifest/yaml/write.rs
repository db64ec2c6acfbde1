//! Values to YAML that go-yaml v2 reads back as the same values, laid out as it would lay them out.
//!
//! Flux substitutes variables in text that go-yaml wrote, so which strings stand without quotes matters: `"${PORT}"`
//! is written plain and becomes a number.

use libyaml_safer::{Emitter, Error, Event, MappingStyle, ScalarStyle, SequenceStyle};
use serde_json::Value;

use super::{emit, scalar};

/// One document, without `---`, ending with a line break.
pub fn write(value: &Value) -> String {
    // The emitter's only failure is its sink's, and a text in memory has none.
    emit(|emitter| node(emitter, value)).unwrap_or_default()
}

fn node(emitter: &mut Emitter<'_>, value: &Value) -> Result<(), Error> {
    match value {
        Value::Null => plain(emitter, "null"),
        Value::Bool(b) => plain(emitter, if *b { "true" } else { "false" }),
        Value::Number(n) => plain(emitter, &n.to_string()),
        Value::String(s) => string(emitter, s),
        Value::Array(items) => {
            let style = if items.is_empty() { SequenceStyle::Flow } else { SequenceStyle::Block };
            emitter.emit(Event::sequence_start(None, None, true, style))?;
            for item in items {
                node(emitter, item)?;
            }
            emitter.emit(Event::sequence_end())
        }
        Value::Object(map) => {
            let style = if map.is_empty() { MappingStyle::Flow } else { MappingStyle::Block };
            emitter.emit(Event::mapping_start(None, None, true, style))?;
            for (key, value) in map {
                string(emitter, key)?;
                node(emitter, value)?;
            }
            emitter.emit(Event::mapping_end())
        }
    }
}

fn plain(emitter: &mut Emitter<'_>, text: &str) -> Result<(), Error> {
    emitter.emit(Event::scalar(None, None, text, true, false, ScalarStyle::Plain))
}

/// The emitter falls back to quotes where the style asked for can't hold the text.
fn string(emitter: &mut Emitter<'_>, text: &str) -> Result<(), Error> {
    let (style, plain) = if text.contains('\n') {
        (ScalarStyle::Literal, false)
    } else if scalar::plain_is_text(text) {
        (ScalarStyle::Plain, true)
    } else {
        (ScalarStyle::DoubleQuoted, false)
    };
    emitter.emit(Event::scalar(None, None, text, plain, true, style))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::yaml::documents;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_back_as_the_same_value() {
        let hard = [
            "yes",
            "0644",
            "1:30",
            "~",
            "=",
            "<<",
            "",
            " ",
            "null",
            "on",
            "1e3",
            "0x1F",
            "2024-01-01",
            "a: b",
            "a #b",
            "#a",
            "- a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "a\nb\n",
            "a\nb",
            "\n",
            "a\n\n",
            " a\nb",
            "a \nb",
            "a\tb",
            "é",
            "\u{85}",
            "\u{7}",
            "\u{feff}",
            "😀",
            "'",
            "\"",
            "a'b\"c",
            "\\",
            "...",
            "---",
            "--- a",
            "? a",
            "a:",
            ":",
            "1_000",
            ".5",
            "+1",
            "\t",
            "a\r\nb",
            "key: |\n  x\n",
            "${v}",
            "%{v}",
            "\u{2028}x\ny",
        ];
        for text in hard {
            for value in [json!({ "v": text }), json!([text]), json!({ text: 1 }), json!([[text, { "a": [text] }]])] {
                let written = write(&value);
                let read = documents("a.yaml", written.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{written}"));
                assert_eq!(read[0].value, value, "{text:?} was written as\n{written}");
            }
        }
        for value in [
            json!(1.5),
            json!(-3),
            json!(18_446_744_073_709_551_615_u64),
            json!(1e-7),
            json!(1e300),
            json!({}),
            json!([]),
        ] {
            let value = json!({ "v": value });
            assert_eq!(documents("a.yaml", write(&value).as_bytes()).expect("YAML")[0].value, value);
        }
    }

    #[test]
    fn it_is_laid_out_as_go_yaml_does() {
        let value = json!({
            "apiVersion": "v1",
            "data": { "port": "${PORT}", "yes": "no", "conf": "a = 1\nb = 2\n", "mode": "0644", "url": "http://${HOST}:80/" },
            "items": [{ "a": 1, "b": [1, "x"] }, "y"],
        });
        insta::assert_snapshot!(write(&value), @r#"
        apiVersion: v1
        data:
          conf: |
            a = 1
            b = 2
          mode: "0644"
          port: ${PORT}
          url: http://${HOST}:80/
          "yes": "no"
        items:
        - a: 1
          b:
          - 1
          - x
        - "y"
        "#);
    }

    proptest::proptest! {
        #[test]
        fn any_text_reads_back(text in "\\PC*[\\n :#-]?\\PC*") {
            let value = json!({ "v": [text] });
            let written = write(&value);
            proptest::prop_assert_eq!(&documents("a.yaml", written.as_bytes()).expect("YAML")[0].value, &value, "{}", written);
        }
    }
}
