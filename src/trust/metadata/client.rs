//! What `tough` says: the TUF client workflow over the files in memory.

use tough::{ExpirationEnforcement, RepositoryLoader, Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::{MetadataFiles, SMALL_METADATA_BYTES};
use crate::base::limits::Limits;
use crate::trust::error::TrustError;
use crate::trust::root::TrustRoot;

/// The TUF client workflow as `tough` does it, over the files in memory. It keeps its datastore in a temporary folder of
/// a few KiB, because it has no way to go without: what it writes there on the way is neither atomic nor tied to the
/// content that was really loaded, so versions are remembered by [`crate::trust::remembered`] instead.
pub(super) async fn load_with_tough(
    files: &MetadataFiles,
    pinned: &TrustRoot,
    limits: &Limits,
) -> Result<(), TrustError> {
    let base: Url = "bundle:///metadata/".parse().expect("a constant URL");
    let loaded = RepositoryLoader::new(&pinned.bytes(), base.clone(), base)
        .transport(InMemory(files.clone()))
        .expiration_enforcement(ExpirationEnforcement::Safe)
        .limits(tough::Limits {
            max_root_size: SMALL_METADATA_BYTES,
            max_targets_size: limits.metadata_bytes,
            max_timestamp_size: SMALL_METADATA_BYTES,
            max_snapshot_size: SMALL_METADATA_BYTES,
            max_root_updates: limits.root_rotations,
        })
        .load()
        .await;
    use tough::error::Error;
    match loaded {
        Ok(_) => Ok(()),
        Err(
            error @ (Error::DatastoreInit { .. }
            | Error::DatastoreCreate { .. }
            | Error::DatastoreOpen { .. }
            | Error::DatastoreRemove { .. }),
        ) => Err(TrustError::Scratch(Box::new(error))),
        Err(error) => Err(TrustError::Tuf(Box::new(error))),
    }
}

/// Serves the metadata files to `tough`.
#[derive(Clone, Debug)]
struct InMemory(MetadataFiles);

#[async_trait::async_trait]
impl Transport for InMemory {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.path().strip_prefix("/metadata/").unwrap_or_default();
        match self.0.get(name) {
            Some(bytes) => {
                let bytes = bytes::Bytes::copy_from_slice(bytes);
                Ok(Box::pin(futures::stream::once(std::future::ready(Ok(bytes)))))
            }
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
        }
    }
}
