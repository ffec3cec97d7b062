//! A document of waivers as it is written: every text with its place, and keys that are not known kept to be named.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use crate::base::document::{ApiVersion, Document};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawDocument {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: String,
    pub(super) waivers: Vec<Spanned<Raw>>,
}

impl Document for RawDocument {
    const KIND: &'static str = "Waivers";
}

/// A text that may be left empty, with its place.
pub(super) type Text = Spanned<Option<String>>;

/// One waiver as it is written.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) texts: BTreeMap<&'static str, Text>,
    pub(super) controls: Option<Spanned<Vec<Text>>>,
    pub(super) profile: Option<Spanned<RawProfile>>,
    pub(super) targets: Option<Spanned<RawTargets>>,
    pub(super) unknown: Vec<Spanned<String>>,
}

pub(super) enum RawProfile {
    Name(String),
    Fields(Fields),
}

pub(super) enum RawTargets {
    Word(String),
    List(Vec<Spanned<RawTarget>>),
}

pub(super) enum RawTarget {
    Word(String),
    Fields(Fields),
}

/// Texts by their keys.
#[derive(Default)]
pub(super) struct Fields(pub(super) Vec<(Spanned<String>, Text)>);

impl Fields {
    fn read<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key()? {
            fields.push((key, map.next_value()?));
        }
        Ok(Self(fields))
    }
}

/// The texts of a waiver.
pub(super) const TEXTS: [&str; 5] = ["id", "reason", "requestedBy", "expires", "maxSeverity"];

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a waiver")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut raw = Raw::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    match key.value.as_str() {
                        "controls" => raw.controls = Some(map.next_value()?),
                        "profile" => raw.profile = Some(map.next_value()?),
                        "targets" => raw.targets = Some(map.next_value()?),
                        other => match TEXTS.into_iter().find(|known| *known == other) {
                            Some(known) => {
                                raw.texts.insert(known, map.next_value()?);
                            }
                            None => {
                                map.next_value::<IgnoredAny>()?;
                                raw.unknown.push(key);
                            }
                        },
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl<'de> Deserialize<'de> for RawProfile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = RawProfile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a profile, or its name and version")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawProfile, E> {
                Ok(RawProfile::Name(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawProfile, A::Error> {
                Fields::read(map).map(RawProfile::Fields)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for RawTargets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = RawTargets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all`, or a list of targets")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawTargets, E> {
                Ok(RawTargets::Word(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawTargets, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(RawTargets::List(items))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for RawTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = RawTarget;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target, as `ns/shop` or `{kind: node, name: lab-*}`")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawTarget, E> {
                Ok(RawTarget::Word(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawTarget, A::Error> {
                Fields::read(map).map(RawTarget::Fields)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
