//! One waiver as it is written, and what it says.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::targets::TargetsEntry;
use super::{ID, NAME, PATTERN, REASON, expiry};
use crate::base::text::brief;
use crate::model::control::Severity;
use crate::model::scanner::is_own_control;
use crate::model::waiver::{WaivedProfile, WaivedTargets, Waiver};

/// One waiver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, rename = "Waiver")]
pub(super) struct WaiverEntry {
    /// Unique in the document: printable ASCII without spaces, at most 128 characters.
    #[schemars(required)]
    id: Option<String>,
    /// Ids of controls, where `*` stands for any characters. Those by which gapscan judges the scan itself can't be waived.
    #[schemars(required)]
    controls: Option<Vec<String>>,
    /// The profile that the controls are of: its name, or its name and version.
    #[schemars(required)]
    profile: Option<ProfileEntry>,
    /// The targets: a list in which one has to fit, or the word `all`.
    #[schemars(required)]
    targets: Option<TargetsEntry>,
    /// Why the failure is accepted.
    #[schemars(required)]
    reason: Option<String>,
    /// Who asks for it.
    #[schemars(required)]
    requested_by: Option<String>,
    /// A day, which ends at 23:59:59 UTC, or a time as in RFC 3339. From then on the control counts as failed again.
    #[schemars(required)]
    expires: Option<String>,
    /// What is worse is not waived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Severity")]
    max_severity: Option<String>,
}

/// The profile of a waiver.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "WaivedProfile")]
enum ProfileEntry {
    /// Its name, for every version.
    Name(String),
    /// Its name, and its version where only one is meant.
    Fields(ProfileFields),
}

/// A profile by its name and version.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
struct ProfileFields {
    /// Its name.
    #[schemars(required)]
    name: Option<String>,
    /// Its version; every one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    version: Option<String>,
}

impl<'de> Deserialize<'de> for ProfileEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = ProfileEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a profile, or its name and version")
            }
            fn visit_str<E>(self, text: &str) -> Result<ProfileEntry, E> {
                Ok(ProfileEntry::Name(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProfileEntry, A::Error> {
                ProfileFields::deserialize(MapAccessDeserializer::new(map)).map(ProfileEntry::Fields)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl WaiverEntry {
    /// The waiver, if nothing is added to the problems but what its schema says of it.
    pub(super) fn checked(&self, at: &str, problems: &mut Vec<String>) -> Waiver {
        // As the schema says it, so that it is told once; here too, so that nothing rests on the schema alone.
        for (key, missing) in [
            ("id", self.id.is_none()),
            ("controls", self.controls.is_none()),
            ("profile", self.profile.is_none()),
            ("targets", self.targets.is_none()),
            ("reason", self.reason.is_none()),
            ("requestedBy", self.requested_by.is_none()),
            ("expires", self.expires.is_none()),
        ] {
            if missing {
                problems.push(format!("{at}.{key}: it is missing"));
            }
        }
        let mut text = |key: &str, text: &Option<String>, most: usize| {
            let Some(text) = text.as_deref().map(str::trim) else { return String::new() };
            if text.is_empty() {
                problems.push(format!("{at}.{key}: {key} is empty"));
            } else if text.chars().count() > most {
                problems.push(format!("{at}.{key}: {key} is longer than {most} characters"));
            }
            text.to_owned()
        };
        let id = text("id", &self.id, ID);
        let reason = text("reason", &self.reason, REASON);
        let requested_by = text("requestedBy", &self.requested_by, NAME);
        let expires = text("expires", &self.expires, NAME);
        if !id.bytes().all(|b| b.is_ascii_graphic()) {
            problems.push(format!("{at}.id: id `{}` must be printable ASCII without spaces", brief(&id)));
        }
        let expiry = expiry(&expires);
        if expiry.is_none() && !expires.is_empty() {
            problems.push(format!(
                "{at}.expires: expires `{}` is neither a day, as 2027-01-31, nor a time as in RFC 3339, as 2027-01-31T12:00:00Z",
                brief(&expires)
            ));
        }
        // What is none is told by the schema.
        let severity = |word: &str| Severity::WORST_FIRST.into_iter().find(|severity| severity.word() == word);
        Waiver {
            id,
            controls: self.controls(at, problems),
            profile: self.profile(at, problems),
            targets: match &self.targets {
                Some(targets) => targets.checked(&format!("{at}.targets"), problems),
                None => WaivedTargets::These(Vec::new()),
            },
            reason,
            requested_by,
            expires: expiry.unwrap_or(Timestamp::MIN),
            max_severity: self.max_severity.as_deref().and_then(severity),
        }
    }

    fn controls(&self, at: &str, problems: &mut Vec<String>) -> Vec<String> {
        let controls = self.controls.clone().unwrap_or_default();
        if self.controls.is_some() && controls.is_empty() {
            problems.push(format!("{at}.controls: controls names none; write `[\"*\"]` for all of the profile"));
        }
        for (number, id) in controls.iter().enumerate() {
            if id.is_empty() || id.len() > PATTERN || !id.bytes().all(|b| b.is_ascii_graphic()) {
                problems.push(format!(
                    "{at}.controls[{number}]: `{}` is no id of a control: printable ASCII without spaces, at most {PATTERN} \
                     characters",
                    brief(id)
                ));
            }
            if is_own_control(id) {
                problems.push(format!(
                    "{at}.controls[{number}]: `{id}` is by what gapscan judges the scan itself, and can't be waived"
                ));
            }
        }
        controls
    }

    fn profile(&self, at: &str, problems: &mut Vec<String>) -> WaivedProfile {
        let (name, version) = match &self.profile {
            None => (None, None),
            Some(ProfileEntry::Name(name)) => (Some(name), None),
            Some(ProfileEntry::Fields(ProfileFields { name, version })) => (name.as_ref(), version.as_ref()),
        };
        if self.profile.is_some() && name.is_none() {
            problems.push(format!("{at}.profile.name: it is missing"));
        }
        let wrong = |text: &String| text.is_empty() || text.chars().count() > NAME;
        for (what, text) in [("name", name), ("version", version)] {
            if text.is_some_and(wrong) {
                problems.push(format!("{at}.profile: the profile's {what} is empty or too long"));
            }
        }
        WaivedProfile { name: name.cloned().unwrap_or_default(), version: version.cloned() }
    }
}
