//! Manifests: what they must be before they are stored, and lists of those that refer to another.

use std::collections::BTreeMap;
use std::io;

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::content::{Algorithm, ContentDigest};
use super::error::Refusal;
use super::route::Name;
use super::store::{Held, Store};
use crate::registry::reference::{Repository, Tag};

/// The parts of a manifest or index that matter to a registry (image-spec 1.1, manifest.md and image-index.md).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: ContentDigest,
}

/// One entry of a list of referrers (distribution-spec 1.1, "Listing Referrers").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    media_type: String,
    digest: ContentDigest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// The manifest of this media type. What is image and index at once is neither (CVE-2021-41190).
    pub(super) fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, Refusal> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| Refusal::manifest_invalid(format!("it is no manifest: {error}")))?;
        let invalid = |reason: &str| Err(Refusal::manifest_invalid(reason));
        if manifest.schema_version != 2 {
            return invalid("its schemaVersion is not 2");
        }
        if manifest.media_type.as_deref().is_some_and(|own| own != media_type) {
            return invalid("its mediaType differs from the Content-Type");
        }
        let is_image = manifest.config.is_some() || manifest.layers.is_some();
        let is_index = manifest.manifests.is_some();
        match media_type {
            OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE if is_index => {
                invalid("it is an image and an index at once")
            }
            OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE
                if manifest.config.is_none() || manifest.layers.is_none() =>
            {
                invalid("it is an image without config or layers")
            }
            OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE if is_image => {
                invalid("it is an image and an index at once")
            }
            OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE if !is_index => {
                invalid("it is an index without manifests")
            }
            OCI_IMAGE_MEDIA_TYPE
            | IMAGE_MANIFEST_MEDIA_TYPE
            | OCI_IMAGE_INDEX_MEDIA_TYPE
            | IMAGE_MANIFEST_LIST_MEDIA_TYPE => Ok(manifest),
            _ => invalid("its media type is none that this registry stores as a manifest"),
        }
    }

    /// The blobs that it names.
    pub(super) fn blobs(&self) -> impl Iterator<Item = ContentDigest> + '_ {
        self.config.iter().chain(self.layers.iter().flatten()).map(|part| part.digest)
    }

    /// The manifests that it names as its parts.
    pub(super) fn manifests(&self) -> impl Iterator<Item = ContentDigest> + '_ {
        self.manifests.iter().flatten().map(|part| part.digest)
    }

    /// The manifest that it is about.
    pub(super) fn subject(&self) -> Option<ContentDigest> {
        self.subject.as_ref().map(|subject| subject.digest)
    }

    /// That all it names is in the repository. Layers that are not to be distributed need not be. What is there is looked
    /// at to the last part, which keeps it.
    fn check_parts(&self, store: &Store, held: &Held<'_>, repository: &Repository) -> Result<(), Refusal> {
        let mut missing = None;
        for part in self.config.iter().chain(self.layers.iter().flatten()) {
            let foreign = part.media_type.contains("nondistributable") || part.media_type.contains(".foreign.");
            if !store.has_blob(held, repository, &part.digest) && !foreign {
                missing = missing.or(Some(("blob", part.digest)));
            }
        }
        for part in self.manifests.iter().flatten() {
            if !store.has_manifest(held, repository, &part.digest) {
                missing = missing.or(Some(("manifest", part.digest)));
            }
        }
        missing.map_or(Ok(()), |(what, digest)| {
            Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "MANIFEST_BLOB_UNKNOWN",
                format!("the repository does not have its {what} {digest}"),
            ))
        })
    }

    fn into_referrer(self, media_type: String, digest: ContentDigest, size: u64) -> Referrer {
        let artifact_type = self.artifact_type.or_else(|| self.config.map(|config| config.media_type));
        Referrer { media_type, digest, size, artifact_type, annotations: self.annotations }
    }
}

/// What a manifest is stored as.
pub(super) struct Put {
    pub(super) repository: Repository,
    pub(super) name: Option<Name>,
    /// Further tags for one that is named by its digest.
    pub(super) tags: Vec<Tag>,
    pub(super) media_type: String,
    pub(super) parts: Parts,
}

/// Whether an index may name manifests, and an image blobs, that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// All that a manifest names must be there before it.
    Required,
    /// A manifest may come without its parts (distribution-spec 1.1 lets a registry accept that).
    Optional,
}

/// Stores a manifest under its digest and, where it is named by one, a tag.
pub(super) fn put(store: &Store, what: &Put, bytes: &[u8]) -> Result<Response, Refusal> {
    let Put { repository, name, tags, media_type, parts } = what;
    let name = name.as_ref().ok_or_else(|| Refusal::manifest_invalid("its name is neither a tag nor a digest"))?;
    let (digest, named) = match name {
        Name::Tag(tag) => (Algorithm::Sha256.digest(bytes), Some(tag)),
        Name::Digest(expected) => {
            let digest = expected.algorithm().digest(bytes);
            if digest != *expected {
                return Err(Refusal::digest_invalid(format!("the manifest has digest {digest}")));
            }
            (digest, None)
        }
    };
    let manifest = Manifest::parse(media_type, bytes)?;
    let held = store.hold();
    match parts {
        Parts::Required => manifest.check_parts(store, &held, repository)?,
        // Those that are there are still kept for it.
        Parts::Optional => drop(manifest.check_parts(store, &held, repository)),
    }
    let mut response = Response::builder()
        .status(StatusCode::CREATED)
        .header("location", format!("/v2/{repository}/manifests/{digest}"))
        .header("docker-content-digest", digest.to_string());
    if let Some(subject) = manifest.subject() {
        // Before it is there: nobody may find it and be told that nothing is about its subject.
        store.put_referrer(repository, &subject, &digest)?;
        response = response.header("oci-subject", subject.to_string());
    }
    store.put_manifest(&held, repository, &digest, media_type, bytes)?;
    for tag in named.into_iter().chain(tags) {
        store.put_tag(repository, tag, &digest)?;
    }
    for tag in tags {
        response = response.header("oci-tag", HeaderValue::from_str(tag.as_str()).expect("a tag is a header value"));
    }
    Ok(response.body(Body::empty()).expect("digests and names are header values"))
}

/// The manifest of this name, as an answer to GET; hyper leaves the body out for HEAD.
pub(super) fn get(store: &Store, repository: &Repository, name: Option<Name>, limit: u64) -> Result<Response, Refusal> {
    let held = store.hold();
    let digest = match name {
        Some(Name::Digest(digest)) => Some(digest),
        Some(Name::Tag(tag)) => store.tag(repository, &tag)?,
        None => None,
    }
    .ok_or_else(Refusal::manifest_unknown)?;
    let found = match store.manifest(&held, repository, &digest, limit) {
        // Said to be absent, it is sent again, and whole then.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) => {
            tracing::error!(%repository, %digest, %error, "a manifest is damaged or gone; sending it again mends it");
            None
        }
        found => found?,
    };
    let (media_type, bytes) = found.ok_or_else(Refusal::manifest_unknown)?;
    Ok(Response::builder()
        .header(CONTENT_TYPE, media_type)
        .header(CONTENT_LENGTH, bytes.len())
        .header("docker-content-digest", digest.to_string())
        .body(Body::from(bytes))
        .expect("a stored media type came as a header"))
}

/// Removes a tag, or a manifest with the tags that point to it.
pub(super) fn delete(store: &Store, repository: &Repository, name: Option<Name>) -> Result<Response, Refusal> {
    let removed = match name {
        Some(Name::Tag(tag)) => store.remove_tag(repository, &tag)?,
        Some(Name::Digest(digest)) => store.remove_manifest(repository, &digest)?,
        None => false,
    };
    if !removed {
        return Err(Refusal::manifest_unknown());
    }
    Ok(empty(StatusCode::ACCEPTED))
}

/// Which of the manifests that refer to another are asked for.
pub(super) struct Wanted {
    pub(super) subject: ContentDigest,
    /// Of this type alone.
    pub(super) artifact_type: Option<String>,
    /// Those that are sorted behind this one.
    pub(super) after: Option<ContentDigest>,
}

/// The index of manifests that refer to this one; as many as a manifest's bytes can list, and where the others are.
pub(super) fn referrers(
    store: &Store,
    repository: &Repository,
    wanted: &Wanted,
    limit: u64,
) -> Result<Response, Refusal> {
    let Wanted { subject, artifact_type, after } = wanted;
    let held = store.hold();
    let mut found: Vec<(ContentDigest, Value)> = Vec::new();
    let (mut bytes_listed, mut more) = (0, false);
    for digest in store.referrers(&held, repository, subject)? {
        if after.is_some_and(|after| digest <= after) {
            continue;
        }
        let Some((media_type, bytes)) = store.manifest(&held, repository, &digest, limit)? else { continue };
        let referrer = Manifest::parse(&media_type, &bytes)?.into_referrer(media_type, digest, bytes.len() as u64);
        if artifact_type.is_some() && referrer.artifact_type != *artifact_type {
            continue;
        }
        let entry = serde_json::to_value(referrer).expect("texts and numbers are JSON");
        bytes_listed += entry.to_string().len() as u64;
        if bytes_listed > limit / 2 && !found.is_empty() {
            more = true;
            break;
        }
        found.push((digest, entry));
    }
    let mut response = Response::builder().header(CONTENT_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE);
    if let Some((last, _)) = found.last().filter(|_| more) {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", &last.to_string());
        query.extend_pairs(artifact_type.iter().map(|name| ("artifactType", name)));
        let next = format!("</v2/{repository}/referrers/{subject}?{}>; rel=\"next\"", query.finish());
        response = response.header("link", next);
    }
    if artifact_type.is_some() {
        response = response.header("oci-filters-applied", "artifactType");
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE,
        "manifests": found.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>(),
    });
    Ok(response.body(Body::from(index.to_string())).expect("digests and encoded texts are header values"))
}

pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
