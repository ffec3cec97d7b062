//! Manifests: asked for, read with their digest verified, and stored byte for byte.

use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};

use super::Client;
use crate::base::digest::Digest;
use crate::registry::error::{Action, RegistryError};
use crate::registry::http::{read_capped, text_header};
use crate::registry::reference::{ManifestName, Repository, Tag};

/// Every kind of manifest that is asked for.
const MANIFEST_TYPES: [&str; 4] =
    [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];

/// A manifest as the registry sent it, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestBody {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The media type that the registry names, without parameters.
    pub media_type: String,
    /// The digest of the bytes, computed here.
    pub digest: Digest,
}

impl Client {
    /// The manifest of this name. By digest, its bytes have that digest; by tag, the digest is that of the bytes.
    ///
    /// # Errors
    /// When there is none ([`RegistryError::is_not_found`]), it is too large, or its bytes are others than the digest, or
    /// than the registry itself says.
    pub async fn manifest(&self, repository: &Repository, name: &ManifestName) -> Result<ManifestBody, RegistryError> {
        let action = self.action("pull manifest", name, "from", repository);
        let limit = self.inner.limits.manifest_bytes;
        self.retry(|| async {
            let response = self.manifest_answer(Method::GET, &action, repository, name).await?;
            let media_type = media_type(&response);
            let claimed = claimed_digest(&response);
            let bytes = read_capped(response, limit, &action, &self.inner.limits).await?;
            let digest = Digest::of(&bytes);
            let expected = match name {
                ManifestName::Digest(expected) => Some(*expected),
                ManifestName::Tag(_) => claimed,
            };
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                return Err(RegistryError::Digest { action: action.clone(), expected, found: digest });
            }
            let media_type = media_type.ok_or_else(|| RegistryError::Protocol {
                action: action.clone(),
                reason: "the answer has no Content-Type".to_owned(),
            })?;
            Ok(ManifestBody { bytes, media_type, digest })
        })
        .await
    }

    async fn manifest_answer(
        &self,
        method: Method,
        action: &Action,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<reqwest::Response, RegistryError> {
        let url = self.url(&format!("{repository}/manifests/{name}"));
        let accept = MANIFEST_TYPES.join(", ");
        let response = self
            .send(action, &Self::pull_scope(repository), method, url, |request| request.header(ACCEPT, &accept))
            .await?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(self.refusal(response, action).await) }
    }

    /// The digest that a tag points to now, as the registry says; what is then pulled by it is verified.
    ///
    /// # Errors
    /// When there is no such tag, or the registry can't be asked.
    pub async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Digest, RegistryError> {
        let name = ManifestName::Tag(tag.clone());
        let action = self.action("resolve tag", tag, "in", repository);
        let said = self
            .retry(|| async {
                let response = self.manifest_answer(Method::HEAD, &action, repository, &name).await?;
                Ok(claimed_digest(&response))
            })
            .await?;
        match said {
            Some(digest) => Ok(digest),
            // The header is optional; the bytes say it too.
            None => Ok(self.manifest(repository, &name).await?.digest),
        }
    }

    /// Whether the repository has this manifest, as the registry says.
    ///
    /// # Errors
    /// When the registry can't be asked.
    pub async fn manifest_exists(&self, repository: &Repository, digest: &Digest) -> Result<bool, RegistryError> {
        let name = ManifestName::Digest(*digest);
        let action = self.action("look for manifest", digest, "in", repository);
        let answer = self
            .retry(|| async { self.manifest_answer(Method::HEAD, &action, repository, &name).await.map(|_| ()) })
            .await;
        match answer {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a manifest, byte for byte, under a digest or a tag, and reads it back.
    ///
    /// # Errors
    /// When the bytes don't have the digest, the registry refuses them, or has other bytes afterwards.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let action = self.action("push manifest", name, "to", repository);
        let digest = Digest::of(bytes);
        if let ManifestName::Digest(expected) = name
            && *expected != digest
        {
            return Err(RegistryError::Digest { action, expected: *expected, found: digest });
        }
        let url = self.url(&format!("{repository}/manifests/{name}"));
        let body = bytes::Bytes::copy_from_slice(bytes);
        let scope = Self::push_scope(repository);
        let response = self
            .ask(&action, &scope, &[StatusCode::CREATED], Method::PUT, url, |request| {
                request.header(CONTENT_TYPE, media_type).body(body.clone())
            })
            .await?;
        if let Some(found) = claimed_digest(&response).filter(|found| *found != digest) {
            return Err(RegistryError::Digest { action, expected: digest, found });
        }
        let found = self.manifest(repository, name).await?.digest;
        if found != digest {
            return Err(RegistryError::Digest { action, expected: digest, found });
        }
        Ok(digest)
    }
}

fn media_type(response: &reqwest::Response) -> Option<String> {
    let text = text_header(response.headers(), CONTENT_TYPE.as_str())?;
    Some(text.split(';').next().unwrap_or(text).trim().to_owned())
}

/// The digest that the registry names for its answer, if it is one that gapscan uses.
pub(in crate::registry) fn claimed_digest(response: &reqwest::Response) -> Option<Digest> {
    text_header(response.headers(), "docker-content-digest")?.parse().ok()
}
