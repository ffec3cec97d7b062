//! A bundle with more signatures: the whole archive is verified but for how many signatures there are, and written anew
//! with those that were added. Nothing but the three signed files can differ.
//!
//! What a hostile bundle may try is what it may try with [`super::reader`], and it stops at the same places: the metadata
//! at [`PartlySigned::examine`], headers, padding and the end at `Input`, documents at [`Front`],
//! content at its digests. A signature is made only over a list of targets that belongs to a bundle; it is handed out, in
//! the archive or alone, only after all of that content was seen to have its digests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};

use super::archive;
use super::contents::{Contents, METADATA, content_digest};
use super::error::BundleError;
use super::front::Front;
use super::input::Input;
use super::oci;
use super::sums;
use super::writer::BuildError;
use crate::base::digest::{Digest, Hasher};
use crate::base::file;
use crate::base::limits::Limits;
use crate::base::progress::Step;
use crate::model::provenance::BundleRef;
use crate::trust::cosign::PartlySigned;
use crate::trust::metadata::MetadataFiles;
use crate::trust::root::TrustRoot;

/// What is moved at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A bundle whose metadata, manifests and catalog were looked at, to be signed by one more. Its blobs were not read yet.
pub struct Unfinished<R> {
    input: Input<R>,
    metadata: PartlySigned,
    bundle: BundleRef,
    contents: Contents,
    index: Vec<u8>,
    documents: BTreeMap<Digest, Bytes>,
}

/// An archive that was written anew.
#[derive(Clone, Debug)]
pub struct Resigned {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

impl<R: AsyncRead + Unpin + Send> Unfinished<R> {
    /// Reads everything up to the first large blob.
    ///
    /// # Errors
    /// As [`super::reader::BundleReader::open`], but for signatures that are still missing.
    pub async fn open(reader: R, root: &TrustRoot, limits: &Limits, now: Timestamp) -> Result<Self, BundleError> {
        let mut input = Input { reader, offset: 0 };
        let files: MetadataFiles = input.metadata(limits).await?;
        let metadata = PartlySigned::examine(files, root, limits, now)?;
        let contents = Contents::from_targets(metadata.targets(), limits)?;
        let bundle = contents.bundle(content_digest(metadata.targets()), metadata.fingerprint());
        let Front { index, documents, .. } = Front::read(&mut input, &contents, &bundle, limits).await?;
        Ok(Self { input, metadata, bundle, contents, index, documents })
    }

    /// Which bundle it is.
    pub fn bundle(&self) -> &BundleRef {
        &self.bundle
    }

    /// The number of bytes of the large blobs.
    pub fn blob_bytes(&self) -> u64 {
        self.contents.blobs.iter().map(|entry| entry.size).sum()
    }

    /// The metadata, to be signed.
    pub fn metadata(&mut self) -> &mut PartlySigned {
        &mut self.metadata
    }

    /// Reads the rest and gives the metadata: everything that is signed is as it is signed.
    ///
    /// # Errors
    /// When it is not, or reading fails.
    pub async fn verify(self, step: &Step) -> Result<PartlySigned, BuildError> {
        let nowhere = Path::new("nowhere");
        let mut out = Output { out: tokio::io::sink(), hasher: None, path: nowhere };
        self.copy(&mut out, step).await
    }

    /// Reads the rest and writes the archive with the metadata as it is now to `path`: first to `path.part`, which is
    /// renamed when all was verified, synced and closed, and removed when anything fails. `path` may be what is read.
    ///
    /// # Errors
    /// When something is not as it is signed, or reading or writing fails.
    ///
    /// # Cancel safety
    /// A cancelled write may leave `path.part`, never a part of `path`.
    pub async fn write(self, path: &Path, step: &Step) -> Result<Resigned, BuildError> {
        let failed = |source| BuildError::Write { path: path.to_owned(), source };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let attempt = async {
            let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
            file.set_max_buf_size(1 << 20);
            let out = BufWriter::with_capacity(1 << 20, file);
            let mut out = Output { out, hasher: Some(Hasher::new()), path };
            self.copy(&mut out, step).await?;
            out.out.flush().await.map_err(failed)?;
            out.out.into_inner().sync_all().await.map_err(failed)?;
            // The sums of what was there are wrong from now on.
            sums::remove(path)?;
            tokio::fs::rename(&part, path).await.map_err(failed)?;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            file::sync_folder(folder).map_err(failed)?;
            let hasher = out.hasher.unwrap_or_default();
            Ok(Resigned { bytes: hasher.length(), digest: hasher.finish() })
        };
        let result = attempt.await;
        if result.is_err() {
            // What failed is told already; a part that can't be removed is still no bundle.
            let _ = tokio::fs::remove_file(&part).await;
        }
        result
    }

    async fn copy<W: AsyncWrite + Unpin>(
        mut self,
        out: &mut Output<'_, W>,
        step: &Step,
    ) -> Result<PartlySigned, BuildError> {
        for (name, bytes) in self.metadata.files_in_order() {
            out.whole(&format!("{METADATA}{name}"), &bytes).await?;
        }
        out.whole(&self.contents.layout.name, oci::LAYOUT).await?;
        out.whole(&self.contents.index.name, &self.index).await?;
        for entry in &self.contents.documents {
            out.whole(&entry.name, &self.documents[&entry.digest]).await?;
        }
        let mut buffer = vec![0; CHUNK_BYTES];
        for entry in &self.contents.blobs {
            self.input.expect_header(&entry.name, entry.size).await?;
            out.header(&entry.name, entry.size).await?;
            let mut hasher = Hasher::new();
            while hasher.length() < entry.size {
                let left = usize::try_from(entry.size - hasher.length()).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                self.input.exact(&entry.name, &mut buffer[..left]).await?;
                hasher.update(&buffer[..left]);
                out.bytes(&buffer[..left]).await?;
                step.advance(left as u64);
            }
            let found = hasher.finish();
            if found != entry.digest {
                let offset = self.input.offset;
                let (entry, expected) = (entry.name.clone(), entry.digest);
                return Err(BundleError::Digest { entry, offset, expected, found }.into());
            }
            self.input.padding(&entry.name, entry.size).await?;
            out.bytes(&[0; archive::BLOCK][..archive::padding(entry.size)]).await?;
        }
        let offset = self.input.offset;
        let mut end = archive::END;
        self.input.exact("the end marker", &mut end).await?;
        if end != archive::END {
            return Err(BundleError::EndMarker { offset }.into());
        }
        let offset = self.input.offset;
        if self.input.reader.read(&mut [0]).await.map_err(|source| BundleError::Io { offset, source })? != 0 {
            return Err(BundleError::Trailing { offset }.into());
        }
        out.bytes(&archive::END).await?;
        Ok(self.metadata)
    }
}

struct Output<'a, W> {
    out: W,
    hasher: Option<Hasher>,
    path: &'a Path,
}

impl<W: AsyncWrite + Unpin> Output<'_, W> {
    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        let failed = |source| BuildError::Write { path: self.path.to_owned(), source };
        self.out.write_all(bytes).await.map_err(failed)
    }

    async fn header(&mut self, name: &str, size: u64) -> Result<(), BuildError> {
        let too_large = || BundleError::TooLarge { what: format!("`{name}`"), found: size, limit: archive::MAX_SIZE };
        self.bytes(&archive::header(name, size).ok_or_else(too_large)?).await
    }

    async fn whole(&mut self, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
        self.header(name, bytes.len() as u64).await?;
        self.bytes(bytes).await?;
        self.bytes(&[0; archive::BLOCK][..archive::padding(bytes.len() as u64)]).await
    }
}

#[cfg(test)]
mod tests;
