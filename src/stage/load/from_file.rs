//! The blobs of a bundle that is a file: several at once, the largest first, and none that the registry has.

use std::cmp::Reverse;

use futures::stream::{self, StreamExt};

use super::error::LoadError;
use super::incomplete::{Incomplete, PutAside};
use super::place::{Origin, Placed, Placer, Wanted, is_put_aside};
use super::prepare::Prepared;
use super::{Load, ReadBack};
use crate::bundle::BundleError;
use crate::bundle::random::{BundleFile, FileBlob};
use std::ops::ControlFlow;

impl Load<'_> {
    /// Puts all blobs where they must be. Those that can't be read or are not what is signed are put aside, and the others go
    /// on, so that it can be told in the end what is missing.
    pub(super) async fn blobs_from_file(
        &self,
        file: &BundleFile,
        prepared: &Prepared,
        placer: &Placer,
    ) -> Result<Vec<Placed>, LoadError> {
        let head = file.head();
        let mut wanted: Vec<Wanted> = file
            .blobs()
            .map(|blob| Wanted {
                digest: blob.entry().digest,
                size: blob.entry().size,
                repositories: head.blob_repositories(&blob.entry().digest),
                origin: Origin::Archive(blob),
            })
            .collect();
        wanted.extend(self.blobs_elsewhere(head, prepared));
        // The largest decides when all are done, so it must not begin last.
        wanted.sort_by_key(|wanted| (Reverse(wanted.size), wanted.digest));
        let mut under_way = stream::iter(wanted)
            .map(|wanted| async move {
                let placed = self.place_from_file(placer, &wanted).await;
                (wanted, placed)
            })
            .buffer_unordered(self.jobs.get());
        let (mut placed, mut aside) = (Vec::new(), Vec::new());
        while let Some((wanted, result)) = under_way.next().await {
            match (result, wanted.origin) {
                (Ok(done), _) => placed.push(done),
                (Err(error), Origin::Archive(blob)) if is_put_aside(&error) => {
                    let LoadError::Bundle(reason) = error else { return Err(error) };
                    aside.push(put_aside(&blob, wanted.repositories, reason));
                }
                (Err(error), _) => return Err(error),
            }
        }
        if aside.is_empty() {
            return Ok(placed);
        }
        Err(Incomplete::of(head, aside).into())
    }

    async fn place_from_file(&self, placer: &Placer, wanted: &Wanted) -> Result<Placed, LoadError> {
        let placed = placer.place(wanted).await?;
        if self.read_back == ReadBack::All
            // A registry may say that it has the blob before it took all of it.
            && placed.sent_bytes < wanted.size.max(1)
            && let Origin::Archive(blob) = &wanted.origin
        {
            let blob = blob.clone();
            let verified = tokio::task::spawn_blocking(move || blob.each_piece(0, |_| ControlFlow::Continue(())));
            verified.await.map_err(|error| BundleError::Io { offset: 0, source: std::io::Error::other(error) })??;
        }
        Ok(placed)
    }
}

fn put_aside(blob: &FileBlob, repositories: Vec<String>, reason: BundleError) -> PutAside {
    let entry = blob.entry();
    let (offset, reason) = (Some(blob.offset()), Some(reason));
    PutAside { digest: entry.digest, size: entry.size, repositories, offset, reason }
}
