//! The body of one request, sent for as long as it moves.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, RequestBuilder, Response};
use tokio::sync::mpsc;

use super::CLEAN_UP;
use super::feed::{Cursor, Feed};
use super::session::Target;
use crate::registry::error::RegistryError;

/// Pieces on their way from the content to the connection, besides the one that it is sending.
const PIECES: usize = 1;
/// Bytes a second that a registry is given for storing what it has received before it answers.
const STORE_RATE: u64 = 10 << 20;

/// How handing out a body ended.
enum Handed {
    /// With its last byte.
    All,
    /// The connection wants no more; its answer says why.
    Declined,
}

impl Target<'_> {
    /// Sends a request whose body are the next `length` bytes. Where the content fails, the request is broken off.
    pub(super) async fn send_body<F: Feed>(
        &self,
        request: RequestBuilder,
        cursor: &mut Cursor<F>,
        length: u64,
    ) -> Result<Response, RegistryError> {
        let inner = &self.client.inner;
        let (pieces, mut received) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let taken = cursor.counter();
        let body = stream::poll_fn(move |cx| {
            received.poll_recv(cx).map(|piece| {
                if let Some(Ok(piece)) = &piece {
                    taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                piece
            })
        });
        let mut request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length)
            .body(Body::wrap_stream(body));
        if let Some(header) = inner.auth.latest(&self.scope).await {
            request = request.header(AUTHORIZATION, header);
        }
        let mut answer = std::pin::pin!(request.send());
        let early = {
            let mut handing = std::pin::pin!(self.hand_out(cursor, length, pieces));
            tokio::select! {
                answered = &mut answer => Ok(answered),
                handed = &mut handing => Err(handed),
            }
        };
        let answered = match early {
            Ok(answered) => answered,
            Err(Ok(handed)) => {
                let waited = match handed {
                    Handed::All => inner.limits.stall + Duration::from_secs(self.blob.size / STORE_RATE),
                    Handed::Declined => inner.limits.stall,
                };
                let answered = tokio::time::timeout(waited, answer).await;
                answered.map_err(|_| RegistryError::Stalled { action: self.action.clone(), waited })?
            }
            Err(Err(error)) => {
                if matches!(error, RegistryError::Content { .. }) {
                    // The body has ended with an error: the connection is being torn down, which is waited for so that the
                    // registry has surely not seen a whole request.
                    let _ = tokio::time::timeout(CLEAN_UP, answer).await;
                }
                return Err(error);
            }
        };
        answered
            .map_err(|source| RegistryError::Connection { action: self.action.clone(), source: source.without_url() })
    }

    /// Moves the content into the request. Waiting for the content has no end here, since it may wait for a person; waiting
    /// for the connection has.
    async fn hand_out<F: Feed>(
        &self,
        cursor: &mut Cursor<F>,
        length: u64,
        pieces: mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<Handed, RegistryError> {
        let waited = self.client.inner.limits.stall;
        let until = cursor.at() + length;
        while cursor.at() < until {
            let piece = match cursor.next(until - cursor.at()).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Err(self.unreadable(io::ErrorKind::UnexpectedEof.into())),
                Err(source) => {
                    let abort = io::Error::other("the content did not verify");
                    let _ = tokio::time::timeout(CLEAN_UP, pieces.send(Err(abort))).await;
                    return Err(self.unreadable(source));
                }
            };
            match tokio::time::timeout(waited, pieces.send(Ok(piece))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(Handed::Declined),
                Err(_) => return Err(RegistryError::Stalled { action: self.action.clone(), waited }),
            }
        }
        Ok(Handed::All)
    }
}
