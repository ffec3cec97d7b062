//! Writing blobs: streamed in bounded memory, and never completed with content that did not verify.
//!
//! A blob goes up as one POST that opens a session and one PUT with the whole content ([`whole`]). Its last piece is not
//! handed out before the reader has reported its end without an error ([`feed`]), so a reader that verifies at its end keeps
//! unverified content from ever being complete. Where that one PUT is refused as too large, the content goes up in chunks
//! ([`chunks`]). Where it is cut, the registry is asked how much it has, and the rest follows from there ([`breaks`]): all of
//! it can be had again from a file, the newest of it from a pipe ([`stream`]). A 201 that names the digest is the
//! acknowledgement; where it names none, or the session is of an earlier process, the registry is asked whether it has the
//! blob.

mod body;
mod breaks;
mod chunks;
mod content;
mod feed;
mod mode;
mod mount;
mod probe;
mod session;
mod sessions;
mod stream;
mod whole;

use std::time::Duration;

use tokio::io::AsyncRead;

pub use content::{Content, Pieces};
pub use mode::Upload;
pub(super) use mode::UploadMode;
pub use mount::{Mount, OpenUpload};
pub use sessions::Sessions;
pub(super) use stream::WindowSpace;

use super::client::Client;
use super::error::RegistryError;
use super::reference::Repository;
use crate::base::digest::Digest;
use breaks::Breaks;
use content::Replayed;
use feed::{Cursor, Feed};
use session::{Acknowledged, Session, Target};
use sessions::WORTH_KEEPING;
use stream::Streamed;

/// How long is waited for clean-up that nothing depends on.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// A blob that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// The repository that it goes to.
    pub repository: &'a Repository,
    /// Its digest.
    pub digest: &'a Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// What an upload took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that were sent, also those that had to be sent again.
    pub bytes: u64,
    /// The offset at which an upload of an earlier process was continued.
    pub resumed_at: u64,
}

/// One upload under way.
struct UnderWay<'a, F> {
    target: Target<'a>,
    /// Where it is remembered, if it is worth that.
    sessions: Option<&'a Sessions>,
    cursor: Cursor<F>,
    session: Session,
    /// The bytes of a chunk as it is sent now, and not as others may have learned meanwhile.
    chunk: Option<u64>,
    breaks: Breaks,
    resumed_at: u64,
}

impl Client {
    /// Stores a blob that can be read again, into `opened` where that is given. The registry has it, whole and with this
    /// length, when this returns without an error; and nothing is completed there unless `content` yields exactly as many
    /// bytes and then its end without an error. Where the connection breaks, it goes on from what the registry has; with
    /// `sessions`, also when an earlier process was killed.
    ///
    /// # Errors
    /// [`RegistryError::Content`] when the content can't be read, has another length or does not verify; else when the
    /// registry refuses or fails.
    ///
    /// # Cancel safety
    /// Dropped, it leaves at most an upload session that the registry will purge, or that the next call goes on with.
    pub async fn push_content(
        &self,
        blob: Blob<'_>,
        content: &dyn Content,
        opened: Option<OpenUpload>,
        sessions: Option<&Sessions>,
    ) -> Result<Sent, RegistryError> {
        self.push(blob, Replayed::new(content), opened, sessions).await
    }

    /// The same for content that streams by once. Where the connection breaks, it goes on if what the registry lacks is among
    /// the newest bytes, of which at most 8 MiB are kept, and at least 1 MiB while other streams go up through this client.
    ///
    /// # Errors
    /// As [`Client::push_content`]; and [`RegistryError::StreamedBy`] when the registry lacks what is not kept any more.
    ///
    /// # Cancel safety
    /// As [`Client::push_content`]; what was read of the stream is gone.
    pub async fn push_stream(
        &self,
        blob: Blob<'_>,
        stream: impl AsyncRead + Send + Unpin,
        opened: Option<OpenUpload>,
        sessions: Option<&Sessions>,
    ) -> Result<Sent, RegistryError> {
        self.push(blob, Streamed::new(stream, &self.inner.window_space), opened, sessions).await
    }

    /// The story of one upload.
    async fn push<F: Feed>(
        &self,
        blob: Blob<'_>,
        feed: F,
        opened: Option<OpenUpload>,
        sessions: Option<&Sessions>,
    ) -> Result<Sent, RegistryError> {
        let mut upload = UnderWay::begin(self, blob, feed, opened, sessions).await?;
        loop {
            upload.remember();
            let error = match upload.send().await {
                Ok(acknowledged) => {
                    upload.forget();
                    upload.make_sure(acknowledged).await?;
                    return Ok(upload.sent());
                }
                Err(error) => error,
            };
            if upload.arrived_all_the_same(&error).await? {
                upload.forget();
                return Ok(upload.sent());
            }
            upload.go_on_after(error).await?;
        }
    }
}

impl<'a, F: Feed> UnderWay<'a, F> {
    /// Takes up the upload that was opened for it, or that of an earlier process, or opens one.
    async fn begin(
        client: &'a Client,
        blob: Blob<'a>,
        feed: F,
        opened: Option<OpenUpload>,
        sessions: Option<&'a Sessions>,
    ) -> Result<Self, RegistryError> {
        let mut target = Target::new(client, blob);
        let sessions = sessions.filter(|_| blob.size >= WORTH_KEEPING);
        let (session, offset) = match opened {
            Some(opened) if opened.repository == *blob.repository => {
                // The token that opened it is for this scope, and a request with content can't be asked for another.
                target.scope = opened.scope;
                (Session::given(opened.address), 0)
            }
            _ => match target.kept(sessions).await? {
                Some((address, offset)) => (Session::given(address), offset),
                None => (target.open().await?, 0),
            },
        };
        let mut cursor = Cursor::new(feed, blob.size);
        cursor.go_to(offset);
        Ok(Self { target, sessions, cursor, session, chunk: None, breaks: Breaks::default(), resumed_at: offset })
    }

    /// Sends what the registry has not yet.
    async fn send(&mut self) -> Result<Acknowledged, RegistryError> {
        self.chunk = self.target.client.inner.upload.chunk(F::AGAIN);
        match self.chunk {
            None if self.cursor.at() == 0 => self.send_whole().await,
            None => self.send_chunks(u64::MAX).await,
            Some(bytes) => self.send_chunks(bytes).await,
        }
    }

    /// An acknowledgement that does not name the digest says little, and so does one from a session that was only remembered.
    async fn make_sure(&mut self, acknowledged: Acknowledged) -> Result<(), RegistryError> {
        let believed = acknowledged == Acknowledged::ByDigest && self.resumed_at == 0;
        if believed || self.target.is_stored().await? {
            return Ok(());
        }
        Err(self.target.protocol("the registry acknowledged it, and then does not have it with that length"))
    }

    fn sent(&self) -> Sent {
        Sent { bytes: self.cursor.taken(), resumed_at: self.resumed_at }
    }

    /// Writes down where the upload is.
    fn remember(&self) {
        if let Some(sessions) = self.sessions {
            let Target { client, blob, .. } = &self.target;
            sessions.keep(&client.inner.registry, blob.repository, blob.digest, blob.size, &self.session.address);
        }
    }

    /// The upload is over.
    fn forget(&self) {
        if let Some(sessions) = self.sessions {
            let Target { client, blob, .. } = &self.target;
            sessions.forget(&client.inner.registry, blob.repository, blob.digest);
        }
    }
}

#[cfg(test)]
mod tests;
