//! One blob into every repository that needs it: found, pushed, mounted or copied.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::error::LoadError;
use super::survey::Survey;
use crate::base::digest::Digest;
use crate::base::progress::Counter;
use crate::bundle::BundleError;
use crate::bundle::random::{FileBlob, from_io, to_io};
use crate::model::receipt::{Outcome, ReceiptBlob};
use crate::registry::{Blob, Client, Content, Mount, OpenUpload, Pieces, Prefix, RegistryError, Repository, Sessions};

/// Where the bytes of a blob come from, when they are needed.
#[derive(Clone)]
pub(super) enum Origin {
    /// From the archive, at any time.
    Archive(FileBlob),
    /// From memory.
    Memory(Bytes),
    /// From a repository below the prefix that has it, for it came by already.
    Registry(String),
    /// From a repository of a delta's base, which was seen to have it.
    Base(String),
}

/// A blob, and where it must be.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Below the prefix, sorted.
    pub(super) repositories: Vec<String>,
    pub(super) origin: Origin,
}

/// What came of a blob.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) blob: ReceiptBlob,
    /// Bytes that were sent for it.
    pub(super) sent_bytes: u64,
}

/// Puts blobs into the registry. Clones share connections.
#[derive(Clone)]
pub(super) struct Placer {
    pub(super) client: Client,
    pub(super) prefix: Prefix,
    pub(super) sessions: Option<Sessions>,
    pub(super) survey: Arc<Survey>,
    pub(super) counter: Counter,
}

impl Wanted {
    /// The receipt of a blob that was found in all these repositories.
    fn placed(&self, repositories: BTreeMap<String, Outcome>, sent_bytes: u64) -> Placed {
        let blob = ReceiptBlob { digest: self.digest, size: self.size, repositories, read_back: false };
        Placed { blob, sent_bytes }
    }
}

impl Placer {
    /// The repositories that have the blob: as the survey knows, or as they say. Each is asked, also where a mount would do
    /// without, for a registry acknowledges a mount of what was there already in the same words, and the receipt must not.
    pub(super) async fn find(&self, wanted: &Wanted) -> Result<BTreeMap<String, Outcome>, LoadError> {
        let mut found = BTreeMap::new();
        for name in &wanted.repositories {
            let known = self.survey.is_complete(name)
                || matches!(&wanted.origin, Origin::Base(seen_there) if seen_there == name);
            let repository = self.prefix.repository(name)?;
            if known || self.client.blob_exists(&repository, &wanted.digest, wanted.size).await? {
                found.insert(name.clone(), Outcome::Present);
            }
        }
        Ok(found)
    }

    /// Puts the blob into each repository that needs it.
    pub(super) async fn place(&self, wanted: &Wanted) -> Result<Placed, LoadError> {
        let found = self.find(wanted).await?;
        let placed = self.spread(wanted, found).await?;
        // What was sent was counted while it was read.
        self.counter.advance(wanted.size.saturating_sub(placed.sent_bytes));
        Ok(placed)
    }

    /// Puts the blob into each repository that needs it, where some have it for what `done` says.
    pub(super) async fn spread(
        &self,
        wanted: &Wanted,
        mut done: BTreeMap<String, Outcome>,
    ) -> Result<Placed, LoadError> {
        let mut from = done.keys().next().cloned();
        if let (None, Origin::Registry(name) | Origin::Base(name)) = (&from, &wanted.origin) {
            from = Some(name.clone());
        }
        let mut sent_bytes = 0;
        for name in &wanted.repositories {
            if done.contains_key(name) {
                continue;
            }
            let to = self.prefix.repository(name)?;
            let opened = match &from {
                None => None,
                Some(from) => match self.client.mount(&to, &wanted.digest, &self.prefix.repository(from)?).await? {
                    Mount::Mounted => {
                        done.insert(name.clone(), Outcome::Mounted);
                        continue;
                    }
                    Mount::Declined(opened) => Some(opened),
                },
            };
            let (outcome, bytes) = self.send(wanted, &to, opened).await?;
            sent_bytes += bytes;
            done.insert(name.clone(), outcome);
            from.get_or_insert_with(|| name.clone());
        }
        if let Origin::Archive(blob) = &wanted.origin {
            // Whatever was not read is in the registry, as it says itself.
            blob.vouched_by_registry();
        }
        Ok(wanted.placed(done, sent_bytes))
    }

    async fn send(
        &self,
        wanted: &Wanted,
        to: &Repository,
        opened: Option<OpenUpload>,
    ) -> Result<(Outcome, u64), LoadError> {
        let Wanted { digest, size, .. } = wanted;
        let blob = Blob { repository: to, digest, size: *size };
        let content: &dyn Content = match &wanted.origin {
            Origin::Archive(blob) => &Counted { content: blob.clone(), counter: self.counter.clone() },
            Origin::Memory(bytes) => &Held(bytes.clone()),
            Origin::Registry(name) | Origin::Base(name) => {
                let content = self.client.blob(&self.prefix.repository(name)?, digest, *size).await?;
                let sent = self.client.push_stream(blob, content, opened, None).await?;
                return Ok((Outcome::Copied, sent.bytes));
            }
        };
        match self.client.push_content(blob, content, opened, self.sessions.as_ref()).await {
            Ok(sent) => Ok((Outcome::Pushed, sent.bytes)),
            Err(error) => Err(refused(error)),
        }
    }
}

/// What the archive says of its content counts for more than what became of the request.
pub(super) fn refused(error: RegistryError) -> LoadError {
    match error {
        RegistryError::Content { action, source } => match from_io(source) {
            Ok(error) => LoadError::Bundle(error),
            Err(source) => RegistryError::Content { action, source }.into(),
        },
        error => error.into(),
    }
}

/// Whether the bytes of the archive could not be had or were wrong, so that it can go on with others.
pub(super) fn is_put_aside(error: &LoadError) -> bool {
    matches!(
        error,
        LoadError::Bundle(
            BundleError::Io { .. }
                | BundleError::Truncated { .. }
                | BundleError::Header { .. }
                | BundleError::Padding { .. }
                | BundleError::Digest { .. }
        )
    )
}

/// A blob of the archive, counted while it is read.
struct Counted {
    content: FileBlob,
    counter: Counter,
}

impl Content for Counted {
    fn pieces(&self, from: u64) -> Pieces {
        let Self { content, counter } = self;
        let (content, counter) = (content.clone(), counter.clone());
        Pieces::read_by(move |give| {
            let counted = |piece: Bytes| {
                counter.advance(piece.len() as u64);
                give(piece)
            };
            content.each_piece(from, counted).map_err(to_io)
        })
    }
}

/// Bytes that were verified already.
struct Held(Bytes);

impl Content for Held {
    fn pieces(&self, from: u64) -> Pieces {
        let mut bytes = self.0.clone();
        Pieces::read_by(move |give| {
            let skipped = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            let rest = bytes.split_off(skipped);
            if !rest.is_empty() {
                let _: ControlFlow<()> = give(rest);
            }
            io::Result::Ok(())
        })
    }
}
