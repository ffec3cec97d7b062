//! The licence that an image or artifact names itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::definition::is_licence;
use super::oci::{self, Descriptor, LICENCES, Manifest};
use super::platform::checked;
use super::source::{Source, SourceError, small_blob};
use crate::base::exit::ExitClass;
use crate::base::limits::Limits;

/// The annotation of the index or manifest, or the label of the image's configuration. What is no SPDX expression is none.
///
/// # Errors
/// When a document can't be had.
pub(super) async fn of(
    descriptor: &Descriptor,
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<Vec<String>, SourceError> {
    let mut descriptor = descriptor.clone();
    for _ in 0..=limits.index_depth {
        let digest = descriptor.digest;
        let refuse = |reason: String| SourceError::new(ExitClass::Refused, format!("use {digest}: {reason}"));
        let bytes = checked(&descriptor, source.manifest(&digest, limits.manifest_bytes).await?)?;
        let manifest = Manifest::parse(&descriptor.media_type, &bytes).map_err(refuse)?;
        if let Some(licence) = named(&manifest.about().annotations) {
            return Ok(vec![licence]);
        }
        match manifest {
            Manifest::Index { manifests, .. } => match manifests.into_iter().next() {
                Some(first) => descriptor = first,
                None => return Ok(Vec::new()),
            },
            Manifest::Image { config, .. } => return of_config(&config, source, limits).await,
        }
    }
    Ok(Vec::new())
}

async fn of_config(config: &Descriptor, source: &Arc<dyn Source>, limits: &Limits) -> Result<Vec<String>, SourceError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        config: Inner,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        labels: Option<BTreeMap<String, String>>,
    }
    let image = [oci::CONFIG, oci::DOCKER_CONFIG].contains(&config.media_type.as_str());
    if !image || config.size > limits.manifest_bytes {
        return Ok(Vec::new());
    }
    let bytes = small_blob(source.as_ref(), config, limits.manifest_bytes).await?;
    let labels = serde_json::from_slice::<Config>(&bytes).ok().and_then(|config| config.config.labels);
    Ok(labels.as_ref().and_then(named).into_iter().collect())
}

fn named(annotations: &BTreeMap<String, String>) -> Option<String> {
    annotations.get(LICENCES).map(|text| text.trim().to_owned()).filter(|text| is_licence(text))
}
