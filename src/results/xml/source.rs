//! The bytes of a document as they come: at most so many of all, and of one piece.

use std::io::{self, BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 128 << 10;
/// Bytes of one tag, comment or text, which the parser beneath holds as a whole.
const PIECE_BYTES: usize = 64 << 20;

/// More bytes than the limit.
#[derive(Debug, thiserror::Error)]
#[error("the limit of {0} bytes is reached")]
pub(super) struct OverLimit(pub(super) u64);

/// A piece that goes on and on.
#[derive(Debug, thiserror::Error)]
#[error("it has a tag, comment or text of more than 64 MiB")]
pub(super) struct TooLong;

/// Reads until there is too much.
pub(super) struct Source<R> {
    input: BufReader<Bounded<R>>,
    /// How much of the piece that is read came so far.
    piece: usize,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R, limit: u64) -> Self {
        let input = BufReader::with_capacity(BUFFER_BYTES, Bounded { input, left: limit, limit });
        Self { input, piece: 0 }
    }

    /// What comes now is another piece.
    pub(super) fn begin_piece(&mut self) {
        self.piece = 0;
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.piece += read;
        Ok(read)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece > PIECE_BYTES {
            return Err(io::Error::other(TooLong));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.piece += bytes;
        self.input.consume(bytes);
    }
}

/// Fails once more than so many bytes were read, instead of pretending that the input ended there.
struct Bounded<R> {
    input: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(OverLimit(self.limit))),
        }
        Ok(read)
    }
}
