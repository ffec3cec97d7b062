//! An image as an archive, for scanners that read layers: an OCI image layout in one tar file, with the blobs byte for byte as the
//! registry has them.
//!
//! It is nowhere whole but in the scanner's pod: blobs stream from the registry through this process to the agent, which writes
//! the tar (see [`agent::archive`](crate::cluster::agent::archive)), and are verified at both ends.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;
use tokio_util::io::StreamReader;

use crate::base::digest::Digest;
use crate::cluster::agent::archive::{Plan, PlanEntry};
use crate::model::reason::Reason;

/// Bytes that are taken from a blob at once.
const PIECE: usize = 256 << 10;

/// How long an archive without a byte may take: its pod's connection, the registry's answer.
const ANYHOW: Duration = Duration::from_secs(300);
/// What the slowest link must bring in a second.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// Where the blobs of an image are.
#[async_trait]
pub trait BlobSource: fmt::Debug + Send + Sync {
    /// The blob's bytes, as a stream whose end is reached only if length and digest are these.
    ///
    /// # Errors
    /// When there is no such blob, or nobody answers.
    async fn open(&self, digest: &Digest, size: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, SourceError>;

    /// Why nothing can be said of the image where a stream ended in this error.
    fn reason(&self, error: &io::Error) -> Reason;
}

/// Why a blob can't be had.
#[derive(Debug)]
pub struct SourceError {
    /// What that means for the image.
    pub reason: Reason,
    /// What went wrong.
    pub error: Box<dyn std::error::Error + Send + Sync>,
}

/// The manifest of an image, byte for byte.
#[derive(Clone, Debug)]
pub struct ImageManifest {
    /// The bytes.
    pub bytes: Bytes,
    /// Their media type.
    pub media_type: String,
}

/// An image that is to be handed to a scanner.
#[derive(Clone, Debug)]
pub struct ImageArchive {
    plan: Plan,
    /// What is no blob of the registry's, by the number of its entry.
    made: BTreeMap<usize, Bytes>,
    bytes: u64,
    source: Arc<dyn BlobSource>,
}

impl ImageArchive {
    /// The archive of this manifest and these blobs, each of which is in it once; `None` where its bytes can't be counted, or
    /// where two sizes are given for one blob.
    pub fn new(manifest: ImageManifest, blobs: &[(Digest, u64)], source: Arc<dyn BlobSource>) -> Option<Self> {
        let digest = Digest::of(&manifest.bytes);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{ "mediaType": manifest.media_type, "digest": digest, "size": manifest.bytes.len() }],
        });
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let made = [
            ("oci-layout".to_owned(), Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#)),
            ("index.json".to_owned(), Bytes::from(index.to_string())),
            (blob(&digest), manifest.bytes),
        ];
        let mut entries = Vec::new();
        for (name, bytes) in &made {
            entries.push(PlanEntry { name: name.clone(), size: bytes.len() as u64, digest: Digest::of(bytes) });
        }
        let made = made.into_iter().map(|(_, bytes)| bytes).enumerate().collect();
        let mut sizes = BTreeMap::from([(digest, entries.last().map_or(0, |entry| entry.size))]);
        for (digest, size) in blobs {
            match sizes.insert(*digest, *size) {
                None => entries.push(PlanEntry { name: blob(digest), size: *size, digest: *digest }),
                Some(known) if known == *size => {}
                Some(_) => return None,
            }
        }
        let plan = Plan { entries };
        let bytes = plan.archive_bytes()?;
        Some(Self { plan, made, bytes, source })
    }

    /// Bytes of the archive.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long it may take until it is there.
    pub(super) fn within(&self) -> Duration {
        ANYHOW + Duration::from_secs(self.bytes / BYTES_PER_SECOND)
    }

    /// What is sent, and who says why it ends early: then the stream itself says nothing any more, so that nobody takes its end
    /// for the archive's.
    pub(super) fn stream(&self) -> (impl AsyncRead + Send + Unpin + use<>, oneshot::Receiver<SourceError>) {
        let (tell, failure) = oneshot::channel();
        let entries = self.plan.entries.iter().enumerate();
        let parts = entries.map(|(at, entry)| match self.made.get(&at) {
            Some(bytes) => Part::Made(bytes.clone()),
            None => Part::Blob(entry.digest, entry.size),
        });
        let head = Part::Made(Bytes::from(self.plan.head()));
        let feed = Feed {
            parts: std::iter::once(head).chain(parts).collect(),
            open: None,
            source: Arc::clone(&self.source),
            tell,
        };
        let pieces = stream::unfold(feed, |mut feed| async move {
            match feed.next().await {
                Ok(piece) => piece.map(|piece| (Ok::<_, io::Error>(piece), feed)),
                Err(error) => {
                    // Who does not listen any more has given up already.
                    let _ = feed.tell.send(error);
                    std::future::pending().await
                }
            }
        });
        (StreamReader::new(Box::pin(pieces)), failure)
    }
}

enum Part {
    Made(Bytes),
    Blob(Digest, u64),
}

/// What is still to be sent.
struct Feed {
    parts: VecDeque<Part>,
    open: Option<Box<dyn AsyncRead + Send + Unpin>>,
    source: Arc<dyn BlobSource>,
    tell: oneshot::Sender<SourceError>,
}

impl Feed {
    /// The next bytes, never none; nothing at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            if let Some(blob) = &mut self.open {
                let mut piece = BytesMut::with_capacity(PIECE);
                let failed = |error: io::Error| SourceError { reason: self.source.reason(&error), error: error.into() };
                match blob.read_buf(&mut piece).await.map_err(failed)? {
                    0 => self.open = None,
                    _ => return Ok(Some(piece.freeze())),
                }
                continue;
            }
            match self.parts.pop_front() {
                None => return Ok(None),
                Some(Part::Made(bytes)) if bytes.is_empty() => {}
                Some(Part::Made(bytes)) => return Ok(Some(bytes)),
                Some(Part::Blob(digest, size)) => self.open = Some(self.source.open(&digest, size).await?),
            }
        }
    }
}

#[cfg(test)]
mod tests;
