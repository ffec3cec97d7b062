//! Reading and verifying a bundle in one forward pass with constant memory.
//!
//! What a hostile archive may try, and where it stops:
//!
//! * any name, link, device, mode, owner, sparse or extended header, duplicate, reordered, missing or added entry, size in
//!   another spelling: no header is parsed. The one that must come next is computed from the signed metadata, and 512
//!   bytes are compared (`Input::expect_header`);
//! * the metadata's own headers, whose sizes are not signed: recomputed from the name that must come and the claimed size,
//!   within a bound, and compared all the same (`Input::small_file`);
//! * something hidden in padding, after the end, a second archive, truncation: `Input::padding`, [`BundleReader::finish`];
//! * changed content: each entry's digest is checked before its last bytes are handed on ([`BlobReader`]);
//! * hostile metadata: [`crate::trust::metadata`]; hostile manifests: [`super::graph`];
//! * nothing is written to disk, and nothing is proven before [`BundleReader::finish`].

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use jiff::Timestamp;
use tokio::io::{AsyncRead, ReadBuf};

use super::archive;
use super::error::BundleError;
use super::head::Head;
pub use super::head::{Tag, VerifiedBundle};
use super::input::Input;
use crate::base::digest::{Digest, Hasher};
use crate::base::limits::Limits;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// What is read at once when a blob is skipped.
const SKIP_BYTES: usize = 256 << 10;

/// A bundle whose metadata, manifests and catalog were verified, and whose blobs stream by.
pub struct BundleReader<R> {
    input: Input<R>,
    head: Head,
    /// How many blobs were begun.
    begun: usize,
    current: Option<Current>,
    failed: Option<BundleError>,
    dead: bool,
    /// Whether what killed it was content and not form, so that the next entry begins where it must.
    passable: bool,
    /// How many blobs were passed over.
    passed_over: usize,
    archive_bytes: u64,
    scratch: Vec<u8>,
}

/// What is left of the blob under way.
struct Current {
    remaining: u64,
    hasher: Hasher,
}

/// A blob of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobDescriptor {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// One blob while it streams by: exactly its bytes, and the last of them only after the digest was found right. A reader
/// that sees an error never had the whole content. What is not read is read and verified by the next call on the
/// [`BundleReader`].
pub struct BlobReader<'a, R> {
    bundle: &'a mut BundleReader<R>,
    descriptor: BlobDescriptor,
}

impl<R> Deref for BundleReader<R> {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl<R: AsyncRead + Unpin + Send> BundleReader<R> {
    /// Reads and verifies everything up to the first large blob: metadata, image layout, manifests and catalog.
    ///
    /// # Errors
    /// When anything is not as the pinned root, the remembered versions, the clock `now` and the limits ask for.
    pub async fn open(
        reader: R,
        root: &TrustRoot,
        remembered: &Remembered,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
        let mut input = Input { reader, offset: 0 };
        let head = Head::read(&mut input, root, remembered, limits, now).await?;
        let archive_bytes = head.contents.blob_offsets(input.offset).1 + archive::END.len() as u64;
        Ok(Self {
            input,
            head,
            begun: 0,
            current: None,
            failed: None,
            dead: false,
            passable: false,
            passed_over: 0,
            archive_bytes,
            scratch: Vec::new(),
        })
    }

    /// What was verified before the first blob.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The length of the whole archive in bytes, which follows from what was verified.
    pub fn archive_bytes(&self) -> u64 {
        self.archive_bytes
    }

    /// After a blob that did not have its digest, goes on with the next one, so that it can be told what else is damaged;
    /// `false` after any other error. There will be no proof: [`BundleReader::finish`] refuses.
    pub fn pass_over(&mut self) -> bool {
        if !std::mem::take(&mut self.passable) {
            return false;
        }
        self.dead = false;
        self.failed = None;
        self.passed_over += 1;
        true
    }

    /// The next large blob, or `None` after the last. What is left of the one before is read and verified first.
    ///
    /// # Errors
    /// When the one before did not have its digest, the header is not the one that must come, or reading fails. Every
    /// later call fails too.
    pub async fn next_blob(&mut self) -> Result<Option<BlobReader<'_, R>>, BundleError> {
        self.complete_current().await?;
        let Some(entry) = self.head.contents.blobs.get(self.begun).cloned() else { return Ok(None) };
        let header = self.input.expect_header(&entry.name, entry.size).await;
        self.or_die(header)?;
        self.begun += 1;
        self.current = Some(Current { remaining: entry.size, hasher: Hasher::new() });
        if entry.size == 0 {
            let checked = self.check_digest();
            self.or_die(checked)?;
        }
        let descriptor = BlobDescriptor { digest: entry.digest, size: entry.size, media_type: entry.media_type };
        Ok(Some(BlobReader { bundle: self, descriptor }))
    }

    /// Reads and verifies all that is left, and hands nothing on; `passed` hears the length of each blob. Goes on behind a
    /// blob that is damaged, so that all damage is told at once.
    ///
    /// # Errors
    /// All that is wrong, in the order of the archive; never none.
    pub async fn verify(mut self, mut passed: impl FnMut(u64)) -> Result<VerifiedBundle, Vec<BundleError>> {
        let mut errors = Vec::new();
        loop {
            let skipped = match self.next_blob().await {
                Ok(None) => break,
                Ok(Some(blob)) => {
                    let size = blob.descriptor().size;
                    blob.skip().await.map(|()| passed(size))
                }
                Err(error) => Err(error),
            };
            if let Err(error) = skipped {
                errors.push(error);
                if !self.pass_over() {
                    return Err(errors);
                }
            }
        }
        match errors.is_empty() {
            true => self.finish().await.map_err(|error| vec![error]),
            false => Err(errors),
        }
    }

    /// Ends the reading: the end marker, and nothing after it. Gives the proof.
    ///
    /// # Errors
    /// When a blob was not asked for yet, or the archive does not end where it must.
    pub async fn finish(mut self) -> Result<VerifiedBundle, BundleError> {
        self.complete_current().await?;
        if self.passed_over > 0 {
            return Err(BundleError::Dead);
        }
        if self.begun < self.head.contents.blobs.len() {
            return Err(BundleError::Unread(self.head.contents.blobs.len() - self.begun));
        }
        let offset = self.input.offset;
        let mut end = archive::END;
        self.input.exact("the end marker", &mut end).await?;
        if end != archive::END {
            return Err(BundleError::EndMarker { offset });
        }
        let bytes = self.input.offset;
        if self.input.some(&mut [0]).await? != 0 {
            return Err(BundleError::Trailing { offset: bytes });
        }
        Ok(self.head.verified(bytes, Vec::new()))
    }

    /// Reads what is left of the blob under way, and its padding.
    async fn complete_current(&mut self) -> Result<(), BundleError> {
        if self.dead {
            return Err(self.failed.take().unwrap_or(BundleError::Dead));
        }
        if self.current.is_none() {
            return Ok(());
        }
        self.scratch.resize(SKIP_BYTES, 0);
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match std::future::poll_fn(|cx| self.poll_current(cx, &mut buffer)).await {
                Ok(()) if buffer.filled().is_empty() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        self.scratch = scratch;
        if let Err(error) = read {
            return Err(self.failed.take().unwrap_or(BundleError::Io { offset: self.input.offset, source: error }));
        }
        self.current = None;
        let entry = self.head.contents.blobs[self.begun - 1].clone();
        let padding = self.input.padding(&entry.name, entry.size).await;
        self.or_die(padding)
    }

    fn or_die<T>(&mut self, result: Result<T, BundleError>) -> Result<T, BundleError> {
        self.dead |= result.is_err();
        result
    }

    /// Compares the digest of the blob under way, all of which was read.
    fn check_digest(&mut self) -> Result<(), BundleError> {
        let entry = &self.head.contents.blobs[self.begun - 1];
        let found = self.current.as_mut().map(|c| std::mem::take(&mut c.hasher).finish());
        if found == Some(entry.digest) {
            return Ok(());
        }
        self.passable = true;
        Err(BundleError::Digest {
            entry: entry.name.clone(),
            offset: self.input.offset,
            size: entry.size,
            expected: entry.digest,
            found: found.unwrap_or_else(|| Digest::of([])),
        })
    }

    /// Reads a part of the blob under way. The part that ends it is handed on only when the digest is right.
    fn poll_current(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.dead {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the bundle was refused")));
        }
        let Some(current) = &mut self.current else { return Poll::Ready(Ok(())) };
        let want = usize::try_from(current.remaining).unwrap_or(usize::MAX).min(buffer.remaining());
        if want == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(want));
        let polled = ready!(Pin::new(&mut self.input.reader).poll_read(cx, &mut part));
        let count = part.filled().len();
        self.input.offset += count as u64;
        let result = match polled {
            Err(source) => Err(BundleError::Io { offset: self.input.offset, source }),
            Ok(()) if count == 0 => {
                let entry = self.head.contents.blobs[self.begun - 1].name.clone();
                Err(BundleError::Truncated { entry, offset: self.input.offset })
            }
            Ok(()) => {
                current.hasher.update(part.filled());
                current.remaining -= count as u64;
                if current.remaining == 0 { self.check_digest() } else { Ok(()) }
            }
        };
        match result {
            Ok(()) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                let shown = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                self.dead = true;
                self.failed = Some(error);
                Poll::Ready(Err(shown))
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send> BlobReader<'_, R> {
    /// Which blob it is.
    pub fn descriptor(&self) -> &BlobDescriptor {
        &self.descriptor
    }

    /// The repositories that need it, sorted.
    pub fn repositories(&self) -> Vec<String> {
        self.bundle.head.blob_repositories(&self.descriptor.digest)
    }

    /// Reads and verifies the rest without handing it on, as for a blob that the registry has already.
    ///
    /// # Errors
    /// When it does not have its digest, or reading fails.
    pub async fn skip(self) -> Result<(), BundleError> {
        self.bundle.complete_current().await
    }
}

impl<R: AsyncRead + Unpin + Send> AsyncRead for BlobReader<'_, R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().bundle.poll_current(cx, buffer)
    }
}
