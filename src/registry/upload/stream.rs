//! Content that streams by once, with its newest bytes kept for the time that a connection breaks.
//!
//! All streams of one client share the room for that, so that several at once don't multiply it: each has [`OWN`] pieces
//! of its own, and takes from [`WindowSpace`] what is free beyond.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::feed::Feed;

/// Bytes that one piece has at most.
const PIECE: usize = 256 << 10;
/// Pieces that a stream keeps whatever others do: as much as an upload has on its way anyway.
const OWN: usize = 4;
/// Pieces that all streams share beyond. A lone stream keeps 8 MiB, which is more than a connection has on its way.
const SHARED: usize = 28;

/// Room for pieces that streams keep.
#[derive(Debug)]
pub(crate) struct WindowSpace {
    free: AtomicUsize,
}

impl Default for WindowSpace {
    fn default() -> Self {
        Self { free: AtomicUsize::new(SHARED) }
    }
}

impl WindowSpace {
    fn take(&self) -> bool {
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1)).is_ok()
    }

    fn give_back(&self, pieces: usize) {
        self.free.fetch_add(pieces, Ordering::Relaxed);
    }
}

/// A reader as a [`Feed`].
pub(super) struct Streamed<'a, R> {
    reader: R,
    /// Here and not on the stack, so that nothing is lost when a read is given up because the answer came first.
    partial: BytesMut,
    /// The newest piece, which nobody gets before it is known that it is not the last or that all verified.
    held: Option<Bytes>,
    window: VecDeque<Bytes>,
    window_from: u64,
    window_to: u64,
    at: u64,
    state: State,
    space: &'a WindowSpace,
    borrowed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    Ended,
    /// It failed once. Whatever a reader says after that, it did not verify.
    Failed,
}

impl<'a, R: AsyncRead + Unpin> Streamed<'a, R> {
    pub(super) fn new(reader: R, space: &'a WindowSpace) -> Self {
        Self {
            reader,
            partial: BytesMut::new(),
            held: None,
            window: VecDeque::new(),
            window_from: 0,
            window_to: 0,
            at: 0,
            state: State::Flowing,
            space,
            borrowed: 0,
        }
    }

    /// The next whole piece of the reader; empty at its end.
    async fn read(&mut self) -> io::Result<Bytes> {
        if self.partial.capacity() < PIECE {
            self.partial = BytesMut::with_capacity(PIECE);
        }
        while self.partial.len() < PIECE {
            if self.reader.read_buf(&mut self.partial).await? == 0 {
                break;
            }
        }
        Ok(std::mem::take(&mut self.partial).freeze())
    }

    fn keep(&mut self, piece: Bytes) {
        self.window_to += piece.len() as u64;
        self.window.push_back(piece);
        if self.window.len() <= OWN + self.borrowed {
            return;
        }
        if self.space.take() {
            self.borrowed += 1;
        } else if let Some(oldest) = self.window.pop_front() {
            self.window_from += oldest.len() as u64;
        }
    }

    /// What is kept from the place that was reached on, if it is kept.
    fn again(&self) -> Option<Bytes> {
        let mut from = self.window_from;
        for piece in &self.window {
            let to = from + piece.len() as u64;
            if self.at < to {
                let skipped = usize::try_from(self.at.checked_sub(from)?).ok()?;
                return Some(piece.slice(skipped..));
            }
            from = to;
        }
        None
    }
}

impl<R: AsyncRead + Send + Unpin> Feed for Streamed<'_, R> {
    /// Without the piece that is read ahead, and that of which a part may be left.
    const AGAIN: u64 = ((OWN + SHARED - 2) * PIECE) as u64;

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.state == State::Failed {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the content failed before"));
            }
            if let Some(piece) = self.again() {
                self.at += piece.len() as u64;
                return Ok(Some(piece));
            }
            if self.state == State::Ended {
                return Ok(None);
            }
            let read = self.read().await;
            let piece = match read {
                Ok(piece) => piece,
                Err(error) => {
                    self.state = State::Failed;
                    return Err(error);
                }
            };
            let next = if piece.is_empty() {
                self.state = State::Ended;
                self.held.take()
            } else {
                self.held.replace(piece)
            };
            if let Some(piece) = next {
                self.keep(piece);
            }
        }
    }

    fn go_to(&mut self, offset: u64) {
        self.at = offset;
    }

    fn kept_from(&self) -> u64 {
        self.window_from
    }
}

impl<R> Drop for Streamed<'_, R> {
    fn drop(&mut self) {
        self.space.give_back(self.borrowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_on<R: AsyncRead + Send + Unpin>(feed: &mut Streamed<'_, R>, bytes: u64) {
        let until = feed.at + bytes;
        while feed.at < until {
            feed.next().await.expect("readable").expect("not the end");
        }
    }

    #[tokio::test]
    async fn the_newest_bytes_can_be_had_again_and_older_ones_can_not() {
        let bytes: Vec<u8> = (0..20_u64 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect();
        let space = WindowSpace::default();
        let mut feed = Streamed::new(bytes.as_slice(), &space);
        read_on(&mut feed, 6 << 20).await;
        assert_eq!(feed.kept_from(), 0);
        read_on(&mut feed, 10 << 20).await;
        assert_eq!(feed.kept_from(), 8 << 20);
        for from in [8 << 20, (8 << 20) + 1, (12 << 20) - 1, (16 << 20) + 5] {
            feed.go_to(from);
            let piece = feed.next().await.expect("readable").expect("a piece");
            assert_eq!(piece, bytes[from as usize..][..piece.len()]);
        }
        while feed.next().await.expect("readable").is_some() {}
        assert_eq!(feed.at, bytes.len() as u64);
        assert!(feed.next().await.expect("the end stays the end").is_none());
        feed.go_to(bytes.len() as u64 - 3);
        assert_eq!(feed.next().await.expect("readable").expect("the end"), bytes[bytes.len() - 3..]);
    }

    #[tokio::test]
    async fn several_streams_share_the_room_and_give_it_back() {
        let bytes = vec![7; 20 << 20];
        let space = WindowSpace::default();
        let mut one = Streamed::new(bytes.as_slice(), &space);
        read_on(&mut one, 10 << 20).await;
        let mut kept = one.at - one.kept_from();
        assert_eq!(kept, 8 << 20);
        let mut others: Vec<_> = (0..5).map(|_| Streamed::new(bytes.as_slice(), &space)).collect();
        for other in &mut others {
            read_on(other, 10 << 20).await;
            assert_eq!(other.at - other.kept_from(), 1 << 20);
            kept += other.at - other.kept_from();
        }
        assert_eq!(kept, 13 << 20);
        drop(one);
        read_on(&mut others[0], 9 << 20).await;
        assert_eq!(others[0].at - others[0].kept_from(), 8 << 20);
        drop(others);
        assert_eq!(space.free.load(Ordering::Relaxed), SHARED);
    }

    #[tokio::test]
    async fn the_last_piece_waits_for_the_end_and_an_error_stays_one() {
        struct Fails(usize);
        impl AsyncRead for Fails {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                self.0 += 1;
                match self.0 {
                    1 => buffer.put_slice(b"all of it"),
                    2 => return std::task::Poll::Ready(Err(io::Error::other("it did not verify"))),
                    _ => {}
                }
                std::task::Poll::Ready(Ok(()))
            }
        }
        let space = WindowSpace::default();
        let mut feed = Streamed::new(Fails(0), &space);
        for _ in 0..3 {
            feed.next().await.expect_err("nothing of it verified");
        }
    }
}
