//! What the registry has of a bundle before anything is sent: two requests for each item.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::error::LoadError;
use super::vouch::metadata_tag;
use super::{Load, ReadBack, vouch};
use crate::base::digest::Digest;
use crate::bundle::head::Head;
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::registry::{Repository, Tag};

/// What the tags of a bundle point to, in the registry.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// By repository below the prefix and tag.
    tags: BTreeMap<(String, String), Digest>,
    /// Whether the metadata that is kept beside the catalog is that of this bundle, and that may be relied on. It is tagged
    /// only after every blob and manifest was there.
    vouched: bool,
    complete: BTreeSet<String>,
    known: BTreeSet<String>,
}

impl Survey {
    /// What this tag points to.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.tags.get(&(repository.to_owned(), tag.to_owned())).copied()
    }

    /// Whether the metadata of this very bundle is kept beside its catalog, and need not be looked at.
    pub fn has_metadata(&self) -> bool {
        self.vouched
    }

    /// Whether this repository has all that the bundle has for it: a load of this very bundle had put everything there
    /// before it tagged, and its tag is there.
    pub fn is_complete(&self, repository: &str) -> bool {
        self.complete.contains(repository)
    }

    /// Whether an earlier load, of this bundle or another version of it, finished in this repository.
    pub fn is_known(&self, repository: &str) -> bool {
        self.known.contains(repository)
    }
}

impl Load<'_> {
    /// Asks for the tags of all items, and for the metadata beside the catalog. Where everything is to be looked at
    /// ([`ReadBack::All`]), nothing is taken as complete because of them: what somebody removed since is then missed, in each
    /// repository, and brought back.
    ///
    /// # Errors
    /// When the registry can't be asked.
    pub async fn survey(&self, head: &Head) -> Result<Survey, LoadError> {
        let catalog = self.prefix.repository(CATALOG_REPOSITORY)?;
        let metadata = Digest::of(vouch::metadata_manifest(head.metadata()));
        let there = self.tag_now(&catalog, &metadata_tag(&head.catalog_manifest())?).await? == Some(metadata);
        let vouched = there && self.read_back == ReadBack::Sample;
        let asked = head.tags().into_iter().map(|tag| async move {
            let repository = self.prefix.repository(&tag.repository)?;
            let now = self.tag_now(&repository, &tag.tag.parse()?).await?;
            Ok::<_, LoadError>((tag, now))
        });
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(self.jobs.get()).try_collect().await?;
        let version = format!("{}.{}", head.bundle().name, head.bundle().version);
        let mut survey = Survey { vouched, ..Survey::default() };
        for (tag, now) in answers {
            let Some(now) = now else { continue };
            if vouched && tag.tag == version && now == tag.digest {
                survey.complete.insert(tag.repository.clone());
            }
            survey.known.insert(tag.repository.clone());
            survey.tags.insert((tag.repository, tag.tag), now);
        }
        Ok(survey)
    }

    pub(super) async fn tag_now(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, LoadError> {
        match self.client.resolve(repository, tag).await {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
