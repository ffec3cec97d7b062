//! The catalog artifact: its consistency, and its verification when it is read back from a registry.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::accepted::Accepted;
use super::error::BundleError;
use super::name::is_name;
use super::oci::{self, Manifest};
use super::scanner;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::catalog::{CATALOG_MEDIA_TYPE, CATALOG_REPOSITORY, Catalog, CatalogItem, GAPSCAN_IMAGE, Requires};
use crate::model::provenance::BundleRef;
use crate::model::scanner::BUILTIN;
use crate::trust::metadata::MetadataFiles;
use crate::trust::remembered::{Remembered, Use};
use crate::trust::root::TrustRoot;

/// All items of a catalog: images, profiles, dependencies and charts.
pub fn items(catalog: &Catalog) -> impl Iterator<Item = &CatalogItem> {
    catalog
        .images
        .iter()
        .chain(catalog.profiles.iter().map(|p| &p.item))
        .chain(catalog.dependencies.iter().map(|d| &d.item))
        .chain(catalog.charts.iter().map(|c| &c.item))
}

/// Refuses a catalog whose parts do not fit together: names that are none or are there twice, repositories other than
/// those that follow from the names, scanners without their image or dependencies, profiles without their engine.
///
/// # Errors
/// With the first thing that does not fit.
pub fn check(catalog: &Catalog) -> Result<(), BundleError> {
    check_names(catalog)?;
    check_notices(catalog)?;
    let only_notices = items(catalog).next().is_none() && !catalog.notices.is_empty();
    if !only_notices && !catalog.images.iter().any(|image| image.name == GAPSCAN_IMAGE) {
        return refuse(format!("the image `{GAPSCAN_IMAGE}` is missing"));
    }
    check_scanners(catalog)?;
    check_profiles(catalog)?;
    for chart in &catalog.charts {
        // It becomes a tag, which must be none that gapscan gives itself.
        if semver::Version::parse(&chart.version).is_err() || chart.version.len() > 128 {
            let (name, version) = (brief(&chart.item.name), brief(&chart.version));
            return refuse(format!("chart `{name}` has the version `{version}`, which is no SemVer"));
        }
    }
    Ok(())
}

fn refuse(reason: String) -> Result<(), BundleError> {
    Err(BundleError::Catalog(reason))
}

fn check_names(catalog: &Catalog) -> Result<(), BundleError> {
    let sections = [
        ("images", catalog.images.iter().collect::<Vec<_>>()),
        ("profiles", catalog.profiles.iter().map(|p| &p.item).collect()),
        ("dependencies", catalog.dependencies.iter().map(|d| &d.item).collect()),
        ("charts", catalog.charts.iter().map(|c| &c.item).collect()),
    ];
    let mut names = BTreeSet::new();
    for (section, items) in &sections {
        for item in items {
            let shown = brief(&item.name);
            if !is_name(&item.name) {
                return refuse(format!("`{shown}` can't be a name (lower-case letters, digits, single hyphens)"));
            }
            if !names.insert(&item.name) {
                return refuse(format!("two items have the name `{shown}`"));
            }
            if item.repository != format!("{section}/{}", item.name) {
                return refuse(format!("item `{shown}` is not in the repository {section}/{shown}"));
            }
        }
    }
    Ok(())
}

fn check_scanners(catalog: &Catalog) -> Result<(), BundleError> {
    let mut names = BTreeSet::new();
    for scanner in &catalog.scanners {
        let name = brief(&scanner.name);
        if !is_name(&scanner.name) || scanner.name == BUILTIN || !names.insert(scanner.name.as_str()) {
            return refuse(format!("`{name}` can't be a scanner's name, or two scanners have it"));
        }
        // Whoever signs content may err; what runs in a cluster is looked at on this side, too.
        if let Some(problem) = scanner::problems(scanner).first() {
            return refuse(format!("scanner `{name}` can't be used: {problem}"));
        }
        if catalog.images.iter().all(|image| image.name != scanner.image) {
            let image = brief(&scanner.image);
            return refuse(format!("scanner `{name}` asks for the image `{image}`, which is not in the bundle"));
        }
        let has = |name: &str| catalog.dependencies.iter().any(|dependency| dependency.item.name == name);
        if let Some(missing) = scanner.dependencies.iter().find(|d| !has(&d.name)) {
            let missing = brief(&missing.name);
            return refuse(format!("scanner `{name}` asks for the dependency `{missing}`, which is not in the bundle"));
        }
    }
    Ok(())
}

fn check_profiles(catalog: &Catalog) -> Result<(), BundleError> {
    for profile in &catalog.profiles {
        let name = brief(&profile.item.name);
        if profile.engine != BUILTIN && catalog.scanners.iter().all(|scanner| scanner.name != profile.engine) {
            let engine = brief(&profile.engine);
            return refuse(format!("profile `{name}` asks for the scanner `{engine}`, which is not in the bundle"));
        }
        if profile.controls == 0 || profile.targets.is_empty() {
            return refuse(format!("profile `{name}` has no control or no kind of target, so it could only be green"));
        }
    }
    Ok(())
}

/// Refuses a catalog that asks for another version of gapscan than `own`.
///
/// # Errors
/// When it does, or asks in a form that can't be read.
fn check_requires(requires: &Requires, own: &str) -> Result<(), BundleError> {
    let Some(wanted) = &requires.gapscan else { return Ok(()) };
    let shown = brief(wanted);
    let wanted = semver::VersionReq::parse(wanted)
        .map_err(|e| BundleError::Catalog(format!("`{shown}` asks for no versions of gapscan: {e}")))?;
    let version = semver::Version::parse(own).map_err(|e| BundleError::Catalog(e.to_string()))?;
    // A pre-release counts as the release that it is to become.
    let released = semver::Version::new(version.major, version.minor, version.patch);
    match wanted.matches(&version) || wanted.matches(&released) {
        true => Ok(()),
        false => Err(BundleError::Requires { wanted: shown, own: own.to_owned() }),
    }
}

/// The first field of `found` that `known` has not, with its path. What is there without a value says nothing.
fn unknown_field(found: &serde_json::Value, known: &serde_json::Value, path: &str) -> Option<String> {
    use serde_json::Value;
    match (found, known) {
        (Value::Object(found), Value::Object(known)) => found.iter().find_map(|(name, value)| {
            let path = format!("{path}/{}", brief(name));
            match known.get(name) {
                Some(known) => unknown_field(value, known, &path),
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(found), Value::Array(known)) => {
            found.iter().zip(known).enumerate().find_map(|(at, (f, k))| unknown_field(f, k, &format!("{path}/{at}")))
        }
        _ => None,
    }
}

/// Refuses notices that make no sense, and a bundle that revokes itself: nobody could keep what it says.
fn check_notices(catalog: &Catalog) -> Result<(), BundleError> {
    if let Some(problem) = super::notice::problems(&catalog.notices).first() {
        return refuse(problem.clone());
    }
    for revocation in &catalog.notices.revocations {
        let own =
            revocation.bundle.as_deref() == Some(catalog.name.as_str()) && revocation.version == Some(catalog.version);
        if own || items(catalog).any(|item| revocation.item == Some(item.digest)) {
            return refuse("it revokes itself, or an item that is in it".to_owned());
        }
    }
    Ok(())
}

/// Parses a catalog of the bundle `bundle`, which was made at `created`.
///
/// # Errors
/// When it is no catalog, is another bundle's, or [`check`] refuses it.
pub(super) fn parse(bytes: &[u8], bundle: &BundleRef, created: Timestamp) -> Result<Catalog, BundleError> {
    // Asked first, and of nothing else: what a newer program put into it may be beyond this one.
    #[derive(serde::Deserialize)]
    struct First {
        #[serde(default)]
        requires: Requires,
    }
    let wrong = |e: serde_json::Error| BundleError::Catalog(e.to_string());
    let first: First = serde_json::from_slice(bytes).map_err(wrong)?;
    check_requires(&first.requires, env!("CARGO_PKG_VERSION"))?;
    let catalog: Catalog = serde_json::from_slice(bytes).map_err(wrong)?;
    // A field that is passed over may be one that narrows what may be done, as an age policy does.
    let found = serde_json::from_slice(bytes).map_err(wrong)?;
    let known = serde_json::to_value(&catalog).map_err(wrong)?;
    if let Some(field) = unknown_field(&found, &known, "") {
        return Err(BundleError::Catalog(format!(
            "this gapscan ({}) does not know its field `{field}`; a newer one made the bundle",
            env!("CARGO_PKG_VERSION")
        )));
    }
    if catalog.name != bundle.name
        || catalog.version != bundle.version
        || catalog.created != created
        || found["created"] != created.to_string()
    {
        return Err(BundleError::Catalog("it belongs to another bundle".to_owned()));
    }
    check(&catalog)?;
    Ok(catalog)
}

/// The descriptor of the catalog's JSON in the manifest of the catalog artifact.
///
/// # Errors
/// When the manifest is no image manifest with exactly that one layer.
pub(super) fn layer(digest: Digest, manifest: &Manifest) -> Result<&oci::Descriptor, BundleError> {
    match manifest {
        Manifest::Image { layers, .. } if layers.len() == 1 && layers[0].media_type == CATALOG_MEDIA_TYPE => {
            Ok(&layers[0])
        }
        Manifest::Image { .. } | Manifest::Index { .. } => Err(BundleError::Manifest {
            digest,
            reason: "the catalog artifact has not the catalog as its one layer".to_owned(),
        }),
    }
}

/// Refuses a catalog that does not list exactly the items of the bundle's index.
///
/// # Errors
/// When an item is only in one of them, or differs.
pub(super) fn check_items(catalog: &Catalog, index: &BTreeMap<String, oci::Descriptor>) -> Result<(), BundleError> {
    let mut left: BTreeMap<&str, &oci::Descriptor> = index.iter().map(|(r, d)| (r.as_str(), d)).collect();
    left.remove(CATALOG_REPOSITORY);
    for item in items(catalog) {
        let same = left
            .remove(item.repository.as_str())
            .is_some_and(|d| d.digest == item.digest && d.size == item.size && d.media_type == item.media_type);
        if !same {
            return Err(BundleError::Catalog(format!(
                "`{}` is not in index.json as the catalog says",
                item.repository
            )));
        }
    }
    match left.keys().next() {
        Some(extra) => Err(BundleError::Catalog(format!("`{extra}` is in index.json and not in the catalog"))),
        None => Ok(()),
    }
}

/// Verifies a catalog that was read back from a registry: the metadata against the pinned root, the remembered versions
/// and the clock, and the artifact's manifest and the catalog against the metadata. Remembers the version on success.
///
/// # Errors
/// When anything does not fit: then nothing that the registry says may be used.
pub async fn verify_catalog(
    files: MetadataFiles,
    manifest: &[u8],
    catalog: &[u8],
    root: &TrustRoot,
    remembered: &Remembered,
    limits: &Limits,
    now: Timestamp,
) -> Result<(BundleRef, Catalog), BundleError> {
    let Accepted { contents, bundle, offer, .. } = Accepted::verify(files, root, remembered, limits, now).await?;
    let digest = Digest::of(manifest);
    let signed = |digest: Digest, media_type: &str, size: usize| {
        contents.documents.iter().any(|e| e.digest == digest && e.media_type == media_type && e.size == size as u64)
    };
    if !signed(digest, oci::MANIFEST, manifest.len()) {
        return Err(BundleError::Catalog(format!("its manifest {digest} is not among what is signed")));
    }
    let parsed = Manifest::parse(oci::MANIFEST, manifest).map_err(|reason| BundleError::Manifest { digest, reason })?;
    let descriptor = layer(digest, &parsed)?;
    let found = Digest::of(catalog);
    if descriptor.digest != found || !signed(found, CATALOG_MEDIA_TYPE, catalog.len()) {
        return Err(BundleError::Catalog(format!("its content {found} is not what is signed")));
    }
    let catalog = parse(catalog, &bundle, contents.created)?;
    offer.remember(&catalog.notices, Use::Again)?;
    Ok((bundle, catalog))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requires(gapscan: &str) -> Requires {
        Requires { gapscan: Some(gapscan.to_owned()) }
    }

    #[test]
    fn a_bundle_for_another_gapscan_is_refused_with_both_versions() {
        check_requires(&Requires::default(), "0.1.0").expect("it asks for nothing");
        for (wanted, own) in [(">=0.1, <0.3", "0.2.9"), ("=0.1.0", "0.1.0"), (">=0.2.0", "0.2.0-rc.1")] {
            check_requires(&requires(wanted), own).expect(wanted);
        }
        for (wanted, own) in [(">=0.2", "0.1.9"), ("<0.3", "0.3.0"), (">=0.2.0", "0.1.0-rc.1")] {
            let error = check_requires(&requires(wanted), own).expect_err(wanted);
            assert!(matches!(error, BundleError::Requires { .. }), "{error}");
            assert!(error.to_string().contains(wanted) && error.to_string().contains(own), "{error}");
        }
        assert!(check_requires(&requires("newest"), "0.1.0").is_err());
    }

    #[test]
    fn what_a_newer_program_put_in_is_not_passed_over() {
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let image = serde_json::json!({
            "name": GAPSCAN_IMAGE, "repository": "images/gapscan", "source": "s", "mediaType": oci::MANIFEST,
            "digest": Digest::of("x"), "size": 1,
        });
        let catalog = serde_json::json!({
            "name": "b", "version": 1, "created": created, "images": [image], "scanners": [], "profiles": [],
            "dependencies": [],
        });
        let root = Digest::of("root");
        let bundle = BundleRef { name: "b".to_owned(), version: 1, digest: root, root };
        let parse = |value: &serde_json::Value| parse(value.to_string().as_bytes(), &bundle, created);
        // As the first gapscan wrote it: without what came later.
        parse(&catalog).expect("an old catalog");
        for (pointer, field) in [("", "embargo"), ("/images/0", "quarantine")] {
            let mut newer = catalog.clone();
            newer.pointer_mut(pointer).expect("a place")[field] = serde_json::json!("until tomorrow");
            let error = parse(&newer).expect_err(field).to_string();
            assert!(error.contains(&format!("{pointer}/{field}")), "{error}");
            // Where it says which program it is for, that is what the reader hears.
            newer["requires"] = serde_json::json!({ "gapscan": ">=99" });
            assert!(matches!(parse(&newer), Err(BundleError::Requires { .. })));
        }
        let mut unclear = catalog;
        unclear["requires"] = serde_json::json!({ "planet": "earth" });
        assert!(parse(&unclear).is_err());
    }
}
