//! Choosing from an index of many platforms.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::made;
use super::oci::{self, Descriptor, Manifest, ManifestKind, Platform};
use super::source::{BlobStream, Distance, Memory, Source, SourceError};
use crate::base::digest::Digest;
use crate::base::exit::ExitClass;
use crate::base::limits::Limits;

/// What of an image is carried.
pub struct Chosen {
    /// The manifest of the one platform, the index of the several that are wanted, or the image as it was found.
    pub descriptor: Descriptor,
    /// The index that it was chosen from.
    pub index: Option<Digest>,
    /// Where its content comes from.
    pub source: Arc<dyn Source>,
}

/// Chooses the wanted platforms. An image that is no index is taken as it is, unless its configuration says that it is
/// for another platform.
///
/// # Errors
/// When a wanted platform is not there, or the source does not give what it should.
pub async fn choose(
    descriptor: Descriptor,
    source: Arc<dyn Source>,
    platforms: &[Platform],
    limits: &Limits,
) -> Result<Chosen, SourceError> {
    let refuse = |reason: String| SourceError::new(ExitClass::Usage, format!("use {}: {reason}", descriptor.digest));
    if oci::manifest_kind(&descriptor.media_type).is_none() {
        let media_type = crate::base::text::brief(&descriptor.media_type);
        return Err(refuse(format!("`{media_type}` is neither an image nor an index")));
    }
    let bytes = checked(&descriptor, source.manifest(&descriptor.digest, limits.manifest_bytes).await?)?;
    let manifest = Manifest::parse(&descriptor.media_type, &bytes).map_err(refuse)?;
    let manifests = match manifest {
        Manifest::Image { config, .. } => {
            if let Some(own) = config_platform(&config, &source, limits).await?
                && !platforms.iter().any(|p| p.architecture == own.architecture)
            {
                // It would fail only in the enclave.
                let architecture = crate::base::text::brief(&own.architecture);
                return Err(refuse(format!("it is for `{architecture}`, which is no platform of the bundle")));
            }
            return Ok(Chosen { descriptor: plain(descriptor), index: None, source });
        }
        Manifest::Index { manifests, .. } => name_platforms(manifests, &source, limits).await?,
    };
    let mut found = Vec::new();
    for wanted in platforms {
        // Without a variant in the wish, any variant will do: the first is the one that runtimes take.
        let fits = |p: &Platform| {
            p.os == wanted.os
                && p.architecture == wanted.architecture
                && (wanted.variant.is_none() || p.variant == wanted.variant)
        };
        let one = manifests.iter().find(|d| d.platform.as_ref().is_some_and(fits)).ok_or_else(|| {
            let there: Vec<String> = manifests
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .map(|p| crate::base::text::brief(&format!("{}/{}", p.os, p.architecture)))
                .collect();
            refuse(format!("{}/{} is not among its platforms ({})", wanted.os, wanted.architecture, there.join(", ")))
        })?;
        found.push(Descriptor { annotations: Default::default(), ..one.clone() });
    }
    let index = Some(descriptor.digest);
    if let [one] = &found[..] {
        if oci::manifest_kind(&one.media_type) != Some(ManifestKind::Image) {
            return Err(refuse("it nests indexes".to_owned()));
        }
        return Ok(Chosen { descriptor: plain(one.clone()), index, source });
    }
    let bytes = made::index(&found);
    let descriptor = Descriptor::of(oci::INDEX, &bytes);
    let mut memory = Memory::default();
    let digest = memory.insert(bytes);
    Ok(Chosen { descriptor, index, source: Arc::new(Over { memory, digest, below: source }) })
}

/// The images of an index, each with its platform. Tools that make an index of a single image leave it out; then the
/// image's own configuration says it, which is where runtimes look too.
async fn name_platforms(
    mut manifests: Vec<Descriptor>,
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<Vec<Descriptor>, SourceError> {
    for descriptor in &mut manifests {
        let image = oci::manifest_kind(&descriptor.media_type) == Some(ManifestKind::Image);
        if descriptor.platform.is_some() || !image {
            continue;
        }
        let bytes = checked(descriptor, source.manifest(&descriptor.digest, limits.manifest_bytes).await?)?;
        let unusable = |reason| SourceError::new(ExitClass::Refused, format!("use {}: {reason}", descriptor.digest));
        if let Manifest::Image { config, .. } = Manifest::parse(&descriptor.media_type, &bytes).map_err(unusable)? {
            descriptor.platform = config_platform(&config, source, limits).await?;
        }
    }
    Ok(manifests)
}

/// The platform that an image's configuration names. An artifact's says nothing of platforms.
async fn config_platform(
    config: &Descriptor,
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<Option<Platform>, SourceError> {
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        variant: Option<String>,
    }
    let image = [oci::CONFIG, "application/vnd.docker.container.image.v1+json"].contains(&config.media_type.as_str());
    if !image || config.size > limits.manifest_bytes {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let stream = source.blob(&config.digest, config.size).await?;
    stream.take(config.size + 1).read_to_end(&mut bytes).await.map_err(|e| {
        SourceError::new(ExitClass::Unreachable, format!("read the configuration {}", config.digest)).because(e)
    })?;
    let bytes = checked(config, bytes.into())?;
    let named = serde_json::from_slice::<Config>(&bytes).ok().filter(|c| !c.architecture.is_empty());
    Ok(named.map(|c| Platform { os: c.os, architecture: c.architecture, variant: c.variant }))
}

/// The bytes, if they are what the descriptor names.
///
/// # Errors
/// When they are not.
pub(super) fn checked(descriptor: &Descriptor, bytes: Bytes) -> Result<Bytes, SourceError> {
    let found = Digest::of(&bytes);
    if found == descriptor.digest && bytes.len() as u64 == descriptor.size {
        return Ok(bytes);
    }
    Err(SourceError::new(
        ExitClass::Refused,
        format!("collect {}: its source gives {} bytes with the digest {found}", descriptor.digest, bytes.len()),
    ))
}

fn plain(descriptor: Descriptor) -> Descriptor {
    Descriptor { platform: None, annotations: Default::default(), ..descriptor }
}

/// A made index over a source that has the rest.
struct Over {
    memory: Memory,
    digest: Digest,
    below: Arc<dyn Source>,
}

#[async_trait]
impl Source for Over {
    fn distance(&self) -> Distance {
        self.below.distance()
    }

    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        if *digest == self.digest {
            self.memory.manifest(digest, limit).await
        } else {
            self.below.manifest(digest, limit).await
        }
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, SourceError> {
        self.below.blob(digest, size).await
    }
}
