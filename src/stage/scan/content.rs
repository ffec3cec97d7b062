//! The engines and profiles that a scan can use: those of the binary, and those of a loaded bundle, which are verified again
//! from the registry at every run.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::AsyncReadExt;

use super::error::ScanError;
use super::unit::NotDone;
use crate::base::digest::Digest;
use crate::base::document;
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::quantity::Span;
use crate::cluster::job::ImageMount;
use crate::model::catalog::{Catalog, CatalogItem, CatalogProfile, GAPSCAN_IMAGE, OnOld};
use crate::model::profile::Profile;
use crate::model::profile_document::ProfileDocument;
use crate::model::provenance::{BundleRef, ContentRef};
use crate::model::reason::Reason;
use crate::model::scanner::{BUILTIN, Capability, ScannerDocument};
use crate::model::target::TargetKind;
use crate::native::profile::{self as rules, RuleProfile};
use crate::registry::{Client, Prefix};
use crate::stage::load;
use crate::stage::plan::{BundleSource, InputEntry, Policy};
use crate::stage::registries::Registries;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// What a scan can use.
pub(crate) struct Content {
    pub(crate) builtin: Vec<Arc<RuleProfile>>,
    pub(crate) external: Vec<Arc<External>>,
    pub(crate) bundle: Option<BundleRef>,
    /// The bundle's classification marking.
    pub(crate) classification: Option<String>,
    /// gapscan's own image as the nodes pull it.
    pub(crate) own_image: Option<String>,
    /// The digests of all images of the bundle.
    pub(crate) images: Vec<Digest>,
}

/// A profile that a scanner evaluates, with all that it needs, each by digest.
pub(crate) struct External {
    pub(crate) scanner: ScannerDocument,
    pub(crate) document: ProfileDocument,
    pub(crate) profile: Profile,
    /// The scanner's image as the nodes pull it.
    pub(crate) image: String,
    pub(crate) image_digest: Digest,
    /// gapscan's own image.
    pub(crate) own_image: String,
    /// The profile's folder as an image, as the nodes pull it.
    pub(crate) profile_image: String,
    pub(crate) mounts: Vec<Mounted>,
    /// Files that the plan has for the profile.
    pub(crate) inputs: Vec<InputEntry>,
}

/// A dependency that is mounted into the scanner's pod.
pub(crate) struct Mounted {
    pub(crate) path: String,
    pub(crate) image: String,
    pub(crate) content: ContentRef,
    pub(crate) max_age: Option<std::time::Duration>,
    pub(crate) on_old: OnOld,
}

/// Bytes of the layer of a profile's folder, which has at most 64 MiB in 10,000 files; with their headers and `controls.json`.
const PROFILE_BYTES: u64 = 128 << 20;

impl Content {
    /// The content without a bundle.
    pub(crate) fn shipped() -> Self {
        let builtin = rules::shipped().into_iter().map(Arc::new).collect();
        Self { builtin, external: Vec::new(), bundle: None, classification: None, own_image: None, images: Vec::new() }
    }

    /// The content of a loaded bundle, with the built-in profiles that it has no other version of.
    ///
    /// # Errors
    /// When the bundle is not there, does not verify, or has a profile or scanner that can't be used: then nothing of it is.
    pub(crate) async fn of_bundle(
        source: &BundleSource,
        remembered: &Remembered,
        registries: &Registries,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, ScanError> {
        Self::of_bundle_but(None, source, remembered, registries, limits, now).await
    }

    /// The same with this definition in the place of the one of its name, where there is one.
    ///
    /// # Errors
    /// As [`Content::of_bundle`], and when the definition names what the bundle has not.
    pub(crate) async fn of_bundle_but(
        scanner: Option<&ScannerDocument>,
        source: &BundleSource,
        remembered: &Remembered,
        registries: &Registries,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, ScanError> {
        let failed = |class: ExitClass, remedy: Option<String>, error: Box<dyn std::error::Error + Send + Sync>| {
            ScanError::Bundle { name: source.name.clone(), source: error, class, remedy }
        };
        let prefix: Prefix = source
            .registry
            .parse()
            .map_err(|e: crate::registry::reference::NameError| ScanError::Request(e.to_string()))?;
        let root = TrustRoot::read(&source.root).map_err(|e| failed(e.class(), e.remedy(), e.into()))?;
        let client = registries.client(&prefix.registry).map_err(|e| ScanError::Registry {
            host: prefix.registry.to_string(),
            class: e.class(),
            remedy: e.remedy(),
            source: e.into(),
        })?;
        let (bundle, mut catalog) = load::read_catalog(&client, &prefix, &source.name, &root, remembered, limits, now)
            .await
            .map_err(|e| failed(e.class(), e.remedy(), e.into()))?;
        if let Some(scanner) = scanner {
            catalog.scanners.retain(|other| other.name != scanner.name);
            catalog.scanners.push(scanner.clone());
        }
        let shelf = Shelf { client: &client, prefix: &prefix, catalog: &catalog };
        let classification = catalog.classification.clone();
        let mut content = Self { bundle: Some(bundle), classification, ..Self::shipped() };
        let own = catalog.images.iter().find(|i| i.name == GAPSCAN_IMAGE);
        content.images = catalog.images.iter().map(|image| image.digest).collect();
        content.own_image =
            own.map(|item| shelf.reference(item)).transpose().map_err(|e| failed(e.class(), e.remedy(), e.into()))?;
        for entry in &catalog.profiles {
            let files = shelf.files(&entry.item).await.map_err(|e| failed(e.class(), e.remedy(), e.into()))?;
            if entry.engine == BUILTIN {
                let profile = rules::load(&files).map_err(|e| failed(ExitClass::Refused, None, e.into()))?;
                content.builtin.retain(|p| p.profile().name != profile.profile().name);
                content.builtin.push(Arc::new(profile));
            } else {
                let external = shelf.external(entry, &files).map_err(|e| failed(e.class(), e.remedy(), e.into()))?;
                content.external.push(Arc::new(external));
            }
        }
        Ok(content)
    }

    /// Hands these files to the profiles that they are for.
    ///
    /// # Errors
    /// When there is no such profile, or none that a scanner evaluates: what it is to be told would be told to nobody.
    pub(crate) fn with_inputs(mut self, inputs: &BTreeMap<String, Vec<InputEntry>>) -> Result<Self, ScanError> {
        for (profile, entries) in inputs {
            let external = self.external.iter_mut().find(|external| external.profile.name == *profile);
            let Some(external) = external.and_then(Arc::get_mut) else {
                let known = self.external.iter().map(|external| external.profile.name.as_str()).collect::<Vec<_>>();
                return Err(ScanError::Request(format!(
                    "give inputs to profile `{profile}`: no scanner of the bundle evaluates one of this name; they evaluate {}",
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                )));
            };
            external.inputs.clone_from(entries);
        }
        Ok(self)
    }
}

/// Why something of a verified catalog can't be used.
#[derive(Debug, thiserror::Error)]
enum ShelfError {
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    #[error("read `{item}` of the bundle: {reason}")]
    Content { item: String, reason: String },
    #[error(transparent)]
    Document(#[from] document::DocumentError),
}

impl Classify for ShelfError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Registry(error) => error.class(),
            Self::Content { .. } | Self::Document(_) => ExitClass::Refused,
        }
    }
}

struct Shelf<'a> {
    client: &'a Client,
    prefix: &'a Prefix,
    catalog: &'a Catalog,
}

impl Shelf<'_> {
    fn wrong(item: &CatalogItem, reason: impl ToString) -> ShelfError {
        ShelfError::Content { item: item.name.clone(), reason: reason.to_string() }
    }

    /// `HOST/REPOSITORY@sha256:…`, which names exactly what was signed.
    fn reference(&self, item: &CatalogItem) -> Result<String, ShelfError> {
        let repository = self.prefix.repository(&item.repository).map_err(|e| Self::wrong(item, e))?;
        Ok(format!("{}/{repository}@{}", self.prefix.registry, item.digest))
    }

    /// The files of a profile's one layer, every byte covered by the catalog's digest.
    async fn files(&self, item: &CatalogItem) -> Result<BTreeMap<String, Vec<u8>>, ShelfError> {
        let repository = self.prefix.repository(&item.repository).map_err(|e| Self::wrong(item, e))?;
        let manifest = self.client.manifest(&repository, &item.digest.into()).await?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest.bytes).map_err(|e| Self::wrong(item, e))?;
        let layer = &manifest["layers"][0];
        let digest: Digest = layer["digest"]
            .as_str()
            .ok_or_else(|| Self::wrong(item, "its manifest has no layer"))?
            .parse()
            .map_err(|e| Self::wrong(item, e))?;
        let size = layer["size"].as_u64().filter(|s| *s <= PROFILE_BYTES);
        let size = size.ok_or_else(|| {
            Self::wrong(item, format!("its layer has no size, or is larger than {PROFILE_BYTES} bytes"))
        })?;
        let mut bytes = Vec::new();
        // The reader ends well only if length and digest are those of the manifest.
        self.client
            .blob(&repository, &digest, size)
            .await?
            .read_to_end(&mut bytes)
            .await
            .map_err(|e| Self::wrong(item, e))?;
        unpack(&bytes).map_err(|e| Self::wrong(item, e))
    }

    fn external(&self, entry: &CatalogProfile, files: &BTreeMap<String, Vec<u8>>) -> Result<External, ShelfError> {
        let item = &entry.item;
        let file = |name: &str| files.get(name).ok_or_else(|| Self::wrong(item, format!("it has no {name}")));
        let text = std::str::from_utf8(file("profile.yaml")?).map_err(|e| Self::wrong(item, e))?;
        let document: ProfileDocument = document::parse(std::path::Path::new("profile.yaml"), text)?;
        let controls = file("controls.json")?;
        if Digest::of(controls) != entry.profile {
            return Err(Self::wrong(item, "its controls.json is not what the catalog says"));
        }
        let profile: Profile = serde_json::from_slice(controls).map_err(|e| Self::wrong(item, e))?;
        let profile = profile.checked().map_err(|e| Self::wrong(item, e))?;
        let scanner = self.catalog.scanners.iter().find(|s| s.name == entry.engine);
        let scanner =
            scanner.ok_or_else(|| Self::wrong(item, format!("the bundle has no scanner `{}`", entry.engine)))?;
        let image = |name: &str| {
            let found = self.catalog.images.iter().find(|i| i.name == name);
            found.ok_or_else(|| Self::wrong(item, format!("the bundle has no image `{name}`")))
        };
        let mut mounts = Vec::new();
        for mount in &scanner.dependencies {
            let found = self.catalog.dependencies.iter().find(|d| d.item.name == mount.name);
            let found =
                found.ok_or_else(|| Self::wrong(item, format!("the bundle has no dependency `{}`", mount.name)))?;
            mounts.push(Mounted {
                path: mount.mount.clone(),
                image: self.reference(&found.item)?,
                content: ContentRef { name: mount.name.clone(), digest: found.item.digest, built: found.built },
                max_age: stricter(mount.max_age, found.max_age),
                on_old: match mount.on_old {
                    Some(OnOld::Refuse) => OnOld::Refuse,
                    Some(OnOld::Warn) | None => found.on_old,
                },
            });
        }
        Ok(External {
            scanner: scanner.clone(),
            document,
            profile,
            image: self.reference(image(&scanner.image)?)?,
            image_digest: image(&scanner.image)?.digest,
            own_image: self.reference(image(GAPSCAN_IMAGE)?)?,
            profile_image: self.reference(item)?,
            mounts,
            inputs: Vec::new(),
        })
    }
}

/// The shorter of what a scanner's definition and the bundle say of how old a dependency may be.
fn stricter(one: Option<Span>, other: Option<Span>) -> Option<std::time::Duration> {
    one.into_iter().chain(other).min().map(Span::duration)
}

/// The files of a tar. Its bytes were signed; nothing is written to disk.
fn unpack(bytes: &[u8]) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(path, content);
        }
    }
    Ok(files)
}

impl External {
    /// What it may do on a node besides reading everything, where its profile is for nodes.
    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        let node = self.scanner.approaches.node.as_ref().filter(|_| self.document.targets.contains(&TargetKind::Node));
        node.map(|approach| approach.capabilities.clone()).unwrap_or_default()
    }

    /// Whether an image is not mounted for it, but given to it as an archive.
    pub(crate) fn takes_archive_alone(&self) -> bool {
        let image = self.scanner.approaches.image.as_ref();
        image.is_some_and(|approach| approach.archive.is_some() && approach.mount.is_none())
    }

    /// The profile's own folder where the scanner's definition wants it.
    pub(crate) fn profile_mount(&self) -> Option<ImageMount> {
        let path = self.scanner.profile_mount.clone()?;
        Some(ImageMount { reference: self.profile_image.clone(), path })
    }

    /// Whether the databases may be used at `now`: each must have a date that is not in the future and not older than the
    /// bundle, or else the policy, allows. `reported` is the date that the scanner's own result names, where it does; it must
    /// be recent enough even where the database came with the scanner. Gives what to note of those that are too old and may
    /// be used all the same, because the bundle says `onOld: warn`.
    pub(crate) fn check_age(
        &self,
        reported: Option<Timestamp>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Vec<String>, NotDone> {
        let otherwise = policy.database_max_age.duration();
        let limits = self.mounts.iter().map(|m| m.max_age.unwrap_or(otherwise));
        let mut notes = Vec::new();
        if let Some(built) = reported {
            // Which of several it means is not said: the strictest counts.
            let strict = self.mounts.iter().any(|m| m.on_old.is_refuse()) || self.mounts.is_empty();
            let on_old = if strict { OnOld::Refuse } else { OnOld::Warn };
            let limit = limits.min().unwrap_or(otherwise);
            notes.extend(recent("the scanner's database", built, limit, on_old, now)?);
        }
        for mounted in &self.mounts {
            let name = format!("`{}`", mounted.content.name);
            // What the scanner read from its only database counts for more than what the bundle's definition says of it.
            let built = match &self.mounts[..] {
                [_] => reported.or(mounted.content.built),
                _ => mounted.content.built,
            };
            let built = built.ok_or_else(|| NotDone::new(Reason::DatabaseStale, format!("{name} has no date")))?;
            notes.extend(recent(&name, built, mounted.max_age.unwrap_or(otherwise), mounted.on_old, now)?);
        }
        Ok(notes)
    }
}

/// A database without a date, or from the future, is never right: `on_old` is about those that are only old.
fn recent(
    name: &str,
    built: Timestamp,
    limit: std::time::Duration,
    on_old: OnOld,
    now: Timestamp,
) -> Result<Option<String>, NotDone> {
    let stale = |detail: String| Err(NotDone::new(Reason::DatabaseStale, detail));
    match std::time::Duration::try_from(now.duration_since(built)) {
        Err(_) => stale(format!("{name} was built at {built}, which is in the future")),
        Ok(age) if age > limit => {
            let days = |d: std::time::Duration| d.as_secs() / 86_400;
            let detail = format!("{name} was built at {built}, {} days ago; {} are allowed", days(age), days(limit));
            match on_old {
                OnOld::Refuse => stale(detail),
                OnOld::Warn => Ok(Some(format!("{detail}, and the bundle says that it may be used with this note"))),
            }
        }
        Ok(_) => Ok(None),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::limits::Limits;

    /// A scanner with one dependency for each given build date and greatest age in days.
    pub(in crate::stage::scan) fn external(profile: &Profile, mounts: &[(Option<&str>, Option<u64>)]) -> External {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let limits = Limits::default();
        let mounted = |(at, (built, days)): (usize, &(Option<&str>, Option<u64>))| Mounted {
            path: format!("/db{at}"),
            image: String::new(),
            content: ContentRef {
                name: format!("db{at}"),
                digest: Digest::of("db"),
                built: built.map(|b| b.parse().expect("a date")),
            },
            max_age: days.map(|d| std::time::Duration::from_secs(d * 86_400)),
            on_old: OnOld::Refuse,
        };
        External {
            scanner: document::load(&folder.join("bundle/scanners/grype.yaml"), &limits).expect("a scanner"),
            document: document::load(&folder.join("profiles-mirror/known-vulnerabilities/profile.yaml"), &limits)
                .expect("a profile"),
            profile: profile.clone(),
            image: String::new(),
            image_digest: Digest::of("image"),
            own_image: String::new(),
            profile_image: String::new(),
            mounts: mounts.iter().enumerate().map(mounted).collect(),
            inputs: Vec::new(),
        }
    }

    #[test]
    fn of_two_ages_the_stricter_holds() {
        let (day, week) = (Span::days(1), Span::days(7));
        for (definition, bundle, holds) in [
            (None, None, None),
            (Some(day), None, Some(day)),
            (Some(week), Some(day), Some(day)),
            (Some(day), Some(week), Some(day)),
        ] {
            assert_eq!(stricter(definition, bundle), holds.map(Span::duration));
        }
    }

    #[test]
    fn a_database_is_used_only_if_its_age_is_known_and_allowed() {
        let now = "2026-03-01T00:00:00Z".parse().expect("a time");
        let profile = Content::shipped().builtin[0].profile().clone();
        let check = |mounts: &[(Option<&str>, Option<u64>)], reported: Option<&str>| {
            let reported = reported.map(|r| r.parse().expect("a date"));
            external(&profile, mounts).check_age(reported, &Policy::default(), now).map_err(|why| why.detail)
        };
        let (fresh, old, future) = ("2026-02-27T00:00:00Z", "2025-11-01T00:00:00Z", "2026-03-02T00:00:00Z");
        assert_eq!(check(&[(Some(fresh), None)], None), Ok(vec![]));
        assert_eq!(check(&[(None, None)], Some(fresh)), Ok(vec![]));
        assert_eq!(check(&[(Some(old), None)], Some(fresh)), Ok(vec![]), "what the scanner read counts");
        assert_eq!(check(&[], None), Ok(vec![]), "a scanner without a database");
        for (mounts, reported, why) in [
            (&[(None, None)][..], None, "no date"),
            (&[(Some(old), None)], None, "days ago"),
            (&[(Some(fresh), Some(1))], None, "days ago"),
            (&[(Some(future), None)], None, "in the future"),
            (&[(Some(fresh), None)], Some(old), "days ago"),
            (&[(Some(fresh), None)], Some(future), "in the future"),
            // A database inside the scanner's own image.
            (&[], Some(old), "days ago"),
            // The date of one must not stand for that of another.
            (&[(Some(fresh), None), (Some(old), None)], Some(fresh), "`db1`"),
            (&[(Some(fresh), None), (None, None)], Some(fresh), "`db1`"),
            (&[(Some(fresh), None), (Some(fresh), Some(3))], Some("2026-02-20T00:00:00Z"), "scanner's"),
        ] {
            let error = check(mounts, reported).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_old_database_that_may_be_used_leaves_a_note() {
        let now = "2026-03-01T00:00:00Z".parse().expect("a time");
        let profile = Content::shipped().builtin[0].profile().clone();
        let check = |mounts: &[(Option<&str>, Option<u64>)], warn: usize, reported: Option<&str>| {
            let mut external = external(&profile, mounts);
            external.mounts.iter_mut().take(warn).for_each(|mounted| mounted.on_old = OnOld::Warn);
            let reported = reported.map(|r| r.parse().expect("a date"));
            external.check_age(reported, &Policy::default(), now).map_err(|why| why.detail)
        };
        let (fresh, old, future) = ("2026-02-27T00:00:00Z", "2025-11-01T00:00:00Z", "2026-03-02T00:00:00Z");
        assert_eq!(check(&[(Some(fresh), None)], 1, None), Ok(vec![]));
        assert_eq!(check(&[(Some(old), None)], 1, None).expect("a note").len(), 1);
        assert_eq!(check(&[(Some(fresh), None)], 1, Some(old)).expect("notes").len(), 2);
        assert!(check(&[(None, None)], 1, None).is_err(), "no date");
        assert!(check(&[(Some(future), None)], 1, None).is_err(), "from the future");
        assert!(check(&[(Some(old), None), (Some(old), None)], 1, None).is_err(), "one may, the other may not");
        assert!(check(&[(Some(fresh), None), (Some(fresh), None)], 1, Some(old)).is_err(), "which one is not said");
    }
}
