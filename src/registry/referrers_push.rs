//! Storing what is about another manifest: signatures, SBOMs, attestations (distribution-spec 1.1, "Pushing Manifests with
//! Subject").

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::client::Client;
use super::error::RegistryError;
use super::reference::{ManifestName, Repository, Tag};
use super::referrers::INDEX;
use crate::base::digest::Digest;

/// What a list of referrers says of a manifest that is about another one.
#[derive(Clone, Copy, Debug)]
pub struct AboutSubject<'a> {
    /// What it is about.
    pub subject: &'a Digest,
    /// Its kind.
    pub artifact_type: Option<&'a str>,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

impl Client {
    /// Makes sure that a manifest, which the repository has, is found by its subject: by the registry itself where it has the
    /// referrers API, and by the index under the tag `sha256-HEX` of the subject where it has none. What else that index lists
    /// stays. Two that change it at the same time can lose one entry; repeating this puts it back.
    ///
    /// # Errors
    /// When the registry fails, or has something else under that tag.
    pub async fn list_referrer(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &str,
        size: u64,
        about: AboutSubject<'_>,
    ) -> Result<(), RegistryError> {
        let listed = self.referrers(repository, about.subject).await?;
        if listed.iter().any(|referrer| referrer.digest == *digest) {
            return Ok(());
        }
        let tag: Tag = format!("sha256-{}", about.subject.hex()).parse()?;
        let name = ManifestName::Tag(tag);
        let action = self.action("list what is about", about.subject, "in", repository);
        let protocol = |reason: &str| RegistryError::Protocol { action: action.clone(), reason: reason.to_owned() };
        let mut index = match self.manifest(repository, &name).await {
            Ok(found) if found.media_type == INDEX => serde_json::from_slice::<Map<String, Value>>(&found.bytes)
                .map_err(|_| protocol("what is under the subject's tag is no index"))?,
            Ok(_) => return Err(protocol("what is under the subject's tag is no index")),
            Err(error) if error.is_not_found() => {
                Map::from_iter([("schemaVersion".to_owned(), json!(2)), ("mediaType".to_owned(), json!(INDEX))])
            }
            Err(error) => return Err(error),
        };
        let mut descriptor = json!({ "mediaType": media_type, "digest": digest, "size": size });
        if let Some(artifact_type) = about.artifact_type {
            descriptor["artifactType"] = json!(artifact_type);
        }
        if !about.annotations.is_empty() {
            descriptor["annotations"] = json!(about.annotations);
        }
        match index.entry("manifests").or_insert_with(|| json!([])) {
            Value::Array(manifests) => manifests.push(descriptor),
            _ => return Err(protocol("what is under the subject's tag is no index")),
        }
        let bytes = serde_json::to_vec(&index).expect("a JSON value always has a text");
        self.push_manifest(repository, &name, INDEX, &bytes).await.map(|_| ())
    }
}
