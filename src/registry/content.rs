//! Content of an upload that can be read again: from a file, by a thread that reads and hashes while another sends.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

/// Pieces on their way from the thread that reads to the connection. One is being sent, one is ready, and one is being
/// read: more would only fill memory.
const AHEAD: usize = 2;

/// Content that can be read again.
pub trait Content: Send + Sync {
    /// Its bytes from `from` on. What comes before is read all the same where that is needed to verify the whole.
    fn pieces(&self, from: u64) -> Pieces;
}

/// Pieces of content, in order. They end without an error only if all of the content, from its first byte, is what it must
/// be; and the last piece comes only then.
pub struct Pieces(mpsc::Receiver<Step>);

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
        Self(receiver)
    }

    /// The next piece; `None` after the end.
    ///
    /// # Errors
    /// When the content can't be read or is not what it must be.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        Poll::Ready(match ready!(self.0.poll_recv(cx)) {
            Some(Step::Piece(piece)) => Ok(Some(piece)),
            Some(Step::End) => Ok(None),
            Some(Step::Failed(error)) => Err(error),
            // The thread is gone without a verdict.
            None => Err(io::Error::other("reading the content broke off")),
        })
    }
}

/// What is known of a body while it is sent.
#[derive(Debug, Default)]
pub(super) struct Flow {
    taken: AtomicU64,
    failed: Mutex<Option<io::Error>>,
}

impl Flow {
    /// How many bytes the connection took.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Why the content ended early, if that is what ended it.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The body of a request.
pub(super) struct Sending {
    pieces: Pieces,
    flow: Arc<Flow>,
}

impl Sending {
    pub(super) fn new(pieces: Pieces) -> (Self, Arc<Flow>) {
        let flow = Arc::new(Flow::default());
        (Self { pieces, flow: flow.clone() }, flow)
    }
}

impl Stream for Sending {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(match ready!(self.pieces.poll(cx)) {
            Ok(Some(piece)) => {
                self.flow.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Some(Ok(piece))
            }
            Ok(None) => None,
            Err(error) => {
                *self.flow.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Some(Err(io::Error::other("the content did not verify")))
            }
        })
    }
}
