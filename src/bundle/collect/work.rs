//! Collecting item by item.

mod chart;
mod dependency;
mod profile;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::Helpers;
use crate::base::digest::Digest;
use crate::bundle::companions;
use crate::bundle::cosign::{self, UpstreamKey};
use crate::bundle::definition::{Definition, From, ImageEntry, Platforms, Referrers, Upstream, Verify};
use crate::bundle::lock::{BundleLock, LockedItem, LockedLayer};
use crate::bundle::made::{self, Made};
use crate::bundle::oci::Descriptor;
use crate::bundle::platform::{self, Chosen};
use crate::bundle::source::{LayoutFolder, Source, SourceError};
use crate::bundle::writer::BuildError;
use crate::bundle::{agent, licence};
use crate::model::catalog::{CatalogItem, GAPSCAN_IMAGE, UpstreamSignature};

/// The manifest or index of an item, and where its content comes from.
type Sourced = (Descriptor, Arc<dyn Source>);

pub(super) struct Work<'a> {
    definition: &'a Definition,
    lock: Option<&'a BundleLock>,
    helpers: &'a Helpers<'a>,
    items: Vec<LockedItem>,
    sources: Vec<Sourced>,
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

    pub(super) fn done(self) -> (Vec<LockedItem>, Vec<Sourced>) {
        (self.items, self.sources)
    }

    fn locked(&self, repository: &str) -> Option<&'a LockedItem> {
        self.lock.and_then(|lock| lock.item(repository))
    }

    /// The pin of something, as long as the same is wanted.
    fn pin(&self, repository: &str, wanted: Digest) -> Option<&'a LockedItem> {
        self.locked(repository).filter(|pin| pin.wanted.is_none_or(|locked| locked == wanted))
    }

    /// What the definition wishes of an item, with what it says of all.
    fn wish<'w>(&self, section: &str, item: Upstream<'w>) -> Wish<'w>
    where
        'a: 'w,
    {
        Wish {
            repository: format!("{section}/{}", item.name),
            from: item.from,
            platforms: item.platforms.unwrap_or(self.platforms()),
            referrers: item.referrers.unwrap_or(self.definition.document.referrers),
            verify: item.verify,
            licences: item.licences,
            built: item.built,
        }
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
        let wish = self.wish("images", image.upstream());
        let Fetched { item, descriptor, source, .. } = self.fetch(&wish).await?;
        Ok(self.note(item, descriptor, source))
    }

    async fn fetch(&self, wish: &Wish<'_>) -> Result<Fetched, BuildError> {
        let (limits, wanted) = (self.helpers.limits, wish.digest());
        let pin = self.pin(&wish.repository, wanted);
        // Where a platform was chosen from an index, it is the index that is asked for again.
        let asked = pin.map(|item| item.index.unwrap_or(item.digest));
        let (found, source, shown) = self.resolve(wish, asked).await?;
        let Chosen { descriptor, index, source } = platform::choose(found, source, wish.platforms, limits).await?;
        let pin = pin.filter(|pin| pin.digest == descriptor.digest && pin.index == index);
        let subjects: Vec<Digest> = index.into_iter().chain([descriptor.digest]).collect();
        let verified = self.verify(wish, pin, &subjects, &source).await?;
        let mut item = LockedItem {
            index,
            wanted: Some(wanted),
            licences: wish.licences.to_vec(),
            verified,
            ..locked(&wish.repository, shown, &descriptor)
        };
        match pin {
            Some(pin) => {
                item.companions.clone_from(&pin.companions);
                item.licences.clone_from(&pin.licences);
                // Locked by a program that did not say what was wanted.
                item.wanted = pin.wanted;
            }
            None => self.look_into(wish, &mut item, &descriptor, &source).await?,
        }
        Ok(Fetched { item, descriptor, source, pinned: pin.is_some() })
    }

    /// The manifest or index that is wished for, where its content comes from, and how to name that.
    async fn resolve(
        &self,
        wish: &Wish<'_>,
        asked: Option<Digest>,
    ) -> Result<(Descriptor, Arc<dyn Source>, String), BuildError> {
        match wish.from {
            From::Registry(reference) => {
                let resolved = self.helpers.references.resolve(reference, asked.as_ref()).await?;
                if let Some(note) = resolved.note {
                    self.say(format!("{}: {note}", wish.repository));
                }
                Ok((resolved.descriptor, resolved.source, resolved.reference))
            }
            From::Layout(path, name) => {
                let layout = LayoutFolder::new(self.definition.path(path));
                let found = layout.resolve(name.as_deref(), self.helpers.limits)?;
                Ok((found, Arc::new(layout), wish.from.to_string()))
            }
            From::File(_) | From::Folder(_) => {
                Err(BuildError::Definition(format!("use `{}` as an image: it is none", wish.from)))
            }
        }
    }

    /// What is looked up and into once, when an item is locked: what is about it, and what it says of its licences.
    async fn look_into(
        &self,
        wish: &Wish<'_>,
        item: &mut LockedItem,
        descriptor: &Descriptor,
        source: &Arc<dyn Source>,
    ) -> Result<(), BuildError> {
        let limits = self.helpers.limits;
        if wish.referrers == Referrers::Carry {
            let found = companions::find(descriptor, source, limits).await?;
            item.companions = found.found;
            let left = self.left_with_index(item.index, source).await?;
            for note in found.notes.iter().chain(&left) {
                self.say(format!("{}: {note}", wish.repository));
            }
        }
        if item.licences.is_empty() {
            item.licences = licence::of(descriptor, source, limits).await?;
        }
        Ok(())
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
}

/// An item of this manifest or index with nothing said of it yet.
fn locked(repository: &str, source: String, descriptor: &Descriptor) -> LockedItem {
    LockedItem {
        repository: repository.to_owned(),
        source,
        index: None,
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest,
        size: descriptor.size,
        wanted: None,
        layer: None,
        controls: None,
        built: None,
        chart: None,
        licences: Vec::new(),
        verified: None,
        companions: Vec::new(),
    }
}

fn locked_made(repository: &str, source: String, made: &Made) -> LockedItem {
    let layer = Some(LockedLayer { digest: made.layer.digest, size: made.layer.size });
    LockedItem { layer, ..locked(repository, source, &made.descriptor) }
}
