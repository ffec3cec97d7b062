//! The platforms that a bundle is for.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::text::brief;
use crate::bundle::oci::Platform;

/// A platform written `OS/ARCHITECTURE[/VARIANT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformName(pub Platform);

impl FromStr for PlatformName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(format!("`{}` is no platform: write it as linux/amd64", brief(text))),
        };
        if os != "linux" || !matches!(architecture, "amd64" | "arm64") {
            return Err(format!("`{}` is not supported: the platforms are linux/amd64 and linux/arm64", brief(text)));
        }
        Ok(Self(Platform { architecture: architecture.to_owned(), os: os.to_owned(), variant }))
    }
}

impl std::fmt::Display for PlatformName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0.os, self.0.architecture)?;
        self.0.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Serialize for PlatformName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlatformName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The platforms that are carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// Every image as it is: an index keeps its digest, and with it the signatures of whoever made it.
    All,
    /// These.
    Chosen(Vec<PlatformName>),
}

impl Platforms {
    /// The platforms that something is made for here: those that are chosen, or all that gapscan knows.
    pub fn to_make(&self) -> Vec<Platform> {
        match self {
            Self::Chosen(platforms) => platforms.iter().map(|p| p.0.clone()).collect(),
            Self::All => ["amd64", "arm64"].map(linux).to_vec(),
        }
    }

    /// Whether an image that is for this architecture alone is wanted.
    pub fn has_architecture(&self, architecture: &str) -> bool {
        match self {
            Self::All => true,
            Self::Chosen(platforms) => platforms.iter().any(|p| p.0.architecture == architecture),
        }
    }
}

fn linux(architecture: &str) -> Platform {
    Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
}

impl Default for Platforms {
    fn default() -> Self {
        Self::Chosen(vec![PlatformName(linux("amd64"))])
    }
}

impl schemars::JsonSchema for Platforms {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Platforms".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let description = "Platforms as OS/ARCHITECTURE[/VARIANT], or all by itself.";
        schemars::json_schema!({ "type": "array", "description": description, "items": { "type": "string" } })
    }
}

impl Serialize for Platforms {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.collect_seq(["all"]),
            Self::Chosen(platforms) => serializer.collect_seq(platforms),
        }
    }
}

impl<'de> Deserialize<'de> for Platforms {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if names.iter().any(|name| name == "all") {
            return match names.len() {
                1 => Ok(Self::All),
                _ => Err(serde::de::Error::custom("`all` platforms and single ones exclude each other")),
            };
        }
        let parsed: Result<Vec<PlatformName>, String> = names.iter().map(|name| name.parse()).collect();
        parsed.map(Self::Chosen).map_err(serde::de::Error::custom)
    }
}
