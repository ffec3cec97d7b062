//! The content of an upload: read once, with its beginning kept for a second attempt.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that one piece has at most.
const PIECE: usize = 256 << 10;
/// Bytes of the beginning that are kept, so that a small blob, and a large one that is refused early, can be sent again.
const KEPT: u64 = 4 << 20;

/// Pieces of a reader that must yield exactly `size` bytes. The end is reported only after the reader reported it: a
/// reader that verifies has done so then.
pub(super) struct Source<R> {
    reader: R,
    size: u64,
    read: u64,
    ended: bool,
    kept: Vec<Bytes>,
    replayable: bool,
    next: usize,
    /// Here and not on the stack, so that nothing is lost when a read is given up because the answer came first.
    partial: BytesMut,
}

impl<R: AsyncRead + Unpin> Source<R> {
    pub(super) fn new(reader: R, size: u64) -> Self {
        Self {
            reader,
            size,
            read: 0,
            ended: false,
            kept: Vec::new(),
            replayable: true,
            next: 0,
            partial: BytesMut::new(),
        }
    }

    /// Whether the reader reported its end, after the right number of bytes.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.read == self.size
    }

    /// Starts again from the first byte, if it is still here.
    pub(super) fn rewind(&mut self) -> bool {
        self.next = 0;
        self.replayable
    }

    /// The next piece; `None` after the reader's end.
    ///
    /// # Cancel safety
    /// Nothing is lost when this is dropped before it is done.
    pub(super) async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(piece) = self.kept.get(self.next) {
            self.next += 1;
            return Ok(Some(piece.clone()));
        }
        if self.ended {
            return Ok(None);
        }
        if self.partial.is_empty() {
            self.partial = BytesMut::with_capacity(PIECE);
        }
        while self.partial.len() < PIECE {
            if self.reader.read_buf(&mut self.partial).await? == 0 {
                self.ended = true;
                break;
            }
        }
        let piece = std::mem::take(&mut self.partial).freeze();
        self.read += piece.len() as u64;
        if self.read > self.size || (self.ended && self.read != self.size) {
            let reason = format!("the content has {} bytes or more instead of {}", self.read, self.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        if piece.is_empty() {
            return Ok(None);
        }
        if self.replayable && self.read <= KEPT {
            self.kept.push(piece.clone());
            self.next = self.kept.len();
        } else {
            self.kept = Vec::new();
            self.next = 0;
            self.replayable = false;
        }
        Ok(Some(piece))
    }

    /// Reads what is left, for what the reader has to say at its end.
    pub(super) async fn drain(&mut self) -> io::Result<()> {
        while self.piece().await?.is_some() {}
        Ok(())
    }
}
