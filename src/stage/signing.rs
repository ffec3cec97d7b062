//! Who signs: the folder of keys with the roots beside it; and adding signatures to a bundle that was built elsewhere.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tough::schema::RoleType;

use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::bundle::BundleError;
use crate::bundle::resign::{Resigned, Unfinished};
use crate::bundle::sums::{self, Sum};
use crate::bundle::writer::BuildError;
use crate::model::provenance::BundleRef;
use crate::trust::cosign::{self, Added};
use crate::trust::metadata;
use crate::trust::passphrase::PassphraseSource;
use crate::trust::root::{self, KEYS_FOLDER, TrustRoot};
use crate::trust::signer::{Signer, Wanted};

/// Bytes of a signature file: one of ECDSA P-256 in DER has at most 72.
const SIGNATURE_BYTES: u64 = 1024;
/// What is read from a bundle's file at once.
const READ_BYTES: usize = 1 << 20;

/// The keys of this machine and the roots that they belong to.
#[derive(Debug)]
pub struct Keyring {
    /// The folder with the key files.
    pub keys: PathBuf,
    /// The chain of roots, from the first.
    pub chain: Vec<Vec<u8>>,
    /// The last of it.
    pub newest: TrustRoot,
}

impl Keyring {
    /// Finds the keys in the folder that `gapscan trust init` made, or in its folder of keys, and the root: `root`, or
    /// `root.json` in the former. The chain lies beside the root.
    ///
    /// # Errors
    /// When there is no such folder, or the roots are no chain.
    pub fn find(keys: &Path, root: Option<&Path>, limits: &Limits) -> Result<Self, BuildError> {
        if !keys.is_dir() {
            let reason = format!("find keys in `{}`: there is no such folder", keys.display());
            return Err(BuildError::Definition(format!(
                "{reason}; name the one that `gapscan trust init` made with --keys"
            )));
        }
        let named = keys;
        let keys = [named.join(KEYS_FOLDER), named.to_owned()].into_iter().find(|p| p.is_dir());
        let keys = keys.unwrap_or_else(|| named.to_owned());
        let root_path = root.map(Path::to_owned).unwrap_or_else(|| {
            let beside = named.join("root.json");
            if beside.is_file() { beside } else { keys.parent().unwrap_or(Path::new(".")).join("root.json") }
        });
        let pinned = TrustRoot::read(&root_path)?;
        let folder = root_path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let chain = root::read_chain(folder, &pinned, limits.root_rotations)?;
        let newest = TrustRoot::from_bytes(chain.last().cloned().unwrap_or_default())?;
        Ok(Self { keys, chain, newest })
    }
}

/// What is to be signed, and by whom.
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// The bundle.
    pub file: PathBuf,
    /// Where it is written with the added signatures; `file` without it.
    pub output: Option<PathBuf>,
    /// The folder that `gapscan trust init` made, or its folder of keys. Not needed for signatures that were made elsewhere.
    pub keys: Option<PathBuf>,
    /// The root that the bundle must be under; `root.json` in the folder of `keys` where it is not named.
    pub root: Option<PathBuf>,
    /// Where the passphrase of the keys comes from.
    pub passphrase: PassphraseSource,
    /// The content that it must have: what a second builder made from the same lock.
    pub content: Option<Digest>,
    /// Signatures that were made elsewhere: the key, and the file with the signature in DER.
    pub signatures: Vec<(String, PathBuf)>,
    /// Bounds.
    pub limits: Limits,
}

/// A bundle that was signed by one more.
#[derive(Clone, Debug)]
pub struct SignedBundle {
    /// Which.
    pub bundle: BundleRef,
    /// The signatures that were added.
    pub added: Vec<Added>,
    /// How far each role is signed now.
    pub progress: [cosign::Progress; 3],
    /// What was written; nothing when there was nothing to add and no other place to write to.
    pub written: Option<(PathBuf, Resigned)>,
}

impl SignedBundle {
    /// Whether an enclave takes it.
    pub fn is_complete(&self) -> bool {
        self.progress.iter().all(|role| role.found >= role.threshold)
    }
}

/// Verifies a whole bundle but for missing signatures and adds those that this machine has keys for, and those that were
/// made elsewhere.
///
/// # Errors
/// When anything of it is not as it is signed, its content is another than asked for, a key can't be opened, or it can't
/// be written; then the file that was there is still there.
pub async fn sign(request: &SignRequest, progress: &Progress, now: Timestamp) -> Result<SignedBundle, BuildError> {
    let (mut unfinished, keyring) = open(request, now).await?;
    let mut added = Vec::new();
    for (key, path) in &request.signatures {
        let signature = file::read_capped(path, SIGNATURE_BYTES)?;
        added.extend(unfinished.metadata().add(key, &signature)?);
    }
    let signer = match &keyring {
        Some(keyring) => {
            let root = unfinished.metadata().root().clone();
            let signer = Signer::open_wanting(&keyring.keys, &root, &request.passphrase, Wanted::Add)?;
            added.extend(unfinished.metadata().sign(&signer)?);
            Some(signer)
        }
        None => None,
    };
    let bundle = unfinished.bundle().clone();
    let signed = unfinished.metadata().clone();
    if signed.progress().iter().all(|role| role.found >= role.threshold) {
        // What is handed out as complete is what an enclave's own verification takes.
        let pinned = root_of(request, keyring.as_ref())?;
        metadata::verify(signed.files().clone(), &pinned, &request.limits, now).await?;
    }
    let path = request.output.as_ref().unwrap_or(&request.file);
    let step = progress.bytes(format!("sign {}", request.file.display()), unfinished.blob_bytes());
    let written = if added.is_empty() && request.output.is_none() {
        unfinished.verify(&step).await?;
        step.done("signed already by all that are here");
        None
    } else {
        let resigned = unfinished.write(path, &step).await?;
        step.done(bytes_for_people(resigned.bytes));
        sums::write(path, &[Sum { path: path.clone(), digest: resigned.digest }], signer.as_ref())?;
        Some((path.clone(), resigned))
    };
    Ok(SignedBundle { bundle, added, progress: signed.progress(), written })
}

/// Verifies a whole bundle but for missing signatures and gives the bytes that keys of a role sign.
///
/// # Errors
/// When anything of it is not as it is signed, or its content is another than asked for.
pub async fn payload(
    request: &SignRequest,
    role: RoleType,
    progress: &Progress,
    now: Timestamp,
) -> Result<Vec<u8>, BuildError> {
    let (unfinished, _) = open(request, now).await?;
    let step = progress.bytes(format!("verify {}", request.file.display()), unfinished.blob_bytes());
    let metadata = unfinished.verify(&step).await?;
    step.done("as it is signed");
    Ok(metadata.payload(role)?)
}

async fn open(
    request: &SignRequest,
    now: Timestamp,
) -> Result<(Unfinished<tokio::fs::File>, Option<Keyring>), BuildError> {
    let keyring = match &request.keys {
        Some(keys) => Some(Keyring::find(keys, request.root.as_deref(), &request.limits)?),
        None => None,
    };
    let root = root_of(request, keyring.as_ref())?;
    let failed = |source| FileError::Read { path: request.file.clone(), source };
    let mut file = tokio::fs::File::open(&request.file).await.map_err(failed)?;
    if file.metadata().await.map_err(failed)?.is_dir() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::IsADirectory)).into());
    }
    file.set_max_buf_size(READ_BYTES);
    let unfinished = Unfinished::open(file, &root, &request.limits, now).await?;
    if let Some(wanted) = request.content
        && wanted != unfinished.bundle().digest
    {
        return Err(BundleError::OtherContent { wanted, found: unfinished.bundle().digest }.into());
    }
    Ok((unfinished, keyring))
}

fn root_of(request: &SignRequest, keyring: Option<&Keyring>) -> Result<TrustRoot, BuildError> {
    match (&request.root, keyring) {
        (Some(path), _) => Ok(TrustRoot::read(path)?),
        (None, Some(keyring)) => Ok(keyring.newest.clone()),
        (None, None) => {
            Err(BuildError::Definition("sign a bundle: name the root with --root, or the keys with --keys".to_owned()))
        }
    }
}
