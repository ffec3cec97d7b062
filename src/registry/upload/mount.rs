//! Blobs that a registry takes from another of its repositories, and the uploads that it opens where it does not.

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode};
use url::Url;

use super::Blob;
use super::session::Target;
use crate::base::digest::Digest;
use crate::registry::auth::Scope;
use crate::registry::client::{Client, claimed_digest};
use crate::registry::error::{Action, RegistryError};
use crate::registry::reference::Repository;

/// What came of asking a registry to take a blob from another of its repositories.
#[derive(Debug)]
pub enum Mount {
    /// The blob is there now.
    Mounted,
    /// The registry does not do that, or does not have the blob there: it must be pushed, and this upload was opened for it.
    Declined(OpenUpload),
}

/// An upload that a registry opened, into which nothing was sent yet.
#[derive(Debug)]
#[must_use = "it is used for an upload, or cancelled"]
pub struct OpenUpload {
    pub(super) repository: Repository,
    pub(super) scope: Scope,
    pub(super) address: Url,
}

impl Client {
    /// Asks the registry to take a blob from another of its repositories.
    ///
    /// # Errors
    /// When the registry can't be asked. That it declines is no error.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<Mount, RegistryError> {
        let mut target = Target::new(self, Blob { repository, digest, size: 0 });
        target.action = self.action("mount blob", digest, "in", repository);
        target.scope.0.extend(Self::pull_scope(from).0);
        let mut url = self.url(&format!("{repository}/blobs/uploads/"));
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from.as_str());
        let expected = [StatusCode::CREATED, StatusCode::ACCEPTED];
        let response = self
            .ask(&target.action, &target.scope, &expected, Method::POST, url, |request| {
                request.header(CONTENT_LENGTH, 0)
            })
            .await?;
        if response.status() == StatusCode::CREATED {
            if let Some(found) = claimed_digest(&response).filter(|found| found != digest) {
                return Err(RegistryError::Digest { action: target.action, expected: *digest, found });
            }
            return Ok(Mount::Mounted);
        }
        let address = target.location(&response)?;
        Ok(Mount::Declined(OpenUpload { repository: repository.clone(), scope: target.scope, address }))
    }

    /// Gives up an upload that nothing was sent into.
    pub async fn cancel(&self, upload: OpenUpload) {
        let OpenUpload { repository, scope, address } = upload;
        let action = Action::at("cancel", "an upload", "to", &self.inner.registry, &repository);
        let blob = Blob { repository: &repository, digest: &Digest::of([]), size: 0 };
        Target { client: self, blob, action, scope }.cancel(&address).await;
    }
}
