//! Collecting item by item.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::Helpers;
use crate::base::digest::Digest;
use crate::base::exit::ExitClass;
use crate::base::file;
use crate::base::text::{brief, printable};
use crate::bundle::chart::{self, Chart};
use crate::bundle::companions;
use crate::bundle::cosign::{self, UpstreamKey};
use crate::bundle::definition::{
    ChartEntry, Definition, DependencyEntry, From, ImageEntry, Platforms, ProfileEntry, Referrers, RemoteContent,
    Verify,
};
use crate::bundle::layer::LayerPlan;
use crate::bundle::lock::{BundleLock, LockedChart, LockedItem, LockedLayer};
use crate::bundle::made::{self, Made, Run};
use crate::bundle::oci::{self, Descriptor, Manifest};
use crate::bundle::platform::{self, Chosen};
use crate::bundle::profile::ProfileFolder;
use crate::bundle::source::{LayoutFolder, Memory, Source, SourceError, small_blob};
use crate::bundle::writer::BuildError;
use crate::bundle::{agent, database, image_file, inspec, licence};
use crate::model::catalog::{
    CatalogChart, CatalogDependency, CatalogItem, CatalogProfile, GAPSCAN_IMAGE, UpstreamSignature,
};

/// Bytes of an XCCDF data stream; the largest of the SCAP Security Guide have some 50 MB.
const BENCHMARK_BYTES: u64 = 512 << 20;

pub(super) struct Work<'a> {
    definition: &'a Definition,
    lock: Option<&'a BundleLock>,
    helpers: &'a Helpers<'a>,
    items: Vec<LockedItem>,
    sources: Vec<(Descriptor, Arc<dyn Source>)>,
}

/// What a definition says of something that upstream has.
struct Wish<'a> {
    repository: String,
    from: &'a From,
    platforms: &'a Platforms,
    referrers: Referrers,
    verify: Option<&'a Verify>,
    licences: &'a [String],
    built: Option<Timestamp>,
}

impl Wish<'_> {
    /// The digest of all of it, so that a lock shows whether it still answers what is asked.
    fn digest(&self) -> Digest {
        let value = json!([self.from, self.platforms, self.referrers, self.verify, self.licences, self.built]);
        Digest::of(value.to_string())
    }
}

/// An item before it is noted.
struct Fetched {
    item: LockedItem,
    descriptor: Descriptor,
    source: Arc<dyn Source>,
    /// Whether the lock has it already, so that nothing has to be looked up or into.
    pinned: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(definition: &'a Definition, lock: Option<&'a BundleLock>, helpers: &'a Helpers<'a>) -> Self {
        Self { definition, lock, helpers, items: Vec::new(), sources: Vec::new() }
    }

    pub(super) fn done(self) -> (Vec<LockedItem>, Vec<(Descriptor, Arc<dyn Source>)>) {
        (self.items, self.sources)
    }

    fn locked(&self, repository: &str) -> Option<&'a LockedItem> {
        self.lock.and_then(|lock| lock.item(repository))
    }

    /// The pin of something, as long as the same is wanted.
    fn pin(&self, repository: &str, wanted: Digest) -> Option<&'a LockedItem> {
        self.locked(repository).filter(|pin| pin.wanted.is_none_or(|locked| locked == wanted))
    }

    fn say(&self, message: String) {
        self.helpers.progress.say(message);
    }

    fn platforms(&self) -> &'a Platforms {
        &self.definition.document.platforms
    }

    /// Notes an item and gives its entry for the catalog.
    fn note(&mut self, item: LockedItem, descriptor: Descriptor, source: Arc<dyn Source>) -> CatalogItem {
        let companions = match item.companions.len() {
            0 => String::new(),
            count => format!(", with {count} about it"),
        };
        self.say(format!("{}: {}{companions}", item.repository, item.digest));
        let entry = CatalogItem {
            name: item.name().to_owned(),
            repository: item.repository.clone(),
            source: item.source.clone(),
            media_type: item.media_type.clone(),
            digest: item.digest,
            size: item.size,
            licences: item.licences.clone(),
            verified: item.verified.clone(),
        };
        self.items.push(item);
        self.sources.push((descriptor, source));
        entry
    }

    pub(super) async fn gapscan(&mut self) -> Result<CatalogItem, BuildError> {
        let repository = format!("images/{GAPSCAN_IMAGE}");
        let agent = agent::read(self.helpers.agent)?;
        if !self.platforms().has_architecture(&agent.platform.architecture) {
            return Err(BuildError::Definition(format!(
                "use `{}`: it is built for {}, which is no platform of the bundle",
                self.helpers.agent.display(),
                agent.platform.architecture
            )));
        }
        let made = made::image(agent.layer, None, &[agent.platform], &agent.run).await?;
        let mut item = locked_made(&repository, format!("gapscan {}", env!("CARGO_PKG_VERSION")), &made);
        item.licences = vec![env!("CARGO_PKG_LICENSE").to_owned()];
        Ok(self.note(item, made.descriptor, made.source))
    }

    pub(super) async fn image(&mut self, image: &ImageEntry) -> Result<CatalogItem, BuildError> {
        let wish = Wish {
            repository: format!("images/{}", image.name),
            from: &image.from,
            platforms: image.platforms.as_ref().unwrap_or(self.platforms()),
            referrers: image.referrers.unwrap_or(self.definition.document.referrers),
            verify: image.verify.as_ref(),
            licences: &image.licences,
            built: None,
        };
        let Fetched { item, descriptor, source, .. } = self.fetch(&wish).await?;
        Ok(self.note(item, descriptor, source))
    }

    async fn fetch(&self, wish: &Wish<'_>) -> Result<Fetched, BuildError> {
        let (limits, wanted) = (self.helpers.limits, wish.digest());
        let pin = self.pin(&wish.repository, wanted);
        // Where a platform was chosen from an index, it is the index that is asked for again.
        let asked = pin.map(|item| item.index.unwrap_or(item.digest));
        let (found, source, shown): (Descriptor, Arc<dyn Source>, String) = match wish.from {
            From::Registry(reference) => {
                let resolved = self.helpers.references.resolve(reference, asked.as_ref()).await?;
                if let Some(note) = resolved.note {
                    self.say(format!("{}: {note}", wish.repository));
                }
                (resolved.descriptor, resolved.source, resolved.reference)
            }
            From::Layout(path, name) => {
                let layout = LayoutFolder::new(self.definition.path(path));
                (layout.resolve(name.as_deref(), limits)?, Arc::new(layout), wish.from.to_string())
            }
            From::File(_) | From::Folder(_) => {
                return Err(BuildError::Definition(format!("use `{}` as an image: it is none", wish.from)));
            }
        };
        let Chosen { descriptor, index, source } = platform::choose(found, source, wish.platforms, limits).await?;
        let pin = pin.filter(|pin| pin.digest == descriptor.digest && pin.index == index);
        let subjects: Vec<Digest> = index.into_iter().chain([descriptor.digest]).collect();
        let verified = self.verify(wish, pin, &subjects, &source).await?;
        let mut item = LockedItem {
            repository: wish.repository.clone(),
            source: shown,
            index,
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            wanted: Some(wanted),
            layer: None,
            controls: None,
            built: None,
            chart: None,
            licences: wish.licences.to_vec(),
            verified,
            companions: Vec::new(),
        };
        match pin {
            Some(pin) => {
                item.companions.clone_from(&pin.companions);
                item.licences.clone_from(&pin.licences);
                // Locked by a program that did not say what was wanted.
                item.wanted = pin.wanted;
            }
            None => {
                if wish.referrers == Referrers::Carry {
                    let found = companions::find(&descriptor, &source, limits).await?;
                    item.companions = found.found;
                    let left = self.left_with_index(index, &source).await?;
                    for note in found.notes.iter().chain(&left) {
                        self.say(format!("{}: {note}", wish.repository));
                    }
                }
                if item.licences.is_empty() {
                    item.licences = licence::of(&descriptor, &source, limits).await?;
                }
            }
        }
        Ok(Fetched { item, descriptor, source, pinned: pin.is_some() })
    }

    /// What is about an index of which only some platforms are carried has nothing to be about in the bundle.
    async fn left_with_index(
        &self,
        index: Option<Digest>,
        source: &Arc<dyn Source>,
    ) -> Result<Option<String>, SourceError> {
        let Some(index) = index else { return Ok(None) };
        let left = source.referrers(&index, self.helpers.limits).await?.len();
        Ok((left > 0).then(|| {
            format!("{left} signatures or the like are about the whole index and stay behind; `platforms: [all]` carries them")
        }))
    }

    async fn verify(
        &self,
        wish: &Wish<'_>,
        pin: Option<&LockedItem>,
        subjects: &[Digest],
        source: &Arc<dyn Source>,
    ) -> Result<Option<UpstreamSignature>, SourceError> {
        let Some(verify) = wish.verify else { return Ok(None) };
        let limits = self.helpers.limits;
        let key = UpstreamKey::read(&self.definition.path(&verify.cosign_key))?;
        let verified = match pin.and_then(|pin| pin.verified.as_ref()) {
            Some(pinned) => cosign::verify_pinned(&key, pinned, subjects, source, limits).await?,
            None => cosign::verify(&key, subjects, source, limits).await?,
        };
        let identity = verified.identity.as_deref().unwrap_or("something without a name");
        let key = verified.key.short();
        self.say(format!("{}: signed by the key {key} as {identity}", wish.repository));
        Ok(Some(verified))
    }

    pub(super) async fn profile(&mut self, entry: &ProfileEntry) -> Result<CatalogProfile, BuildError> {
        let folder = ProfileFolder::read(&self.definition.path(&entry.path), self.helpers.limits)?;
        let name = folder.document.name.clone();
        let benchmark = match &folder.document.xccdf {
            Some(xccdf) => {
                let repository = format!("images/{}", xccdf.image);
                let at = self.items.iter().position(|item| item.repository == repository).ok_or_else(|| {
                    BuildError::Definition(format!(
                        "use profile `{name}`: its benchmark is in the image `{}`, which is not in the bundle",
                        brief(&xccdf.image)
                    ))
                })?;
                let (descriptor, source) = &self.sources[at];
                Some(image_file::read(descriptor, source, &xccdf.path, BENCHMARK_BYTES, self.helpers.limits).await?)
            }
            None => None,
        };
        let profile = folder.resolve(benchmark.as_deref(), self.helpers.profiles)?;
        if let Some(benchmark) = &benchmark {
            let remote = self.helpers.profiles.remote(&profile, benchmark)?;
            if !remote.is_empty() {
                self.judge_remote(&name, &remote, entry.remote_content)?;
            }
        }
        let repository = format!("profiles/{name}");
        let layer = folder.layer(&profile);
        let made = made::image(layer, None, &self.platforms().to_make(), &Run::default()).await?;
        let source = format!("profile {} {}", profile.name, profile.version);
        let item = LockedItem {
            controls: Some(profile.digest()),
            licences: entry.licences.clone(),
            ..locked_made(&repository, source, &made)
        };
        let item = self.note(item, made.descriptor, made.source);
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

    fn judge_remote(&self, name: &str, remote: &[String], choice: RemoteContent) -> Result<(), SourceError> {
        let shown = remote.iter().take(10).map(|line| printable(line)).collect::<Vec<_>>().join("; ");
        match choice {
            RemoteContent::NotEvaluated => {
                self.say(format!("profile `{name}`: not evaluated will be {shown}"));
                Ok(())
            }
            RemoteContent::Refuse => Err(SourceError::new(
                ExitClass::Usage,
                format!("use profile `{name}`: it needs content that only the internet has: {shown}"),
            )
            .with_remedy(
                "take a data stream that has this content in it, or write `remoteContent: not-evaluated` for the profile: \
                 these rules are reported as not evaluated then",
            )),
        }
    }

    pub(super) async fn dependency(&mut self, dependency: &DependencyEntry) -> Result<CatalogDependency, BuildError> {
        let wish = Wish {
            repository: format!("dependencies/{}", dependency.name),
            from: &dependency.from,
            platforms: dependency.platforms.as_ref().unwrap_or(self.platforms()),
            referrers: dependency.referrers.unwrap_or(self.definition.document.referrers),
            verify: dependency.verify.as_ref(),
            licences: &dependency.licences,
            built: dependency.built,
        };
        let (mut fetched, found) = match &dependency.from {
            From::Registry(_) | From::Layout(..) => {
                let fetched = self.fetch(&wish).await?;
                let found = match fetched.pinned {
                    true => Vec::new(),
                    false => database::of_artifact(&fetched.descriptor, &fetched.source, self.helpers.limits).await?,
                };
                (fetched, found)
            }
            From::File(path) | From::Folder(path) => {
                let path = self.definition.path(path);
                let fetched = self.pack(&wish, &path).await?;
                let found = match fetched.pinned {
                    true => Vec::new(),
                    false => {
                        inspec::check(&path)?;
                        database::on_disk(&path)?
                    }
                };
                (fetched, found)
            }
        };
        let repository = &wish.repository;
        fetched.item.built = match self.locked(repository).filter(|_| fetched.pinned) {
            Some(pin) => pin.built,
            None => database::date(&dependency.name, &found, dependency.built, dependency.max_age.is_some())?,
        };
        let Fetched { item, descriptor, source, .. } = fetched;
        let built = item.built;
        let item = self.note(item, descriptor, source);
        Ok(CatalogDependency { item, built, max_age: dependency.max_age, on_old: dependency.on_old })
    }

    /// Packs a file or a folder as an image. By the pins of a lock its files are not read yet: what the lock says of the layer
    /// is verified when it is written, so that large files are read once.
    async fn pack(&self, wish: &Wish<'_>, path: &Path) -> Result<Fetched, BuildError> {
        let mut layer = LayerPlan::default();
        if matches!(wish.from, From::Folder(_)) {
            layer.add_folder(path)?;
        } else {
            let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| {
                SourceError::new(ExitClass::Usage, format!("pack `{}`: it has no proper name", path.display()))
            })?;
            layer.add_file(name, 0o644, path)?;
        }
        let wanted = wish.digest();
        let pin = self.pin(&wish.repository, wanted);
        let known = pin.and_then(|pin| pin.layer.as_ref()).map(|layer| (layer.digest, layer.size));
        let made = made::image(layer, known, &wish.platforms.to_make(), &Run::default()).await?;
        let mut item = locked_made(&wish.repository, wish.from.to_string(), &made);
        item.licences = wish.licences.to_vec();
        item.wanted = pin.map_or(Some(wanted), |pin| pin.wanted);
        Ok(Fetched { item, descriptor: made.descriptor, source: made.source, pinned: pin.is_some() })
    }

    pub(super) async fn chart(&mut self, entry: &ChartEntry) -> Result<CatalogChart, BuildError> {
        let wish = Wish {
            repository: format!("charts/{}", entry.name),
            from: &entry.from,
            platforms: &Platforms::All,
            referrers: entry.referrers.unwrap_or(self.definition.document.referrers),
            verify: entry.verify.as_ref(),
            licences: &entry.licences,
            built: None,
        };
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

fn locked_made(repository: &str, source: String, made: &Made) -> LockedItem {
    LockedItem {
        repository: repository.to_owned(),
        source,
        index: None,
        media_type: made.descriptor.media_type.clone(),
        digest: made.descriptor.digest,
        size: made.descriptor.size,
        wanted: None,
        layer: Some(LockedLayer { digest: made.layer.digest, size: made.layer.size }),
        controls: None,
        built: None,
        chart: None,
        licences: Vec::new(),
        verified: None,
        companions: Vec::new(),
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
        repository: wish.repository.clone(),
        source: wish.from.to_string(),
        index: None,
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest,
        size: descriptor.size,
        wanted: Some(wish.digest()),
        layer: Some(LockedLayer { digest: layer.digest, size: layer.size }),
        controls: None,
        built: None,
        chart: None,
        licences: wish.licences.to_vec(),
        verified: None,
        companions: Vec::new(),
    };
    Fetched { item, descriptor, source: Arc::new(memory), pinned: false }
}
