use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::base::document;

/// What the types of documents are made of.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)]
struct Sample {
    /// A [`Word`] in a text.
    some_name: String,
    #[serde(default)]
    count: Option<u8>,
    #[serde(default)]
    word: Option<Word>,
    #[serde(default)]
    parts: Vec<Part>,
    #[serde(default)]
    codes: BTreeMap<u8, Word>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// One.
    TheOne,
    /// Other.
    Other,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Part {
    at: bool,
}

fn told(text: &str) -> Vec<String> {
    let tree: Node = document::from_yaml(Path::new("s.yaml"), "Sample", text).expect("it is YAML");
    let told = |problem: Problem| {
        format!("{}:{} {}: {}", problem.place.line, problem.place.column, problem.field, problem.message)
    };
    problems(&of::<Sample>(), &tree).into_iter().map(told).collect()
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place_and_serde_refuses_the_same() {
    for (text, wanted) in [
        ("someName: a\ncount: 3\nword: the-one\nparts: [{at: true}]\ncodes: {0: other}\n", &[][..]),
        ("someName: a\ncount:\nword: ~\n", &[]),
        ("someName: 7\n", &[]),
        ("count: 3\n", &["1:1 someName: it is missing"]),
        ("someName: [a]\n", &["1:11 someName: it must be a text, and is a list"]),
        ("someName: a\ncount: 300\n", &["2:8 count: 300 is out of its bounds"]),
        ("someName: a\ncount: -1\n", &["2:8 count: -1 is out of its bounds"]),
        ("someName: a\ncount: x\n", &["2:8 count: it must be a whole number, and is a text"]),
        ("someName: a\nword: one\n", &["2:7 word: `one` is none of the-one, other"]),
        ("someName: a\ncodes: {0: none}\n", &["2:12 codes.0: `none` is none of the-one, other"]),
        ("someName: a\ncodes: {x: other}\n", &["2:9 codes.x: its name does not have the form ^\\d+$"]),
        (
            "parts:\n  - at: maybe\n    extra: 1\n  - []\n",
            &[
                "1:1 someName: it is missing",
                "2:9 parts[0].at: it must be true or false, and is a text",
                "3:5 parts[0].extra: there is no such field; there are at",
                "4:5 parts[1]: it must be a map of fields, and is a list",
            ],
        ),
    ] {
        assert_eq!(told(text), wanted, "{text}");
        let read = document::from_yaml::<Sample>(Path::new("s.yaml"), "Sample", text);
        assert_eq!(read.is_ok(), wanted.is_empty(), "{text}: {read:?}");
    }
}

#[test]
fn descriptions_are_for_people() {
    let schema = of::<Sample>();
    assert_eq!(schema["properties"]["someName"]["description"], "A `Word` in a text.");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
}
