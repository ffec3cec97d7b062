//! JSON Schemas (2020-12) of documents, from their types, and everything in which a document differs from one.
//!
//! The types' readers stop at the first thing that is wrong. Here all of them are found, each with its place. What is checked is
//! what the schemas of this program use: types, fields, members, choices, patterns and bounds. What a type's reader asks for
//! beside that, it says itself.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::text::brief;
use super::tree::{Node, NodeValue, Place};

/// Gives types that are written as a text a schema: each with its name in the schema, what it is, and the pattern that it fits.
macro_rules! text_schema {
    ($type:ty, $name:literal, $description:literal, $pattern:literal) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}
pub(crate) use text_schema;

/// The schema of a document type, with the docs of its fields as descriptions.
pub fn of<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    plain(&mut schema);
    schema
}

/// Takes what only Rust's documentation understands out of descriptions.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
                    }
                    other => plain(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The field, as `approaches.image.command[1]`; empty for the document itself.
    pub field: String,
    /// What, as a fragment.
    pub message: String,
    /// Whether it is a field that the schema does not know, so that the document would make sense without it.
    pub unknown: bool,
}

/// All in which the document differs from the schema, in the order of the document.
pub fn problems(schema: &Value, document: &Node) -> Vec<Problem> {
    let mut found = Vec::new();
    Check { root: schema, found: &mut found }.node(schema, document, "");
    found.sort_by_key(|problem| problem.place);
    found
}

struct Check<'s, 'f> {
    root: &'s Value,
    found: &'f mut Vec<Problem>,
}

impl<'s> Check<'s, '_> {
    fn tell(&mut self, place: Place, field: &str, message: String) {
        self.found.push(Problem { place, field: field.to_owned(), message, unknown: false });
    }

    /// What a node is wrong in by one schema, without telling.
    fn tried(&self, schema: &'s Value, node: &Node, field: &str) -> Vec<Problem> {
        let mut found = Vec::new();
        Check { root: self.root, found: &mut found }.node(schema, node, field);
        found
    }

    fn node(&mut self, schema: &'s Value, node: &Node, field: &str) {
        let Value::Object(schema) = schema else {
            if schema == &Value::Bool(false) {
                self.tell(node.place, field, "nothing may be here".to_owned());
            }
            return;
        };
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|path| self.root.pointer(&path[1..]))
        {
            self.node(target, node, field);
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.node(part, node, field);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(choice).and_then(Value::as_array) {
                self.choice(choices, node, field);
            }
        }
        if let Some(types) = schema.get("type")
            && !fits_type(types, &node.value)
        {
            return self.tell(node.place, field, format!("it must be {}, and is {}", wanted(types), kind(&node.value)));
        }
        let text = scalar(&node.value);
        if let Some(values) = schema.get("enum").and_then(Value::as_array)
            && !values.iter().any(|value| value.as_str().is_some_and(|value| text.as_deref() == Some(value)))
        {
            let known: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            let shown = brief(&text.clone().unwrap_or_default());
            self.tell(node.place, field, format!("`{shown}` is none of {}", known.join(", ")));
        }
        if let Some(value) = schema.get("const").and_then(Value::as_str)
            && text.as_deref() != Some(value)
        {
            self.tell(node.place, field, format!("it must be `{value}`"));
        }
        if let (Some(pattern), NodeValue::Text(text)) = (schema.get("pattern").and_then(Value::as_str), &node.value)
            && regex::Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
        {
            self.tell(node.place, field, format!("`{}` does not have the form {pattern}", brief(text)));
        }
        if let NodeValue::Integer(value) = node.value {
            let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
            #[allow(clippy::cast_precision_loss)]
            let value = value as f64;
            if bound("minimum").is_some_and(|least| value < least) || bound("maximum").is_some_and(|most| value > most)
            {
                self.tell(node.place, field, format!("{value} is out of its bounds"));
            }
        }
        match &node.value {
            NodeValue::List(items) => {
                if let Some(schema) = schema.get("items") {
                    for (at, item) in items.iter().enumerate() {
                        self.node(schema, item, &format!("{field}[{at}]"));
                    }
                }
            }
            NodeValue::Map(_) => self.fields(schema, node, field),
            _ => {}
        }
    }

    fn fields(&mut self, schema: &'s Map<String, Value>, node: &Node, field: &str) {
        let NodeValue::Map(fields) = &node.value else { return };
        let below = |name: &str| if field.is_empty() { brief(name) } else { format!("{field}.{}", brief(name)) };
        let known = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        for (key, value) in fields {
            let name = below(&key.name);
            if let Some(schema) = known.and_then(|known| known.get(&key.name)) {
                self.node(schema, value, &name);
                continue;
            }
            let mut fits = patterns.into_iter().flatten();
            let fits = fits.find(|(pattern, _)| regex::Regex::new(pattern).is_ok_and(|p| p.is_match(&key.name)));
            match (fits, schema.get("additionalProperties")) {
                (Some((_, schema)), _) => self.node(schema, value, &name),
                (None, Some(Value::Bool(false))) => {
                    let known: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                    let patterns: Vec<&str> = patterns.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                    let message = match (&known[..], &patterns[..]) {
                        ([], [_, ..]) => format!("its name does not have the form {}", patterns.join(" or ")),
                        _ => format!("there is no such field; there are {}", known.join(", ")),
                    };
                    self.found.push(Problem { place: key.place, field: name, message, unknown: true });
                }
                (None, Some(schema)) => self.node(schema, value, &name),
                (None, None) => {}
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !fields.iter().any(|(key, _)| key.name == name) {
                self.tell(node.place, &below(name), "it is missing".to_owned());
            }
        }
    }

    fn choice(&mut self, choices: &'s [Value], node: &Node, field: &str) {
        let tried: Vec<Vec<Problem>> = choices.iter().map(|schema| self.tried(schema, node, field)).collect();
        if tried.iter().any(Vec::is_empty) {
            return;
        }
        let words: Vec<&str> = choices
            .iter()
            .flat_map(|choice| {
                let one = choice.get("const").and_then(Value::as_str);
                let several = choice.get("enum").and_then(Value::as_array).into_iter().flatten();
                one.into_iter().chain(several.filter_map(Value::as_str))
            })
            .collect();
        if let (Some(text), false) = (scalar(&node.value), words.is_empty()) {
            return self.tell(node.place, field, format!("`{}` is none of {}", brief(&text), words.join(", ")));
        }
        // The one that agrees the furthest into the document is what was meant; the first of several.
        let furthest = |problems: &Vec<Problem>| problems.iter().map(|problem| problem.field.len()).max().unwrap_or(0);
        self.found.extend(tried.into_iter().rev().max_by_key(furthest).unwrap_or_default());
    }
}

fn fits_type(types: &Value, value: &NodeValue) -> bool {
    let fits = |name: &str| match value {
        NodeValue::Null => name == "null",
        // What is written without quotes can stand for a text.
        NodeValue::Bool(_) => matches!(name, "boolean" | "string"),
        NodeValue::Integer(_) => matches!(name, "integer" | "number" | "string"),
        NodeValue::Float(_) => matches!(name, "number" | "string"),
        NodeValue::Text(_) => name == "string",
        NodeValue::List(_) => name == "array",
        NodeValue::Map(_) => name == "object",
    };
    match types {
        Value::String(name) => fits(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(fits),
        _ => true,
    }
}

fn wanted(types: &Value) -> String {
    let word = |name: &str| match name {
        "object" => "a map of fields",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        _ => "nothing",
    };
    match types {
        Value::String(name) => word(name).to_owned(),
        Value::Array(names) => {
            let words: Vec<&str> = names.iter().filter_map(Value::as_str).filter(|n| *n != "null").map(word).collect();
            words.join(" or ")
        }
        _ => String::new(),
    }
}

fn kind(value: &NodeValue) -> &'static str {
    match value {
        NodeValue::Null => "empty",
        NodeValue::Bool(_) => "a truth value",
        NodeValue::Integer(_) | NodeValue::Float(_) => "a number",
        NodeValue::Text(_) => "a text",
        NodeValue::List(_) => "a list",
        NodeValue::Map(_) => "a map of fields",
    }
}

fn scalar(value: &NodeValue) -> Option<String> {
    match value {
        NodeValue::Bool(value) => Some(value.to_string()),
        NodeValue::Integer(value) => Some(value.to_string()),
        NodeValue::Float(value) => Some(value.to_string()),
        NodeValue::Text(value) => Some(value.clone()),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
    }
}

#[cfg(test)]
mod tests;
