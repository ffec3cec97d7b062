//! The targets that a waiver is for, as they are written.

use serde_saphyr::Spanned;

use super::raw::{Fields, RawTarget, RawTargets};
use super::{At, PATTERN, Problems, at};
use crate::base::text::brief;
use crate::model::target::TargetKind;
use crate::model::waiver::{TargetPattern, WaivedTargets};

pub(super) fn targets(raw: Option<Spanned<RawTargets>>, begin: At, problems: &mut Problems) -> WaivedTargets {
    let Some(raw) = raw else {
        problems.add(begin, "targets is missing; where all are meant, write `targets: all`");
        return WaivedTargets::These(Vec::new());
    };
    let place = at(&raw);
    match raw.value {
        RawTargets::Word(word) if word == "all" => WaivedTargets::All,
        RawTargets::Word(word) => {
            problems.add(place, format!("targets `{}` is neither `all` nor a list", brief(&word)));
            WaivedTargets::These(Vec::new())
        }
        RawTargets::List(list) => {
            if list.is_empty() {
                problems.add(place, "targets names none; where all are meant, write `targets: all`");
            }
            let mut patterns = Vec::with_capacity(list.len());
            for item in list {
                let place = at(&item);
                let read = match item.value {
                    RawTarget::Word(word) => of_word(&word),
                    RawTarget::Fields(fields) => of_fields(fields, problems),
                };
                match read.and_then(|pattern| bounded(&pattern).map(|()| pattern)) {
                    Ok(pattern) => patterns.push(pattern),
                    Err(why) => problems.add(place, why),
                }
            }
            WaivedTargets::These(patterns)
        }
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

fn of_fields(Fields(fields): Fields, problems: &mut Problems) -> Result<TargetPattern, String> {
    let mut pattern = TargetPattern::default();
    for (key, value) in fields {
        let text = value.value.clone().unwrap_or_default();
        if text.is_empty() {
            problems.add(at(&value), format!("{} is empty", brief(&key.value)));
        }
        match key.value.as_str() {
            "kind" => match KINDS.into_iter().find(|kind| kind.word() == text) {
                Some(kind) => pattern.kind = Some(kind),
                None => {
                    let known = KINDS.map(TargetKind::word).join(", ");
                    problems.add(at(&value), format!("kind `{}` is none of {known}", brief(&text)));
                }
            },
            "namespace" => pattern.namespace = Some(text),
            "name" => pattern.name = Some(text),
            "container" => pattern.container = Some(text),
            "image" => pattern.image = Some(text),
            other => problems.add(
                at(&key),
                format!("`{}` is no part of a target, which has kind, namespace, name, container, image", brief(other)),
            ),
        }
    }
    // Only containers have these.
    if pattern.kind.is_none() && (pattern.namespace.is_some() || pattern.container.is_some()) {
        pattern.kind = Some(TargetKind::Container);
    }
    let TargetPattern { kind, namespace, name, container, image } = &pattern;
    let refuse = |what: &str| Err(format!("a target of kind {} has no {what}", kind.map_or("image", TargetKind::word)));
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
