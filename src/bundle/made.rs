//! Images that are made here: one uncompressed layer each, so that they can be mounted as image volumes or run.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

use super::layer::LayerPlan;
use super::oci::{self, Descriptor, Platform};
use super::source::{BlobStream, Memory, Referrer, Source, SourceError};
use crate::base::digest::Digest;
use crate::base::limits::Limits;

/// What the image's configuration says besides its platform.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// `UID:GID`
    pub user: Option<String>,
    /// The command.
    pub entrypoint: Vec<String>,
}

/// An image made of one layer: the same for every platform, with a configuration for each (a runtime takes no image whose
/// platform is not its own).
pub struct Made {
    /// Its manifest, or the index over the platforms where there are several.
    pub descriptor: Descriptor,
    /// Its one layer.
    pub layer: Descriptor,
    /// Where its content comes from.
    pub source: Arc<dyn Source>,
}

/// Makes the image of this layer. `known` is what an earlier [`LayerPlan::measure`] said; without it the files are read.
///
/// # Errors
/// When the files can't be read.
pub async fn image(
    plan: LayerPlan,
    known: Option<(Digest, u64)>,
    platforms: &[Platform],
    run: &Run,
) -> Result<Made, SourceError> {
    let (digest, size) = match known {
        Some(known) => known,
        None => {
            let plan = plan.clone();
            tokio::task::spawn_blocking(move || plan.measure()).await.map_err(|panic| {
                SourceError::new(crate::base::exit::ExitClass::Bug, "measure a layer").because(panic)
            })??
        }
    };
    let layer = Descriptor {
        media_type: oci::LAYER_TAR.to_owned(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let mut memory = Memory::default();
    let mut manifests = Vec::new();
    for platform in platforms {
        let mut config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest] },
        });
        if let Some(variant) = &platform.variant {
            config["variant"] = json!(variant);
        }
        if let Some(user) = &run.user {
            config["config"]["User"] = json!(user);
        }
        if !run.entrypoint.is_empty() {
            config["config"]["Entrypoint"] = json!(run.entrypoint);
        }
        let config = to_json(&config);
        let manifest = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "config": Descriptor::of(oci::CONFIG, &config),
            "layers": [layer],
        }));
        let descriptor = Descriptor::of(oci::MANIFEST, &manifest);
        memory.insert(config);
        memory.insert(manifest);
        manifests.push(Descriptor { platform: Some(platform.clone()), ..descriptor });
    }
    let descriptor = match &mut manifests[..] {
        [one] => Descriptor { platform: None, ..one.clone() },
        several => {
            let index = index(several);
            let descriptor = Descriptor::of(oci::INDEX, &index);
            memory.insert(index);
            descriptor
        }
    };
    let source = Arc::new(MadeSource { memory, plan, layer: digest });
    Ok(Made { descriptor, layer, source })
}

/// The bytes of an index of these manifests.
pub fn index(manifests: &[Descriptor]) -> Vec<u8> {
    to_json(&json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests }))
}

fn to_json(value: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value always has a text")
}

struct MadeSource {
    memory: Memory,
    plan: LayerPlan,
    layer: Digest,
}

#[async_trait]
impl Source for MadeSource {
    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        self.memory.manifest(digest, limit).await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, SourceError> {
        if *digest == self.layer { Ok(self.plan.stream()) } else { self.memory.blob(digest, size).await }
    }

    async fn referrers(&self, _subject: &Digest, _limits: &Limits) -> Result<Vec<Referrer>, SourceError> {
        Ok(Vec::new())
    }
}
