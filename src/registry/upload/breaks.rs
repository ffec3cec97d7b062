//! What follows a failure in the middle of an upload: going on, beginning again, or giving up.

use super::UnderWay;
use super::feed::Feed;
use super::mode::CHUNK;
use crate::registry::error::RegistryError;
use crate::registry::http::LONGEST_PAUSE;

/// How often in all one blob may be taken up again. A link that breaks more often than this will not carry it.
const RESUMES: usize = 50;

/// The failures of one upload.
#[derive(Debug, Default)]
pub(super) struct Breaks {
    /// Since something moved.
    in_a_row: usize,
    all: usize,
    /// What connections had taken before.
    taken: u64,
}

impl<F: Feed> UnderWay<'_, F> {
    /// Whether the blob is there although the answer was lost. Only what verified here to its end can be that.
    pub(super) async fn arrived_all_the_same(&mut self, error: &RegistryError) -> Result<bool, RegistryError> {
        if !error.is_transient() || !self.cursor.is_done() {
            return Ok(false);
        }
        let blob = self.target.blob;
        self.target.client.blob_exists(blob.repository, blob.digest, blob.size).await
    }

    /// Goes on where the registry is, or begins again where that is as good.
    ///
    /// # Errors
    /// `error` itself where repeating does not help; [`RegistryError::StreamedBy`] where the content can't be had again.
    pub(super) async fn go_on_after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let moved = self.cursor.taken() - self.breaks.taken;
        let chunk = self.chunk.unwrap_or(CHUNK).min(CHUNK);
        self.breaks.taken += moved;
        self.breaks.in_a_row = if moved > chunk { 1 } else { self.breaks.in_a_row + 1 };
        self.breaks.all += 1;
        let retry = self.target.client.inner.retry;
        if !self.helps_to_repeat(&error) || self.breaks.in_a_row > retry.repeats || self.breaks.all > RESUMES {
            self.give_up(&error).await;
            return Err(error);
        }
        tracing::debug!(%error, moved, "going on with a blob");
        let pause = retry.first_pause * self.breaks.in_a_row as u32;
        tokio::time::sleep(error.retry_after().unwrap_or_default().min(LONGEST_PAUSE).max(pause)).await;
        // Of little, to begin again costs less than to ask.
        let worth_asking = self.cursor.at() > CHUNK || self.cursor.kept_from() > 0;
        let reached = match worth_asking && !error.is_not_found() {
            true => self.target.reached(&self.session.address).await?,
            false => None,
        };
        if reached.is_none() && moved > CHUNK && error.is_transient() {
            self.target.client.inner.upload.learn_loss();
        }
        let offset = reached.as_ref().map_or(0, |(_, offset)| *offset);
        if !self.cursor.go_to(offset) {
            let (action, kept_from) = (self.target.action.clone(), self.cursor.kept_from());
            self.give_up(&error).await;
            return Err(RegistryError::StreamedBy { action, reached: offset, kept_from, source: Box::new(error) });
        }
        match reached {
            Some((address, _)) => self.session.address = address,
            None => {
                self.target.cancel(&self.session.address).await;
                self.session = self.target.open().await?;
            }
        }
        Ok(())
    }

    fn helps_to_repeat(&self, error: &RegistryError) -> bool {
        match error {
            // The token ran out while the blob was on its way; the next request gets another.
            RegistryError::Unauthorized { .. } => self.breaks.in_a_row == 1,
            RegistryError::Status { status, .. } => match status.as_u16() {
                // A session from before this upload that the registry forgot meanwhile.
                404 => !self.session.fresh,
                // What it has is not what was thought.
                416 => self.cursor.taken() > 0,
                405 | 411 | 413 => self.target.client.inner.upload.learn_chunks(self.chunk),
                _ => error.is_transient(),
            },
            error => error.is_transient(),
        }
    }

    /// Leaves what a later process may go on with, and nothing else.
    async fn give_up(&mut self, error: &RegistryError) {
        if self.sessions.is_some() && error.is_transient() {
            return;
        }
        self.forget();
        self.target.cancel(&self.session.address).await;
    }
}
