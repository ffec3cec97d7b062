//! Reading ahead on a thread of its own, so that what makes a stream and what takes it use two cores.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes that go from one thread to the other at a time.
const CHUNK: usize = 64 << 10;

/// Chunks that are on their way, at most: what the reader is ahead by.
const CHUNKS: usize = 4;

/// What a thread of its own has read already.
pub struct Ahead {
    arriving: Receiver<io::Result<Vec<u8>>>,
    emptied: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    taken: usize,
}

/// Has `consume` read what `source` gives, which another thread reads at the same time, at most four chunks of
/// 64 KiB ahead. The thread has ended when this returns: a `consume` that returns early waits for the read that goes on.
///
/// # Panics
/// When `source` does.
pub fn read_ahead<T>(source: impl Read + Send, consume: impl FnOnce(&mut Ahead) -> T) -> T {
    let (sender, arriving) = sync_channel(CHUNKS);
    // Chunks come back here, so that no more are ever made than are on their way.
    let (emptied, empty) = sync_channel(CHUNKS + 2);
    thread::scope(|scope| {
        scope.spawn(move || send_all(source, &sender, &empty));
        // Dropped at the end, so that the other thread finds nobody who takes its next chunk.
        let mut ahead = Ahead { arriving, emptied, chunk: Vec::new(), taken: 0 };
        consume(&mut ahead)
    })
}

fn send_all(mut source: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        chunk.clear();
        // What was read before an error is given, and then the error.
        let outcome = source.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        if !chunk.is_empty() && sender.send(Ok(chunk)).is_err() {
            return;
        }
        match outcome {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                // Nobody waits for it where nobody takes it.
                let _ = sender.send(Err(error));
                return;
            }
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() {
            let Ok(next) = self.arriving.recv() else { return Ok(0) };
            let emptied = std::mem::replace(&mut self.chunk, next?);
            self.taken = 0;
            // Where there are enough of them already, it goes.
            let _ = self.emptied.try_send(emptied);
        }
        let n = buffer.len().min(self.chunk.len() - self.taken);
        buffer[..n].copy_from_slice(&self.chunk[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives numbered bytes, few at a time, and then an error where there is one.
    struct Source {
        left: usize,
        error: Option<io::ErrorKind>,
    }

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(self.left).min(1000);
            (0..n).for_each(|i| buffer[i] = ((self.left - i) % 251) as u8);
            self.left -= n;
            match (n, self.error) {
                (0, Some(kind)) => Err(kind.into()),
                _ => Ok(n),
            }
        }
    }

    #[test]
    fn all_arrives_in_order_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * 9 + 7] {
            let mut bytes = Vec::new();
            let read = read_ahead(Source { left: length, error: None }, |ahead| ahead.read_to_end(&mut bytes));
            assert_eq!(read.expect("there is no error"), length);
            assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == ((length - i) % 251) as u8), "{length}");
        }
    }

    #[test]
    fn an_error_comes_after_all_that_came_before_it() {
        let mut bytes = Vec::new();
        let source = Source { left: CHUNK + 5, error: Some(io::ErrorKind::ConnectionAborted) };
        let error = read_ahead(source, |ahead| ahead.read_to_end(&mut bytes)).expect_err("it broke off");
        assert_eq!((error.kind(), bytes.len()), (io::ErrorKind::ConnectionAborted, CHUNK + 5));
    }

    #[test]
    fn who_has_read_enough_ends_the_thread() {
        let first = read_ahead(Source { left: usize::MAX, error: None }, |ahead| {
            let mut byte = [0];
            ahead.read_exact(&mut byte).map(|()| byte[0])
        });
        assert_eq!(first.expect("a byte"), (usize::MAX % 251) as u8);
    }
}
