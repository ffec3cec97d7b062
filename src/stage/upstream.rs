//! What registries of the connected side have: references resolved and content streamed, by the access that a definition
//! gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::plan::RegistryAccess;
use super::registries::Registries;
use crate::base::digest::Digest;
use crate::base::exit::ExitClass;
use crate::base::limits::Limits;
use crate::bundle::collect::{References, Resolved};
use crate::bundle::definition::Definition;
use crate::bundle::oci::Descriptor;
use crate::bundle::source::{BlobStream, Distance, Source, SourceError};
use crate::registry::{Client, ManifestName, Reference, Repository};

/// Resolves references with the access that a definition gives.
pub(super) struct AskRegistries {
    registries: Registries,
}

impl AskRegistries {
    pub(super) fn new(definition: &Definition, limits: &Limits) -> Self {
        let access: BTreeMap<String, RegistryAccess> = definition
            .document
            .registries
            .iter()
            .map(|(host, access)| {
                let access = RegistryAccess {
                    ca_file: access.ca_file.as_ref().map(|path| definition.path(path)),
                    username: access.username.clone(),
                    password_file: access.password_file.as_ref().map(|path| definition.path(path)),
                    token_hosts: access.token_hosts.clone(),
                    plain_http: access.plain_http,
                    ..RegistryAccess::default()
                };
                (host.clone(), access)
            })
            .collect();
        Self { registries: Registries::new(access, limits.clone()) }
    }
}

#[async_trait]
impl References for AskRegistries {
    async fn resolve(&self, reference: &str, pinned: Option<&Digest>) -> Result<Resolved, SourceError> {
        let reference: Reference = reference.parse().map_err(SourceError::of)?;
        let client = self.registries.client(&reference.registry).map_err(SourceError::of)?;
        let name = match (pinned.copied().or(reference.digest), &reference.tag) {
            (Some(digest), _) => ManifestName::Digest(digest),
            (None, Some(tag)) => ManifestName::Tag(tag.clone()),
            (None, None) => {
                let message = format!(
                    "resolve `{reference}`: it has neither a tag nor a digest; write one, as `{reference}:1.0`"
                );
                return Err(SourceError::new(ExitClass::Usage, message));
            }
        };
        let body = client.manifest(&reference.repository, &name).await.map_err(SourceError::of)?;
        Ok(Resolved {
            descriptor: Descriptor::of(&body.media_type, &body.bytes),
            // A digest that somebody wrote stays; the tag stays for people.
            reference: reference.pinned(reference.digest.unwrap_or(body.digest)).to_string(),
            source: Arc::new(RegistrySource { client, repository: reference.repository }),
        })
    }
}

/// One repository of a registry.
struct RegistrySource {
    client: Client,
    repository: Repository,
}

#[async_trait]
impl Source for RegistrySource {
    fn distance(&self) -> Distance {
        Distance::Away
    }

    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        let name = ManifestName::Digest(*digest);
        let body = self.client.manifest(&self.repository, &name).await.map_err(SourceError::of)?;
        if body.bytes.len() as u64 > limit {
            return Err(SourceError::new(
                ExitClass::Refused,
                format!("collect {digest}: it has more than {limit} bytes"),
            ));
        }
        Ok(body.bytes.into())
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, SourceError> {
        // Whoever asked verifies it, and hashing takes the longest: once is enough.
        let blob = self.client.unverified_blob(&self.repository, digest, size).await.map_err(SourceError::of)?;
        Ok(Box::new(blob))
    }
}
