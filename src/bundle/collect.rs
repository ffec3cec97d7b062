//! From a definition to pinned items with their sources: the work that `lock` and `build` share. `build` collects again,
//! by the pins of the lock, and goes on only if what it finds is what was locked.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::agent;
use super::assembly::{Assembled, Assembly};
use super::definition::{Definition, DependencyEntry, From, wrong};
use super::image_file;
use super::layer::LayerPlan;
use super::lock::{BundleLock, LockedFile, LockedItem, LockedLayer};
use super::made::{self, Made, Run};
use super::oci::{Descriptor, Platform};
use super::platform::{self, Chosen};
use super::profile::{ProfileFolder, ProfileResolver};
use super::scanner;
use super::source::{LayoutFolder, Source, SourceError};
use super::writer::{BuildError, whole_seconds};
use crate::base::digest::Digest;
use crate::base::document::{self, ApiVersion};
use crate::base::exit::ExitClass;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::model::catalog::{Catalog, CatalogDependency, CatalogItem, CatalogProfile, GAPSCAN_IMAGE, OnOld, Requires};
use crate::model::scanner::ScannerDocument;

/// Bytes of an XCCDF data stream; the largest of the SCAP Security Guide have some 50 MB.
const BENCHMARK_BYTES: u64 = 512 << 20;

/// A registry's answer to a reference.
pub struct Resolved {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// The reference with the digest.
    pub reference: String,
    /// Where its content comes from.
    pub source: Arc<dyn Source>,
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
    let mut work = Work { definition, lock, helpers, items: Vec::new(), sources: Vec::new() };
    let mut catalog = Catalog {
        name: document.name.clone(),
        version: document.version,
        created,
        classification: document.classification.clone(),
        images: if document.is_notices_only() { Vec::new() } else { vec![work.gapscan().await?] },
        scanners: Vec::new(),
        profiles: Vec::new(),
        dependencies: Vec::new(),
        notices: document.notices(),
        charts: Vec::new(),
        requires: Requires::default(),
    };
    for image in &document.images {
        let repository = format!("images/{}", image.name);
        catalog.images.push(work.image(&repository, &image.from).await?);
    }
    let mut scanners = Vec::new();
    for path in &document.scanners {
        let text = document::text(&definition.path(path), helpers.limits).map_err(wrong)?;
        scanners.push(LockedFile { path: path.clone(), digest: Digest::of(&text) });
        let scanner: ScannerDocument = document::parse(&definition.path(path), &text).map_err(wrong)?;
        let problems = scanner::problems(&scanner);
        if !problems.is_empty() {
            let path = definition.path(path);
            return Err(BuildError::Definition(format!("use scanner `{}`: {}", path.display(), problems.join("; "))));
        }
        catalog.scanners.push(scanner);
    }
    for profile in &document.profiles {
        catalog.profiles.push(work.profile(&definition.path(&profile.path)).await?);
    }
    for dependency in &document.dependencies {
        catalog.dependencies.push(work.dependency(dependency).await?);
    }
    let Work { items, sources, .. } = work;
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

struct Work<'a> {
    definition: &'a Definition,
    lock: Option<&'a BundleLock>,
    helpers: &'a Helpers<'a>,
    items: Vec<LockedItem>,
    sources: Vec<(Descriptor, Arc<dyn Source>)>,
}

impl Work<'_> {
    fn locked(&self, repository: &str) -> Option<&LockedItem> {
        self.lock.and_then(|lock| lock.item(repository))
    }

    fn known_layer(&self, repository: &str) -> Option<(Digest, u64)> {
        self.locked(repository).and_then(|item| item.layer.as_ref()).map(|layer| (layer.digest, layer.size))
    }

    fn platforms(&self) -> Vec<Platform> {
        self.definition.platforms()
    }

    /// Notes an item and gives its entry for the catalog.
    fn note(&mut self, item: LockedItem, descriptor: Descriptor, source: Arc<dyn Source>) -> CatalogItem {
        let entry = CatalogItem {
            name: item.repository.rsplit('/').next().unwrap_or_default().to_owned(),
            repository: item.repository.clone(),
            source: item.source.clone(),
            media_type: item.media_type.clone(),
            digest: item.digest,
            size: item.size,
            licences: Vec::new(),
            verified: None,
        };
        self.items.push(item);
        self.sources.push((descriptor, source));
        entry
    }

    fn note_made(&mut self, repository: &str, source: String, made: Made, controls: Option<Digest>) -> CatalogItem {
        let item = LockedItem {
            repository: repository.to_owned(),
            source,
            index: None,
            media_type: made.descriptor.media_type.clone(),
            digest: made.descriptor.digest,
            size: made.descriptor.size,
            layer: Some(LockedLayer { digest: made.layer.digest, size: made.layer.size }),
            controls,
        };
        self.note(item, made.descriptor, made.source)
    }

    async fn gapscan(&mut self) -> Result<CatalogItem, BuildError> {
        let repository = format!("images/{GAPSCAN_IMAGE}");
        let agent = agent::read(self.helpers.agent)?;
        if !self.platforms().iter().any(|p| p.architecture == agent.platform.architecture) {
            return Err(BuildError::Definition(format!(
                "use `{}`: it is built for {}, which is no platform of the bundle",
                self.helpers.agent.display(),
                agent.platform.architecture
            )));
        }
        let made = made::image(agent.layer, None, &[agent.platform], &agent.run).await?;
        Ok(self.note_made(&repository, format!("gapscan {}", env!("CARGO_PKG_VERSION")), made, None))
    }

    async fn image(&mut self, repository: &str, from: &From) -> Result<CatalogItem, BuildError> {
        let (limits, pin) = (self.helpers.limits, self.locked(repository));
        // Where a platform was chosen from an index, it is the index that is asked for again.
        let pinned = pin.map(|item| item.index.unwrap_or(item.digest));
        let (descriptor, source, shown): (Descriptor, Arc<dyn Source>, String) = match from {
            From::Registry(reference) => {
                let resolved = self.helpers.references.resolve(reference, pinned.as_ref()).await?;
                (resolved.descriptor, resolved.source, resolved.reference)
            }
            From::Layout(path, name) => {
                let layout = LayoutFolder::new(self.definition.path(path));
                (layout.resolve(name.as_deref(), limits)?, Arc::new(layout), from.to_string())
            }
            From::File(_) | From::Folder(_) => {
                return Err(BuildError::Definition(format!("use `{from}` as an image: it is none")));
            }
        };
        let Chosen { descriptor, index, source } =
            platform::choose(descriptor, source, &self.platforms(), limits).await?;
        let item = LockedItem {
            repository: repository.to_owned(),
            source: shown,
            index,
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            layer: None,
            controls: None,
        };
        self.helpers.progress.say(format!("{repository}: {}", item.digest));
        Ok(self.note(item, descriptor, source))
    }

    async fn profile(&mut self, path: &Path) -> Result<CatalogProfile, BuildError> {
        let folder = ProfileFolder::read(path, self.helpers.limits)?;
        let benchmark = match &folder.document.xccdf {
            Some(xccdf) => {
                let repository = format!("images/{}", xccdf.image);
                let at = self.items.iter().position(|item| item.repository == repository).ok_or_else(|| {
                    BuildError::Definition(format!(
                        "use profile `{}`: its benchmark is in the image `{}`, which is not in the bundle",
                        folder.document.name,
                        crate::base::text::brief(&xccdf.image)
                    ))
                })?;
                let (descriptor, source) = &self.sources[at];
                Some(image_file::read(descriptor, source, &xccdf.path, BENCHMARK_BYTES, self.helpers.limits).await?)
            }
            None => None,
        };
        let profile = folder.resolve(benchmark.as_deref(), self.helpers.profiles)?;
        let repository = format!("profiles/{}", folder.document.name);
        let made = made::image(folder.layer(&profile), None, &self.platforms(), &Run::default()).await?;
        let source = format!("profile {} {}", profile.name, profile.version);
        let item = self.note_made(&repository, source, made, Some(profile.digest()));
        self.helpers.progress.say(format!("{repository}: {} controls, {}", profile.controls.len(), item.digest));
        let targets: BTreeSet<_> = folder.document.targets.iter().copied().collect();
        Ok(CatalogProfile {
            item,
            version: profile.version.clone(),
            engine: folder.document.engine.clone(),
            targets: targets.into_iter().collect(),
            controls: profile.controls.len() as u64,
            profile: profile.digest(),
        })
    }

    async fn dependency(&mut self, dependency: &DependencyEntry) -> Result<CatalogDependency, BuildError> {
        let repository = format!("dependencies/{}", dependency.name);
        let mut layer = LayerPlan::default();
        let item = match &dependency.from {
            From::Registry(_) | From::Layout(..) => self.image(&repository, &dependency.from).await?,
            From::File(path) | From::Folder(path) => {
                let full = self.definition.path(path);
                if matches!(dependency.from, From::Folder(_)) {
                    layer.add_folder(&full)?;
                } else {
                    let name = full.file_name().and_then(|n| n.to_str()).ok_or_else(|| {
                        SourceError::new(ExitClass::Usage, format!("pack `{}`: it has no proper name", full.display()))
                    })?;
                    layer.add_file(name, 0o644, &full)?;
                }
                // What the lock says of the layer is verified when it is written, so that large files are read once.
                let known = self.known_layer(&repository);
                let made = made::image(layer, known, &self.platforms(), &Run::default()).await?;
                let item = self.note_made(&repository, dependency.from.to_string(), made, None);
                self.helpers.progress.say(format!("{repository}: {}", item.digest));
                item
            }
        };
        Ok(CatalogDependency { item, built: dependency.built, max_age: dependency.max_age, on_old: OnOld::Refuse })
    }
}
