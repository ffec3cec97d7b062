//! The targets that a waiver is for, as they are written.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::PATTERN;
use crate::base::text::brief;
use crate::model::target::TargetKind;
use crate::model::waiver::{TargetPattern, WaivedTargets};

/// The targets of a waiver.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "WaivedTargets")]
pub(super) enum TargetsEntry {
    /// `all`
    Word(#[schemars(with = "All")] String),
    /// Those that fit one of these.
    List(Vec<TargetEntry>),
}

/// The word for all targets.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "it is only there for its schema")]
enum All {
    All,
}

/// One target, or what fits several.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "WaivedTarget")]
pub(super) enum TargetEntry {
    /// As plans name it, where `*` stands for any characters of a name: `host`, `cluster`, `node/NAME`, `ns/NAME`,
    /// `pod/NS/NAME[/CONTAINER]`, `image/REPOSITORY[:TAG][@DIGEST]`.
    Word(String),
    /// By what it is. All that is given has to fit; in each text `*` stands for any characters.
    Fields(Box<TargetFields>),
}

/// Targets by what they are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct TargetFields {
    /// The kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TargetKind")]
    kind: Option<String>,
    /// Of a container, the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    namespace: Option<String>,
    /// The name of the host, the node or the cluster; of a container that of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    name: Option<String>,
    /// The name of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    container: Option<String>,
    /// The image, or the one that a container is of: its repository, or that with a tag or a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    image: Option<String>,
    /// Not part of a document: it is here to say why.
    #[serde(default)]
    #[schemars(skip)]
    labels: Option<IgnoredAny>,
    #[serde(default)]
    #[schemars(skip)]
    selector: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for TargetsEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = TargetsEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all`, or a list of targets")
            }
            fn visit_str<E>(self, text: &str) -> Result<TargetsEntry, E> {
                Ok(TargetsEntry::Word(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TargetsEntry, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(TargetsEntry::List(items))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for TargetEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = TargetEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target, as `ns/shop` or `{kind: node, name: lab-*}`")
            }
            fn visit_str<E>(self, text: &str) -> Result<TargetEntry, E> {
                Ok(TargetEntry::Word(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TargetEntry, A::Error> {
                TargetFields::deserialize(MapAccessDeserializer::new(map)).map(|f| TargetEntry::Fields(Box::new(f)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl TargetsEntry {
    /// The targets, if nothing is added to the problems but what their schema says of them.
    pub(super) fn checked(&self, at: &str, problems: &mut Vec<String>) -> WaivedTargets {
        let list = match self {
            Self::Word(word) if word == "all" => return WaivedTargets::All,
            // That it is another word is told by the schema.
            Self::Word(_) => return WaivedTargets::These(Vec::new()),
            Self::List(list) => list,
        };
        if list.is_empty() {
            problems.push(format!("{at}: targets names none; where all are meant, write `targets: all`"));
        }
        let mut patterns = Vec::with_capacity(list.len());
        for (number, item) in list.iter().enumerate() {
            let at = format!("{at}[{number}]");
            let read = match item {
                TargetEntry::Word(word) => of_word(word),
                TargetEntry::Fields(fields) => fields.pattern(&at, problems),
            };
            match read.and_then(|pattern| bounded(&pattern).map(|()| pattern)) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => problems.push(format!("{at}: {why}")),
            }
        }
        WaivedTargets::These(patterns)
    }
}

/// A target as plans name it, where `*` stands for any characters of a name.
fn of_word(word: &str) -> Result<TargetPattern, String> {
    let of = |kind| TargetPattern { kind: Some(kind), ..TargetPattern::default() };
    let some = |text: &str| Some(text.to_owned());
    let (kind, rest) = word.split_once('/').unwrap_or((word, ""));
    let parts: Vec<&str> = rest.split('/').collect();
    let whole = parts.iter().all(|part| !part.is_empty());
    match (kind, parts.as_slice()) {
        ("host", [""]) if word == kind => Ok(of(TargetKind::Host)),
        ("cluster", [""]) if word == kind => Ok(of(TargetKind::Cluster)),
        ("node", [name]) if whole => Ok(TargetPattern { name: some(name), ..of(TargetKind::Node) }),
        ("ns", [namespace]) if whole => Ok(TargetPattern { namespace: some(namespace), ..of(TargetKind::Container) }),
        ("pod", [namespace, name]) if whole => {
            Ok(TargetPattern { namespace: some(namespace), name: some(name), ..of(TargetKind::Container) })
        }
        ("pod", [namespace, name, container]) if whole => Ok(TargetPattern {
            namespace: some(namespace),
            name: some(name),
            container: some(container),
            ..of(TargetKind::Container)
        }),
        ("image", _) if whole => Ok(TargetPattern { image: some(rest), ..of(TargetKind::Image) }),
        _ => Err(format!(
            "`{}` is no target: it is host, cluster, node/NAME, ns/NAME, pod/NS/NAME[/CONTAINER] or image/REPOSITORY",
            brief(word)
        )),
    }
}

impl TargetFields {
    fn pattern(&self, at: &str, problems: &mut Vec<String>) -> Result<TargetPattern, String> {
        let Self { kind, namespace, name, container, image, labels, selector } = self;
        let named =
            [("kind", kind), ("namespace", namespace), ("name", name), ("container", container), ("image", image)];
        for (key, text) in named {
            if text.as_ref().is_some_and(String::is_empty) {
                problems.push(format!("{at}.{key}: {key} is empty"));
            }
        }
        for (key, there) in [("labels", labels.is_some()), ("selector", selector.is_some())] {
            if there {
                problems.push(format!(
                    "{at}.{key}: labels choose no target of a waiver, for whoever runs a pod can set them without anybody's approval; \
                     name it by its namespace and name, or by its image"
                ));
            }
        }
        let mut pattern = TargetPattern {
            // What is none is told by the schema.
            kind: kind.as_deref().and_then(|word| KINDS.into_iter().find(|kind| kind.word() == word)),
            namespace: namespace.clone(),
            name: name.clone(),
            container: container.clone(),
            image: image.clone(),
        };
        // Only containers have these.
        if kind.is_none() && (pattern.namespace.is_some() || pattern.container.is_some()) {
            pattern.kind = Some(TargetKind::Container);
        }
        let TargetPattern { kind, namespace, name, container, image } = &pattern;
        let refuse =
            |what: &str| Err(format!("a target of kind {} has no {what}", kind.map_or("image", TargetKind::word)));
        match kind {
            Some(TargetKind::Container) => Ok(pattern),
            Some(TargetKind::Image) if name.is_some() => refuse("name; its repository is `image`"),
            Some(TargetKind::Host | TargetKind::Node | TargetKind::Cluster) if image.is_some() => refuse("image"),
            Some(_) if namespace.is_some() => refuse("namespace"),
            Some(_) if container.is_some() => refuse("container"),
            Some(_) => Ok(pattern),
            None if name.is_some() => Err("a target's name says nothing without its kind".to_owned()),
            None if image.is_some() => Ok(pattern),
            None => Err("it leaves every target open; where all are meant, write `targets: all`".to_owned()),
        }
    }
}

const KINDS: [TargetKind; 5] =
    [TargetKind::Host, TargetKind::Container, TargetKind::Image, TargetKind::Node, TargetKind::Cluster];

/// That a pattern is no longer than one may be, and leaves not everything open.
fn bounded(pattern: &TargetPattern) -> Result<(), String> {
    let TargetPattern { kind, namespace, name, container, image } = pattern;
    let texts = [namespace, name, container, image];
    if texts.iter().any(|text| text.as_ref().is_some_and(|text| text.chars().count() > PATTERN)) {
        return Err(format!("a pattern has more than {PATTERN} characters"));
    }
    let open = |text: &Option<String>| text.as_ref().is_none_or(|text| text.bytes().all(|b| b == b'*'));
    if kind.is_none() && texts.into_iter().all(open) {
        return Err("it leaves every image and container open; say which kind is meant".to_owned());
    }
    Ok(())
}
