//! Content of an upload that can be read again: from a file, by a thread that reads and hashes while another sends.

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::feed::Feed;

/// Pieces that are ready while one is being read and others are on their way to the connection: more would only fill memory,
/// and the processor's caches.
const AHEAD: usize = 1;

/// Content that can be read again.
pub trait Content: Send + Sync {
    /// Its bytes from `from` on. What comes before is read all the same where that is needed to verify the whole.
    fn pieces(&self, from: u64) -> Pieces;
}

/// Pieces of content, in order. They end without an error only if all of the content, from its first byte, is what it must
/// be; and the last piece comes only then.
#[derive(Debug)]
pub struct Pieces {
    steps: mpsc::Receiver<Step>,
    ended: bool,
}

#[derive(Debug)]
enum Step {
    Piece(Bytes),
    Failed(io::Error),
    End,
}

impl Pieces {
    /// The pieces that `read` hands to its argument, on a thread where blocking does no harm. When the argument says to
    /// break off, nobody wants more. The thread ends soon after the pieces are dropped.
    pub fn read_by(
        read: impl FnOnce(&mut dyn FnMut(Bytes) -> ControlFlow<()>) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut give = |piece: Bytes| match sender.blocking_send(Step::Piece(piece)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            let end = match read(&mut give) {
                Ok(()) => Step::End,
                Err(error) => Step::Failed(error),
            };
            // Nobody listens any more when the request is over.
            let _ = sender.blocking_send(end);
        });
        Self { steps: receiver, ended: false }
    }

    /// The next piece; `None` after the end.
    ///
    /// # Errors
    /// When the content can't be read or is not what it must be.
    ///
    /// # Cancel safety
    /// Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        match self.steps.recv().await {
            Some(Step::Piece(piece)) => Ok(Some(piece)),
            Some(Step::End) => {
                self.ended = true;
                Ok(None)
            }
            Some(Step::Failed(error)) => Err(error),
            // The thread is gone without a verdict, or said it already and it was not good.
            None => Err(io::Error::other("reading the content broke off")),
        }
    }
}

/// Content as a [`Feed`] that can go anywhere.
pub(super) struct Replayed<'a> {
    content: &'a dyn Content,
    pieces: Option<Pieces>,
    from: u64,
}

impl<'a> Replayed<'a> {
    pub(super) fn new(content: &'a dyn Content) -> Self {
        Self { content, pieces: None, from: 0 }
    }
}

impl Feed for Replayed<'_> {
    const AGAIN: u64 = u64::MAX;

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.pieces.get_or_insert_with(|| self.content.pieces(self.from)).next().await
    }

    fn go_to(&mut self, offset: u64) {
        self.pieces = None;
        self.from = offset;
    }

    fn kept_from(&self) -> u64 {
        0
    }
}
