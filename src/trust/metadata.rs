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

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{
    Metafile, Role, RoleType, Root, Signature, Signed, Snapshot as SnapshotRole, Targets, Timestamp as TimestampRole,
};
use tough::{ExpirationEnforcement, RepositoryLoader, Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::error::TrustError;
use super::key::hex;
use super::public;
use super::root::TrustRoot;
use crate::base::digest::Digest;
use crate::base::limits::Limits;

/// The version of the TUF specification that the metadata says it follows.
pub const SPEC_VERSION: &str = "1.0.0";
/// The highest bundle version: numbers up to this are the same in every JSON reader (RFC 8259, section 6), and a version
/// near the end of the integers can't be signed by mistake, after which nothing newer could ever be loaded.
pub const MAX_VERSION: u64 = (1 << 53) - 1;
/// Bytes of a root, timestamp or snapshot file: a root with a dozen keys takes 6 KiB.
pub const SMALL_METADATA_BYTES: u64 = 64 << 10;
/// The name of the timestamp file.
pub const TIMESTAMP_FILE: &str = "timestamp.json";

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

/// The one form in which metadata is written: JSON without blanks, keys sorted.
pub fn to_bytes<T: Serialize>(signed: &Signed<T>) -> Vec<u8> {
    let value = serde_json::to_value(signed).expect("metadata is strings, numbers and maps, which have a JSON form");
    serde_json::to_vec(&value).expect("a JSON value always has a text")
}

/// Reads metadata and refuses every form but that of [`to_bytes`].
///
/// # Errors
/// When it is no metadata of this role, or not in that form.
pub fn parse<T: Role + Serialize + DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<Signed<T>, TrustError> {
    let refuse = |reason: String| TrustError::Metadata { file: file.to_owned(), reason };
    let signed: Signed<T> = serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string()))?;
    if to_bytes(&signed) != bytes {
        return Err(refuse("it is not in canonical form (compact JSON with sorted keys, each once)".to_owned()));
    }
    Ok(signed)
}

/// Refuses any signature that is not by a key of the role in one of `roots`, is out of order or there twice, does not fit,
/// or is not written in lower-case digits. TUF itself only counts the good ones; asking for no others leaves a signed
/// file exactly one form.
///
/// # Errors
/// For the first such signature.
pub fn check_signatures<T: Role + Serialize + Clone>(
    file: &str,
    role: &Signed<T>,
    roots: &[&Root],
) -> Result<(), TrustError> {
    let mut before: Option<&[u8]> = None;
    for signature in &role.signatures {
        let keyid = hex(&signature.keyid);
        if !in_lower_case(&signature.keyid) || !in_lower_case(&signature.sig) {
            let reason = "a signature is not written in lower-case hexadecimal digits".to_owned();
            return Err(TrustError::Metadata { file: file.to_owned(), reason });
        }
        if before.is_some_and(|before| before >= &signature.keyid[..]) {
            let reason = "its signatures are not in the order of their key ids, each once".to_owned();
            return Err(TrustError::Metadata { file: file.to_owned(), reason });
        }
        before = Some(&signature.keyid);
        let naming: Vec<&&Root> = roots
            .iter()
            .filter(|r| r.roles.get(&T::TYPE).is_some_and(|k| k.keyids.contains(&signature.keyid)))
            .collect();
        if naming.is_empty() {
            return Err(TrustError::UnknownKey { file: file.to_owned(), keyid });
        }
        let alone = Signed { signed: role.signed.clone(), signatures: vec![signature.clone()] };
        if !naming.iter().any(|root| asking_for_one::<T>(root).verify_role(&alone).is_ok()) {
            return Err(TrustError::Signature { file: file.to_owned(), keyid });
        }
    }
    Ok(())
}

/// The same root when it asks for one signature, so that signatures can be looked at one by one.
fn asking_for_one<T: Role>(root: &Root) -> Root {
    let mut root = root.clone();
    if let Some(keys) = root.roles.get_mut(&T::TYPE) {
        keys.threshold = std::num::NonZeroU64::MIN;
    }
    root
}

fn in_lower_case(digits: &Decoded<Hex>) -> bool {
    serde_json::to_value(digits).is_ok_and(|text| text == hex(digits))
}

pub(super) fn meets_threshold<T: Role + Serialize>(
    file: &str,
    role: &Signed<T>,
    root: &Root,
) -> Result<(), TrustError> {
    root.verify_role(role).map_err(|_| {
        let keys = root.roles.get(&T::TYPE);
        TrustError::Threshold {
            file: file.to_owned(),
            found: keys.map_or(0, |k| role.signatures.iter().filter(|s| k.keyids.contains(&s.keyid)).count() as u64),
            threshold: keys.map_or(1, |k| k.threshold.get()),
        }
    })
}

/// Refuses a root that could not do its work: another specification, weak keys, thresholds that can't be reached.
///
/// # Errors
/// With what is wrong.
pub fn check_root(file: &str, root: &Root) -> Result<(), TrustError> {
    let refuse = |reason: String| Err(TrustError::Metadata { file: file.to_owned(), reason });
    if root.spec_version != SPEC_VERSION || !root.consistent_snapshot {
        return refuse(format!("it must follow TUF {SPEC_VERSION} with consistent snapshots"));
    }
    if root.keys.values().any(|key| !matches!(key, Key::Ecdsa { .. } | Key::Ed25519 { .. })) {
        return refuse("it names a key that is neither ECDSA P-256 nor Ed25519".to_owned());
    }
    // A key in another spelling has another id, and could count twice towards a threshold.
    if root.keys.values().any(|key| !is_in_one_form(key)) {
        return refuse("it names a key in another form than the one that gapscan writes".to_owned());
    }
    for role in [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
        let Some(keys) = root.roles.get(&role) else { return refuse(format!("it has no role {role}")) };
        let mut ids: Vec<&[u8]> = keys.keyids.iter().map(|id| &id[..]).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != keys.keyids.len() || keys.keyids.iter().any(|id| !root.keys.contains_key(id)) {
            return refuse(format!("the keys of role {role} are there twice or not at all"));
        }
        if keys.threshold.get() > ids.len() as u64 {
            return refuse(format!("role {role} asks for {} of {} keys", keys.threshold, ids.len()));
        }
    }
    Ok(())
}

/// Whether a key has no field of its own and its public half is written as this program writes it: PEM with the uncompressed
/// point for ECDSA P-256, 64 lower-case digits for Ed25519.
fn is_in_one_form(key: &Key) -> bool {
    match key {
        Key::Ecdsa { keyval, _extra, .. } => {
            let (written, _) = public::of_point(&keyval.public);
            // 4 is the mark of an uncompressed point (SEC 1, section 2.3.3).
            keyval.public.len() == 65
                && keyval.public[0] == 4
                && serde_json::to_value(key).ok() == serde_json::to_value(written).ok()
        }
        Key::Ed25519 { keyval, _extra, .. } => {
            keyval.public.len() == 32 && _extra.is_empty() && keyval._extra.is_empty() && in_lower_case(&keyval.public)
        }
        Key::Rsa { .. } | Key::EcdsaOld { .. } => false,
    }
}

/// Verifies a chain of roots `1.root.json`, `2.root.json`, ...: each is signed by its own keys and by those of the one
/// before, no version is left out, and the pinned root is one of them. Gives the last.
///
/// # Errors
/// When any of this does not hold.
pub fn verify_roots(files: &[&[u8]], pinned: &TrustRoot) -> Result<Signed<Root>, TrustError> {
    let mut last: Option<Signed<Root>> = None;
    for (index, bytes) in files.iter().enumerate() {
        let version = index as u64 + 1;
        let root = verify_root(&root_file(version), version, bytes, last.as_ref().map(|l| &l.signed))?;
        if version == pinned.version() && *bytes != pinned.bytes() {
            return Err(TrustError::OtherRoot(format!(
                "its root {version} has the fingerprint {}, and the pinned one has {}",
                Digest::of(bytes),
                pinned.fingerprint()
            )));
        }
        last = Some(root);
    }
    match last {
        Some(last) if last.signed.version.get() >= pinned.version() => Ok(last),
        last => Err(TrustError::OtherRoot(format!(
            "it ends at root {}, and the pinned root is {}",
            last.map_or(0, |l| l.signed.version.get()),
            pinned.version()
        ))),
    }
}

/// Verifies that these bytes are the next root after `before`, as [`verify_roots`] does for each step of a chain.
///
/// # Errors
/// When they are not.
pub(super) fn verify_rotation(before: &Root, bytes: &[u8]) -> Result<Signed<Root>, TrustError> {
    let file = root_file(before.version.get().saturating_add(1));
    verify_root(&file, before.version.get().saturating_add(1), bytes, Some(before))
}

fn verify_root(file: &str, version: u64, bytes: &[u8], before: Option<&Root>) -> Result<Signed<Root>, TrustError> {
    let root: Signed<Root> = parse(file, bytes)?;
    check_root(file, &root.signed)?;
    if root.signed.version.get() != version {
        let reason = format!("it says that it is version {}", root.signed.version);
        return Err(TrustError::Metadata { file: file.to_owned(), reason });
    }
    let mut roots = vec![&root.signed];
    roots.extend(before);
    check_signatures(file, &root, &roots)?;
    for root_of in roots {
        meets_threshold(file, &root, root_of)?;
    }
    Ok(root)
}

/// `N.root.json`
pub fn root_file(version: u64) -> String {
    format!("{version}.root.json")
}

/// The name of the snapshot file that a timestamp file speaks of. Nothing is verified by this.
///
/// # Errors
/// When it is no timestamp file, or speaks of none.
pub fn snapshot_file(timestamp: &[u8]) -> Result<String, TrustError> {
    let role: Signed<TimestampRole> = parse(TIMESTAMP_FILE, timestamp)?;
    match role.signed.meta.get("snapshot.json") {
        Some(meta) => Ok(format!("{}.snapshot.json", meta.version)),
        None => Err(TrustError::Metadata {
            file: TIMESTAMP_FILE.to_owned(),
            reason: "it names no snapshot.json".to_owned(),
        }),
    }
}

/// The name of the targets file that a snapshot file speaks of. Nothing is verified by this.
///
/// # Errors
/// When it is no snapshot file, or speaks of none.
pub fn targets_file(name: &str, snapshot: &[u8]) -> Result<String, TrustError> {
    let role: Signed<SnapshotRole> = parse(name, snapshot)?;
    match role.signed.meta.get("targets.json") {
        Some(meta) => Ok(format!("{}.targets.json", meta.version)),
        None => Err(TrustError::Metadata { file: name.to_owned(), reason: "it names no targets.json".to_owned() }),
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

    let version = targets.signed.version.get();
    let refuse = |file: &str, reason: String| Err(TrustError::Metadata { file: file.to_owned(), reason });
    if version > MAX_VERSION {
        return refuse(&targets_name, format!("its version {version} is higher than {MAX_VERSION}"));
    }
    if timestamp.signed.version.get() != version || snapshot.signed.version.get() != version {
        return refuse(&targets_name, "timestamp, snapshot and targets are not of one version".to_owned());
    }
    if targets.signed.delegations.is_some() {
        return refuse(&targets_name, "it delegates to other keys, which a bundle never does".to_owned());
    }
    // Whether there is one was found out above; which version it is was compared.
    let alone = |meta: &HashMap<String, Metafile>| {
        meta.len() == 1 && meta.values().all(|m| m.length.is_none() && m.hashes.is_none() && m._extra.is_empty())
    };
    for (name, meta) in [(TIMESTAMP_FILE, &timestamp.signed.meta), (snapshot_name.as_str(), &snapshot.signed.meta)] {
        if !alone(meta) {
            return refuse(name, "it says more than the version of one file".to_owned());
        }
    }
    for (role, spec_version, expires) in [
        ("root", &root.signed.spec_version, root.signed.expires),
        ("timestamp", &timestamp.signed.spec_version, timestamp.signed.expires),
        ("snapshot", &snapshot.signed.spec_version, snapshot.signed.expires),
        ("targets", &targets.signed.spec_version, targets.signed.expires),
    ] {
        if spec_version != SPEC_VERSION {
            return refuse(role, format!("it must follow TUF {SPEC_VERSION}"));
        }
        // Its life ends with that very second (TUF 5.3.10: the time of expiry must be higher).
        if now >= expires {
            return Err(TrustError::Expired { role, expires, now });
        }
    }
    Ok(Examined {
        lineage: Digest::of(roots[0]),
        root_digests: roots.iter().map(Digest::of).collect(),
        root: root.signed,
        timestamp,
        snapshot: (snapshot_name, snapshot),
        targets: (targets_name, targets),
    })
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
    load_with_tough(&files, pinned, limits).await?;
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

/// The TUF client workflow as `tough` does it, over the files in memory. It keeps its datastore in a temporary folder of
/// a few KiB, because it has no way to go without: what it writes there on the way is neither atomic nor tied to the
/// content that was really loaded, so versions are remembered by [`super::remembered`] instead.
async fn load_with_tough(files: &MetadataFiles, pinned: &TrustRoot, limits: &Limits) -> Result<(), TrustError> {
    let base: Url = "bundle:///metadata/".parse().expect("a constant URL");
    let loaded = RepositoryLoader::new(&pinned.bytes(), base.clone(), base)
        .transport(InMemory(files.clone()))
        .expiration_enforcement(ExpirationEnforcement::Safe)
        .limits(tough::Limits {
            max_root_size: SMALL_METADATA_BYTES,
            max_targets_size: limits.metadata_bytes,
            max_timestamp_size: SMALL_METADATA_BYTES,
            max_snapshot_size: SMALL_METADATA_BYTES,
            max_root_updates: limits.root_rotations,
        })
        .load()
        .await;
    use tough::error::Error;
    match loaded {
        Ok(_) => Ok(()),
        Err(
            error @ (Error::DatastoreInit { .. }
            | Error::DatastoreCreate { .. }
            | Error::DatastoreOpen { .. }
            | Error::DatastoreRemove { .. }),
        ) => Err(TrustError::Scratch(Box::new(error))),
        Err(error) => Err(TrustError::Tuf(Box::new(error))),
    }
}

/// Serves the metadata files to `tough`.
#[derive(Clone, Debug)]
struct InMemory(MetadataFiles);

#[async_trait::async_trait]
impl Transport for InMemory {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.path().strip_prefix("/metadata/").unwrap_or_default();
        match self.0.get(name) {
            Some(bytes) => {
                let bytes = bytes::Bytes::copy_from_slice(bytes);
                Ok(Box::pin(futures::stream::once(std::future::ready(Ok(bytes)))))
            }
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
        }
    }
}

/// Signs a role with these keys, which must be those of the role; the signatures are in the order of the key ids.
///
/// # Errors
/// When the role has no canonical form.
pub fn sign<T: Role + Serialize>(role: T, keys: &[&super::key::RoleKey]) -> Result<Signed<T>, TrustError> {
    let message =
        role.canonical_form().map_err(|e| TrustError::Metadata { file: T::TYPE.to_string(), reason: e.to_string() })?;
    let mut signatures: Vec<Signature> =
        keys.iter().map(|key| Signature { keyid: key.id().clone(), sig: key.sign(&message).into() }).collect();
    signatures.sort_by(|a, b| a.keyid[..].cmp(&b.keyid[..]));
    signatures.dedup_by(|a, b| a.keyid == b.keyid);
    Ok(Signed { signed: role, signatures })
}

/// Adds a signature by this key in its place; one by the same key that is there stays. Says whether it was added.
pub(super) fn insert_signature<T>(role: &mut Signed<T>, keyid: &Decoded<Hex>, signature: Vec<u8>) -> bool {
    match role.signatures.binary_search_by(|s| s.keyid[..].cmp(&keyid[..])) {
        Ok(_) => false,
        Err(at) => {
            role.signatures.insert(at, Signature { keyid: keyid.clone(), sig: signature.into() });
            true
        }
    }
}

/// The exact bytes that signatures of a role are made over: the canonical JSON (OLPC) of `signed`.
///
/// # Errors
/// When it has no such form.
pub(super) fn payload<T: Role + Serialize>(role: &Signed<T>) -> Result<Vec<u8>, TrustError> {
    role.signed.canonical_form().map_err(|e| TrustError::Metadata { file: T::TYPE.to_string(), reason: e.to_string() })
}

#[cfg(test)]
mod tests;
