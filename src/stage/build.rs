//! Building a bundle: the definition's items from registries and folders, pinned, signed and written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::plan::RegistryAccess;
use super::registries::Registries;
use crate::base::digest::Digest;
use crate::base::exit::ExitClass;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::bundle::collect::{Collected, Helpers, References, Resolved, collect};
use crate::bundle::definition::Definition;
use crate::bundle::lock::BundleLock;
use crate::bundle::oci::Descriptor;
use crate::bundle::profile::ProfileResolver;
use crate::bundle::source::{BlobStream, Source, SourceError};
use crate::bundle::writer::{self, BuildError, Signing, Written};
use crate::model::profile::Profile;
use crate::model::scanner::ProfileDocument;
use crate::registry::{Client, ManifestName, Reference, Repository};
use crate::results::xccdf::benchmark::selected_controls;
use crate::trust::passphrase::PassphraseSource;
use crate::trust::root::{self, KEYS_FOLDER, TrustRoot};
use crate::trust::signer::Signer;

/// The file beside `bundle.yaml` that pins it.
pub const LOCK_FILE: &str = "bundle.lock";

/// What is to be locked.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// `bundle.yaml`
    pub definition: PathBuf,
    /// The time that the bundle counts as created.
    pub created: Timestamp,
    /// The binary that becomes gapscan's own image.
    pub agent: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

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
    /// The binary that becomes gapscan's own image.
    pub agent: PathBuf,
    /// Bounds.
    pub limits: Limits,
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
}

/// Pins everything that a definition asks for and writes `bundle.lock` beside it. Gives its path and content.
///
/// # Errors
/// When something can't be had, or can't be in a bundle.
pub async fn lock(request: &LockRequest, progress: &Progress) -> Result<(PathBuf, BundleLock), BuildError> {
    let definition = Definition::read(&request.definition, &request.limits)?;
    let collected = gather(&definition, request.created, None, &request.agent, &request.limits, progress).await?;
    // A definition that can be locked can be built: the parts are put together here already.
    collected.assemble(&request.limits).await?;
    let path = lock_path(&request.definition);
    collected.lock().write(&path)?;
    Ok((path, collected.lock().clone()))
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
    if !request.keys.is_dir() {
        let reason = format!("find keys in `{}`: there is no such folder", request.keys.display());
        return Err(BuildError::Definition(format!(
            "{reason}; name the one that `gapscan trust init` made with --keys"
        )));
    }
    let keys = [request.keys.join(KEYS_FOLDER), request.keys.clone()].into_iter().find(|p| p.is_dir());
    let keys = keys.unwrap_or_else(|| request.keys.clone());
    let root_path = request.root.clone().unwrap_or_else(|| {
        let beside = request.keys.join("root.json");
        if beside.is_file() { beside } else { keys.parent().unwrap_or(Path::new(".")).join("root.json") }
    });
    let pinned = TrustRoot::read(&root_path)?;
    let folder = root_path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let chain = root::read_chain(folder, &pinned, limits.root_rotations)?;
    let newest = TrustRoot::from_bytes(chain.last().cloned().unwrap_or_default())?;
    let signer = Signer::open(&keys, newest.root(), &request.passphrase)?;

    let collected = gather(&definition, lock.created, Some(&lock), &request.agent, limits, progress).await?;
    let differences = lock.differences(collected.lock());
    if !differences.is_empty() {
        return Err(outdated(&path, &differences));
    }
    let assembled = collected.assemble(limits).await?;
    let signing = Signing { signer: &signer, root: &newest, chain, valid_for: definition.document.valid_for };
    let total = assembled.contents().entries().map(|entry| entry.size).sum();
    let step = progress.bytes(format!("write {}", request.output.display()), total);
    let written = writer::write_file(&assembled, &signing, &request.output, &step).await?;
    step.done(bytes_for_people(written.bytes));
    Ok(Built { written, name: lock.name, version: lock.version, root: newest.fingerprint(), items: lock.items.len() })
}

fn outdated(lock: &Path, differences: &[String]) -> BuildError {
    let lines = differences.join("\n  ");
    BuildError::Definition(format!(
        "build what `{}` pins:\n  {lines}\n  if this is wanted, run `gapscan bundle lock` again",
        lock.display()
    ))
}

fn lock_path(definition: &Path) -> PathBuf {
    definition.with_file_name(LOCK_FILE)
}

async fn gather(
    definition: &Definition,
    created: Timestamp,
    lock: Option<&BundleLock>,
    agent: &Path,
    limits: &Limits,
    progress: &Progress,
) -> Result<Collected, BuildError> {
    let references = AskRegistries::new(definition, limits);
    let helpers = Helpers { agent, references: &references, profiles: &Profiles, limits, progress };
    collect(definition, created, lock, &helpers).await
}

/// Resolves references with the access that a definition gives.
struct AskRegistries {
    registries: Registries,
}

impl AskRegistries {
    fn new(definition: &Definition, limits: &Limits) -> Self {
        let access: BTreeMap<String, RegistryAccess> = definition
            .document
            .registries
            .iter()
            .map(|(host, access)| {
                let access = RegistryAccess {
                    ca_file: access.ca_file.as_ref().map(|path| definition.path(path)),
                    username: access.username.clone(),
                    password_file: access.password_file.as_ref().map(|path| definition.path(path)),
                    token_hosts: access.token_hosts.clone(),
                    plain_http: access.plain_http,
                    ..RegistryAccess::default()
                };
                (host.clone(), access)
            })
            .collect();
        Self { registries: Registries::new(access, limits.clone()) }
    }
}

#[async_trait]
impl References for AskRegistries {
    async fn resolve(&self, reference: &str, pinned: Option<&Digest>) -> Result<Resolved, SourceError> {
        let reference: Reference = reference.parse().map_err(SourceError::of)?;
        let client = self.registries.client(&reference.registry).map_err(SourceError::of)?;
        let name = match (pinned.copied().or(reference.digest), &reference.tag) {
            (Some(digest), _) => ManifestName::Digest(digest),
            (None, Some(tag)) => ManifestName::Tag(tag.clone()),
            (None, None) => {
                let message = format!(
                    "resolve `{reference}`: it has neither a tag nor a digest; write one, as `{reference}:1.0`"
                );
                return Err(SourceError::new(ExitClass::Usage, message));
            }
        };
        let body = client.manifest(&reference.repository, &name).await.map_err(SourceError::of)?;
        Ok(Resolved {
            descriptor: Descriptor::of(&body.media_type, &body.bytes),
            // A digest that somebody wrote stays; the tag stays for people.
            reference: reference.pinned(reference.digest.unwrap_or(body.digest)).to_string(),
            source: Arc::new(RegistrySource { client, repository: reference.repository }),
        })
    }
}

/// One repository of a registry.
struct RegistrySource {
    client: Client,
    repository: Repository,
}

#[async_trait]
impl Source for RegistrySource {
    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        let name = ManifestName::Digest(*digest);
        let body = self.client.manifest(&self.repository, &name).await.map_err(SourceError::of)?;
        if body.bytes.len() as u64 > limit {
            return Err(SourceError::new(
                ExitClass::Refused,
                format!("collect {digest}: it has more than {limit} bytes"),
            ));
        }
        Ok(body.bytes.into())
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, SourceError> {
        let blob = self.client.blob(&self.repository, digest, size).await.map_err(SourceError::of)?;
        Ok(Box::new(blob))
    }
}

/// Lists the controls of profiles by the engines that evaluate them.
struct Profiles;

impl ProfileResolver for Profiles {
    fn rules(&self, _document: &ProfileDocument, files: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError> {
        let profile = crate::native::profile::load(files).map_err(SourceError::of)?;
        Ok(profile.profile().clone())
    }

    fn xccdf(&self, document: &ProfileDocument, benchmark: &[u8]) -> Result<Profile, SourceError> {
        let wanted = document.xccdf.as_ref().map(|source| source.profile.as_str()).unwrap_or_default();
        let controls = selected_controls(benchmark, wanted, &Limits::default()).map_err(|error| {
            SourceError::new(ExitClass::Usage, format!("list the controls of profile `{}`", document.name))
                .because(error)
        })?;
        Ok(Profile {
            name: document.name.clone(),
            version: document.version.clone(),
            title: document.title.clone(),
            summary: document.summary.clone(),
            controls,
        })
    }
}
