//! The documents of an OCI image layout (image-spec 1.1) as far as a bundle needs them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// An OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A Docker image manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// An OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed layer.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// The configuration of an artifact that has none (image-spec, "Guidance for an Empty Descriptor"); its content is `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The media type of `oci-layout`.
pub const LAYOUT_HEADER: &str = "application/vnd.oci.layout.header.v1+json";
/// The content of `oci-layout`.
pub const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation of `index.json` that names an item.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation of `index.json` that names the item whose companion a manifest is, by its repository.
pub const COMPANION_OF: &str = "io.gapscan.repository";
/// The annotation of `index.json` with the tag of a companion that is found by it.
pub const COMPANION_TAG: &str = "io.gapscan.tag";
/// The annotation that names a licence (image-spec, annotations.md): an SPDX expression.
pub const LICENCES: &str = "org.opencontainers.image.licenses";

/// What a manifest's media type says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// It names a configuration and layers.
    Image,
    /// It names other manifests.
    Index,
}

/// The kind of manifest of this media type; `None` for anything that is no manifest.
pub fn manifest_kind(media_type: &str) -> Option<ManifestKind> {
    match media_type {
        MANIFEST | DOCKER_MANIFEST => Some(ManifestKind::Image),
        INDEX | DOCKER_INDEX => Some(ManifestKind::Index),
        _ => None,
    }
}

/// Names content by digest, size and media type. Foreign `urls` are not kept: they are never fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Which it is.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// For what platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Anything else that is said about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// A platform in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// As `amd64`.
    pub architecture: String,
    /// As `linux`.
    pub os: String,
    /// As `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest or an index, parsed strictly: it is one of the two, and never both (CVE-2021-41190).
#[derive(Clone, Debug)]
pub enum Manifest {
    /// It names a configuration and layers.
    Image {
        /// The configuration.
        config: Descriptor,
        /// The layers, the lowest first.
        layers: Vec<Descriptor>,
        /// What it says about itself.
        about: About,
    },
    /// It names other manifests.
    Index {
        /// These.
        manifests: Vec<Descriptor>,
        /// What it says about itself.
        about: About,
    },
}

/// What a manifest says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What it is about, where it is a signature, an SBOM or the like (image-spec 1.1, `subject`).
    pub subject: Option<Descriptor>,
    /// Its kind, as a list of referrers tells it: `artifactType`, or else the media type of an image's configuration.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    // Only their presence counts: with them the document could be read as a schema 1 manifest.
    fs_layers: Option<serde_json::Value>,
    history: Option<serde_json::Value>,
}

impl Manifest {
    /// Parses a manifest that a descriptor calls `media_type`.
    ///
    /// # Errors
    /// With the reason, when it is no such manifest or could be read as another kind of one.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, String> {
        let kind = manifest_kind(media_type)
            .ok_or_else(|| format!("`{}` is no media type of a manifest", crate::base::text::brief(media_type)))?;
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if raw.schema_version != 2 {
            return Err(format!("its schemaVersion is {}, not 2", raw.schema_version));
        }
        match &raw.media_type {
            Some(own) if own != media_type => {
                let own = crate::base::text::brief(own);
                return Err(format!("it calls itself `{own}` and is called `{media_type}`"));
            }
            // OCI documents may leave it out (image-spec, manifest.md); Docker's must not.
            None if media_type == DOCKER_MANIFEST || media_type == DOCKER_INDEX => {
                return Err("it has no mediaType".to_owned());
            }
            Some(_) | None => {}
        }
        if raw.fs_layers.is_some() || raw.history.is_some() {
            return Err("it could also be read as a schema 1 manifest".to_owned());
        }
        let Raw { config, layers, manifests, subject, artifact_type, annotations, .. } = raw;
        // Docker's documents know no subject: a registry would not list them as about something.
        let oci = media_type == MANIFEST || media_type == INDEX;
        let mut about = About {
            subject: subject.filter(|_| oci),
            artifact_type: artifact_type.filter(|_| oci),
            annotations: annotations.unwrap_or_default(),
        };
        match (kind, config, layers, manifests) {
            (ManifestKind::Image, Some(config), Some(layers), None) => {
                if about.artifact_type.is_none() {
                    about.artifact_type = Some(config.media_type.clone());
                }
                Ok(Self::Image { config, layers, about })
            }
            (ManifestKind::Index, None, None, Some(manifests)) => Ok(Self::Index { manifests, about }),
            (ManifestKind::Image, ..) => Err("an image has `config` and `layers` and no `manifests`".to_owned()),
            (ManifestKind::Index, ..) => Err("an index has `manifests` and neither `config` nor `layers`".to_owned()),
        }
    }
}

impl Manifest {
    /// What it says about itself.
    pub fn about(&self) -> &About {
        match self {
            Self::Image { about, .. } | Self::Index { about, .. } => about,
        }
    }
}

/// `index.json` of a bundle. A bundle's index has these fields and no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleIndex {
    /// 2
    pub schema_version: u64,
    /// [`INDEX`]
    pub media_type: String,
    /// One for each item, whose repository is the annotation [`REF_NAME`], and for each companion of one, whose
    /// repository is the annotation [`COMPANION_OF`]. By repository, items before companions, then by digest.
    pub manifests: Vec<Descriptor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x","digest":"{}","size":1}}"#, Digest::of("x"))
    }

    #[test]
    fn a_document_that_is_image_and_index_is_refused() {
        let d = descriptor();
        let both = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}],"manifests":[{d}]}}"#);
        for media_type in [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX] {
            assert!(Manifest::parse(media_type, both.as_bytes()).is_err(), "{media_type}");
        }
        let image = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}]}}"#);
        assert!(matches!(Manifest::parse(MANIFEST, image.as_bytes()), Ok(Manifest::Image { .. })));
        assert!(Manifest::parse(INDEX, image.as_bytes()).is_err());
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{d}]}}"#);
        assert!(matches!(Manifest::parse(INDEX, index.as_bytes()), Ok(Manifest::Index { .. })));
        assert!(Manifest::parse(MANIFEST, index.as_bytes()).is_err());
    }

    #[test]
    fn another_media_type_in_the_body_a_key_given_twice_and_schema_1_are_refused() {
        let d = descriptor();
        for text in [
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","config":{d},"layers":[]}}"#),
            format!(r#"{{"schemaVersion":2,"config":{d},"layers":[],"layers":[{d}]}}"#),
            format!(r#"{{"schemaVersion":1,"config":{d},"layers":[]}}"#),
            format!(r#"{{"schemaVersion":2,"config":{d},"layers":[],"fsLayers":[]}}"#),
            format!(r#"{{"schemaVersion":2,"config":{d},"layers":[]}} x"#),
            "[".repeat(100_000),
        ] {
            assert!(Manifest::parse(MANIFEST, text.as_bytes()).is_err(), "{}", &text[..80]);
        }
    }
}
