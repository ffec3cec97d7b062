//! Uploads under way, so that a repeated load goes on where a killed one was.
//!
//! One small file for each blob. It is a hint and nothing more: one that is torn, stale or forged costs a request. The
//! address in it is used only if it is on the registry's own origin, and what is sent there is verified content alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::base::digest::Digest;
use crate::registry::reference::{Authority, Repository};

/// Blobs below this size are sent again from their start: to go on would cost as much.
pub(super) const WORTH_KEEPING: u64 = 16 << 20;
/// How long an upload is remembered. Registries purge theirs after a week at most.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of one file.
const FILE_BYTES: u64 = 16 << 10;

/// The uploads under way, in a folder.
#[derive(Clone, Debug)]
pub struct Sessions {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    registry: Authority,
    repository: Repository,
    digest: Digest,
    size: u64,
    address: String,
}

impl Sessions {
    /// Those that are remembered in this folder, which is made when the first is. What is too old is removed.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        let sessions = Self { folder: folder.into() };
        sessions.prune(SystemTime::now());
        sessions
    }

    fn prune(&self, now: SystemTime) {
        let Ok(files) = fs::read_dir(&self.folder) else { return };
        for file in files.flatten() {
            let touched = file.metadata().and_then(|metadata| metadata.modified());
            let old = touched.is_ok_and(|touched| now.duration_since(touched).is_ok_and(|age| age > KEPT));
            if old {
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// The name says nothing that the file does not; it only has to differ where the upload does.
    fn path(&self, registry: &Authority, repository: &Repository, digest: &Digest) -> PathBuf {
        let name = Digest::of(format!("{registry}/{repository}@{digest}"));
        self.folder.join(format!("{}.json", name.hex()))
    }

    /// The address of the upload of this blob that is remembered, if any.
    pub(super) fn find(
        &self,
        registry: &Authority,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Option<Url> {
        let bytes = crate::base::file::read_capped(&self.path(registry, repository, digest), FILE_BYTES).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let same =
            kept.registry == *registry && kept.repository == *repository && kept.digest == *digest && kept.size == size;
        same.then(|| Url::parse(&kept.address).ok()).flatten()
    }

    /// Remembers where an upload is. That it can't be written costs only what a kill would.
    pub(super) fn keep(
        &self,
        registry: &Authority,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        address: &Url,
    ) {
        let kept = Kept {
            registry: registry.clone(),
            repository: repository.clone(),
            digest: *digest,
            size,
            address: address.to_string(),
        };
        let path = self.path(registry, repository, digest);
        if let Err(error) = self.write(&path, &kept) {
            tracing::debug!(%error, path = %path.display(), "an upload is not remembered");
        }
    }

    fn write(&self, path: &Path, kept: &Kept) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let fresh = path.with_extension("new");
        // The address of an upload is a right to write to it.
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        fs::rename(fresh, path)
    }

    /// The upload is over.
    pub(super) fn forget(&self, registry: &Authority, repository: &Repository, digest: &Digest) {
        let _ = fs::remove_file(self.path(registry, repository, digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_for_the_same_blob_alone_and_only_by_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let sessions = Sessions::in_folder(folder.path().join("uploads"));
        let registry: Authority = "registry.internal:5000".parse().expect("a name");
        let (one, two): (Repository, Repository) = ("a".parse().expect("a name"), "b".parse().expect("a name"));
        let digest = Digest::of(b"x");
        let address = Url::parse("https://registry.internal:5000/v2/a/blobs/uploads/1?_state=s").expect("an address");
        assert_eq!(sessions.find(&registry, &one, &digest, 1), None);
        sessions.keep(&registry, &one, &digest, 1, &address);
        assert_eq!(sessions.find(&registry, &one, &digest, 1), Some(address));
        assert_eq!(sessions.find(&registry, &one, &digest, 2), None);
        assert_eq!(sessions.find(&registry, &two, &digest, 1), None);
        let path = sessions.path(&registry, &one, &digest);
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"{\"registry\":").expect("torn");
        assert_eq!(sessions.find(&registry, &one, &digest, 1), None);
        sessions.prune(SystemTime::now() + KEPT + Duration::from_secs(60));
        assert!(!path.exists());
    }
}
