//! InSpec's own waiver file (docs.chef.io, "Waivers": a YAML map from control ids to `justification`, `expiration_date` and
//! `run`) as a `kind: Waivers` document.
//!
//! What it can't say has to be said for all of its waivers: the profile, the targets, who asks. What can't be carried is
//! told, and nothing is made up: a waiver without a reason or an end is left out.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::document::{self, DocumentError};
use crate::base::text::brief;
use crate::model::waiver::expiry;

/// What InSpec's file does not say.
#[derive(Clone, Debug)]
pub struct Rest {
    /// The profile's name.
    pub profile: String,
    /// The targets as plans name them; all of them where empty.
    pub targets: Vec<String>,
    /// Who asks for these waivers.
    pub requested_by: String,
    /// When those end that have no end of their own.
    pub expires: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The document.
    pub document: String,
    /// How many waivers are in it.
    pub waivers: usize,
    /// The waivers that are left out, each with the reason.
    pub left_out: Vec<String>,
    /// What means something else here.
    pub notes: Vec<String>,
}

/// One waiver of InSpec. Anything else in it is told.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    justification: Option<String>,
    #[serde(default)]
    expiration_date: Option<String>,
    #[serde(default)]
    run: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'w> {
    api_version: &'static str,
    kind: &'static str,
    waivers: Vec<WrittenWaiver<'w>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenWaiver<'w> {
    id: String,
    controls: [&'w str; 1],
    profile: WrittenProfile<'w>,
    targets: WrittenTargets<'w>,
    reason: String,
    requested_by: &'w str,
    expires: String,
}

#[derive(Serialize)]
struct WrittenProfile<'w> {
    name: &'w str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenTargets<'w> {
    All(&'static str),
    These(&'w [String]),
}

/// The document of these waivers; `path` is only for messages.
///
/// # Errors
/// When it is no such file.
pub fn import(path: &Path, text: &str, rest: &Rest, now: Timestamp) -> Result<Imported, DocumentError> {
    const KIND: &str = "InSpec's waivers";
    let entries: BTreeMap<String, Entry> = document::from_yaml(path, KIND, text)?;
    let (mut waivers, mut left_out, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (control, entry) in &entries {
        let shown = brief(control);
        let reason = entry.justification.as_deref().unwrap_or_default().trim();
        if reason.is_empty() {
            left_out.push(format!("`{shown}`: it has no justification"));
            continue;
        }
        let own = entry.expiration_date.as_deref().map(str::trim).filter(|date| !date.is_empty());
        let Some(expires) = own.or(rest.expires.as_deref()) else {
            left_out.push(format!("`{shown}`: it has no expiration_date; --expires gives one to all that have none"));
            continue;
        };
        let Some(until) = expiry(expires) else {
            left_out.push(format!("`{shown}`: its expiration_date `{}` is no day, as 2027-01-31", brief(expires)));
            continue;
        };
        if until <= now {
            notes.push(format!("`{shown}` expired at {until} already: it is written, and will not count"));
        }
        if entry.run.as_deref().is_some_and(|run| ["false", "no", "off"].contains(&run.to_ascii_lowercase().as_str())) {
            notes.push(format!("`{shown}` has run: false, so that InSpec does not run it; here everything is run, and a failure is waived after"));
        }
        if control.contains('*') {
            left_out.push(format!("`{shown}`: a `*` in a control's id stands for any characters here"));
            continue;
        }
        waivers.push(WrittenWaiver {
            id: format!("inspec-{control}"),
            controls: [control],
            profile: WrittenProfile { name: &rest.profile },
            targets: match rest.targets.as_slice() {
                [] => WrittenTargets::All("all"),
                these => WrittenTargets::These(these),
            },
            reason: reason.to_owned(),
            requested_by: &rest.requested_by,
            expires: expires.to_owned(),
        });
    }
    let count = waivers.len();
    let written = Written { api_version: "gapscan/v1", kind: "Waivers", waivers };
    let document = document::to_yaml(&written).map_err(|error| DocumentError::Content {
        path: path.to_owned(),
        kind: KIND,
        message: format!("it has no form as YAML: {error}"),
    })?;
    Ok(Imported { document, waivers: count, left_out, notes })
}
