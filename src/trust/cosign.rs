//! Metadata that is signed by some and waits for others: what a second person looks at and signs.

use jiff::Timestamp;
use serde::Serialize;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{Role, RoleType, Root, Signed, Snapshot as SnapshotRole, Targets, Timestamp as TimestampRole};

use super::error::TrustError;
use super::key::hex;
use super::metadata::{self, Examined, MetadataFiles, Signatures, TIMESTAMP_FILE};
use super::root::{TrustRoot, role_name};
use super::rotate::find_key;
use super::signer::Signer;
use crate::base::digest::Digest;
use crate::base::limits::Limits;

/// The roles that a bundle's own metadata has, those first that people sign.
pub const BUNDLE_ROLES: [RoleType; 3] = [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// Metadata of a bundle that fits together and is not out of date, and whose signatures are valid, but may be too few. It
/// proves nothing, and nothing of it may be used but to sign it: [`metadata::verify`] gives the proof.
#[derive(Clone)]
pub struct PartlySigned {
    files: MetadataFiles,
    root: Root,
    fingerprint: Digest,
    timestamp: Signed<TimestampRole>,
    snapshot: (String, Signed<SnapshotRole>),
    targets: (String, Signed<Targets>),
}

/// How far a role is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub role: RoleType,
    /// How many signatures there are.
    pub found: u64,
    /// How many the root asks for.
    pub threshold: u64,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} signatures on {}", self.found, self.threshold, role_name(self.role))
    }
}

/// A signature that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// For which role.
    pub role: RoleType,
    /// By which key.
    pub key: String,
}

impl PartlySigned {
    /// Looks at the metadata of a bundle as a reader does, but for how many signatures there are.
    ///
    /// # Errors
    /// As [`metadata::verify`], but for missing signatures.
    pub fn examine(
        files: MetadataFiles,
        pinned: &TrustRoot,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, TrustError> {
        let Examined { root, timestamp, snapshot, targets, .. } =
            metadata::examine(&files, pinned, limits, now, Signatures::Begun)?;
        Ok(Self { files, root, fingerprint: pinned.fingerprint(), timestamp, snapshot, targets })
    }

    /// The list of targets.
    pub fn targets(&self) -> &Targets {
        &self.targets.1.signed
    }

    /// The root that decides who may sign.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The fingerprint of the pinned root.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The exact bytes that are to be signed for a role of [`BUNDLE_ROLES`].
    ///
    /// # Errors
    /// When there is no such role in a bundle.
    pub fn payload(&self, role: RoleType) -> Result<Vec<u8>, TrustError> {
        match role {
            RoleType::Targets => metadata::payload(&self.targets.1),
            RoleType::Snapshot => metadata::payload(&self.snapshot.1),
            RoleType::Timestamp => metadata::payload(&self.timestamp),
            RoleType::Root | RoleType::DelegatedTargets => Err(TrustError::RootPlan(format!(
                "the metadata of a bundle is targets, snapshot and timestamp, and not {}",
                role_name(role)
            ))),
        }
    }

    /// Signs with all keys of the signer that did not sign yet.
    ///
    /// # Errors
    /// When a signature can't be made.
    pub fn sign(&mut self, signer: &Signer) -> Result<Vec<Added>, TrustError> {
        let mut added = Vec::new();
        for role in BUNDLE_ROLES {
            let message = self.payload(role)?;
            for key in signer.keys(role) {
                if self.insert(role, key.id(), key.sign(&message))? {
                    added.push(Added { role, key: key.id_hex() });
                }
            }
        }
        Ok(added)
    }

    /// Adds a signature that was made elsewhere by the key with this id, or at least eight digits of it, to each role that
    /// the key may sign and whose bytes it fits.
    ///
    /// # Errors
    /// When the root does not name the key for any role of a bundle, or the signature fits none of them.
    pub fn add(&mut self, key: &str, signature: &[u8]) -> Result<Vec<Added>, TrustError> {
        let id = find_key(&self.root, key)?;
        let mut refused = None;
        let mut fits = false;
        let mut added = Vec::new();
        for role in BUNDLE_ROLES {
            if !self.root.roles.get(&role).is_some_and(|keys| keys.keyids.contains(&id)) {
                continue;
            }
            let mut with = self.clone();
            match with.insert(role, &id, signature.to_vec()) {
                Ok(true) => {
                    *self = with;
                    fits = true;
                    added.push(Added { role, key: hex(&id) });
                }
                Ok(false) => fits = true,
                Err(error) => refused = Some(error),
            }
        }
        match (fits, refused) {
            (true, _) => Ok(added),
            (false, Some(error)) => Err(error),
            (false, None) => Err(TrustError::UnknownKey { file: "the bundle's metadata".to_owned(), keyid: hex(&id) }),
        }
    }

    /// Adds a signature, unless the key has signed already. Says whether it did.
    fn insert(&mut self, role: RoleType, id: &Decoded<Hex>, signature: Vec<u8>) -> Result<bool, TrustError> {
        fn put<T: Role + Serialize + Clone>(
            (file, signed): (&str, &mut Signed<T>),
            root: &Root,
            id: &Decoded<Hex>,
            signature: Vec<u8>,
        ) -> Result<Option<Vec<u8>>, TrustError> {
            if !metadata::insert_signature(signed, id, signature) {
                return Ok(None);
            }
            metadata::check_signatures(file, signed, &[root])?;
            Ok(Some(metadata::to_bytes(signed)))
        }
        let (file, bytes) = match role {
            RoleType::Targets => {
                (self.targets.0.clone(), put((&self.targets.0, &mut self.targets.1), &self.root, id, signature)?)
            }
            RoleType::Snapshot => {
                (self.snapshot.0.clone(), put((&self.snapshot.0, &mut self.snapshot.1), &self.root, id, signature)?)
            }
            RoleType::Timestamp => {
                (TIMESTAMP_FILE.to_owned(), put((TIMESTAMP_FILE, &mut self.timestamp), &self.root, id, signature)?)
            }
            RoleType::Root | RoleType::DelegatedTargets => return Ok(false),
        };
        let Some(bytes) = bytes else { return Ok(false) };
        self.files.insert(file, bytes);
        Ok(true)
    }

    /// How far each role is signed.
    pub fn progress(&self) -> [Progress; 3] {
        BUNDLE_ROLES.map(|role| {
            let found = match role {
                RoleType::Targets => self.targets.1.signatures.len(),
                RoleType::Snapshot => self.snapshot.1.signatures.len(),
                _ => self.timestamp.signatures.len(),
            };
            let threshold = self.root.roles.get(&role).map_or(1, |keys| keys.threshold.get());
            Progress { role, found: found as u64, threshold }
        })
    }

    /// The files as they are now, with their names, in the order of the archive.
    pub fn files_in_order(&self) -> Vec<(String, Vec<u8>)> {
        let roots = (1..).map(metadata::root_file).take_while(|name| self.files.contains_key(name));
        let names = roots.chain([TIMESTAMP_FILE.to_owned(), self.snapshot.0.clone(), self.targets.0.clone()]);
        names.map(|name| (name.clone(), self.files[&name].clone())).collect()
    }

    /// The files as they are now.
    pub fn files(&self) -> &MetadataFiles {
        &self.files
    }
}
