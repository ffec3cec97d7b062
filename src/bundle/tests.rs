//! Round trips, and attacks by their names.

use std::collections::HashMap;
use std::num::NonZeroU64;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tough::schema::{Hashes, Metafile, Signed, Snapshot as SnapshotRole, Targets, Timestamp as TimestampRole};
use tough::schema::{RoleType, Target};

use super::contents::{Contents, Entry};
use super::oci::{self, Descriptor, REF_NAME};
use super::reader::BundleReader;
use super::sample::{Images, NAME, Parts, Sample};
use super::*;
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::model::catalog::CATALOG_REPOSITORY;
use crate::trust::TrustError;
use crate::trust::metadata;
use crate::trust::remembered::Remembered;
use crate::trust::root::RootPlan;

impl Sample {
    /// Signs anew after `change` has had its way with the list of targets and the other entries: what an attacker inside
    /// the signer's house could send, or a signer by mistake. Every outer check passes.
    fn resigned(&self, parts: &mut Parts, change: impl FnOnce(&mut Targets)) {
        let targets_name = parts.names().into_iter().find(|n| n.ends_with("targets.json")).expect("targets");
        let mut targets: Signed<Targets> =
            metadata::parse("t", parts.at("targets.json")).expect("the sample's own metadata");
        change(&mut targets.signed);
        let version = targets.signed.version;
        let expires = targets.signed.expires;
        let targets = metadata::to_bytes(&self.signer.sign(targets.signed).expect("keys"));
        let meta = |name: &str, bytes: &[u8]| {
            let hashes = Hashes { sha256: Digest::of(bytes).bytes().to_vec().into(), _extra: HashMap::new() };
            let file =
                Metafile { length: Some(bytes.len() as u64), hashes: Some(hashes), version, _extra: HashMap::new() };
            HashMap::from([(name.to_owned(), file)])
        };
        let mut snapshot = SnapshotRole::new("1.0.0".to_owned(), version, expires);
        snapshot.meta = meta("targets.json", &targets);
        let snapshot = metadata::to_bytes(&self.signer.sign(snapshot).expect("keys"));
        let mut timestamp = TimestampRole::new("1.0.0".to_owned(), version, expires);
        timestamp.meta = meta("snapshot.json", &snapshot);
        *parts.at("timestamp.json") = metadata::to_bytes(&self.signer.sign(timestamp).expect("keys"));
        *parts.at("snapshot.json") = snapshot;
        let at = parts.0.iter().position(|(n, _)| *n == targets_name).expect("targets");
        parts.0[at] = (format!("metadata/{version}.targets.json"), targets);
        let at = parts.0.iter().position(|(n, _)| n.ends_with("snapshot.json")).expect("snapshot");
        parts.0[at].0 = format!("metadata/{version}.snapshot.json");
    }

    /// A bundle with these entries and a list of targets that fits them exactly.
    pub(super) async fn relisted(&self, index: serde_json::Value, blobs: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut parts = Parts::of(&self.bytes(1).await);
        let index = serde_json::to_vec(&index).expect("JSON");
        let entries = blobs
            .iter()
            .map(|(media_type, bytes)| Entry::blob(Digest::of(bytes), bytes.len() as u64, *media_type))
            .collect();
        let contents = Contents::new(NAME.to_owned(), 1, self.created, &index, entries);
        parts.0.retain(|(name, _)| name.starts_with("metadata/"));
        for entry in contents.entries() {
            let bytes = match entry.name.as_str() {
                "oci-layout" => oci::LAYOUT.to_vec(),
                "index.json" => index.clone(),
                _ => blobs.iter().find(|(_, b)| Digest::of(b) == entry.digest).expect("listed").1.clone(),
            };
            parts.0.push((entry.name.clone(), bytes));
        }
        self.resigned(&mut parts, |targets| {
            *targets = contents.to_targets(targets.expires).expect("targets");
        });
        parts.join()
    }
}

pub(super) fn refused(result: Result<reader::VerifiedBundle, BundleError>, case: &str) -> String {
    let error = result.err().unwrap_or_else(|| panic!("{case}: accepted"));
    assert_eq!(error.class(), ExitClass::Refused, "{case}: {error}");
    error.to_string()
}

#[tokio::test]
async fn a_bundle_is_read_as_it_was_built() {
    let sample = Sample::new();
    let bytes = sample.bytes(7).await;
    let mut reader = BundleReader::open(&bytes[..], &sample.root, &sample.remembered(), &Limits::default(), sample.now)
        .await
        .expect("a bundle");
    assert_eq!((reader.bundle().name.as_str(), reader.bundle().version), (NAME, 7));
    assert_eq!(reader.bundle().root, sample.root.fingerprint());
    assert_eq!(reader.items().len(), 6);
    assert_eq!(reader.catalog().images.len(), 4);
    // Children come before the index that names them.
    let order: Vec<&str> = reader.manifests().iter().map(|m| m.media_type.as_str()).collect();
    let index = order.iter().position(|t| *t == oci::INDEX).expect("the index");
    let many = &reader.manifests()[index];
    assert_eq!(many.repositories, ["images/many"]);
    assert_eq!(
        reader.manifests()[..index].iter().filter(|m| m.repositories.contains(&"images/many".to_owned())).count(),
        2
    );
    let shared = Digest::of([7; 1024]);
    assert_eq!(reader.blob_repositories(&shared), ["images/many", "images/twin", "images/web"]);
    let (catalog, json) = reader.catalog_blob();
    assert_eq!(catalog.digest, Digest::of(&json));
    assert_eq!(reader.blob_repositories(&catalog.digest), [CATALOG_REPOSITORY]);

    let (count, total) = reader.blob_totals();
    let mut seen = Vec::new();
    while let Some(mut blob) = reader.next_blob().await.expect("a blob") {
        let mut content = Vec::new();
        // Every second one is read by halves and left, which must not matter.
        if seen.len() % 2 == 0 {
            blob.read_to_end(&mut content).await.expect("content");
            assert_eq!(Digest::of(&content), blob.descriptor().digest);
        } else {
            let half = blob.descriptor().size as usize / 2;
            content.resize(half, 0);
            blob.read_exact(&mut content).await.expect("half of it");
        }
        seen.push(blob.descriptor().clone());
    }
    assert_eq!((seen.len(), seen.iter().map(|b| b.size).sum::<u64>()), (count, total));
    let verified = reader.finish().await.expect("a whole bundle");
    assert_eq!(verified.bytes(), bytes.len() as u64);
    let tags: Vec<(&str, &str)> = verified.tags().iter().map(|t| (t.repository.as_str(), t.tag.as_str())).collect();
    assert_eq!(tags.len(), 12, "each item by name and version, and by name alone");
    assert_eq!(tags[5], (CATALOG_REPOSITORY, "sample.7"));
    assert_eq!(tags[11], (CATALOG_REPOSITORY, "sample"), "the one that a run begins with moves last");
    verified.remember().expect("remembered");

    let catalog_manifest = verified.catalog_manifest();
    let parts = Parts::of(&bytes).map();
    let blob = |digest: Digest| parts[&format!("blobs/sha256/{}", digest.hex())].clone();
    let again = |files, manifest: Vec<u8>, catalog: Vec<u8>| {
        let (root, remembered, now) = (&sample.root, sample.remembered(), sample.now);
        async move { catalog::verify_catalog(files, &manifest, &catalog, root, &remembered, &Limits::default(), now).await }
    };
    let (bundle, found) =
        again(verified.metadata().clone(), blob(catalog_manifest), json.to_vec()).await.expect("still good");
    assert_eq!((&bundle, &found), (verified.bundle(), verified.catalog()));
    // What a registry could do to it.
    let mut other = json.to_vec();
    other.pop();
    assert!(again(verified.metadata().clone(), blob(catalog_manifest), other).await.is_err());
    assert!(
        again(verified.metadata().clone(), blob(verified.catalog().images[0].digest), json.to_vec()).await.is_err()
    );
    let mut files = verified.metadata().clone();
    files.insert("2.root.json".to_owned(), sample.root.bytes().to_vec());
    assert!(again(files, blob(catalog_manifest), json.to_vec()).await.is_err());
}

#[tokio::test]
async fn the_same_lock_and_keys_give_the_same_bytes() {
    let sample = Sample::new();
    let one = sample.bytes(1).await;
    assert_eq!(one, sample.bytes(1).await);
    assert_ne!(one, sample.bytes(2).await);
    // Taken apart and put together it is the same: nothing in it is not computed.
    assert_eq!(Parts::of(&one).join(), one);
}

#[tokio::test]
async fn every_flipped_bit_is_refused() {
    let sample = Sample::new();
    let bytes = sample.bytes(1).await;
    sample.verify(&bytes).await.expect("it is good");
    // Closely in the only signed file whose digest nothing else pins, and here and there in the rest.
    let timestamp = bytes.windows(23).position(|w| w == b"metadata/timestamp.json").expect("an entry");
    let close = timestamp + 512..timestamp + 1536;
    let places = (0..bytes.len()).filter(|at| at % 127 == 0 || close.contains(at) && at % 3 == 0);
    for at in places {
        let mut changed = bytes.clone();
        // Bit 5 turns a lower-case digit into an upper-case one, the likeliest change to be overlooked.
        changed[at] ^= if at % 2 == 0 { 0x20 } else { 1 << (at % 8) };
        refused(sample.verify(&changed).await, &format!("byte {at} of {}", bytes.len()));
    }
}

#[tokio::test]
async fn truncation_at_every_block_is_refused_and_so_is_anything_after_the_end() {
    let sample = Sample::new();
    let bytes = sample.bytes(1).await;
    for at in (0..bytes.len()).step_by(512).chain([1, bytes.len() - 1]) {
        refused(sample.verify(&bytes[..at]).await, &format!("cut at {at}"));
    }
    for (case, tail) in [("one byte", vec![0]), ("zeros", vec![0; 512]), ("a second archive", bytes.clone())] {
        let message = refused(sample.verify(&[&bytes[..], &tail].concat()).await, case);
        assert!(message.contains("appended"), "{case}: {message}");
    }
}

#[tokio::test]
async fn duplicate_reordered_removed_and_added_entries_are_refused() {
    let sample = Sample::new();
    let parts = Parts::of(&sample.bytes(1).await);
    let mut cases: Vec<(String, Parts)> = Vec::new();
    for at in 0..parts.0.len() {
        let mut removed = parts.clone();
        removed.0.remove(at);
        cases.push((format!("{} removed", parts.0[at].0), removed));
        let mut twice = parts.clone();
        twice.0.insert(at, parts.0[at].clone());
        cases.push((format!("{} twice", parts.0[at].0), twice));
        if at > 0 {
            let mut swapped = parts.clone();
            swapped.0.swap(at - 1, at);
            cases.push((format!("{} swapped", parts.0[at].0), swapped));
        }
        let mut added = parts.clone();
        added.0.insert(at, ("../../etc/cron.d/x".to_owned(), b"x".to_vec()));
        cases.push((format!("a path before {}", parts.0[at].0), added));
    }
    let mut last = parts.clone();
    last.0.push(("blobs/sha256/0".to_owned(), vec![]));
    cases.push(("an entry at the end".to_owned(), last));
    for (case, parts) in cases {
        refused(sample.verify(&parts.join()).await, &case);
    }
}

#[tokio::test]
async fn links_devices_extended_headers_and_odd_sizes_are_refused() {
    let sample = Sample::new();
    let bytes = sample.bytes(1).await;
    let header = 512 * bytes.chunks(512).position(|b| b.starts_with(b"oci-layout\0")).expect("an entry");
    let recount = |archive: &mut [u8]| {
        let block = &mut archive[header..header + 512];
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    };
    let cases: &[(&str, usize, &[u8])] = &[
        ("symbolic link", 156, b"2"),
        ("hard link", 156, b"1"),
        ("device", 156, b"3"),
        ("FIFO", 156, b"6"),
        ("folder", 156, b"5"),
        ("extended header", 156, b"x"),
        ("global extended header", 156, b"g"),
        ("GNU long name", 156, b"L"),
        ("sparse", 156, b"S"),
        ("setuid", 100, b"0004755\0"),
        ("owner", 108, b"0001750\0"),
        ("time", 136, b"14000000000\0"),
        ("base-256 size", 124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30]),
        ("negative size", 124, &[0xff; 12]),
        ("size with blanks", 124, b"         36\0"),
        ("GNU magic", 257, b"ustar  \0"),
        ("prefix", 345, b"../.."),
        ("absolute name", 0, b"/ci-layout"),
        ("other case", 0, b"OCI-layout"),
        ("trailing dot", 10, b"."),
    ];
    for (case, at, value) in cases {
        let mut changed = bytes.clone();
        changed[header + at..header + at + value.len()].copy_from_slice(value);
        recount(&mut changed);
        let message = refused(sample.verify(&changed).await, case);
        assert!(message.contains("expected that of `oci-layout`"), "{case}: {message}");
    }
}

#[tokio::test]
async fn a_consumer_never_gets_the_last_bytes_of_a_changed_blob() {
    let sample = Sample::new();
    let mut parts = Parts::of(&sample.bytes(1).await);
    let name = format!("blobs/sha256/{}", Digest::of([7; 1024]).hex());
    parts.at(&name)[0] ^= 1;
    let bytes = parts.join();
    let mut reader =
        BundleReader::open(&bytes[..], &sample.root, &Remembered::nothing(), &Limits::default(), sample.now)
            .await
            .expect("its metadata is good");
    loop {
        let mut blob = reader.next_blob().await.expect("a blob").expect("the changed one comes");
        let changed = blob.descriptor().size == 1024;
        let mut content = Vec::new();
        let read = blob.read_to_end(&mut content).await;
        if changed {
            assert!(read.is_err() && content.len() < 1024);
            break;
        }
        read.expect("this one is good");
    }
    assert!(matches!(reader.next_blob().await.err(), Some(BundleError::Digest { .. })));
    assert!(matches!(reader.next_blob().await.err(), Some(BundleError::Dead)));
    assert!(reader.finish().await.is_err());
}

#[tokio::test]
async fn there_is_no_proof_before_all_blobs_were_read() {
    let sample = Sample::new();
    let bytes = sample.bytes(1).await;
    let reader = BundleReader::open(&bytes[..], &sample.root, &Remembered::nothing(), &Limits::default(), sample.now)
        .await
        .expect("a bundle");
    assert!(matches!(reader.finish().await, Err(BundleError::Unread(_))));
}

#[tokio::test]
async fn another_root_no_signature_and_one_by_an_unknown_key_are_refused() {
    let (sample, other) = (Sample::new(), Sample::new());
    let bytes = other.bytes(1).await;
    let message = refused(sample.verify(&bytes).await, "another root");
    assert!(message.contains("chain of roots"), "{message}");

    // The right root, and everything else signed by somebody else.
    let mut foreign = Parts::of(&bytes);
    *foreign.at("1.root.json") = sample.root.bytes().to_vec();
    let error = sample.verify(&foreign.join()).await.expect_err("an unknown key");
    assert!(matches!(error, BundleError::Trust(TrustError::UnknownKey { .. })), "{error}");

    let mut unsigned = Parts::of(&sample.bytes(1).await);
    let mut timestamp: Signed<TimestampRole> = metadata::parse("t", unsigned.at("timestamp.json")).expect("own");
    timestamp.signatures.clear();
    *unsigned.at("timestamp.json") = metadata::to_bytes(&timestamp);
    let error = sample.verify(&unsigned.join()).await.expect_err("no signature");
    assert!(matches!(error, BundleError::Trust(TrustError::Threshold { found: 0, threshold: 1, .. })), "{error}");
}

#[tokio::test]
async fn one_key_twice_does_not_reach_a_threshold_of_two() {
    let mut plan = RootPlan::default();
    plan.keys.insert("timestamp".to_owned(), 2);
    plan.threshold.insert("timestamp".to_owned(), 2);
    let sample = Sample::with_plan(plan);
    let bytes = sample.bytes(1).await;
    sample.verify(&bytes).await.expect("two signatures");
    let change = |change: &dyn Fn(&mut Signed<TimestampRole>)| {
        let mut parts = Parts::of(&bytes);
        let mut timestamp: Signed<TimestampRole> = metadata::parse("t", parts.at("timestamp.json")).expect("own");
        change(&mut timestamp);
        *parts.at("timestamp.json") = metadata::to_bytes(&timestamp);
        parts.join()
    };
    let twice = change(&|t| t.signatures[1] = t.signatures[0].clone());
    refused(sample.verify(&twice).await, "the same signature twice");
    let one = change(&|t| t.signatures.truncate(1));
    let message = refused(sample.verify(&one).await, "one of two");
    assert!(message.contains("1 valid signature"), "{message}");
    let swapped = change(&|t| t.signatures.swap(0, 1));
    refused(sample.verify(&swapped).await, "another order");
    let borrowed = change(&|t| {
        let sig = t.signatures[0].sig.clone();
        t.signatures[1].sig = sig;
    });
    let message = refused(sample.verify(&borrowed).await, "a signature by another key");
    assert!(message.contains("does not fit"), "{message}");
}

#[tokio::test]
async fn metadata_in_another_spelling_is_refused() {
    let sample = Sample::new();
    let bytes = sample.bytes(1).await;
    for entry in ["1.root.json", "timestamp.json", "snapshot.json", "targets.json"] {
        let original = Parts::of(&bytes).at(entry).clone();
        let text = String::from_utf8(original).expect("JSON");
        for (case, changed) in [
            ("byte order mark", format!("\u{feff}{text}")),
            ("line break at the end", format!("{text}\n")),
            ("blank", text.replacen(',', ", ", 1)),
            ("trailing data", format!("{text}{{}}")),
            ("key twice", text.replacen("{\"signatures\"", "{\"signatures\":[],\"signatures\"", 1)),
            ("unknown key outside what is signed", text.replacen("{\"signatures\"", "{\"a\":1,\"signatures\"", 1)),
            ("very deep", format!("{}{}", "[".repeat(60_000), text)),
            ("empty", String::new()),
        ] {
            let mut parts = Parts::of(&bytes);
            assert_ne!(changed, text, "{case}");
            *parts.at(entry) = changed.into_bytes();
            refused(sample.verify(&parts.join()).await, &format!("{entry}: {case}"));
        }
        let mut parts = Parts::of(&bytes);
        *parts.at(entry) = vec![b' '; 9 << 20];
        let message = refused(sample.verify(&parts.join()).await, "huge");
        assert!(message.contains("is more than"), "{message}");
    }
}

#[tokio::test]
async fn expired_rolled_back_replaced_and_future_bundles_are_refused() {
    let sample = Sample::new();
    let (old, new) = (sample.bytes(1).await, sample.bytes(2).await);
    let remembered = sample.remembered();
    let late = "2200-01-01T00:00:00Z".parse().expect("a time");
    let error = sample.verify_at(&new, &remembered, late).await.expect_err("expired");
    assert!(matches!(error, BundleError::Trust(TrustError::Expired { .. })), "{error}");
    let early = "1970-01-01T00:00:00Z".parse().expect("a time");
    let error = sample.verify_at(&new, &remembered, early).await.expect_err("from the future");
    assert!(matches!(error, BundleError::Trust(TrustError::NotYetValid { .. })), "{error}");

    sample.verify_at(&new, &remembered, sample.now).await.expect("good").remember().expect("remembered");
    let error = sample.verify_at(&old, &remembered, sample.now).await.expect_err("rollback");
    assert!(matches!(error, BundleError::Trust(TrustError::Rollback { offered: 1, known: 2, .. })), "{error}");
    sample.verify_at(&new, &remembered, sample.now).await.expect("the same again");

    let mut images = Images::usual();
    let more = images.image(&[b"more"]);
    images.item("images/more", more);
    let other = std::fs::read(sample.file_of(images, 2).await).expect("the bundle");
    let error = sample.verify_at(&other, &remembered, sample.now).await.expect_err("other content");
    assert!(matches!(error, BundleError::Trust(TrustError::OtherContent { version: 2, .. })), "{error}");
    let earlier = "2026-01-15T00:00:00Z".parse().expect("a time");
    let error = sample.verify_at(&new, &remembered, earlier).await.expect_err("clock");
    assert!(matches!(error, BundleError::Trust(TrustError::ClockBack { .. })), "{error}");
}

#[tokio::test]
async fn what_is_signed_must_still_be_a_bundle() {
    let sample = Sample::new();
    let bytes = sample.bytes(1).await;
    let target = |bytes: &[u8], media_type: &str| Target {
        length: bytes.len() as u64,
        hashes: Hashes { sha256: Digest::of(bytes).bytes().to_vec().into(), _extra: HashMap::new() },
        custom: HashMap::from([("mediaType".to_owned(), media_type.into())]),
        _extra: HashMap::new(),
    };
    type Change = Box<dyn FnOnce(&mut Targets)>;
    let named = |name: &str| tough::TargetName::new(name).expect("a name");
    let first =
        |targets: &Targets| targets.targets.keys().find(|n| n.raw().starts_with("blobs/")).expect("a blob").clone();
    let cases: Vec<(&str, Change)> = vec![
        ("listed and missing", {
            let extra = target(b"x", "x/y");
            let name = named(&format!("blobs/sha256/{}", Digest::of("x").hex()));
            Box::new(move |t| t.add_target(name, extra))
        }),
        ("a path as a name", {
            let (extra, name) = (target(b"x", "x/y"), named("../../etc/passwd"));
            Box::new(move |t| t.add_target(name, extra))
        }),
        ("present and not listed", Box::new(move |t| drop(t.remove_target(&first(t))))),
        ("no index", {
            let name = named("index.json");
            Box::new(move |t| drop(t.remove_target(&name)))
        }),
        ("a version near the end of the integers", Box::new(|t| t.version = NonZeroU64::MAX)),
        (
            "another bundle's name",
            Box::new(|t| {
                t._extra.insert("gapscan".to_owned(), json!({"bundle": "../x", "created": "2026-01-01T00:00:00Z"}));
            }),
        ),
        ("an unknown field", Box::new(|t| drop(t._extra.insert("more".to_owned(), json!(1))))),
        (
            "wrong length",
            Box::new(move |t| {
                let name = first(t);
                t.targets.get_mut(&name).expect("it is there").length += 1;
            }),
        ),
        (
            "wrong media type",
            Box::new(move |t| {
                let name =
                    t.targets.iter().find(|(_, t)| t.custom["mediaType"] == oci::LAYER_TAR).expect("a layer").0.clone();
                t.targets.get_mut(&name).expect("it is there").custom.insert("mediaType".to_owned(), "x/y".into());
            }),
        ),
        ("a delegation", Box::new(|t| t.delegations = Some(tough::schema::Delegations::new()))),
    ];
    for (case, change) in cases {
        let mut parts = Parts::of(&bytes);
        sample.resigned(&mut parts, change);
        refused(sample.verify(&parts.join()).await, case);
    }
    let mut parts = Parts::of(&bytes);
    sample.resigned(&mut parts, |_| {});
    sample.verify(&parts.join()).await.expect("signed anew and unchanged");
    assert_eq!(sample.root.root().keys(RoleType::Targets).count(), 1);
}

#[tokio::test]
async fn manifests_that_lie_are_refused_although_they_are_signed() {
    let sample = Sample::new();
    let layer = b"layer".to_vec();
    let config = b"{}".to_vec();
    let d = |media_type: &str, bytes: &[u8]| Descriptor::of(media_type, bytes);
    let at = |repository: &str, media_type: &str, bytes: &[u8]| {
        let mut d = d(media_type, bytes);
        d.annotations.insert(REF_NAME.to_owned(), repository.to_owned());
        d
    };
    let index = |manifests: &[Descriptor]| json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests});
    let image = |extra: serde_json::Value| {
        let mut image = json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST,
            "config": d(oci::CONFIG, &config), "layers": [d(oci::LAYER_TAR, &layer)],
        });
        image.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        serde_json::to_vec(&image).expect("JSON")
    };
    let good = image(json!({}));
    let both = image(json!({"manifests": [d(oci::MANIFEST, &good)]}));
    let confused = image(json!({"mediaType": oci::INDEX}));
    let mut short = d(oci::LAYER_TAR, &layer);
    short.size -= 1;
    let lying = image(json!({"layers": [short]}));
    let missing = image(json!({"layers": [d(oci::LAYER_TAR, b"not there")]}));
    let nested = image(json!({"layers": [d(oci::LAYER_TAR, &layer), d(oci::MANIFEST, &good)]}));
    let blobs = |manifests: &[&Vec<u8>]| {
        let mut all: Vec<(&str, Vec<u8>)> = vec![(oci::CONFIG, config.clone()), (oci::LAYER_TAR, layer.clone())];
        all.extend(manifests.iter().map(|m| (oci::MANIFEST, (*m).clone())));
        all
    };
    let mut deep = vec![(oci::MANIFEST, good.clone())];
    for _ in 0..6 {
        let (media_type, child) = deep.last().expect("one");
        let parent = serde_json::to_vec(&index(&[d(media_type, child)])).expect("JSON");
        deep.push((oci::INDEX, parent));
    }
    let top = deep.last().expect("one").1.clone();
    let mut deep_blobs = blobs(&[]);
    deep_blobs.extend(deep);
    let one = |m: &[u8]| index(&[at("images/a", oci::MANIFEST, m)]);
    let cases = [
        ("image and index at once", one(&both), blobs(&[&both, &good])),
        ("another media type in the body", one(&confused), blobs(&[&confused])),
        ("a size that lies", one(&lying), blobs(&[&lying])),
        ("a layer that is not there", one(&missing), blobs(&[&missing])),
        ("a manifest as a layer", one(&nested), blobs(&[&nested, &good])),
        ("a manifest that nothing needs", one(&good), blobs(&[&good, &confused])),
        ("an image called an index", index(&[at("images/a", oci::INDEX, &good)]), blobs(&[&good])),
        ("indexes nested too deep", index(&[at("images/a", oci::INDEX, &top)]), deep_blobs),
        (
            "two items in one repository",
            { index(&[at("images/a", oci::MANIFEST, &good), at("images/a", oci::MANIFEST, &good)]) },
            blobs(&[&good]),
        ),
        ("a repository that is a path", index(&[at("../a", oci::MANIFEST, &good)]), blobs(&[&good])),
        ("no catalog", one(&good), blobs(&[&good])),
        (
            "an unknown field",
            {
                let mut index = one(&good);
                index["subject"] = json!(d(oci::MANIFEST, &good));
                index
            },
            blobs(&[&good]),
        ),
    ];
    for (case, index, blobs) in cases {
        let bytes = sample.relisted(index, &blobs).await;
        let message = refused(sample.verify(&bytes).await, case);
        assert!(!message.contains("header"), "{case}: only the outer check spoke: {message}");
    }
}

#[tokio::test]
async fn parts_of_two_bundles_do_not_mix() {
    let sample = Sample::new();
    let (one, mut two) = (Parts::of(&sample.bytes(1).await), Parts::of(&sample.bytes(2).await));
    *two.at("timestamp.json") = one.clone().at("timestamp.json").clone();
    refused(sample.verify(&two.join()).await, "the timestamp of another version");
    let mut mixed = one.clone();
    let names = one.names();
    for (name, content) in &Parts::of(&sample.bytes(2).await).0 {
        if let Some(at) = names.iter().position(|n| n == name) {
            mixed.0[at].1.clone_from(content);
        }
    }
    refused(sample.verify(&mixed.join()).await, "the blobs of another version");
}
