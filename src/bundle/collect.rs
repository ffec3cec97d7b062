//! From a definition to pinned items with their sources: the work that `lock` and `build` share. `build` collects again,
//! by the pins of the lock, and goes on only if what it finds is what was locked. What is only looked up or looked into when
//! something is locked (companions, dates, licences, what a chart or profile depends on) is pinned with it.

mod work;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::assembly::{Assembled, Assembly};
use super::definition::{Definition, wrong};
use super::lock::{BundleLock, LockedFile};
use super::oci::Descriptor;
use super::profile::ProfileResolver;
use super::scanner;
use super::source::{Source, SourceError};
use super::writer::{BuildError, whole_seconds};
use crate::base::digest::Digest;
use crate::base::document::{self, ApiVersion};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::model::catalog::Catalog;
use work::Work;

/// A registry's answer to a reference.
pub struct Resolved {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// The reference with the digest.
    pub reference: String,
    /// Where its content comes from.
    pub source: Arc<dyn Source>,
    /// What a person should know, as that a tag points elsewhere by now.
    pub note: Option<String>,
}

/// Asks registries.
#[async_trait]
pub trait References: Send + Sync {
    /// The manifest or index that `reference` names now, or the one with the pinned digest.
    async fn resolve(&self, reference: &str, pinned: Option<&Digest>) -> Result<Resolved, SourceError>;
}

/// What collecting needs besides the definition.
pub struct Helpers<'a> {
    /// The binary that becomes gapscan's own image.
    pub agent: &'a Path,
    /// Asks registries.
    pub references: &'a dyn References,
    /// Lists the controls of profiles.
    pub profiles: &'a dyn ProfileResolver,
    /// Bounds.
    pub limits: &'a Limits,
    /// Where progress goes.
    pub progress: &'a Progress,
}

/// Everything that a definition asks for, with its sources.
pub struct Collected {
    lock: BundleLock,
    catalog: Catalog,
    items: Vec<(Descriptor, Arc<dyn Source>)>,
}

impl Collected {
    /// The pins.
    pub fn lock(&self) -> &BundleLock {
        &self.lock
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// All of it as a bundle.
    ///
    /// # Errors
    /// When the parts do not fit together or a manifest can't be had.
    pub async fn assemble(&self, limits: &Limits) -> Result<Assembled, BuildError> {
        let mut assembly = Assembly::new(limits);
        for (locked, (descriptor, source)) in self.lock.items.iter().zip(&self.items) {
            assembly.add(&locked.repository, descriptor, source).await?;
            for companion in &locked.companions {
                let tag = companion.tag.as_deref();
                assembly.add_companion(&locked.repository, &companion.descriptor(), tag, source).await?;
            }
        }
        assembly.finish(&self.catalog).await
    }
}

/// Collects what `definition` asks for: by the pins of `lock`, or as it is now.
///
/// # Errors
/// When something can't be had, or can't be in a bundle.
pub async fn collect(
    definition: &Definition,
    created: Timestamp,
    lock: Option<&BundleLock>,
    helpers: &Helpers<'_>,
) -> Result<Collected, BuildError> {
    let document = &definition.document;
    let created = whole_seconds(created);
    let mut work = Work::new(definition, lock, helpers);
    let mut catalog = Catalog {
        name: document.name.clone(),
        version: document.version,
        created,
        classification: document.classification.clone(),
        images: if document.is_notices_only() { Vec::new() } else { vec![work.gapscan().await?] },
        scanners: Vec::new(),
        profiles: Vec::new(),
        dependencies: Vec::new(),
        charts: Vec::new(),
        requires: document.requires.clone(),
        notices: document.notices(),
    };
    for image in &document.images {
        catalog.images.push(work.image(image).await?);
    }
    let mut scanners = Vec::new();
    for path in &document.scanners {
        let text = document::text(&definition.path(path), helpers.limits).map_err(wrong)?;
        scanners.push(LockedFile { path: path.clone(), digest: Digest::of(&text) });
        catalog.scanners.push(scanner::read(&definition.path(path), &text).map_err(wrong)?);
    }
    for profile in &document.profiles {
        catalog.profiles.push(work.profile(profile, &catalog.scanners).await?);
    }
    for dependency in &document.dependencies {
        catalog.dependencies.push(work.dependency(dependency).await?);
    }
    for chart in &document.charts {
        catalog.charts.push(work.chart(chart).await?);
    }
    let (items, sources) = work.done();
    let lock = BundleLock {
        api_version: ApiVersion::V1,
        kind: "BundleLock".to_owned(),
        name: document.name.clone(),
        version: document.version,
        created,
        definition: definition.digest,
        items,
        scanners,
    };
    super::catalog::check(&catalog)?;
    Ok(Collected { lock, catalog, items: sources })
}

#[cfg(test)]
mod tests;
