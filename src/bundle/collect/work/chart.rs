//! Collecting Helm charts: artifacts from upstream, or archives that become such artifacts here.

use std::sync::Arc;

use serde_json::json;

use super::{Fetched, Wish, Work, locked};
use crate::base::exit::ExitClass;
use crate::base::file;
use crate::base::text::brief;
use crate::bundle::chart::{self, Chart};
use crate::bundle::definition::{ChartEntry, From};
use crate::bundle::lock::{LockedChart, LockedItem, LockedLayer};
use crate::bundle::oci::{self, Descriptor, Manifest};
use crate::bundle::platform;
use crate::bundle::source::{Memory, SourceError, small_blob};
use crate::bundle::writer::BuildError;
use crate::model::catalog::CatalogChart;

impl Work<'_> {
    pub(in super::super) async fn chart(&mut self, entry: &ChartEntry) -> Result<CatalogChart, BuildError> {
        let wish = self.wish("charts", entry.upstream());
        let refuse = |reason: String| {
            SourceError::new(ExitClass::Usage, format!("use chart `{}`: {reason}", brief(&entry.name)))
        };
        let (mut fetched, archive) = match &entry.from {
            From::File(path) => {
                let path = self.definition.path(path);
                let archive = file::read_capped(&path, chart::ARCHIVE_BYTES)?;
                let read = Chart::read(&archive).map_err(refuse)?;
                let fetched = pack_chart(&wish, &read, &archive);
                (fetched, Some(archive))
            }
            From::Folder(_) => return Err(refuse("a folder is no archive".to_owned()).into()),
            From::Registry(_) | From::Layout(..) => {
                let fetched = self.fetch(&wish).await?;
                let layer = self.chart_layer(&entry.name, &fetched).await?;
                let known = self.locked(&wish.repository).filter(|pin| fetched.pinned && pin.chart.is_some());
                match known {
                    Some(_) => (fetched, None),
                    None => {
                        let archive = small_blob(fetched.source.as_ref(), &layer, chart::ARCHIVE_BYTES).await?;
                        (fetched, Some(archive))
                    }
                }
            }
        };
        let pinned = self.locked(&wish.repository).and_then(|pin| pin.chart.clone());
        let locked = match (archive, pinned) {
            (None, Some(chart)) => chart,
            (archive, _) => {
                let chart = Chart::read(&archive.unwrap_or_default()).map_err(refuse)?.yaml;
                LockedChart { name: chart.name, version: chart.version, app_version: chart.app_version }
            }
        };
        fetched.item.chart = Some(locked.clone());
        let Fetched { item, descriptor, source, .. } = fetched;
        let item = self.note(item, descriptor, source);
        Ok(CatalogChart { item, chart: locked.name, version: locked.version, app_version: locked.app_version })
    }

    /// The layer of a chart from upstream that is its archive.
    async fn chart_layer(&self, name: &str, fetched: &Fetched) -> Result<Descriptor, SourceError> {
        let refuse =
            |reason: String| SourceError::new(ExitClass::Usage, format!("use chart `{}`: {reason}", brief(name)));
        let descriptor = &fetched.descriptor;
        let bytes = fetched.source.manifest(&descriptor.digest, self.helpers.limits.manifest_bytes).await?;
        let bytes = platform::checked(descriptor, bytes)?;
        match Manifest::parse(&descriptor.media_type, &bytes).map_err(refuse)? {
            Manifest::Image { config, layers, .. } if config.media_type == chart::CONFIG => {
                let mut content = layers.into_iter().filter(|layer| layer.media_type == chart::CONTENT);
                match (content.next(), content.next()) {
                    (Some(layer), None) => Ok(layer),
                    _ => Err(refuse("it has not exactly one archive".to_owned())),
                }
            }
            Manifest::Image { config, .. } => {
                Err(refuse(format!("it is no chart; its configuration is `{}`", brief(&config.media_type))))
            }
            Manifest::Index { .. } => Err(refuse("it is an index, and a chart is none".to_owned())),
        }
    }
}

/// The artifact of a chart's archive, as `helm push` makes it, but without a time.
fn pack_chart(wish: &Wish<'_>, chart: &Chart, archive: &[u8]) -> Fetched {
    let config = serde_json::to_vec(&chart.yaml).expect("texts and lists have a JSON form");
    let layer = Descriptor::of(chart::CONTENT, archive);
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "config": Descriptor::of(chart::CONFIG, &config),
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": chart.yaml.name,
            "org.opencontainers.image.version": chart.yaml.version,
        },
    }))
    .expect("a JSON value always has a text");
    let descriptor = Descriptor::of(oci::MANIFEST, &manifest);
    let mut memory = Memory::default();
    memory.insert(archive.to_vec());
    memory.insert(config);
    memory.insert(manifest);
    let item = LockedItem {
        wanted: Some(wish.digest()),
        layer: Some(LockedLayer { digest: layer.digest, size: layer.size }),
        licences: wish.licences.to_vec(),
        ..locked(&wish.repository, wish.from.to_string(), &descriptor)
    };
    Fetched { item, descriptor, source: Arc::new(memory), pinned: false }
}
