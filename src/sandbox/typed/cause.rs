//! One thing that is wrong with an object, in the API server's own words.
//!
//! Out: a field, a machine-readable reason and a message, as they stand in `Status.details.causes`.

use serde_json::Value;

/// Why a request's object is invalid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// `spec.template.spec.containers[0].name`; `<nil>` where the server names none.
    pub field: String,
    pub reason: &'static str,
    pub message: String,
}

impl Cause {
    fn new(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }

    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueRequired", with_detail("Required value", detail))
    }

    /// `value` is printed as JSON.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(field, "FieldValueInvalid", with_detail(&format!("Invalid value: {}", printed(value)), detail))
    }

    /// A value of the wrong JSON type; `found` is the type's name.
    pub fn wrong_type(field: impl Into<String>, found: &str, expected: &str) -> Self {
        let field = field.into();
        let message = format!("Invalid value: \"{found}\": {field} in body must be of type {expected}: \"{found}\"");
        Self::new(field, "FieldValueTypeInvalid", message)
    }

    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueForbidden", with_detail("Forbidden", detail))
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {}", printed(value)))
    }

    pub fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self::new(field, "FieldValueNotFound", format!("Not found: {}", printed(&Value::from(value))))
    }

    /// `supported` in the order in which it is listed.
    pub fn unsupported<T: AsRef<str>>(field: impl Into<String>, value: &Value, supported: &[T]) -> Self {
        let supported: Vec<_> = supported.iter().map(|value| format!("{:?}", value.as_ref())).collect();
        let message = format!("Unsupported value: {}: supported values: {}", printed(value), supported.join(", "));
        Self::new(field, "FieldValueNotSupported", message)
    }

    pub fn too_long(field: impl Into<String>, limit: u64) -> Self {
        Self::new(field, "FieldValueTooLong", format!("Too long: may not be more than {limit} bytes"))
    }

    pub fn too_many(field: impl Into<String>, count: usize, limit: u64) -> Self {
        let message = format!("Too many: {count}: must have at most {limit} items");
        Self::new(field, "FieldValueTooMany", message)
    }
}

fn with_detail(words: &str, detail: &str) -> String {
    if detail.is_empty() { words.to_owned() } else { format!("{words}: {detail}") }
}

fn printed(value: &Value) -> String {
    if value.is_null() { "null".into() } else { value.to_string() }
}
