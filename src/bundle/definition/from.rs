//! Where an item comes from, in one word.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::text::brief;

/// Where an item comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A registry.
    Registry(String),
    /// An OCI image layout in a folder, and the name of an image in it.
    Layout(PathBuf, Option<String>),
    /// One file.
    File(PathBuf),
    /// A folder with all that is in it.
    Folder(PathBuf),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |path: &str| {
            if path.is_empty() { Err(format!("`{}` names no path", brief(text))) } else { Ok(PathBuf::from(path)) }
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            return match rest.rsplit_once(':') {
                Some((folder, tag)) if !tag.contains('/') && !tag.is_empty() => {
                    Ok(Self::Layout(path(folder)?, Some(tag.to_owned())))
                }
                Some(_) | None => Ok(Self::Layout(path(rest)?, None)),
            };
        }
        if let Some(rest) = text.strip_prefix("file:") {
            return Ok(Self::File(path(rest)?));
        }
        if let Some(rest) = text.strip_prefix("dir:") {
            return Ok(Self::Folder(path(rest)?));
        }
        if !text.contains('/') {
            return Err(format!(
                "`{}` is no source: write HOST/REPOSITORY[:TAG][@DIGEST], oci:PATH[:TAG], file:PATH or dir:PATH",
                brief(text)
            ));
        }
        Ok(Self::Registry(text.to_owned()))
    }
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(reference),
            Self::Layout(path, None) => write!(f, "oci:{}", path.display()),
            Self::Layout(path, Some(tag)) => write!(f, "oci:{}:{tag}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Folder(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

crate::base::schema::text_schema!(
    From,
    "From",
    "Where something comes from: a reference to a registry with its host, oci:FOLDER[:TAG], file:PATH or dir:PATH.",
    "."
);

impl Serialize for From {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for From {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_what_they_write() {
        for text in ["oci:a/b", "oci:a/b:1.0", "dir:x", "file:../y", "r.example:5000/a/b:1@sha256:0", "localhost/x"] {
            assert_eq!(text.parse::<From>().expect(text).to_string(), text);
        }
        for text in ["", "debian", "oci:", "dir:", "file:"] {
            assert!(text.parse::<From>().is_err(), "{text}");
        }
    }
}
