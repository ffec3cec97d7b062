use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn reader(text: &[u8]) -> Json<&[u8]> {
    Json::new(text, "test", 1 << 20)
}

/// The document as another library would give it, put together from what is read here.
fn rebuilt(json: &mut Json<&[u8]>) -> Read_<Value> {
    Ok(match json.kind()? {
        Kind::Object => {
            let mut fields = serde_json::Map::new();
            json.object(|json, key| {
                let value = rebuilt(json)?;
                fields.insert(key.to_owned(), value);
                Ok(())
            })?;
            Value::Object(fields)
        }
        Kind::Array => {
            let mut items = Vec::new();
            json.array(|json| rebuilt(json).map(|item| items.push(item)))?;
            Value::Array(items)
        }
        Kind::Text => Value::String(json.text_or_empty()?),
        Kind::Number => json.number()?.into(),
        Kind::Boolean => json.boolean()?.into(),
        Kind::Null => json.skip().map(|()| Value::Null)?,
    })
}

fn read(bytes: &[u8]) -> Option<Value> {
    let mut json = reader(bytes);
    let value = rebuilt(&mut json).ok()?;
    json.end().ok().map(|()| value)
}

fn skips(bytes: &[u8]) -> bool {
    let mut json = reader(bytes);
    json.skip().and_then(|()| json.end()).is_ok()
}

/// Numbers as doubles, since that is all that is read of them here.
fn doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.into_iter().map(doubles).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, doubles(value))).collect(),
        other => other,
    }
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[1",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "[1 2]",
        "01",
        "1.",
        "-",
        "1e",
        "+1",
        "nul",
        "truE",
        "\"",
        "\"\u{1}\"",
        r#""\x""#,
        r#""\ud800""#,
        r#""\ud800\u0041""#,
        r#""\udc00""#,
        r#""\u12g4""#,
        "1 1",
        "[]]",
        "{\"a\":1,\"a\":2}",
        "\u{feff}1",
    ] {
        assert!(read(text.as_bytes()).is_none(), "{text:?}");
    }
    assert!(read(b"\"\xff\"").is_none() && !skips(b"\"\xff\"") && !skips(b"\"\xe2\x82\""));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert!(read(deep.as_bytes()).is_none() && !skips(deep.as_bytes()));
}

#[test]
fn a_long_text_is_cut_and_does_not_take_memory() {
    let long = format!("\"{}\"", "€".repeat(300_000));
    let text = reader(long.as_bytes()).text().expect("a text").expect("one");
    assert!(text.len() <= TEXT_BYTES + 3 && text.ends_with("€…"), "{}", text.len());
    let error = Json::new(long.as_bytes(), "test", 1000).text().expect_err("too large");
    assert!(matches!(error, ResultsError::TooLarge { limit: 1000 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever another library reads is read alike, and what it refuses is refused. What it takes and this does not: keys
    /// that are there twice. (Depth does not come into it in so few bytes.)
    #[test]
    fn any_text_is_read_as_by_another_library(text in r#"[\[\]{}:, "0-9a\\/bfnrtu.eE+-]{0,40}|(true|false|null|"a"|[\[\]{}:,]|-?[0-9]{1,3}(\.[0-9]{1,3})?){0,12}"#) {
        let ours = read(text.as_bytes());
        prop_assert_eq!(skips(text.as_bytes()), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        match (ours, serde_json::from_str::<Value>(&text)) {
            (Some(ours), Ok(theirs)) => prop_assert_eq!(ours, doubles(theirs)),
            (Some(ours), Err(error)) => prop_assert!(false, "{} is {} or {}", text, ours, error),
            (None, Ok(theirs)) => prop_assert!(text.matches('"').count() >= 4, "{} is {}", text, theirs),
            (None, Err(_)) => {}
        }
    }

    /// Any text comes back, whatever it is cut into on the way.
    #[test]
    fn any_string_comes_back(text in any::<String>()) {
        let quoted = serde_json::to_string(&text).expect("any text can be quoted");
        prop_assert_eq!(read(quoted.as_bytes()), Some(Value::String(text)));
    }
}
