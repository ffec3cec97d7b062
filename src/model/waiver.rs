//! Waivers: failures that people accept until a date, each for named controls of a profile on named targets.
//!
//! A `kind: Waivers` document lists them ([`WaiverDocument`]). Whether a document counts at all, which is a matter of signatures
//! and policy, is decided above; what it does to a result is a pure function of both and of the time ([`apply`]). Only what
//! failed is ever waived: what was not evaluated stays so, and what passed needs no waiver.

mod apply;
mod document;
mod notice;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::control::{Control, Severity};
use super::evidence::Evidence;
use super::profile::ProfileRef;
use super::provenance::Approach;
use super::record::TaskRecord;
use super::scanner::{fits, is_own_control};
use super::target::{Target, TargetKind};
use crate::base::digest::Digest;
use crate::base::quantity::Span;

pub use apply::{Applied, apply};
pub use document::{WaiversDocument, expiry, read};
pub use notice::{NoticeState, WaiverNotice, notices};

/// The event that says that a file of waivers does not count, and why.
pub const WAIVERS_REFUSED: &str = "waivers-refused";
/// The event that says that a file of waivers counts although nobody signed it.
pub const WAIVERS_UNSIGNED: &str = "waivers-unsigned";
/// The event that says that a waiver has expired.
pub const WAIVER_EXPIRED: &str = "waiver-expired";
/// The event that says that a waiver fits none of the latest results.
pub const WAIVER_UNMATCHED: &str = "waiver-unmatched";

/// A waiver that expires within so long is told of.
pub const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One waiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiver {
    /// Unique in its document. Printable ASCII without spaces, at most 128 characters.
    pub id: String,
    /// The controls by their ids; `*` stands for any characters.
    pub controls: Vec<String>,
    /// The profile that they are of.
    pub profile: WaivedProfile,
    /// The targets.
    pub targets: WaivedTargets,
    /// Why the failure is accepted. Anybody may have written this: whoever shows it neutralises it.
    pub reason: String,
    /// Who asked for it.
    pub requested_by: String,
    /// From this moment on it does not count any more.
    pub expires: Timestamp,
    /// It does not count for controls that are worse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_severity: Option<Severity>,
}

/// The profile that a waiver is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaivedProfile {
    /// Its name.
    pub name: String,
    /// Its version; any where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The targets that a waiver is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaivedTargets {
    /// All of them, because the document says so.
    All,
    /// Those that fit one of these.
    These(Vec<TargetPattern>),
}

/// Targets by what they are. All that is given has to fit; in each text `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetPattern {
    /// The kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<TargetKind>,
    /// Of a container, the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of the host, the node or the cluster; of a container that of its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name of a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The image, or the one that a container is of: its repository, or that with a tag or a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A document whose waivers count, with all that a record keeps of it.
#[derive(Clone, Debug)]
pub struct WaiverDocument {
    /// What a record names it by.
    pub reference: WaiverRef,
    /// Its waivers.
    pub waivers: Vec<Waiver>,
    /// How far in the future a waiver may expire and count.
    pub longest: Option<SignedDuration>,
    /// The document and its signatures, byte for byte.
    pub evidence: Vec<Evidence>,
}

/// Names a document of waivers in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaiverRef {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The name of its file.
    pub file: String,
    /// The ids of the keys that approved it; empty where policy accepts waivers that nobody signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<String>,
}

/// Whether a waiver counts at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It counts.
    Counts,
    /// It has expired.
    Expired,
    /// It expires later than policy allows, and does not count until that is near enough.
    TooFar,
}

impl Waiver {
    /// Whether it counts at this time, under a policy by which no waiver lasts longer than `longest` from then.
    pub fn standing(&self, longest: Option<SignedDuration>, now: Timestamp) -> Standing {
        if now >= self.expires {
            return Standing::Expired;
        }
        match longest {
            Some(longest) if self.expires.duration_since(now) > longest => Standing::TooFar,
            Some(_) | None => Standing::Counts,
        }
    }

    /// Whether it is for results of this profile on this target.
    pub fn concerns(&self, profile: &ProfileRef, target: &Target) -> bool {
        let version = self.profile.version.as_ref().is_none_or(|version| *version == profile.version);
        version && self.profile.name == profile.name && self.targets.fit(target)
    }

    /// Whether it is for this control. Those by which gapscan judges the scan itself are in no waiver.
    pub fn covers(&self, control: &str) -> bool {
        !is_own_control(control) && self.controls.iter().any(|pattern| fits(pattern, control))
    }

    /// Whether this control is worse than it may waive.
    pub fn is_too_severe(&self, control: Option<&Control>) -> bool {
        // What can't be known counts as the worst.
        let severity = control.map_or(Severity::Critical, |control| control.severity);
        self.max_severity.is_some_and(|most| severity > most)
    }

    /// The controls of this result that it is for; none of a result that no waiver changes ([`changes`]).
    pub fn matches<'r>(&'r self, record: &'r TaskRecord) -> impl Iterator<Item = &'r super::finding::Finding> {
        self.names(record).filter(|_| changes(record))
    }

    /// The controls of this result that it names, whether or not it changes anything there.
    pub fn names<'r>(&'r self, record: &'r TaskRecord) -> impl Iterator<Item = &'r super::finding::Finding> {
        let concerned = self.concerns(&record.profile, &record.target);
        record.findings.iter().filter(move |finding| concerned && self.covers(&finding.control))
    }
}

/// Whether waivers change results of this kind: those of gapscan's own scans. What was imported, and what alerts say, is what
/// somebody else found, and is recorded as it came.
pub fn changes(record: &TaskRecord) -> bool {
    !matches!(record.provenance.approach, Approach::Imported | Approach::Alerts)
}

impl WaiverDocument {
    /// How far in the future a waiver may expire, from what policy says.
    pub fn longest(most: Span) -> SignedDuration {
        SignedDuration::try_from(most.duration()).unwrap_or(SignedDuration::MAX)
    }
}

impl WaivedTargets {
    /// Whether this target is one of them.
    pub fn fit(&self, target: &Target) -> bool {
        match self {
            Self::All => true,
            Self::These(patterns) => patterns.iter().any(|pattern| pattern.fits(target)),
        }
    }
}

impl TargetPattern {
    /// Whether this target is one of those that are meant.
    pub fn fits(&self, target: &Target) -> bool {
        let holds = |pattern: &Option<String>, text: Option<&str>| match (pattern, text) {
            (None, _) => true,
            (Some(pattern), Some(text)) => fits(pattern, text),
            // What is not known fits nothing.
            (Some(_), None) => false,
        };
        if self.kind.is_some_and(|kind| kind != target.kind()) {
            return false;
        }
        let (namespace, name, container, image, digest) = match target {
            Target::Host { name } => (None, Some(name), None, None, None),
            Target::Container { namespace, pod, container, image, digest, .. } => {
                (Some(namespace), Some(pod), Some(container), image.as_ref(), digest.as_ref())
            }
            Target::Image { reference, digest } => (None, None, None, Some(reference), digest.as_ref()),
            Target::Node { name, .. } | Target::Cluster { name, .. } => (None, Some(name), None, None, None),
        };
        let image_fits = match (&self.image, image) {
            (None, _) => true,
            (Some(pattern), Some(reference)) => is_image(pattern, reference, digest),
            (Some(_), None) => false,
        };
        image_fits
            && holds(&self.namespace, namespace.map(String::as_str))
            && holds(&self.name, name.map(String::as_str))
            && holds(&self.container, container.map(String::as_str))
    }
}

/// `REPOSITORY`, its tag and its digest, as far as they are there.
fn parts(reference: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = reference.split_once('@').map_or((reference, None), |(rest, digest)| (rest, Some(digest)));
    let name = rest.rfind('/').map_or(0, |slash| slash + 1);
    match rest[name..].find(':') {
        Some(colon) => (&rest[..name + colon], Some(&rest[name + colon + 1..]), digest),
        None => (rest, None, digest),
    }
}

/// Whether this image is the pattern's. Where the pattern has a digest, it is compared with what really runs.
fn is_image(pattern: &str, reference: &str, digest: Option<&Digest>) -> bool {
    let (wanted, wanted_tag, wanted_digest) = parts(pattern);
    let (repository, tag, written) = parts(reference);
    let same_tag = wanted_tag.is_none_or(|wanted| tag.is_some_and(|tag| fits(wanted, tag)));
    let same_digest = wanted_digest.is_none_or(|wanted| match digest {
        Some(digest) => digest.to_string() == wanted,
        None => written == Some(wanted),
    });
    fits(wanted, repository) && same_tag && same_digest
}

#[cfg(test)]
mod tests;
