//! The root of trust: how one is made, and the one that an operator pinned.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::num::NonZeroU64;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tough::schema::{RoleKeys, RoleType, Root, Signed};

use super::error::TrustError;
use super::key::RoleKey;
use super::metadata::{self, SMALL_METADATA_BYTES, SPEC_VERSION};
use super::passphrase::Passphrase;
use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::base::quantity::Span;

/// The extra field of the root that carries [`RootPolicy`].
pub(in crate::trust) const POLICY_FIELD: &str = "gapscan";
/// The folder of the role keys, beside the roots.
pub const KEYS_FOLDER: &str = "keys";
/// The roles, in the order in which they are shown.
pub const ROLES: [RoleType; 4] = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// The name of a role, as it is in file names and on the command line.
pub fn role_name(role: RoleType) -> &'static str {
    match role {
        RoleType::Root => "root",
        RoleType::Targets => "targets",
        RoleType::Snapshot => "snapshot",
        RoleType::Timestamp => "timestamp",
        RoleType::DelegatedTargets => "delegated-targets",
    }
}

/// How long metadata may stay valid, by role; part of the signed root, so that a bundle can't outlive what the holders of
/// the root keys allow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootPolicy {
    /// Role name to the longest validity.
    pub validity: BTreeMap<String, Span>,
}

impl RootPolicy {
    /// Until when metadata of a role is valid that was made at `created`, if nothing else asks for longer than `wanted`.
    ///
    /// # Errors
    /// When that is beyond the calendar.
    pub fn until(&self, role: RoleType, created: Timestamp, wanted: Span) -> Result<Timestamp, TrustError> {
        let most = self.validity.get(role_name(role)).copied().unwrap_or(wanted);
        expiry(created, wanted.min(most))
    }
}

/// A root that the operator pinned: never taken from a bundle. Its own signatures were checked.
#[derive(Clone, Debug)]
pub struct TrustRoot {
    bytes: Vec<u8>,
    root: Root,
    fingerprint: Digest,
}

impl TrustRoot {
    /// The pinned root from its file.
    ///
    /// # Errors
    /// When the file can't be read or [`TrustRoot::from_bytes`] refuses it.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        Self::from_bytes(file::read_capped(path, SMALL_METADATA_BYTES)?).map_err(|error| match error {
            TrustError::Metadata { reason, .. } => TrustError::NoRoot { path: path.to_owned(), reason },
            other => other,
        })
    }

    /// The pinned root from its bytes.
    ///
    /// # Errors
    /// When it is no root, is not in its canonical form, or is not signed by its own keys.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, TrustError> {
        let signed: Signed<Root> = metadata::parse("root.json", &bytes)?;
        metadata::check_root("root.json", &signed.signed)?;
        signed.signed.verify_role(&signed).map_err(|_| TrustError::Metadata {
            file: "root.json".to_owned(),
            reason: "it is not signed by its own keys".to_owned(),
        })?;
        Ok(Self { fingerprint: Digest::of(&bytes), root: signed.signed, bytes })
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest of the bytes: what two people compare over the telephone.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Its version; 1 is the first, and each rotation adds one.
    pub fn version(&self) -> u64 {
        self.root.version.get()
    }

    /// What it says.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// How long its metadata may stay valid.
    ///
    /// # Errors
    /// When the root carries a policy that can't be understood.
    pub fn policy(&self) -> Result<RootPolicy, TrustError> {
        let Some(value) = self.root._extra.get(POLICY_FIELD) else { return Ok(RootPolicy::default()) };
        RootPolicy::deserialize(value).map_err(|e| TrustError::Metadata {
            file: "root.json".to_owned(),
            reason: format!("its validity policy can't be read: {e}"),
        })
    }
}

/// What the first root is to be like.
#[derive(Clone, Debug)]
pub struct RootPlan {
    /// How many keys each role gets.
    pub keys: BTreeMap<String, u64>,
    /// How many signatures each role asks for.
    pub threshold: BTreeMap<String, u64>,
    /// How long metadata of each role stays valid.
    pub validity: BTreeMap<String, Span>,
}

impl Default for RootPlan {
    fn default() -> Self {
        let of = |values: [(&str, u64); 4]| values.into_iter().map(|(r, n)| (r.to_owned(), n)).collect();
        Self {
            keys: of([("root", 1), ("targets", 1), ("snapshot", 1), ("timestamp", 1)]),
            threshold: of([("root", 1), ("targets", 1), ("snapshot", 1), ("timestamp", 1)]),
            validity: [("root", 3650), ("targets", 90), ("snapshot", 90), ("timestamp", 90)]
                .into_iter()
                .map(|(r, days)| (r.to_owned(), Span::days(days)))
                .collect(),
        }
    }
}

/// Makes role keys below `folder/keys` and the first root as `folder/1.root.json` and `folder/root.json` (the same bytes;
/// later roots will be `2.root.json` and so on, and `root.json` the newest).
///
/// # Errors
/// When the plan makes no sense, or any file is there already or can't be written.
pub fn init(
    folder: &Path,
    plan: &RootPlan,
    passphrase: Option<&Passphrase>,
    now: Timestamp,
) -> Result<TrustRoot, TrustError> {
    for (role, count) in &plan.keys {
        let threshold = plan.threshold.get(role).copied().unwrap_or(1);
        if *count == 0 || *count > 64 || threshold == 0 || threshold > *count {
            return Err(TrustError::RootPlan(format!(
                "role {role} can't ask for {threshold} of {count} keys (1 to 64 keys, and no more signatures than keys)"
            )));
        }
    }
    let keys_folder = folder.join(KEYS_FOLDER);
    fs::create_dir_all(&keys_folder).map_err(|source| FileError::Write { path: keys_folder.clone(), source })?;
    for name in ["root.json", "1.root.json"] {
        if folder.join(name).exists() {
            return Err(TrustError::RootPlan(format!(
                "`{}` is there already; a new root would orphan every bundle signed under it",
                folder.join(name).display()
            )));
        }
    }

    let mut all: Vec<(RoleType, RoleKey)> = Vec::new();
    for role in ROLES {
        let count = plan.keys.get(role_name(role)).copied().unwrap_or(1);
        for number in 1..=count {
            let key = RoleKey::generate();
            key.write(&keys_folder.join(format!("{}-{number}.pem", role_name(role))), passphrase)?;
            all.push((role, key));
        }
    }
    let days = |role: &str| plan.validity.get(role).copied().unwrap_or(Span::days(90));
    let policy = RootPolicy { validity: ["targets", "snapshot", "timestamp"].map(|r| (r.to_owned(), days(r))).into() };
    let root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: expiry(now, days("root"))?,
        keys: all.iter().map(|(_, key)| (key.id().clone(), key.public().clone())).collect(),
        roles: ROLES
            .into_iter()
            .map(|role| {
                let threshold = plan.threshold.get(role_name(role)).copied().unwrap_or(1);
                let mut keyids: Vec<_> =
                    all.iter().filter(|(r, _)| *r == role).map(|(_, key)| key.id().clone()).collect();
                keyids.sort_by(|a, b| a[..].cmp(&b[..]));
                let threshold = NonZeroU64::new(threshold).unwrap_or(NonZeroU64::MIN);
                (role, RoleKeys { keyids, threshold, _extra: HashMap::new() })
            })
            .collect(),
        _extra: HashMap::from([(
            POLICY_FIELD.to_owned(),
            serde_json::to_value(policy).expect("a map of strings has a JSON form"),
        )]),
    };
    let root_keys: Vec<&RoleKey> = all.iter().filter(|(r, _)| *r == RoleType::Root).map(|(_, key)| key).collect();
    let bytes = metadata::to_bytes(&metadata::sign(root, &root_keys)?);
    let pinned = TrustRoot::from_bytes(bytes.clone())?;
    file::write_new(&folder.join("1.root.json"), &bytes, 0o644)?;
    file::write_new(&folder.join("root.json"), &bytes, 0o644)?;
    Ok(pinned)
}

/// `from` and a span later, in whole seconds, as other TUF clients expect them.
///
/// # Errors
/// When that is beyond the calendar.
pub fn expiry(from: Timestamp, span: Span) -> Result<Timestamp, TrustError> {
    let late = || TrustError::RootPlan(format!("{span} after {from} is beyond the calendar"));
    let seconds = i64::try_from(span.duration().as_secs()).map_err(|_| late())?;
    let second = from.as_second().checked_add(seconds).ok_or_else(late)?;
    Timestamp::from_second(second).map_err(|_| late())
}

/// The chain of roots in `folder`: `1.root.json` to the newest, verified up to and beyond the pinned one.
///
/// # Errors
/// When the first is missing, or the chain does not hold.
pub fn read_chain(folder: &Path, pinned: &TrustRoot, rotations: u64) -> Result<Vec<Vec<u8>>, TrustError> {
    let mut chain = Vec::new();
    for version in 1..=rotations {
        let path = folder.join(metadata::root_file(version));
        if version > 1 && !path.exists() {
            break;
        }
        chain.push(file::read_capped(&path, SMALL_METADATA_BYTES)?);
    }
    let refs: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    metadata::verify_roots(&refs, pinned)?;
    Ok(chain)
}
