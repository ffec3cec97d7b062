//! A bundle with more signatures: the whole archive is verified but for how many signatures there are, and written anew
//! with those that were added. Nothing but the three signed files can differ; but what comes behind them may move by a block, so
//! that an archive is never changed in its place.
//!
//! What a hostile bundle may try is what it may try with [`super::reader`], and it stops at the same places: the metadata
//! at [`PartlySigned::examine`], headers, padding and the end at `Input`, documents at `Front`,
//! content at its digests. A signature is made only over a list of targets that belongs to a bundle; it is handed out, in
//! the archive or alone, only after all of that content was seen to have its digests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::AsyncRead;

use super::archive;
use super::contents::{Contents, METADATA, content_digest};
use super::error::BundleError;
use super::front::Front;
use super::input::Input;
use super::oci;
use super::sums::{self, Sum};
use super::writer::{BuildError, Cut, Output};
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::Limits;
use crate::base::progress::Step;
use crate::model::provenance::BundleRef;
use crate::trust::cosign::PartlySigned;
use crate::trust::metadata::MetadataFiles;
use crate::trust::remembered::{Candidate, Remembered};
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
    /// The files that were written, in the order of the archive: the archive itself, or its parts.
    pub files: Vec<Sum>,
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
        // What a reader would refuse for its time is not signed either. What this machine saw before is not looked at.
        let candidate = Candidate {
            roots: vec![metadata.fingerprint()],
            name: contents.name.clone(),
            version: contents.version,
            content: bundle.digest,
            created: contents.created,
            items: BTreeSet::new(),
        };
        let _ = Remembered::nothing().check(candidate, now)?;
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

    /// The length of the archive in bytes, with the signatures that its metadata has now.
    pub fn archive_bytes(&self) -> u64 {
        let whole = |bytes: u64| archive::BLOCK as u64 + bytes + archive::padding(bytes) as u64;
        let metadata = self.metadata.files_in_order();
        let metadata = metadata.iter().map(|(_, bytes)| bytes.len() as u64);
        let head = [self.contents.layout.size, self.contents.index.size];
        let documents = self.contents.documents.iter().map(|entry| entry.size);
        let blobs = metadata.chain(head).chain(documents).map(whole).sum();
        self.contents.blob_offsets(blobs).1 + archive::END.len() as u64
    }

    /// Reads the rest and gives the metadata: everything that is signed is as it is signed.
    ///
    /// # Errors
    /// When it is not, or reading fails.
    pub async fn verify(mut self, step: &Step) -> Result<PartlySigned, BuildError> {
        self.copy(&mut Copied::nowhere(), step).await?;
        Ok(self.metadata)
    }

    /// Reads the rest and writes the archive with the metadata as it is now to `path`, in one file or in parts: first under
    /// other names, which are changed when all was verified, synced and closed; nothing is left when anything fails. `path`
    /// may be what is read. The sums of what was there before are removed.
    ///
    /// # Errors
    /// When something is not as it is signed, somebody else writes there, there is no room, or reading or writing fails.
    ///
    /// # Cancel safety
    /// A cancelled write leaves nothing. A killed one may leave `path.part`, never a part of `path`.
    pub async fn write(mut self, path: &Path, cut: Cut, step: &Step) -> Result<Resigned, BuildError> {
        let output = Attempt(Output::create(path, cut, self.archive_bytes())?);
        let mut copied = Copied::to(&output.0);
        self.copy(&mut copied, step).await?;
        let resigned = copied.finish();
        // The sums of what was there are wrong from now on.
        output.0.commit(|| Ok(sums::remove(path)?))?;
        Ok(resigned)
    }

    async fn copy(&mut self, out: &mut Copied<'_>, step: &Step) -> Result<(), BuildError> {
        for (name, bytes) in self.metadata.files_in_order() {
            out.whole(&format!("{METADATA}{name}"), &bytes)?;
        }
        out.whole(&self.contents.layout.name, oci::LAYOUT)?;
        out.whole(&self.contents.index.name, &self.index)?;
        for entry in &self.contents.documents {
            out.whole(&entry.name, &self.documents[&entry.digest])?;
        }
        let mut buffer = vec![0; CHUNK_BYTES];
        for entry in &self.contents.blobs {
            self.input.expect_header(&entry.name, entry.size).await?;
            out.header(&entry.name, entry.size)?;
            let mut hasher = Hasher::new();
            while hasher.length() < entry.size {
                let left = usize::try_from(entry.size - hasher.length()).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                self.input.exact(&entry.name, &mut buffer[..left]).await?;
                hasher.update(&buffer[..left]);
                out.bytes(&buffer[..left])?;
                step.advance(left as u64);
            }
            let found = hasher.finish();
            if found != entry.digest {
                let (offset, size) = (self.input.offset, entry.size);
                let (entry, expected) = (entry.name.clone(), entry.digest);
                return Err(BundleError::Digest { entry, offset, size, expected, found }.into());
            }
            self.input.padding(&entry.name, entry.size).await?;
            out.bytes(&[0; archive::BLOCK][..archive::padding(entry.size)])?;
        }
        let offset = self.input.offset;
        let mut end = archive::END;
        self.input.exact("the end marker", &mut end).await?;
        if end != archive::END {
            return Err(BundleError::EndMarker { offset }.into());
        }
        let offset = self.input.offset;
        if self.input.some(&mut [0]).await? != 0 {
            return Err(BundleError::Trailing { offset }.into());
        }
        out.bytes(&archive::END)
    }
}

/// Takes away what was written, unless it got its name.
struct Attempt(Output);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// The archive as it is written, byte after byte, with its digests.
struct Copied<'a> {
    /// Nowhere, where it is only read.
    output: Option<&'a Output>,
    at: u64,
    whole: Hasher,
    /// Those of the files, where there are several.
    files: Vec<Hasher>,
}

impl<'a> Copied<'a> {
    fn nowhere() -> Self {
        Self { output: None, at: 0, whole: Hasher::new(), files: Vec::new() }
    }

    fn to(output: &'a Output) -> Self {
        let files = if output.targets().len() > 1 {
            output.targets().iter().map(|_| Hasher::new()).collect()
        } else {
            Vec::new()
        };
        Self { output: Some(output), files, ..Self::nowhere() }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        let Some(output) = self.output else { return Ok(()) };
        let span = self.at..self.at + bytes.len() as u64;
        output.write_at(self.at, bytes)?;
        output.complete(&span)?;
        self.whole.update(bytes);
        for (hasher, target) in self.files.iter_mut().zip(output.targets()) {
            let (start, end) = (target.span.start.max(span.start), target.span.end.min(span.end));
            if start < end {
                hasher.update(&bytes[(start - span.start) as usize..(end - span.start) as usize]);
            }
        }
        self.at = span.end;
        Ok(())
    }

    fn header(&mut self, name: &str, size: u64) -> Result<(), BuildError> {
        let too_large = || BundleError::TooLarge { what: format!("`{name}`"), found: size, limit: archive::MAX_SIZE };
        self.bytes(&archive::header(name, size).ok_or_else(too_large)?)
    }

    fn whole(&mut self, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
        self.header(name, bytes.len() as u64)?;
        self.bytes(bytes)?;
        self.bytes(&[0; archive::BLOCK][..archive::padding(bytes.len() as u64)])
    }

    fn finish(self) -> Resigned {
        let (bytes, digest) = (self.at, self.whole.finish());
        let targets = self.output.map(Output::targets).unwrap_or_default();
        let files = match self.files.is_empty() {
            true => targets.iter().map(|target| Sum { path: target.path.clone(), digest }).collect(),
            false => {
                let files = targets.iter().zip(self.files);
                files.map(|(target, hasher)| Sum { path: target.path.clone(), digest: hasher.finish() }).collect()
            }
        };
        Resigned { bytes, digest, files }
    }
}

#[cfg(test)]
mod tests;
