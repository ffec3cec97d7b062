//! Content on its way up, and the place in it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Content that yields its pieces in order, and again from an earlier place where it can.
pub(super) trait Feed: Send {
    /// Bytes before the place that was reached that can be had again at least, where no other stream keeps any.
    const AGAIN: u64;

    /// The next piece; `None` after the end. The end, and the last piece before it, come only once all of the content, from
    /// its first byte, is what it must be.
    ///
    /// # Cancel safety
    /// Nothing is lost when this is dropped before it is done.
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;

    /// Has the next piece begin at this place, which must not be before [`Feed::kept_from`]. What lies between is read, and
    /// verified with the rest.
    fn go_to(&mut self, offset: u64);

    /// The first place that can be had again.
    fn kept_from(&self) -> u64;
}

/// A feed that must yield exactly `size` bytes, cut to what requests take.
pub(super) struct Cursor<F> {
    feed: F,
    size: u64,
    /// Of the newest piece, what no request took yet.
    rest: Bytes,
    at: u64,
    taken: Arc<AtomicU64>,
}

impl<F: Feed> Cursor<F> {
    pub(super) fn new(feed: F, size: u64) -> Self {
        Self { feed, size, rest: Bytes::new(), at: 0, taken: Arc::default() }
    }

    /// The place of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether everything was handed out, and therefore verified.
    pub(super) fn is_done(&self) -> bool {
        self.at == self.size && self.size > 0
    }

    /// Bytes that connections took, in all requests together.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Where those bytes are counted.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }

    /// The first place that it can go to.
    pub(super) fn kept_from(&self) -> u64 {
        self.feed.kept_from()
    }

    /// Goes to this place; whether it could.
    pub(super) fn go_to(&mut self, offset: u64) -> bool {
        if offset < self.feed.kept_from() {
            return false;
        }
        if offset != self.at {
            self.feed.go_to(offset);
            self.rest = Bytes::new();
            self.at = offset;
        }
        true
    }

    /// The next piece, of at most `most` bytes; `None` after the last.
    ///
    /// # Cancel safety
    /// That of [`Feed::next`].
    pub(super) async fn next(&mut self, most: u64) -> io::Result<Option<Bytes>> {
        while self.rest.is_empty() {
            match self.feed.next().await? {
                Some(piece) if self.at + piece.len() as u64 > self.size => return Err(self.other_length("more")),
                Some(piece) => self.rest = piece,
                None if self.at < self.size => return Err(self.other_length("less")),
                None => return Ok(None),
            }
        }
        let cut = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        let piece = self.rest.split_to(cut);
        self.at += cut as u64;
        Ok(Some(piece))
    }

    /// Reads what is left, for what the content has to say at its end.
    pub(super) async fn verdict(&mut self) -> io::Result<()> {
        while self.next(u64::MAX).await?.is_some() {}
        Ok(())
    }

    fn other_length(&self, than: &str) -> io::Error {
        let reason = format!("the content has {than} than its {} bytes", self.size);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}
