//! One connection: how long it may be silent, and how many one address may have.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Connections that one address may have at a time. A load uses eight; behind an address translator there may be many nodes.
const FROM_ONE: usize = 256;

/// How many connections each address has.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    from: IpAddr,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection from this address, unless it has too many.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Place> {
        let mut counts = self.lock();
        let count = counts.entry(from).or_default();
        if *count >= FROM_ONE {
            return None;
        }
        *count += 1;
        Some(Place { crowd: self.clone(), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.lock();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// A stream whose peer must take what is sent to it within a time. Reading has limits of its own, by what is read.
pub(super) struct Patient<S> {
    inner: S,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(inner: S, stall: Duration) -> Self {
        Self { inner, stall, waiting: None }
    }

    /// What came of a write, or that it waited too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let stall = self.stall;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose peer must say within a time which protocol it speaks, and ask for something within another where that is
/// HTTP/2. What reads requests has limits of its own once it knows the protocol; but who says nothing, half of HTTP/2's
/// beginning, or nothing but pings would keep its place for ever.
pub(super) struct Greeted<S> {
    inner: S,
    spoken: Spoken,
    within: Duration,
    requests: Requests,
    waiting: Option<Pin<Box<Sleep>>>,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    /// So many bytes of the beginning of HTTP/2 have come, and nothing else.
    Beginning(usize),
    Http1,
    Http2,
}

impl<S> Greeted<S> {
    /// The peer says what it speaks within `greeting`, and with HTTP/2 is not without a request for longer than `idle`.
    pub(super) fn new(inner: S, greeting: Duration, idle: Duration, requests: Requests) -> Self {
        let waiting = Some(Box::pin(tokio::time::sleep(greeting)));
        Self { inner, spoken: Spoken::Beginning(0), within: idle, requests, waiting }
    }

    fn heard(&mut self, new: &[u8]) {
        let Spoken::Beginning(matched) = self.spoken else { return };
        let rest = &PREFACE[matched..];
        let count = new.len().min(rest.len());
        if new.is_empty() || new[..count] != rest[..count] {
            (self.spoken, self.waiting) = (Spoken::Http1, None);
        } else if count == rest.len() {
            (self.spoken, self.waiting) = (Spoken::Http2, None);
        } else {
            self.spoken = Spoken::Beginning(matched + count);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if read.is_ready() {
            self.heard(&buffer.filled()[before..]);
            return read;
        }
        if self.spoken == Spoken::Http1 || self.spoken == Spoken::Http2 && self.requests.any() {
            self.waiting = None;
            return read;
        }
        let within = self.within;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The requests of one connection that are being answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(Arc<AtomicUsize>);

/// One of them, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Requests);

/// The body of its answer.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl Requests {
    pub(super) fn begin(&self) -> Answering {
        self.0.fetch_add(1, Ordering::AcqRel);
        Answering(self.clone())
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

impl Answering {
    /// The body, which is a part of answering until it is sent.
    pub(super) fn with(self, body: Body) -> Body {
        Body::new(Answer { body, _answering: self })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let mut stream = Patient::new(near, Duration::from_millis(20));
        let error = stream.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_say_what_it_speaks_is_given_up_and_any_other_is_not() {
        use tokio::io::AsyncReadExt;
        let within = Duration::from_millis(20);
        for beginning in [b"".as_slice(), b"P", &PREFACE[..23]] {
            let (near, mut far) = tokio::io::duplex(64);
            let mut stream = Greeted::new(near, within, 1000 * within, Requests::default());
            far.write_all(beginning).await.expect("sent");
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).await.expect_err("it says no more");
            assert_eq!((error.kind(), read.as_slice()), (io::ErrorKind::TimedOut, beginning));
        }
        for beginning in [b"G".as_slice(), b"PUT", PREFACE] {
            let (near, mut far) = tokio::io::duplex(64);
            let requests = Requests::default();
            let mut stream = Greeted::new(near, within, within, requests.clone());
            let asked = requests.begin();
            for byte in beginning {
                far.write_all(&[*byte]).await.expect("sent");
                assert_eq!(stream.read_u8().await.expect("read"), *byte);
            }
            tokio::time::timeout(4 * within, stream.read_u8()).await.expect_err("it is waited for");
            drop(asked);
            let read = tokio::time::timeout(4 * within, stream.read_u8()).await;
            assert_eq!(read.is_ok(), beginning == PREFACE, "HTTP/1 has a limit for this of its own");
        }
    }

    #[test]
    fn one_address_does_not_take_every_place() {
        let crowd = Crowd::default();
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<Place> = (0..FROM_ONE).map(|_| crowd.enter(one).expect("a place")).collect();
        assert!(crowd.enter(one).is_none());
        assert!(crowd.enter(two).is_some());
        places.pop();
        assert!(crowd.enter(one).is_some());
        drop(places);
        assert!(crowd.lock().is_empty());
    }
}
