//! Who signs: the folder of keys with the roots beside it; and adding signatures to a bundle that was built elsewhere.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::{AsyncRead, BufReader};
use tough::schema::RoleType;

use crate::base::digest::Digest;
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::{ByteCount, bytes_for_people};
use crate::bundle::BundleError;
use crate::bundle::media::Media;
use crate::bundle::parts::{PartName, Parts};
use crate::bundle::read_at::FromStart;
use crate::bundle::resign::{Resigned, Unfinished};
use crate::bundle::split::PartSize;
use crate::bundle::sums::{self, Sum, SumsFiles};
use crate::bundle::writer::{BuildError, Cut};
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
    pub bundle: Unsigned,
    /// Where it is written with the added signatures; in place of the bundle's file without it, which must be one file then.
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

/// What a bundle that lacks signatures is.
#[derive(Clone, Debug)]
pub enum Unsigned {
    /// One file.
    File(PathBuf),
    /// Parts.
    Parts(Media),
}

impl Unsigned {
    /// The name of its file, or the one that the parts would have as one file.
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Parts(media) => media.name().to_owned(),
        }
    }
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
    /// What was written, and the sums beside it; nothing when there was nothing to add and no other place to write to.
    pub written: Option<(Resigned, SumsFiles)>,
}

impl SignedBundle {
    /// Whether an enclave takes it.
    pub fn is_complete(&self) -> bool {
        self.progress.iter().all(|role| role.found >= role.threshold)
    }

    /// Whether more people signed the list of contents than the sums. A signature makes the archive another file, so that
    /// what others signed over its sums before does not hold.
    pub fn sums_lack_signatures(&self) -> bool {
        let targets = self.progress.iter().find(|role| role.role == RoleType::Targets);
        let signed = targets.map_or(0, |role| role.found);
        self.written.as_ref().is_some_and(|(_, sums)| (sums.signatures.len() as u64) < signed)
    }
}

/// Verifies a whole bundle but for missing signatures and adds those that this machine has keys for, and those that were
/// made elsewhere.
///
/// # Errors
/// When anything of it is not as it is signed, its content is another than asked for, a key can't be opened, or it can't
/// be written; then the file that was there is still there.
pub async fn sign(request: &SignRequest, progress: &Progress, now: Timestamp) -> Result<SignedBundle, BuildError> {
    let Open { mut unfinished, keyring, parts } = open(request, now).await?;
    let path = output(request)?;
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
    let step = progress.bytes(format!("sign {}", request.bundle.name()), unfinished.blob_bytes());
    let told = |error| in_parts(error, parts.as_deref());
    let written = if added.is_empty() && request.output.is_none() {
        unfinished.verify(&step).await.map_err(told)?;
        step.done("signed already by all that are here");
        None
    } else {
        let cut = match &parts {
            None => Cut::Whole,
            Some(parts) => Cut::Parts(part_size(parts, unfinished.archive_bytes())?),
        };
        let resigned = unfinished.write(path, cut, &step).await.map_err(told)?;
        step.done(bytes_for_people(resigned.bytes));
        let mut lines = vec![Sum { path: path.to_owned(), digest: resigned.digest }];
        if cut != Cut::Whole {
            lines.extend(resigned.files.iter().cloned());
        }
        let sums = sums::write(path, &lines, signer.as_ref())?;
        Some((resigned, sums))
    };
    Ok(SignedBundle { bundle, added, progress: signed.progress(), written })
}

/// Where the bundle is written. Parts are not replaced: a signature may move every byte behind it into another part, and a
/// process that is killed between two of them would leave neither the old bundle nor the new one.
fn output(request: &SignRequest) -> Result<&Path, BuildError> {
    let refuse = |reason: String| Err(BuildError::Definition(reason));
    match (&request.bundle, &request.output) {
        (Unsigned::File(path), None) => Ok(path),
        (Unsigned::File(_), Some(output)) => Ok(output),
        (Unsigned::Parts(media), None) => refuse(format!(
            "sign the parts of `{}`: with one more signature all of them may change, so that they are not replaced; name with -o where the new ones are written",
            media.name()
        )),
        (Unsigned::Parts(_), Some(output)) => match part_beside(output)? {
            None => Ok(output),
            Some(part) => refuse(format!(
                "write the parts of `{}`: `{}` is there already; name another place with -o, or take all of its parts away",
                output.display(),
                part.display()
            )),
        },
    }
}

/// A file that looks like a part of this archive.
fn part_beside(archive: &Path) -> Result<Option<PathBuf>, FileError> {
    let folder = archive.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| FileError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let of = PartName::of(&path).map(|name| name.whole);
        if of.is_some() && of.as_deref() == archive.file_name().and_then(OsStr::to_str) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The length of the new parts: that of the old ones. Of one part alone it is not known, and the new one is one, too.
fn part_size(parts: &Parts, bytes: u64) -> Result<PartSize, BuildError> {
    let size = if parts.count() == 1 { bytes } else { parts.part_bytes() };
    PartSize::at_most(ByteCount::of(size)).map_err(|error| BuildError::Definition(error.to_string()))
}

/// The error with the parts that it lies in.
fn in_parts(error: BuildError, parts: Option<&Parts>) -> BuildError {
    match (error, parts) {
        (BuildError::Bundle(error), Some(parts)) => parts.in_parts(vec![error]).into(),
        (error, _) => error,
    }
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
    let Open { unfinished, parts, .. } = open(request, now).await?;
    let step = progress.bytes(format!("verify {}", request.bundle.name()), unfinished.blob_bytes());
    let metadata = unfinished.verify(&step).await.map_err(|error| in_parts(error, parts.as_deref()))?;
    step.done("as it is signed");
    Ok(metadata.payload(role)?)
}

/// A bundle that was begun, with what signs it and what it comes in.
struct Open {
    unfinished: Unfinished<Box<dyn AsyncRead + Send + Unpin>>,
    keyring: Option<Keyring>,
    parts: Option<Arc<Parts>>,
}

async fn open(request: &SignRequest, now: Timestamp) -> Result<Open, BuildError> {
    let keyring = match &request.keys {
        Some(keys) => Some(Keyring::find(keys, request.root.as_deref(), &request.limits)?),
        None => None,
    };
    let root = root_of(request, keyring.as_ref())?;
    let (input, parts): (Box<dyn AsyncRead + Send + Unpin>, _) = match &request.bundle {
        Unsigned::File(path) => {
            let failed = |source| FileError::Read { path: path.clone(), source };
            let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
            if file.metadata().await.map_err(failed)?.is_dir() {
                return Err(failed(std::io::Error::from(std::io::ErrorKind::IsADirectory)).into());
            }
            file.set_max_buf_size(READ_BYTES);
            (Box::new(file), None)
        }
        Unsigned::Parts(media) => {
            let set = media.found().map_err(BundleError::from)?;
            let begun = Unfinished::open(set.beginning(), &root, &request.limits, now).await;
            let parts = match begun.map(|unfinished| unfinished.archive_bytes()) {
                Ok(bytes) => set.whole(bytes).map_err(BundleError::from)?,
                Err(error) => return Err(set.in_beginning(error).into()),
            };
            (Box::new(BufReader::with_capacity(READ_BYTES, FromStart::new(parts.clone()))), Some(parts))
        }
    };
    let unfinished = Unfinished::open(input, &root, &request.limits, now).await;
    let unfinished = unfinished.map_err(|error| in_parts(error.into(), parts.as_deref()))?;
    if let Some(wanted) = request.content
        && wanted != unfinished.bundle().digest
    {
        return Err(BundleError::OtherContent { wanted, found: unfinished.bundle().digest }.into());
    }
    Ok(Open { unfinished, keyring, parts })
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
