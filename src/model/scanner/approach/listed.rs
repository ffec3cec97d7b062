//! What a scanner may list of the API.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::text::brief;

/// A resource of the API as RBAC names it: `pods`, or `apps/deployments` with its group. Never `secrets`, whose list is their
/// contents; no wildcards and no subresources.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ListedResource {
    /// The API group; empty for the core group.
    group: String,
    /// The plural, in lower case.
    resource: String,
}

impl ListedResource {
    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The plural, in lower case.
    pub fn resource(&self) -> &str {
        &self.resource
    }
}

/// A text that names no resource that a scanner may list.
#[derive(Debug, thiserror::Error)]
#[error(
    "read resource `{}`: it must be RESOURCE or GROUP/RESOURCE in lower case, without wildcards, and not secrets",
    brief(.0)
)]
pub struct ListedResourceError(String);

impl FromStr for ListedResource {
    type Err = ListedResourceError;

    fn from_str(text: &str) -> Result<Self, ListedResourceError> {
        let fits = |part: &str, dots: bool| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.len() <= 253
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.'))
        };
        let (group, resource) = text.split_once('/').unwrap_or(("", text));
        if !(group.is_empty() && !text.starts_with('/') || fits(group, true))
            || !fits(resource, false)
            || resource == "secrets"
        {
            return Err(ListedResourceError(text.to_owned()));
        }
        Ok(Self { group: group.to_owned(), resource: resource.to_owned() })
    }
}

impl TryFrom<String> for ListedResource {
    type Error = ListedResourceError;

    fn try_from(text: String) -> Result<Self, ListedResourceError> {
        text.parse()
    }
}

impl From<ListedResource> for String {
    fn from(resource: ListedResource) -> Self {
        resource.to_string()
    }
}

impl fmt::Display for ListedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.resource),
            group => write!(f, "{group}/{}", self.resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_exactly_and_is_never_secret() {
        for (text, group, resource) in
            [("pods", "", "pods"), ("apps/deployments", "apps", "deployments"), ("a.b-c/d0", "a.b-c", "d0")]
        {
            let read: ListedResource = text.parse().expect(text);
            assert_eq!((read.group(), read.resource(), read.to_string().as_str()), (group, resource, text));
        }
        for text in [
            "",
            "/",
            "/pods",
            "apps/",
            "*",
            "apps/*",
            "*/pods",
            "secrets",
            "x/secrets",
            "pods/exec/x",
            "Pods",
            "v1 pods",
        ] {
            assert!(text.parse::<ListedResource>().is_err(), "{text}");
        }
    }
}
