//! TUF metadata of a bundle: its exact form as files, and its verification (TUF specification 1.0, section 5).
//!
//! What hostile metadata may try, and where it stops:
//!
//! * no signature, one by an unknown key, one over other content, one key twice: [`check_signatures`], which asks more than
//!   TUF does (every signature must be valid and by a key of the role, in order), and then `tough`;
//! * another spelling of the same content (duplicate keys, BOM, CRLF, blanks, trailing data, upper-case digits): [`parse`]
//!   takes only the one form that [`to_bytes`] writes, so that a signed bundle has exactly one form;
//! * deep or huge JSON: `serde_json` ends at 128 levels, and the caller bounds the bytes;
//! * weak or unexpected key types, unreachable thresholds, delegations: [`check_root`] and [`verify`];
//! * a root rotation that is not signed by the old keys, a skipped root version: [`verify_roots`];
//! * expired metadata: checked here against the caller's clock, and by `tough` against its own;
//! * rollback, same version with other content, fast-forward, a clock set back: [`super::remembered`].

mod client;
mod form;
mod roots;
mod signatures;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use tough::schema::{Metafile, Root, Signed, Snapshot as SnapshotRole, Targets, Timestamp as TimestampRole};

use super::error::TrustError;
use super::root::TrustRoot;
use crate::base::digest::Digest;
use crate::base::limits::Limits;

pub use self::form::{TIMESTAMP_FILE, parse, root_file, snapshot_file, targets_file, to_bytes};
pub(super) use self::roots::verify_rotation;
pub use self::roots::{check_root, verify_roots};
pub use self::signatures::{check_signatures, sign};
pub(super) use self::signatures::{insert_signature, meets_threshold, payload};

/// The version of the TUF specification that the metadata says it follows.
pub const SPEC_VERSION: &str = "1.0.0";
/// The highest bundle version: numbers up to this are the same in every JSON reader (RFC 8259, section 6), and a version
/// near the end of the integers can't be signed by mistake, after which nothing newer could ever be loaded.
pub const MAX_VERSION: u64 = (1 << 53) - 1;
/// Bytes of a root, timestamp or snapshot file: a root with a dozen keys takes 6 KiB.
pub const SMALL_METADATA_BYTES: u64 = 64 << 10;

/// Metadata files by their names below `metadata/`: `1.root.json`, `timestamp.json`, `7.snapshot.json`, `7.targets.json`.
pub type MetadataFiles = BTreeMap<String, Vec<u8>>;

/// Metadata that was verified against a pinned root. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedMetadata {
    files: MetadataFiles,
    lineage: Digest,
    fingerprint: Digest,
    root_version: u64,
    root_digests: Vec<Digest>,
    targets: Targets,
    expires: Timestamp,
}

impl VerifiedMetadata {
    /// The files it was read from.
    pub fn files(&self) -> &MetadataFiles {
        &self.files
    }

    /// The digest of the first root of the chain: the same before and after a rotation.
    pub fn lineage(&self) -> Digest {
        self.lineage
    }

    /// The fingerprint of the pinned root that vouches for it.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The version of the last root of the chain.
    pub fn root_version(&self) -> u64 {
        self.root_version
    }

    /// The digest of the last root of the chain.
    pub fn root_digest(&self) -> Digest {
        *self.root_digests.last().expect("a chain that was verified has a root")
    }

    /// The digests of all roots of the chain, from the first.
    pub fn root_digests(&self) -> &[Digest] {
        &self.root_digests
    }

    /// The signed list of targets.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// When the first of its roles expires.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The version of all its metadata.
    pub fn version(&self) -> u64 {
        self.targets.version.get()
    }
}

/// How many signatures metadata must have to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signatures {
    /// As many as the root asks for.
    Enough,
    /// Those that are there must be valid; others are still to come.
    Begun,
}

/// Metadata that fits together, and whose signatures are valid.
pub(super) struct Examined {
    pub(super) root: Root,
    pub(super) timestamp: Signed<TimestampRole>,
    pub(super) snapshot: (String, Signed<SnapshotRole>),
    pub(super) targets: (String, Signed<Targets>),
    lineage: Digest,
    root_digests: Vec<Digest>,
}

/// Looks at everything but what `tough` says.
pub(super) fn examine(
    files: &MetadataFiles,
    pinned: &TrustRoot,
    limits: &Limits,
    now: Timestamp,
    signatures: Signatures,
) -> Result<Examined, TrustError> {
    let missing = |file: &str| TrustError::Metadata { file: file.to_owned(), reason: "it is missing".to_owned() };
    let get = |file: &str| files.get(file).map(Vec::as_slice).ok_or_else(|| missing(file));

    let roots: Vec<&[u8]> =
        (1..=limits.root_rotations).map_while(|version| files.get(&root_file(version)).map(Vec::as_slice)).collect();
    let root = verify_roots(&roots, pinned)?;
    let timestamp: Signed<TimestampRole> = parse(TIMESTAMP_FILE, get(TIMESTAMP_FILE)?)?;
    let snapshot_name = snapshot_file(get(TIMESTAMP_FILE)?)?;
    let snapshot: Signed<SnapshotRole> = parse(&snapshot_name, get(&snapshot_name)?)?;
    let targets_name = targets_file(&snapshot_name, get(&snapshot_name)?)?;
    let targets: Signed<Targets> = parse(&targets_name, get(&targets_name)?)?;
    if files.len() != roots.len() + 3 {
        return Err(TrustError::Metadata {
            file: "the metadata".to_owned(),
            reason: "there are files that belong to no role".to_owned(),
        });
    }
    check_signatures(TIMESTAMP_FILE, &timestamp, &[&root.signed])?;
    check_signatures(&snapshot_name, &snapshot, &[&root.signed])?;
    check_signatures(&targets_name, &targets, &[&root.signed])?;
    if signatures == Signatures::Enough {
        meets_threshold(TIMESTAMP_FILE, &timestamp, &root.signed)?;
        meets_threshold(&snapshot_name, &snapshot, &root.signed)?;
        meets_threshold(&targets_name, &targets, &root.signed)?;
    }

    let examined = Examined {
        lineage: Digest::of(roots[0]),
        root_digests: roots.iter().map(Digest::of).collect(),
        root: root.signed,
        timestamp,
        snapshot: (snapshot_name, snapshot),
        targets: (targets_name, targets),
    };
    examined.fits_together()?;
    examined.is_current(now)?;
    Ok(examined)
}

impl Examined {
    /// One version, and nothing said beyond it.
    fn fits_together(&self) -> Result<(), TrustError> {
        let Self { timestamp, snapshot: (snapshot_name, snapshot), targets: (targets_name, targets), .. } = self;
        let version = targets.signed.version.get();
        let refuse = |file: &str, reason: String| Err(TrustError::Metadata { file: file.to_owned(), reason });
        if version > MAX_VERSION {
            return refuse(targets_name, format!("its version {version} is higher than {MAX_VERSION}"));
        }
        if timestamp.signed.version.get() != version || snapshot.signed.version.get() != version {
            return refuse(targets_name, "timestamp, snapshot and targets are not of one version".to_owned());
        }
        if targets.signed.delegations.is_some() {
            return refuse(targets_name, "it delegates to other keys, which a bundle never does".to_owned());
        }
        // Whether there is one was found out when its name was read; which version it is was compared.
        let alone = |meta: &HashMap<String, Metafile>| {
            meta.len() == 1 && meta.values().all(|m| m.length.is_none() && m.hashes.is_none() && m._extra.is_empty())
        };
        for (name, meta) in [(TIMESTAMP_FILE, &timestamp.signed.meta), (snapshot_name, &snapshot.signed.meta)] {
            if !alone(meta) {
                return refuse(name, "it says more than the version of one file".to_owned());
            }
        }
        Ok(())
    }

    /// All of it is valid at this time.
    fn is_current(&self, now: Timestamp) -> Result<(), TrustError> {
        let Self { root, timestamp, snapshot: (_, snapshot), targets: (_, targets), .. } = self;
        for (role, spec_version, expires) in [
            ("root", &root.spec_version, root.expires),
            ("timestamp", &timestamp.signed.spec_version, timestamp.signed.expires),
            ("snapshot", &snapshot.signed.spec_version, snapshot.signed.expires),
            ("targets", &targets.signed.spec_version, targets.signed.expires),
        ] {
            if spec_version != SPEC_VERSION {
                let reason = format!("it must follow TUF {SPEC_VERSION}");
                return Err(TrustError::Metadata { file: role.to_owned(), reason });
            }
            // Its life ends with that very second (TUF 5.3.10: the time of expiry must be higher).
            if now >= expires {
                return Err(TrustError::Expired { role, expires, now });
            }
        }
        Ok(())
    }
}

/// Verifies the metadata of a bundle against the pinned root, all of it and nothing besides.
///
/// # Errors
/// When anything is missing, left over, unsigned, expired at `now` or at this machine's time, or not in its one form.
pub async fn verify(
    files: MetadataFiles,
    pinned: &TrustRoot,
    limits: &Limits,
    now: Timestamp,
) -> Result<VerifiedMetadata, TrustError> {
    let Examined { root, timestamp, snapshot: (_, snapshot), targets: (_, targets), lineage, root_digests } =
        examine(&files, pinned, limits, now, Signatures::Enough)?;
    client::load_with_tough(&files, pinned, limits).await?;
    Ok(VerifiedMetadata {
        lineage,
        root_digests,
        fingerprint: pinned.fingerprint(),
        root_version: root.version.get(),
        expires: root.expires.min(timestamp.signed.expires).min(snapshot.signed.expires).min(targets.signed.expires),
        targets: targets.signed,
        files,
    })
}

#[cfg(test)]
mod tests;
