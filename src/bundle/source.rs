//! Where the content of a bundle comes from while it is built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use super::oci::{self, Descriptor, REF_NAME};
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file;
use crate::base::limits::Limits;

/// The bytes of a blob, not verified yet.
pub type BlobStream = Box<dyn AsyncRead + Send + Unpin>;

/// How far away content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// On this machine.
    Here,
    /// Beyond a network: it is not fetched again where it can be had here.
    Away,
}

/// Gives content by digest. What it gives is verified by whoever asked.
#[async_trait]
pub trait Source: Send + Sync {
    /// How far away the blobs are.
    fn distance(&self) -> Distance {
        Distance::Here
    }

    /// A manifest or index of at most `limit` bytes.
    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError>;

    /// A blob of this length.
    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, SourceError>;
}

/// Why a source does not give what it is asked for.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    class: ExitClass,
    message: String,
    remedy: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    /// An error of this class; the message fits after "failed to".
    pub fn new(class: ExitClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), remedy: None, source: None }
    }

    /// The error of something below, with its class, its remedy and its causes.
    pub fn of(error: impl Classify + Send + Sync + 'static) -> Self {
        Self { class: error.class(), message: error.to_string(), remedy: error.remedy(), source: Some(Box::new(error)) }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    fn file(path: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ExitClass::Unreachable, format!("read `{}`", path.display())).because(cause)
    }
}

impl Classify for SourceError {
    fn class(&self) -> ExitClass {
        self.class
    }

    fn remedy(&self) -> Option<String> {
        self.remedy.clone()
    }
}

/// An OCI image layout in a folder (image-spec, image-layout.md).
#[derive(Clone, Debug)]
pub struct LayoutFolder {
    folder: PathBuf,
}

impl LayoutFolder {
    /// The layout in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join("index.json")
    }

    /// The one image of the layout (which may be for several platforms), or the one of this name.
    ///
    /// # Errors
    /// When there is no layout, or no one image that is meant.
    pub fn resolve(&self, name: Option<&str>, limits: &Limits) -> Result<Descriptor, SourceError> {
        #[derive(serde::Deserialize)]
        struct Index {
            manifests: Vec<Descriptor>,
        }
        let path = self.index_path();
        let bytes = file::read_capped(&path, limits.manifest_bytes).map_err(|e| SourceError::file(&path, e))?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| SourceError::file(&path, e))?;
        // Some tools write the platforms of one image as the layout's own index.
        let platforms = |d: &Descriptor| d.platform.is_some() && !d.annotations.contains_key(REF_NAME);
        if name.is_none() && index.manifests.len() > 1 && index.manifests.iter().all(platforms) {
            return Ok(Descriptor::of(oci::INDEX, &bytes));
        }
        let mut meant = index
            .manifests
            .into_iter()
            .filter(|d| name.is_none_or(|name| d.annotations.get(REF_NAME).is_some_and(|n| n == name)));
        let refuse = |reason: &str| {
            let wanted = name.map_or("without a name".to_owned(), |n| format!("`{}`", crate::base::text::brief(n)));
            SourceError::new(ExitClass::Usage, format!("find image {wanted} in `{}`: {reason}", self.folder.display()))
        };
        let found = meant.next().ok_or_else(|| refuse("there is none"))?;
        if meant.next().is_some() {
            return Err(refuse("there are several, so name one as `oci:PATH:TAG`"));
        }
        if oci::manifest_kind(&found.media_type).is_none() {
            return Err(refuse("it is no image and no index"));
        }
        Ok(found)
    }
}

#[async_trait]
impl Source for LayoutFolder {
    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        let path = self.path(digest);
        let blob = file::read_capped(&path, limit).map(Bytes::from);
        match file::read_capped(&self.index_path(), limit) {
            // The layout's own index is no blob of it.
            Ok(index) if blob.is_err() && Digest::of(&index) == *digest => Ok(index.into()),
            Ok(_) | Err(_) => blob.map_err(|e| SourceError::file(&path, e)),
        }
    }

    async fn blob(&self, digest: &Digest, _size: u64) -> Result<BlobStream, SourceError> {
        let path = self.path(digest);
        let mut file = tokio::fs::File::open(&path).await.map_err(|e| SourceError::file(&path, e))?;
        // One trip to the thread pool for each of these, not for each 8 KiB.
        file.set_max_buf_size(1 << 20);
        Ok(Box::new(file))
    }
}

/// Content that was made here and is small enough to hold.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    content: BTreeMap<Digest, Bytes>,
}

impl Memory {
    /// Adds content.
    pub fn insert(&mut self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.content.insert(digest, bytes);
        digest
    }

    fn get(&self, digest: &Digest) -> Result<Bytes, SourceError> {
        let missing = || SourceError::new(ExitClass::Bug, format!("find {digest} among what was made"));
        self.content.get(digest).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl Source for Memory {
    async fn manifest(&self, digest: &Digest, _limit: u64) -> Result<Bytes, SourceError> {
        self.get(digest)
    }

    async fn blob(&self, digest: &Digest, _size: u64) -> Result<BlobStream, SourceError> {
        Ok(Box::new(std::io::Cursor::new(self.get(digest)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::oci::Platform;

    #[tokio::test]
    async fn a_layout_is_one_image_or_is_asked_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = LayoutFolder::new(folder.path());
        let limits = Limits::default();
        let write = |manifests: &[Descriptor]| {
            let index = serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": manifests }));
            std::fs::write(folder.path().join("index.json"), index.expect("JSON")).expect("write");
        };
        let named = |bytes: &[u8], name: &str| {
            let mut descriptor = Descriptor::of(oci::MANIFEST, bytes);
            descriptor.annotations.insert(REF_NAME.to_owned(), name.to_owned());
            descriptor
        };
        assert!(layout.resolve(None, &limits).is_err(), "there is no layout");
        write(&[named(b"a", "1"), named(b"b", "2")]);
        assert!(layout.resolve(None, &limits).is_err(), "which one?");
        assert_eq!(layout.resolve(Some("2"), &limits).expect("named").digest, Digest::of("b"));
        assert!(layout.resolve(Some("3"), &limits).is_err());
        write(&[named(b"a", "1")]);
        assert_eq!(layout.resolve(None, &limits).expect("the only one").digest, Digest::of("a"));

        let of = |architecture: &str, bytes: &[u8]| Descriptor {
            platform: Some(Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }),
            ..Descriptor::of(oci::MANIFEST, bytes)
        };
        write(&[of("amd64", b"a"), of("arm64", b"b")]);
        let index = layout.resolve(None, &limits).expect("one image for two platforms");
        assert_eq!(index.media_type, oci::INDEX);
        let bytes = layout.manifest(&index.digest, limits.manifest_bytes).await.expect("the index");
        assert_eq!(Digest::of(&bytes), index.digest);
        assert!(layout.manifest(&Digest::of("x"), limits.manifest_bytes).await.is_err());
    }
}
