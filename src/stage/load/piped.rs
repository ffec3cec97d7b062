//! What blocks while it is read, as a stream.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

/// What is read at a time.
const PIECE: usize = 256 << 10;

/// Reads in a thread of its own. The runtime's would hold up the end of the process for as long as a writer keeps a pipe
/// open without writing, or somebody does not answer a question; so this thread is not waited for: it ends with the
/// process, or when nobody reads any more, and owns nothing else.
pub fn piped(mut input: impl Read + Send + 'static) -> impl AsyncRead + Unpin + Send {
    let (pieces, mut received) = mpsc::channel::<io::Result<Bytes>>(4);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let piece = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if pieces.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    StreamReader::new(stream::poll_fn(move |cx| received.poll_recv(cx)))
}

/// What blocks while it is read, read in place and never ahead: for the beginning of an archive, behind which somebody would
/// be asked for a medium that is not needed yet.
pub(super) struct InPlace<R>(pub(super) R);

impl<R: Read + Unpin> AsyncRead for InPlace<R> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.0.read(buffer.initialize_unfilled())?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}
