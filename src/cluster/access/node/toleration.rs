//! Which taints do not keep a Job off a node.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The effects that a taint can have.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Taints that are tolerated: `all`, or `KEY[=VALUE][:EFFECT]`, where a value or effect that is not named may be any. KEY is
/// a label's name (an optional DNS prefix of at most 253 characters and `/`, then at most 63 of letters, digits, `-`, `_`
/// and `.`), VALUE a label's value (as the name, and it may be empty).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    key: Option<String>,
    value: Option<String>,
    effect: Option<&'static str>,
}

/// A text that names no taints.
#[derive(Debug, thiserror::Error)]
#[error("read taint `{}`: {reason}; write all, or KEY[=VALUE][:EFFECT]", crate::base::text::brief(.text))]
pub struct TolerationError {
    text: String,
    reason: &'static str,
}

impl Toleration {
    /// Whether this taint is among those that are tolerated.
    pub fn covers(&self, taint: &Taint) -> bool {
        self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value.clone().unwrap_or_default())
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }

    /// As it is in a pod's specification.
    pub(super) fn manifest(&self) -> Value {
        let mut manifest = match &self.value {
            Some(value) => json!({ "operator": "Equal", "value": value }),
            None => json!({ "operator": "Exists" }),
        };
        if let Some(key) = &self.key {
            manifest["key"] = json!(key);
        }
        if let Some(effect) = self.effect {
            manifest["effect"] = json!(effect);
        }
        manifest
    }
}

impl FromStr for Toleration {
    type Err = TolerationError;

    fn from_str(text: &str) -> Result<Self, TolerationError> {
        let refuse = |reason| TolerationError { text: text.to_owned(), reason };
        if text == "all" {
            return Ok(Self { key: None, value: None, effect: None });
        }
        let (rest, effect) = match text.rsplit_once(':') {
            Some((rest, word)) => {
                let known = EFFECTS.into_iter().find(|effect| *effect == word);
                (
                    rest,
                    Some(known.ok_or_else(|| refuse("its effect is none of NoSchedule, PreferNoSchedule, NoExecute"))?),
                )
            }
            None => (text, None),
        };
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (rest, None),
        };
        let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        if !is_label(name) || prefix.is_some_and(|prefix| !is_domain(prefix)) {
            return Err(refuse("its key is none that Kubernetes allows"));
        }
        if value.is_some_and(|value| !value.is_empty() && !is_label(value)) {
            return Err(refuse("its value is none that Kubernetes allows"));
        }
        Ok(Self { key: Some(key.to_owned()), value: value.map(str::to_owned), effect })
    }
}

fn is_label(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(ends)
        && text.ends_with(ends)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_domain(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

impl fmt::Display for Toleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(key) = &self.key else { return f.write_str("all") };
        f.write_str(key)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        match self.effect {
            Some(effect) => write!(f, ":{effect}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Toleration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Toleration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
