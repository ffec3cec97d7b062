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
use crate::bundle::cache::Cache;
use crate::bundle::collect::{References, Resolved};
use crate::bundle::definition::Definition;
use crate::bundle::oci::Descriptor;
use crate::bundle::source::{BlobStream, Distance, Referrer, Source, SourceError, companion_tags};
use crate::registry::{Client, ManifestName, Reference, RegistryError, Repository};

/// Resolves references with the access that a definition gives.
pub(super) struct AskRegistries {
    registries: Registries,
    cache: Option<Arc<Cache>>,
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
                    client_cert_file: access.client_cert_file.as_ref().map(|path| definition.path(path)),
                    client_key_file: access.client_key_file.as_ref().map(|path| definition.path(path)),
                    token_hosts: access.token_hosts.clone(),
                    plain_http: access.plain_http,
                    ..RegistryAccess::default()
                };
                (host.clone(), access)
            })
            .collect();
        Self { registries: Registries::new(access, limits.clone()), cache: None }
    }

    /// The same, but what lies in bundles that were built here is not downloaded.
    #[must_use]
    pub(super) fn reusing(self, cache: Option<Arc<Cache>>) -> Self {
        Self { cache, ..self }
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
        let body = match client.manifest(&reference.repository, &name).await {
            Err(error) if error.is_not_found() && pinned.is_some() => {
                return Err(gone(&client, &reference, error).await);
            }
            answer => answer.map_err(SourceError::of)?,
        };
        let note = match (pinned, reference.digest) {
            (Some(pinned), None) => moved(&client, &reference, pinned).await,
            // A digest that somebody wrote can't move.
            _ => None,
        };
        Ok(Resolved {
            descriptor: Descriptor::of(&body.media_type, &body.bytes),
            // A digest that somebody wrote stays; the tag stays for people.
            reference: reference.pinned(reference.digest.unwrap_or(body.digest)).to_string(),
            source: Arc::new(RegistrySource {
                client,
                repository: reference.repository,
                resolved: (body.digest, body.bytes.into()),
                cache: self.cache.clone(),
            }),
            note,
        })
    }
}

/// What to say when a tag no longer points to what is locked. That is no failure: what is locked is built. A registry that
/// does not tell is not pressed.
async fn moved(client: &Client, reference: &Reference, pinned: &Digest) -> Option<String> {
    let tag = reference.tag.as_ref()?;
    match client.resolve(&reference.repository, tag).await {
        Ok(now) if now == *pinned => None,
        Ok(now) => Some(format!("its tag `{tag}` points to {now} by now; {pinned} is locked, and is taken")),
        Err(error) if error.is_not_found() => {
            Some(format!("its tag `{tag}` is gone; {pinned} is locked, and is taken"))
        }
        Err(_) => None,
    }
}

/// The error of a registry that no longer has what is locked, with what it has instead.
async fn gone(client: &Client, reference: &Reference, error: RegistryError) -> SourceError {
    let instead = match &reference.tag {
        None => "its repository may have been cleaned up".to_owned(),
        Some(tag) => match client.resolve(&reference.repository, tag).await {
            Ok(now) => format!("its tag `{tag}` points to {now} now"),
            Err(error) if error.is_not_found() => format!("its tag `{tag}` is gone, too"),
            Err(_) => format!("what its tag `{tag}` points to is not known"),
        },
    };
    let message = format!("collect `{reference}` as it is locked: the registry no longer has it; {instead}");
    SourceError::new(ExitClass::Refused, message).because(error).with_remedy(
        "move it with `gapscan bundle lock --update NAME` and look at what changed, or bring it back upstream",
    )
}

/// One repository of a registry.
struct RegistrySource {
    client: Client,
    repository: Repository,
    /// What the reference names: it is looked into several times, and asked for once.
    resolved: (Digest, Bytes),
    cache: Option<Arc<Cache>>,
}

#[async_trait]
impl Source for RegistrySource {
    fn distance(&self) -> Distance {
        Distance::Away
    }

    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        let bytes: Bytes = match &self.resolved {
            (resolved, bytes) if resolved == digest => bytes.clone(),
            _ => {
                let name = ManifestName::Digest(*digest);
                self.client.manifest(&self.repository, &name).await.map_err(SourceError::of)?.bytes.into()
            }
        };
        if bytes.len() as u64 > limit {
            return Err(SourceError::new(
                ExitClass::Refused,
                format!("collect {digest}: it has more than {limit} bytes"),
            ));
        }
        Ok(bytes)
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, SourceError> {
        if let Some(cache) = self.cache.clone() {
            let digest = *digest;
            let stored = tokio::task::spawn_blocking(move || cache.verified(&digest, size)?.into_stream().ok()).await;
            match stored {
                Ok(Some(stream)) => return Ok(stream),
                Ok(None) => {}
                Err(panic) => return Err(SourceError::new(ExitClass::Bug, format!("look for {digest}")).because(panic)),
            }
        }
        // Whoever asked verifies it, and hashing takes the longest: once is enough.
        let blob = self.client.unverified_blob(&self.repository, digest, size).await.map_err(SourceError::of)?;
        Ok(Box::new(blob))
    }

    async fn referrers(&self, subject: &Digest, limits: &Limits) -> Result<Vec<Referrer>, SourceError> {
        let listed = self.client.referrers(&self.repository, subject).await.map_err(SourceError::of)?;
        let mut found: Vec<Referrer> = listed
            .into_iter()
            .map(|referrer| Referrer {
                descriptor: Descriptor {
                    media_type: referrer.media_type,
                    digest: referrer.digest,
                    size: referrer.size,
                    platform: None,
                    annotations: BTreeMap::new(),
                },
                tag: None,
            })
            .collect();
        for tag in companion_tags(subject) {
            let name = ManifestName::Tag(tag.parse().map_err(SourceError::of)?);
            match self.client.manifest(&self.repository, &name).await {
                Ok(body) if body.bytes.len() as u64 <= limits.manifest_bytes => {
                    let descriptor = Descriptor::of(&body.media_type, &body.bytes);
                    // What is found both ways needs no tag.
                    if found.iter().all(|known| known.descriptor.digest != descriptor.digest) {
                        found.push(Referrer { descriptor, tag: Some(tag) });
                    }
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(SourceError::of(error)),
            }
        }
        Ok(found)
    }
}
