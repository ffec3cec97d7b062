//! Signing and writing a bundle: the same assembled content and the same keys give the same bytes.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tough::schema::{Metafile, Snapshot as SnapshotRole, Timestamp as TimestampRole};

use super::archive;
use super::assembly::Assembled;
use super::contents::{Entry, METADATA};
use super::error::BundleError;
use super::oci;
use super::source::SourceError;
use crate::base::digest::{Digest, Hasher};
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{self, FileError};
use crate::base::progress::Step;
use crate::base::quantity::{Span, bytes_for_people};
use crate::trust::TrustError;
use crate::trust::metadata::{self, SPEC_VERSION, TIMESTAMP_FILE};
use crate::trust::root::TrustRoot;
use crate::trust::signer::Signer;

/// What is moved at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Metadata files with their names, in the order of the archive.
type NamedFiles = Vec<(String, Vec<u8>)>;

/// Why a bundle is not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A source does not give something.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What was assembled is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Keys or roots can't be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Content is not what was locked.
    #[error("collect {what}: its digest is {found}, and {expected} is locked")]
    Changed {
        /// What.
        what: String,
        /// The locked digest.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// A blob ends before or goes on after its length.
    #[error("collect {digest}: it has not the {expected} bytes that its manifest says")]
    Length {
        /// Which.
        digest: Digest,
        /// How many it must have.
        expected: u64,
    },
    /// A blob has no place in the archive.
    #[error("collect {digest}: it has {}, and an archive entry ends at 8 GiB", bytes_for_people(*.bytes))]
    BlobTooLarge {
        /// Which.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
    /// Writing failed.
    #[error("write `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The definition or the lock asks for something that can't be.
    #[error("{0}")]
    Definition(String),
}

impl Classify for BuildError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Source(error) => error.class(),
            Self::Bundle(error) => error.class(),
            Self::Trust(error) => error.class(),
            Self::File(error) => error.class(),
            Self::Changed { .. } | Self::Length { .. } => ExitClass::Refused,
            Self::BlobTooLarge { .. } | Self::Definition(_) => ExitClass::Usage,
            Self::Write { .. } => ExitClass::Unreachable,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.remedy(),
            Self::Bundle(error) => error.remedy(),
            Self::Trust(error) => error.remedy(),
            Self::File(error) => error.remedy(),
            Self::Changed { .. } | Self::Length { .. } => {
                Some("if the change is wanted, run `gapscan bundle lock` again".to_owned())
            }
            Self::BlobTooLarge { .. } => Some("build the image with smaller layers".to_owned()),
            Self::Write { .. } | Self::Definition(_) => None,
        }
    }
}

/// How a bundle is signed.
pub struct Signing<'a> {
    /// The keys.
    pub signer: &'a Signer,
    /// The root that enclaves pin, or a newer one of its chain.
    pub root: &'a TrustRoot,
    /// The chain of roots, from the first.
    pub chain: Vec<Vec<u8>>,
    /// How long the bundle is valid from its creation; the root's policy may shorten it.
    pub valid_for: Span,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The length of the archive in bytes.
    pub bytes: u64,
    /// The digest of the archive.
    pub digest: Digest,
    /// When the first of its metadata expires.
    pub expires: Timestamp,
}

/// The same time without its fraction: TUF metadata carries whole seconds.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a time without its fraction is a time")
}

/// Writes the bundle to `path`: first to `path.part`, which is renamed when all was verified, synced and closed, and
/// removed when anything fails.
///
/// # Errors
/// When content is not what was locked, keys are missing, or writing fails.
///
/// # Cancel safety
/// A cancelled write may leave `path.part`, never `path`.
pub async fn write_file(
    assembled: &Assembled,
    signing: &Signing<'_>,
    path: &Path,
    step: &Step,
) -> Result<Written, BuildError> {
    let failed = |source| BuildError::Write { path: path.to_owned(), source };
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let attempt = async {
        let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
        file.set_max_buf_size(1 << 20);
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let written = write(assembled, signing, &mut out, path, step).await?;
        out.flush().await.map_err(failed)?;
        out.into_inner().sync_all().await.map_err(failed)?;
        tokio::fs::rename(&part, path).await.map_err(failed)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        file::sync_folder(folder).map_err(failed)?;
        Ok(written)
    };
    let result = attempt.await;
    if result.is_err() {
        // What failed is told already; a part that can't be removed is still no bundle.
        let _ = tokio::fs::remove_file(&part).await;
    }
    result
}

async fn write(
    assembled: &Assembled,
    signing: &Signing<'_>,
    out: &mut (impl AsyncWrite + Unpin),
    path: &Path,
    step: &Step,
) -> Result<Written, BuildError> {
    let (files, expires) = sign(assembled, signing)?;
    let mut out = Output { out, hasher: Hasher::new(), path, step };
    for (name, bytes) in &files {
        out.whole(&format!("{METADATA}{name}"), bytes).await?;
    }
    out.whole(&assembled.contents.layout.name, oci::LAYOUT).await?;
    out.whole(&assembled.contents.index.name, &assembled.index).await?;
    for entry in &assembled.contents.documents {
        out.whole(&entry.name, &assembled.documents[&entry.digest]).await?;
    }
    for entry in &assembled.contents.blobs {
        let source = &assembled.blobs[&entry.digest];
        let stream = source.blob(&entry.digest, entry.size).await?;
        out.stream(entry, stream).await?;
    }
    out.bytes(&archive::END).await?;
    let bytes = out.hasher.length();
    Ok(Written { bytes, digest: out.hasher.finish(), expires })
}

/// The signed metadata files in their order in the archive, and when the first expires. All times follow from the
/// creation, so that a second builder signs the same.
fn sign(assembled: &Assembled, signing: &Signing<'_>) -> Result<(NamedFiles, Timestamp), BuildError> {
    let contents = &assembled.contents;
    let policy = signing.root.policy()?;
    let until = |role: tough::schema::RoleType| policy.until(role, contents.created, signing.valid_for);
    use tough::schema::RoleType;
    let version = NonZeroU64::new(contents.version).filter(|v| v.get() <= metadata::MAX_VERSION).ok_or_else(|| {
        BuildError::Definition(format!("use version {}: it must be 1 to {}", contents.version, metadata::MAX_VERSION))
    })?;
    // Neither length nor hash: a second person may add a signature to a file that another one speaks of. What is signed
    // is pinned all the same, for every version is remembered with its content.
    let meta = |name: &str| {
        HashMap::from([(name.to_owned(), Metafile { length: None, hashes: None, version, _extra: HashMap::new() })])
    };
    let signer = signing.signer;
    let targets_until = until(RoleType::Targets)?;
    let targets = metadata::to_bytes(&signer.sign(contents.to_targets(targets_until)?)?);
    let mut snapshot = SnapshotRole::new(SPEC_VERSION.to_owned(), version, until(RoleType::Snapshot)?);
    snapshot.meta = meta("targets.json");
    let mut expires = targets_until.min(snapshot.expires);
    let snapshot = metadata::to_bytes(&signer.sign(snapshot)?);
    let mut timestamp = TimestampRole::new(SPEC_VERSION.to_owned(), version, until(RoleType::Timestamp)?);
    timestamp.meta = meta("snapshot.json");
    expires = expires.min(timestamp.expires);
    let timestamp = metadata::to_bytes(&signer.sign(timestamp)?);

    let mut files: NamedFiles =
        signing.chain.iter().enumerate().map(|(i, bytes)| (metadata::root_file(i as u64 + 1), bytes.clone())).collect();
    files.push((TIMESTAMP_FILE.to_owned(), timestamp));
    files.push((format!("{version}.snapshot.json"), snapshot));
    files.push((format!("{version}.targets.json"), targets));
    Ok((files, expires))
}

struct Output<'a, W> {
    out: &'a mut W,
    hasher: Hasher,
    path: &'a Path,
    step: &'a Step,
}

impl<W: AsyncWrite + Unpin> Output<'_, W> {
    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        self.hasher.update(bytes);
        self.step.advance(bytes.len() as u64);
        let failed = |source| BuildError::Write { path: self.path.to_owned(), source };
        self.out.write_all(bytes).await.map_err(failed)
    }

    async fn header(&mut self, name: &str, size: u64) -> Result<(), BuildError> {
        let header = archive::header(name, size).ok_or_else(|| BundleError::TooLarge {
            what: format!("`{name}`"),
            found: size,
            limit: archive::MAX_SIZE,
        })?;
        self.bytes(&header).await
    }

    async fn pad(&mut self, size: u64) -> Result<(), BuildError> {
        let zeros = [0; archive::BLOCK];
        self.bytes(&zeros[..archive::padding(size)]).await
    }

    async fn whole(&mut self, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
        self.header(name, bytes.len() as u64).await?;
        self.bytes(bytes).await?;
        self.pad(bytes.len() as u64).await
    }

    async fn stream(&mut self, entry: &Entry, stream: super::source::BlobStream) -> Result<(), BuildError> {
        self.header(&entry.name, entry.size).await?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        // One byte more than there may be, so that a longer blob is seen.
        let mut stream = stream.take(entry.size + 1);
        loop {
            let count = stream.read(&mut buffer).await.map_err(|e| {
                SourceError::new(ExitClass::Unreachable, format!("read {} from its source", entry.digest)).because(e)
            })?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            if hasher.length() > entry.size {
                return Err(BuildError::Length { digest: entry.digest, expected: entry.size });
            }
            self.bytes(&buffer[..count]).await?;
        }
        if hasher.length() != entry.size {
            return Err(BuildError::Length { digest: entry.digest, expected: entry.size });
        }
        let found = hasher.finish();
        if found != entry.digest {
            return Err(BuildError::Changed { what: entry.name.clone(), expected: entry.digest, found });
        }
        self.pad(entry.size).await
    }
}
