//! Building a bundle: the definition's items from registries and folders, pinned, signed and written.

use std::path::PathBuf;
use std::sync::Arc;

use tough::schema::RoleType;

use super::lock::{gather_from, lock_path, outdated};
use super::signing::Keyring;
use super::upstream::AskRegistries;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::bundle::cache::Cache;
use crate::bundle::definition::Definition;
use crate::bundle::delta::{DeltaBase, LeftOut, Wanted as BaseWanted};
use crate::bundle::lock::BundleLock;
use crate::bundle::writer::{self, BuildError, Cut, Signing, Writing, Written};
use crate::trust::cosign;
use crate::trust::passphrase::PassphraseSource;
use crate::trust::root::TrustRoot;
use crate::trust::signer::{Signer, Wanted};

/// What is to be built.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// `bundle.yaml`
    pub definition: PathBuf,
    /// Where the bundle is written.
    pub output: PathBuf,
    /// The folder that `gapscan trust init` made, or its folder of keys.
    pub keys: PathBuf,
    /// The root; `root.json` in the folder of `keys` where it is not named. The chain of roots lies beside it.
    pub root: Option<PathBuf>,
    /// Where the passphrase of the keys comes from.
    pub passphrase: PassphraseSource,
    /// Which signatures it must have.
    pub signatures: Wanted,
    /// The binary that becomes gapscan's own image.
    pub agent: PathBuf,
    /// Whether it is cut into parts.
    pub cut: Cut,
    /// What it is a delta against; the whole bundle is built without one.
    pub base: Option<BaseRequest>,
    /// The folder that remembers where downloaded content lies; without one everything is downloaded.
    pub cache: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
}

/// The bundle that a registry has already.
#[derive(Clone, Debug)]
pub struct BaseRequest {
    /// The receipt of its load.
    pub receipt: PathBuf,
    /// The public key of the runner that loaded it, in PEM.
    pub key: PathBuf,
}

/// A bundle that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The archive.
    pub written: Written,
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: u64,
    /// The fingerprint of the root that enclaves must have pinned.
    pub root: Digest,
    /// How many items it has besides the catalog.
    pub items: usize,
    /// The content digest: the same from the same lock under the same root, whoever signs.
    pub content: Digest,
    /// How far targets is signed.
    pub signed: cosign::Progress,
    /// What a delta leaves out.
    pub left_out: Option<LeftOut>,
}

/// Builds the bundle that `bundle.lock` pins.
///
/// # Errors
/// When something is not what was locked, keys are missing, or the bundle can't be written; then there is no bundle.
pub async fn build(request: &BuildRequest, progress: &Progress) -> Result<Built, BuildError> {
    let limits = &request.limits;
    let definition = Definition::read(&request.definition, limits)?;
    let path = lock_path(&request.definition);
    if !path.exists() {
        let reason = format!("read `{}`: there is none; run `gapscan bundle lock` first", path.display());
        return Err(BuildError::Definition(reason));
    }
    let lock = BundleLock::read(&path, limits)?;
    // Told before the long work, and before a registry is asked for what is no longer wanted.
    if lock.definition != definition.digest {
        return Err(outdated(&path, &["bundle.yaml was changed after it was locked".to_owned()]));
    }
    // Keys first: a passphrase is asked for before the long work, and nothing is collected in vain.
    let Keyring { keys, chain, newest } = Keyring::find(&request.keys, request.root.as_deref(), limits)?;
    let signer = Signer::open_wanting(&keys, newest.root(), &request.passphrase, request.signatures)?;
    let base = match &request.base {
        Some(base) => {
            let roots = chain.iter().map(|root| Ok(TrustRoot::from_bytes(root.clone())?.fingerprint()));
            let roots: Vec<Digest> = roots.collect::<Result<_, BuildError>>()?;
            let wanted = BaseWanted { name: &lock.name, version: lock.version, roots: &roots };
            Some(DeltaBase::read(&base.receipt, &base.key, wanted)?)
        }
        None => None,
    };
    let cache = request.cache.as_deref().map(|folder| Arc::new(Cache::open(folder)));

    let references = AskRegistries::new(&definition, limits).reusing(cache.clone());
    let collected =
        gather_from(&references, &definition, lock.created, Some(&lock), &request.agent, limits, progress).await?;
    let differences = lock.differences(collected.lock());
    if !differences.is_empty() {
        return Err(outdated(&path, &differences));
    }
    let assembled = collected.assemble(limits).await?;
    let until = newest.policy()?.until(RoleType::Targets, lock.created, definition.document.valid_for)?;
    let content = assembled.contents().digest(until).map_err(BuildError::from)?;
    let (assembled, left_out) = match &base {
        Some(base) => {
            let (assembled, left_out) = assembled.against(base);
            (assembled, Some(left_out))
        }
        None => (assembled, None),
    };
    let signing = Signing { signer: &signer, root: &newest, chain, valid_for: definition.document.valid_for };
    let total = assembled.contents().entries().map(|entry| entry.size).sum();
    let step = progress.bytes(format!("write {}", request.output.display()), total);
    let writing = Writing { path: &request.output, cut: request.cut, cache: cache.as_ref(), step: &step };
    let written = writer::write(&assembled, &signing, &writing).await?;
    step.done(bytes_for_people(written.bytes));
    let (found, threshold) = signer.count(RoleType::Targets);
    Ok(Built {
        written,
        name: lock.name,
        version: lock.version,
        root: newest.fingerprint(),
        items: lock.items.len(),
        content,
        signed: cosign::Progress { role: RoleType::Targets, found, threshold },
        left_out,
    })
}
