//! Whether a registry has a blob, as it says.

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode};

use super::Client;
use crate::base::digest::Digest;
use crate::registry::error::RegistryError;
use crate::registry::http::text_header;
use crate::registry::reference::Repository;

impl Client {
    /// Whether the repository has this blob, as the registry says, with this many bytes. A blob of another length, or of
    /// none that is told, counts as absent: pushing it again is always right.
    ///
    /// # Errors
    /// When the registry can't be asked.
    pub async fn blob_exists(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, RegistryError> {
        Ok(self.blob_length(repository, digest).await? == Some(Some(size)))
    }

    /// The length that the registry tells of a blob; the inner `None` where it tells none, the outer where it has no such
    /// blob.
    pub(in crate::registry) async fn blob_length(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Option<u64>>, RegistryError> {
        let action = self.action("look for blob", digest, "in", repository);
        let url = self.url(&format!("{repository}/blobs/{digest}"));
        let expected = [StatusCode::OK, StatusCode::NOT_FOUND];
        let response =
            self.ask(&action, &Self::pull_scope(repository), &expected, Method::HEAD, url, |request| request).await?;
        let length = || text_header(response.headers(), CONTENT_LENGTH.as_str())?.parse().ok();
        Ok((response.status() == StatusCode::OK).then(length))
    }
}
