//! Inputs of profiles: files that a scanner finds in the folder for inputs, by the profile that they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_name;
use crate::base::text::brief;

/// Inputs of one profile, at most.
const INPUTS: usize = 64;

/// One file for the scanner of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InputEntry {
    /// The file's name in the folder for inputs: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// A file on this machine. One that is secret must be readable for its owner alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A key of a secret in the cluster, as `NAMESPACE/NAME/KEY`, which is read by a `get` on that one name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKey>,
    /// What becomes of its values in what the scanner leaves.
    #[serde(default)]
    pub content: InputContent,
}

/// What an input holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InputContent {
    /// Its values are taken out of all that the scanner leaves, before anything of it is kept.
    #[default]
    Secret,
    /// They may be seen. Only a file may be so.
    Plain,
}

/// A key of a secret: `NAMESPACE/NAME/KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct SecretKey {
    namespace: String,
    name: String,
    key: String,
}

impl SecretKey {
    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The secret's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key in it.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A text that names no key of a secret.
#[derive(Debug, thiserror::Error)]
#[error("read `{}` as a key of a secret: it must be NAMESPACE/NAME/KEY", brief(.0))]
pub struct SecretKeyError(String);

impl FromStr for SecretKey {
    type Err = SecretKeyError;

    fn from_str(text: &str) -> Result<Self, SecretKeyError> {
        let parts: Vec<&str> = text.split('/').collect();
        let dns = |part: &str| {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
            part.len() <= 253 && part.bytes().all(fits) && ends(part.chars().next()) && ends(part.chars().next_back())
        };
        match parts[..] {
            [namespace, name, key] if dns(namespace) && !namespace.contains('.') && dns(name) && is_key(key) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), key: key.to_owned() })
            }
            _ => Err(SecretKeyError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SecretKey {
    type Error = SecretKeyError;

    fn try_from(text: String) -> Result<Self, SecretKeyError> {
        text.parse()
    }
}

impl From<SecretKey> for String {
    fn from(key: SecretKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.name, self.key)
    }
}

/// Whether a text can be a key of a secret, and so a file in a pod.
fn is_key(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !text.starts_with("..")
        && text != "."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What is wrong with the inputs of a plan.
pub(super) fn problems(inputs: &BTreeMap<String, Vec<InputEntry>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (profile, entries) in inputs {
        let shown = brief(profile);
        if !is_name(profile) {
            problems.push(format!("inputs: `{shown}` is no name of a profile"));
        }
        if entries.len() > INPUTS {
            problems.push(format!("inputs of profile `{shown}`: there are more than {INPUTS}"));
        }
        let mut names = BTreeSet::new();
        for entry in entries {
            let place = format!("inputs of profile `{shown}`, `{}`", brief(&entry.name));
            if !is_key(&entry.name) {
                problems.push(format!("{place}: its name must be letters, digits, `-`, `_` and `.`"));
            }
            if !names.insert(&entry.name) {
                problems.push(format!("{place}: it is there twice"));
            }
            match (&entry.file, &entry.secret, entry.content) {
                (Some(_), None, _) | (None, Some(_), InputContent::Secret) => {}
                (None, Some(_), InputContent::Plain) => {
                    problems.push(format!("{place}: what is in a secret is no plain content"));
                }
                (None, None, _) | (Some(_), Some(_), _) => {
                    problems.push(format!("{place}: it needs either a file or a secret"));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_secret_is_named_exactly() {
        let key: SecretKey = "shop/db.main/pass_word.txt".parse().expect("a key");
        assert_eq!((key.namespace(), key.name(), key.key()), ("shop", "db.main", "pass_word.txt"));
        assert_eq!(key.to_string(), "shop/db.main/pass_word.txt");
        for text in [
            "", "a/b", "a/b/c/d", "A/b/c", "a.b/b/c", "a//c", "a/b/", "a/b/..", "a/b/.", "a/../c", "a/b?x/c",
            "a/b/c d", "-a/b/c",
        ] {
            assert!(text.parse::<SecretKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_that_makes_no_sense_is_named_at_once() {
        let inputs: BTreeMap<String, Vec<InputEntry>> = serde_json::from_value(serde_json::json!({
            "good": [{"name": "a.yaml", "file": "x", "content": "plain"}, {"name": "b", "secret": "n/s/k"}],
            "Bad": [],
            "bad": [
                {"name": "a/b", "file": "x"}, {"name": "c"}, {"name": "d", "file": "x", "secret": "n/s/k"},
                {"name": "e", "secret": "n/s/k", "content": "plain"}, {"name": "e", "file": "x"}
            ],
        }))
        .expect("inputs");
        let found = problems(&inputs);
        assert_eq!(found.len(), 6, "{found:?}");
        for words in [
            "`Bad`",
            "`a/b`",
            "`c`: it needs either",
            "`d`: it needs either",
            "no plain content",
            "`e`: it is there twice",
        ] {
            assert!(found.iter().any(|problem| problem.contains(words)), "{words}: {found:?}");
        }
        assert!(serde_json::from_value::<InputEntry>(serde_json::json!({"name": "a", "value": "x"})).is_err());
    }
}
