//! JSON whose texts can't steer the terminal, the browser or the table of whoever looks at them.

use serde_json::{Map, Value};

use crate::base::text::printable_lines;

/// The same value with every text and every key neutralised by [`printable_lines`]. Applied to a whole document at once, so
/// that no field can be forgotten.
pub(super) fn neutral(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(printable_lines(&text).into_owned()),
        Value::Array(items) => items.into_iter().map(neutral).collect(),
        Value::Object(fields) => Value::Object(
            fields.into_iter().map(|(k, v)| (printable_lines(&k).into_owned(), neutral(v))).collect::<Map<_, _>>(),
        ),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}
