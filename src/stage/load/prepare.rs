//! What must be right before anything is written: the names, the base of a delta, and the room.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::Load;
use super::base::{BaseThere, check_base};
use super::error::LoadError;
use super::mapping::Mapping;
use super::survey::Survey;
use crate::bundle::contents::Entry;
use crate::bundle::head::Head;

/// The proof that a bundle's items have places, that its base is in the registry, and that there is room. What the registry
/// has already was asked for on the way.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) survey: Arc<Survey>,
    pub(super) base: Option<BaseThere>,
}

impl Load<'_> {
    /// Asks for all that must be known before anything is written.
    pub(super) async fn prepare(&self, head: &Head) -> Result<Prepared, LoadError> {
        let mapping = Mapping::new(self.prefix)?;
        mapping.items(head.catalog())?;
        let base = self.base(head).await?;
        let survey = self.survey(head).await?;
        self.room(head, &survey).await?;
        Ok(Prepared { survey: Arc::new(survey), base })
    }

    /// The base of a delta, with all that is left out; `None` for a whole bundle.
    pub(super) async fn base(&self, head: &Head) -> Result<Option<BaseThere>, LoadError> {
        let Some(base) = head.base() else { return Ok(None) };
        check_base(self.client, self.prefix, base, head.base_blobs(), self.limits, self.jobs).await.map(Some)
    }

    /// Whether there is room for what is missing. The registry is asked what it has only where there may be too little.
    async fn room(&self, head: &Head, survey: &Survey) -> Result<(), LoadError> {
        let lacking: Vec<&Entry> = head
            .blobs()
            .iter()
            .filter(|blob| !head.blob_repositories(&blob.digest).iter().any(|name| survey.is_complete(name)))
            .collect();
        let most: u64 = lacking.iter().map(|blob| blob.size).sum();
        if most == 0 {
            return Ok(());
        }
        let Some(available) = self.client.available_bytes().await? else { return Ok(()) };
        if available >= most {
            return Ok(());
        }
        let needed: u64 = stream::iter(lacking)
            .map(|blob| async move {
                for name in head.blob_repositories(&blob.digest) {
                    let repository = self.prefix.repository(&name)?;
                    if self.client.blob_exists(&repository, &blob.digest, blob.size).await? {
                        return Ok::<_, LoadError>(0);
                    }
                }
                Ok(blob.size)
            })
            .buffer_unordered(self.jobs.get())
            .try_fold(0_u64, |sum, bytes| async move { Ok(sum + bytes) })
            .await?;
        if needed > available {
            return Err(LoadError::Space { prefix: self.prefix.clone(), needed, available });
        }
        Ok(())
    }
}
