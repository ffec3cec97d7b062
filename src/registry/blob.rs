//! Reading blobs: verified while they stream, and taken up again where a connection broke.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;

use super::client::Client;
use super::error::{Action, RegistryError};
use super::http::text_header;
use super::reference::Repository;
use crate::base::digest::{Digest, Hasher};

/// How often in all one blob may be taken up again. A link that breaks more often than this will not carry it.
const RESUMES: usize = 50;

/// The bytes of a blob. Its end is reached only if length and digest are those of the descriptor: a reader that does not
/// read to the end, or gets an error, has nothing that is verified. The inner error of an [`io::Error`] is a
/// [`RegistryError`].
pub struct BlobReader {
    inner: StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").finish_non_exhaustive()
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// The bytes of a blob: as many as its descriptor says, taken up again where a connection broke, and not hashed. Whoever
/// reads them compares the digest.
pub struct UnverifiedBlob {
    inner: StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>,
}

impl fmt::Debug for UnverifiedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedBlob").finish_non_exhaustive()
    }
}

impl AsyncRead for UnverifiedBlob {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

struct Pull {
    client: Client,
    action: Action,
    repository: Repository,
    digest: Digest,
    size: u64,
    /// How far it was read.
    read: u64,
    /// `None` where the caller compares the digest.
    hasher: Option<Hasher>,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    resumes: usize,
    failures_in_a_row: usize,
}

impl Client {
    /// The blob of this digest and length, as a stream that verifies both.
    ///
    /// # Errors
    /// When there is none, or the registry can't be asked. What goes wrong later is an error of the reader.
    pub async fn blob(&self, repository: &Repository, digest: &Digest, size: u64) -> Result<BlobReader, RegistryError> {
        let pull = self.pull(repository, digest, size, Some(Hasher::new()));
        Ok(BlobReader { inner: StreamReader::new(pull.pieces().await?) })
    }

    /// The same for a caller who hashes what it reads anyway: the stream verifies the length alone.
    ///
    /// # Errors
    /// As [`Client::blob`].
    pub async fn unverified_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<UnverifiedBlob, RegistryError> {
        let pull = self.pull(repository, digest, size, None);
        Ok(UnverifiedBlob { inner: StreamReader::new(pull.pieces().await?) })
    }

    fn pull(&self, repository: &Repository, digest: &Digest, size: u64, hasher: Option<Hasher>) -> Pull {
        Pull {
            client: self.clone(),
            action: self.action("pull blob", digest, "from", repository),
            repository: repository.clone(),
            digest: *digest,
            size,
            read: 0,
            hasher,
            body: None,
            resumes: 0,
            failures_in_a_row: 0,
        }
    }
}

impl Pull {
    /// Connects, and gives what comes.
    async fn pieces(mut self) -> Result<BoxStream<'static, io::Result<Bytes>>, RegistryError> {
        self.connect().await?;
        let pieces = stream::try_unfold(self, |mut pull| async move {
            match pull.next().await {
                Ok(piece) => Ok(piece.map(|piece| (piece, pull))),
                Err(error) => Err(io::Error::other(error)),
            }
        });
        Ok(pieces.boxed())
    }

    /// Opens the body at the place that was reached.
    async fn connect(&mut self) -> Result<(), RegistryError> {
        let client = self.client.clone();
        let offset = self.read;
        let url = client.url(&format!("{}/blobs/{}", self.repository, self.digest));
        let expected = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let scope = Client::pull_scope(&self.repository);
        let response = client
            .ask(&self.action, &scope, &expected, Method::GET, url, |request| match offset {
                0 => request,
                _ => request.header(RANGE, format!("bytes={offset}-")),
            })
            .await?;
        let mut skip = 0;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let starts = text_header(response.headers(), CONTENT_RANGE.as_str())
                .and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok());
            if starts != Some(offset) {
                return Err(self.protocol("the registry continues at another place than was asked for"));
            }
        } else {
            // A server that knows no ranges starts again, and what was read already is read again.
            skip = offset;
        }
        if let Some(length) = response.content_length()
            && length + (offset - skip) != self.size
        {
            return Err(RegistryError::Size {
                action: self.action.clone(),
                expected: self.size,
                found: length + (offset - skip),
            });
        }
        self.body = Some(skipping(response.bytes_stream().boxed(), skip));
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let limits = &self.client.inner.limits;
            let Some(body) = &mut self.body else {
                self.connect().await?;
                continue;
            };
            let failure = match tokio::time::timeout(limits.stall, body.next()).await {
                Ok(Some(Ok(piece))) if piece.is_empty() => continue,
                Ok(Some(Ok(piece))) => {
                    self.failures_in_a_row = 0;
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&piece);
                    }
                    self.read += piece.len() as u64;
                    let found = self.read;
                    if found > self.size {
                        return Err(RegistryError::Size { action: self.action.clone(), expected: self.size, found });
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if self.read == self.size => {
                    if let Some(found) = self.hasher.take().map(Hasher::finish).filter(|found| *found != self.digest) {
                        return Err(RegistryError::Digest {
                            action: self.action.clone(),
                            expected: self.digest,
                            found,
                        });
                    }
                    return Ok(None);
                }
                Ok(None) => {
                    let found = self.read;
                    RegistryError::Size { action: self.action.clone(), expected: self.size, found }
                }
                Ok(Some(Err(source))) => {
                    RegistryError::Connection { action: self.action.clone(), source: source.without_url() }
                }
                Err(_) => RegistryError::Stalled { action: self.action.clone(), waited: limits.stall },
            };
            self.resumes += 1;
            self.failures_in_a_row += 1;
            if self.resumes > RESUMES || self.failures_in_a_row > self.client.inner.retry.repeats {
                return Err(failure);
            }
            tracing::debug!(error = %failure, at = self.read, "taking up a blob again");
            tokio::time::sleep(self.client.inner.retry.first_pause).await;
            self.body = None;
        }
    }

    fn protocol(&self, reason: &str) -> RegistryError {
        RegistryError::Protocol { action: self.action.clone(), reason: reason.to_owned() }
    }
}

/// The stream without its first `skip` bytes.
fn skipping(
    stream: BoxStream<'static, reqwest::Result<Bytes>>,
    mut skip: u64,
) -> BoxStream<'static, reqwest::Result<Bytes>> {
    if skip == 0 {
        return stream;
    }
    stream
        .map(move |piece| {
            piece.map(|mut piece| {
                let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                skip -= cut as u64;
                piece.split_off(cut)
            })
        })
        .boxed()
}
