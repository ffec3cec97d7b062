//! A YAML document as a tree in which everything knows its place, to say of a problem where it is.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Line and column, both from 1. Zeros where the reader did not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: NodeValue,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeValue {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a point.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Fields with their names' places, in the order in which they are written.
    Map(Vec<(Key, Node)>),
}

/// The name of a field, and its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where it begins.
    pub place: Place,
    /// The name; a number or a truth value as it is written.
    pub name: String,
}

impl Node {
    /// The node of a field as messages name it: `approaches.image.command[1]`, `dependencies.NAME.mount` for the member of a list
    /// that has this `name`. Where there is none, the nearest one around it; of a map's field, the place of its name.
    pub fn place_of(&self, field: &str) -> Place {
        let (mut node, mut place) = (self, None);
        for part in field.split('.') {
            let (name, indices) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
            let found = match &node.value {
                NodeValue::Map(fields) => fields.iter().find(|(key, _)| key.name == name),
                NodeValue::List(items) => {
                    let named = items.iter().find(|item| item.text_of("name") == Some(name));
                    let Some(item) = named else { break };
                    (node, place) = (item, Some(item.place));
                    continue;
                }
                _ => None,
            };
            let Some((key, value)) = found else { break };
            (node, place) = (value, Some(key.place));
            for index in indices.split('[').filter_map(|index| index.strip_suffix(']')) {
                let NodeValue::List(items) = &node.value else { break };
                let Some(item) = index.parse::<usize>().ok().and_then(|index| items.get(index)) else { break };
                (node, place) = (item, Some(item.place));
            }
        }
        place.unwrap_or(self.place)
    }

    /// The same as JSON, without the fields whose names are at these places.
    pub fn without(&self, places: &[Place]) -> serde_json::Value {
        use serde_json::Value;
        match &self.value {
            NodeValue::Null => Value::Null,
            NodeValue::Bool(value) => (*value).into(),
            NodeValue::Integer(value) => match i64::try_from(*value) {
                Ok(value) => value.into(),
                Err(_) => u64::try_from(*value).map_or(Value::Null, Value::from),
            },
            NodeValue::Float(value) => (*value).into(),
            NodeValue::Text(value) => value.as_str().into(),
            NodeValue::List(items) => items.iter().map(|item| item.without(places)).collect(),
            NodeValue::Map(fields) => {
                let kept = fields.iter().filter(|(key, _)| !places.contains(&key.place));
                kept.map(|(key, value)| (key.name.clone(), value.without(places)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
        }
    }

    /// The text of a field.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        let NodeValue::Map(fields) = &self.value else { return None };
        match fields.iter().find(|(key, _)| key.name == name).map(|(_, node)| &node.value) {
            Some(NodeValue::Text(text)) => Some(text),
            _ => None,
        }
    }
}

fn place(location: serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<NodeValue>::deserialize(deserializer)?;
        Ok(Self { place: place(referenced), value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<NodeValue>::deserialize(deserializer)?;
        let name = match value {
            NodeValue::Null => "null".to_owned(),
            NodeValue::Bool(value) => value.to_string(),
            NodeValue::Integer(value) => value.to_string(),
            NodeValue::Float(value) => value.to_string(),
            NodeValue::Text(value) => value,
            NodeValue::List(_) | NodeValue::Map(_) => {
                return Err(serde::de::Error::custom("the name of a field must be a text"));
            }
        };
        Ok(Self { place: place(referenced), name })
    }
}

impl<'de> Deserialize<'de> for NodeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = NodeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_none<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeValue, E> {
        Ok(NodeValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeValue, E> {
        Ok(NodeValue::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<NodeValue, E> {
        Ok(NodeValue::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<NodeValue, E> {
        Ok(NodeValue::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<NodeValue, E> {
        Ok(i128::try_from(value).map_or_else(|_| NodeValue::Text(value.to_string()), NodeValue::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<NodeValue, E> {
        Ok(NodeValue::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<NodeValue, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(NodeValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<NodeValue, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(NodeValue::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::document;

    #[test]
    fn every_field_has_its_place() {
        let text = "kind: X\nlist:\n  - name: a\n    at: [1, 2]\n  - {name: b, at: true}\n7: seven\n";
        let tree: Node = document::from_yaml(Path::new("x.yaml"), "X", text).expect("it parses");
        for (field, line, column) in [
            ("kind", 1, 1),
            ("list", 2, 1),
            ("list[1]", 5, 5),
            ("list[1].at", 5, 15),
            ("list.a.at", 4, 5),
            ("list[0].at[1]", 4, 13),
            ("7", 6, 1),
            ("list.b.none", 5, 5),
            ("none", 1, 1),
        ] {
            assert_eq!(tree.place_of(field), Place { line, column }, "{field}");
        }
    }
}
