//! The bytes of a document as they come, of which a window is held.

use std::io::{self, Read};

use super::super::ResultsError;

/// Bytes that are held. Twice the pipe buffer: few calls, and it stays in the processor's cache.
const WINDOW_BYTES: usize = 128 << 10;

/// Reads at most so many bytes.
pub(super) struct Source<R> {
    input: R,
    window: Box<[u8]>,
    /// What of the window was consumed, and how much of it there is.
    at: usize,
    end: usize,
    /// Bytes that came before the window.
    before: u64,
    limit: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R, limit: u64) -> Self {
        Self { input, window: vec![0; WINDOW_BYTES].into(), at: 0, end: 0, before: 0, limit }
    }

    /// At which byte of the document it is.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Bytes that were not consumed: none only at the end of the document.
    #[inline]
    pub(super) fn held(&mut self) -> Result<&[u8], ResultsError> {
        if self.at == self.end {
            self.fill()?;
        }
        Ok(&self.window[self.at..self.end])
    }

    /// The next byte; none at the end of the document.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<Option<u8>, ResultsError> {
        if self.at == self.end {
            self.fill()?;
        }
        Ok(if self.at < self.end { Some(self.window[self.at]) } else { None })
    }

    /// Goes on by so many of the bytes that are held.
    #[inline]
    pub(super) fn consume(&mut self, bytes: usize) {
        self.at += bytes;
        debug_assert!(self.at <= self.end, "only what is held can be consumed");
    }

    #[cold]
    fn fill(&mut self) -> Result<(), ResultsError> {
        self.before += self.end as u64;
        (self.at, self.end) = (0, 0);
        self.end = loop {
            match self.input.read(&mut self.window) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ResultsError::Io(error)),
            }
        };
        if self.before + self.end as u64 > self.limit {
            return Err(ResultsError::TooLarge { limit: self.limit });
        }
        Ok(())
    }
}
