//! The JSONPath that printer columns use: fields, indices, `[*]` and filters on a field's equality.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.a.b=="c")]`
    Filter(Vec<String>, Value, bool),
}

/// A path that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// `None` for a path outside the subset.
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing_bracket(after)?;
                steps.push(bracket(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                let after = rest.strip_prefix('.')?;
                if after.starts_with('[') || after.is_empty() {
                    rest = after;
                    continue;
                }
                let (name, tail) = field(after);
                steps.push(if name == "*" { Step::All } else { Step::Field(name) });
                rest = tail;
            }
        }
        Some(Self(steps))
    }

    /// The first value at the path.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        find(&self.0, value)
    }
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return (!value.is_null()).then_some(value) };
    match step {
        Step::Field(name) => find(rest, value.get(name)?),
        Step::Index(index) => {
            let list = value.as_array()?;
            let at = if *index < 0 {
                list.len().checked_add_signed(isize::try_from(*index).ok()?)?
            } else {
                usize::try_from(*index).ok()?
            };
            find(rest, list.get(at)?)
        }
        Step::All => match value {
            Value::Array(list) => list.iter().find_map(|item| find(rest, item)),
            Value::Object(map) => map.values().find_map(|item| find(rest, item)),
            _ => None,
        },
        Step::Filter(path, wanted, equal) => value.as_array()?.iter().find_map(|item| {
            let found = path.iter().try_fold(item, |at, name| at.get(name));
            (found.is_some_and(|f| (f == wanted) == *equal)).then(|| find(rest, item))?
        }),
    }
}

/// A field name up to the next dot or bracket; a backslash takes the next character as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[i..]),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// The position of the bracket that closes, outside quotes and inner brackets.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Option<&str> {
    let text = text.trim();
    ['\'', '"'].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q))
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquote(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (path, value, equal) = match filter.split_once("==") {
            Some((path, value)) => (path, value, true),
            None => {
                let (path, value) = filter.split_once("!=")?;
                (path, value, false)
            }
        };
        let path = path.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let value = match unquote(value) {
            Some(text) => Value::from(text),
            None => serde_json::from_str(value.trim()).ok()?,
        };
        return Some(Step::Filter(path, value, equal));
    }
    text.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns_find_their_values() {
        let value = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "spec": {"ports": [{"n": 1}, {"n": 2}], "empty": null},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='A')].status", json!("False")),
            (".spec.ports[0].n", json!(1)),
            (".spec.ports[-1].n", json!(2)),
            (".spec.ports[*].n", json!(1)),
            (".metadata.annotations.a\\.b/c", json!("x")),
            (".metadata.annotations['a.b/c']", json!("x")),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&value), Some(&expected), "{path}");
        }
        assert_eq!(JsonPath::parse(".spec.empty").unwrap().first(&value), None);
        assert_eq!(JsonPath::parse(".status.conditions[?(@.type==\"X\")].status").unwrap().first(&value), None);
        assert_eq!(JsonPath::parse("status"), None);
    }
}
