//! Signatures of two builders under one root.

use std::fs;

use tough::schema::RoleType;

use super::*;
use crate::base::exit::{Classify, ExitClass};
use crate::base::progress::Progress;
use crate::base::quantity::{ByteCount, Span};
use crate::bundle::reader::BundleReader;
use crate::bundle::sample::{Images, Sample};
use crate::bundle::split::PartSize;
use crate::model::notice::{Permit, Revocation};
use crate::trust::TrustError;
use crate::trust::key::RoleKey;
use crate::trust::passphrase::PassphraseSource;
use crate::trust::root::{KEYS_FOLDER, RootPlan};
use crate::trust::rotate::{LocalKeys, Protection, RootChange, RootFolder, Rotated};
use crate::trust::signer::{Signer, Wanted};

/// A root that asks for two signatures on targets, and a bundle that the first of two builders made.
struct Scene {
    sample: Sample,
    bytes: Vec<u8>,
}

impl Scene {
    async fn new() -> Self {
        let mut plan = RootPlan::default();
        plan.keys.insert("targets".to_owned(), 2);
        plan.threshold.insert("targets".to_owned(), 2);
        let mut sample = Sample::with_plan(plan);
        sample.signer = Self::signer(&sample, &["targets-1", "snapshot-1", "timestamp-1"], Wanted::Begin);
        let bytes = sample.bytes(1).await;
        Self { sample, bytes }
    }

    /// A builder who has these keys and no others.
    fn signer(sample: &Sample, keys: &[&str], wanted: Wanted) -> Signer {
        let folder = tempfile::tempdir().expect("a folder");
        for name in keys {
            let name = format!("{name}.pem");
            fs::copy(sample.folder.path().join(KEYS_FOLDER).join(&name), folder.path().join(&name)).expect("a copy");
        }
        Signer::open_wanting(folder.path(), sample.root.root(), &PassphraseSource::default(), wanted).expect("keys")
    }

    async fn open<'a>(&self, bytes: &'a [u8]) -> Result<Unfinished<&'a [u8]>, BundleError> {
        Unfinished::open(bytes, &self.sample.root, &Limits::default(), self.sample.now).await
    }

    async fn check(&self, bytes: &[u8]) -> Result<PartlySigned, BuildError> {
        self.open(bytes).await?.verify(&Progress::quiet().step("verify")).await
    }

    /// The bundle with the signatures of this builder.
    async fn signed(&self, bytes: &[u8], signer: &Signer) -> Vec<u8> {
        let path = self.sample.folder.path().join("signed.tar");
        let mut unfinished = self.open(bytes).await.expect("a bundle");
        unfinished.metadata().sign(signer).expect("signed");
        let resigned = unfinished.write(&path, Cut::Whole, &Progress::quiet().step("sign")).await.expect("written");
        let signed = fs::read(&path).expect("the bundle");
        assert_eq!((resigned.digest, resigned.bytes), (Digest::of(&signed), signed.len() as u64));
        assert_eq!(resigned.files, [Sum { path, digest: resigned.digest }]);
        assert!(!self.sample.folder.path().join("signed.tar.part").exists());
        signed
    }

    fn key(&self, name: &str) -> RoleKey {
        Self::key_of(&self.sample, name)
    }

    fn key_of(sample: &Sample, name: &str) -> RoleKey {
        let path = sample.folder.path().join(KEYS_FOLDER).join(format!("{name}.pem"));
        RoleKey::read(&path, &mut || unreachable!("not asked")).expect("a key")
    }
}

#[tokio::test]
async fn two_builders_sign_one_content_and_only_both_together_are_enough() {
    let mut scene = Scene::new().await;
    let refused = scene.sample.verify(&scene.bytes).await.expect_err("one signature is not enough");
    assert!(matches!(refused, BundleError::Trust(TrustError::Threshold { found: 1, threshold: 2, .. })), "{refused}");
    let content = scene.open(&scene.bytes).await.expect("a bundle").bundle().digest;

    // The second needs one key alone to sign what the first built.
    let second = Scene::signer(&scene.sample, &["targets-2"], Wanted::Add);
    let both = scene.signed(&scene.bytes, &second).await;
    let verified = scene.sample.verify(&both).await.expect("two signatures");
    assert_eq!(verified.bundle().digest, content, "the content is the same whoever signs");
    assert_eq!(scene.signed(&both, &second).await, both, "nobody signs twice");

    // The second builds it from the same lock, and the first signs that: the same bytes come out.
    let first = Scene::signer(&scene.sample, &["targets-1"], Wanted::Add);
    scene.sample.signer = Scene::signer(&scene.sample, &["targets-2", "snapshot-1", "timestamp-1"], Wanted::Begin);
    let other = scene.sample.bytes(1).await;
    assert_ne!(other, scene.bytes);
    assert_eq!(scene.open(&other).await.expect("a bundle").bundle().digest, content);
    assert_eq!(scene.signed(&other, &first).await, both);
    // None at all may be there when it is built.
    scene.sample.signer = Scene::signer(&scene.sample, &["snapshot-1", "timestamp-1"], Wanted::BeginWithoutTargets);
    let unsigned = scene.sample.bytes(1).await;
    assert!(scene.sample.verify(&unsigned).await.is_err());
    let one = scene.signed(&unsigned, &first).await;
    assert_eq!(scene.signed(&one, &second).await, both);
}

#[tokio::test]
async fn nothing_is_signed_that_a_reader_would_refuse() {
    let scene = Scene::new().await;
    scene.check(&scene.bytes).await.expect("it is good");
    for at in (0..scene.bytes.len()).filter(|at| at % 131 == 0) {
        let mut changed = scene.bytes.clone();
        changed[at] ^= if at % 2 == 0 { 0x20 } else { 1 << (at % 8) };
        let error = scene.check(&changed).await.err().unwrap_or_else(|| panic!("byte {at} was changed"));
        assert_eq!(error.class(), ExitClass::Refused, "byte {at}: {error}");
    }
    for at in (0..scene.bytes.len()).step_by(512) {
        assert!(scene.check(&scene.bytes[..at]).await.is_err(), "cut at {at}");
    }
    assert!(scene.check(&[&scene.bytes[..], &[0]].concat()).await.is_err(), "a byte after the end");
    let other = Sample::new();
    let foreign = Unfinished::open(&scene.bytes[..], &other.root, &Limits::default(), scene.sample.now).await;
    assert!(matches!(foreign.err(), Some(BundleError::Trust(TrustError::OtherRoot(_)))), "another root");
    let early = "2025-12-31T22:59:59Z".parse().expect("a time");
    let future = Unfinished::open(&scene.bytes[..], &scene.sample.root, &Limits::default(), early).await;
    assert!(matches!(future.err(), Some(BundleError::Trust(TrustError::NotYetValid { .. }))), "made after now");
    let late = "2200-01-01T00:00:00Z".parse().expect("a time");
    let expired = Unfinished::open(&scene.bytes[..], &scene.sample.root, &Limits::default(), late).await;
    assert!(matches!(expired.err(), Some(BundleError::Trust(TrustError::Expired { .. }))));
}

#[tokio::test]
async fn a_file_is_replaced_only_by_a_whole_bundle() {
    let scene = Scene::new().await;
    let path = scene.sample.folder.path().join("bundle.tar");
    let second = Scene::signer(&scene.sample, &["targets-2"], Wanted::Add);
    let mut damaged = scene.bytes.clone();
    let last = damaged.len() - 1024 - 512;
    damaged[last] ^= 1;
    for (bytes, good) in [(&damaged, false), (&scene.bytes, true)] {
        fs::write(&path, bytes).expect("write");
        let file = tokio::fs::File::open(&path).await.expect("a file");
        let mut unfinished =
            Unfinished::open(file, &scene.sample.root, &Limits::default(), scene.sample.now).await.expect("its head");
        unfinished.metadata().sign(&second).expect("signed");
        let written = unfinished.write(&path, Cut::Whole, &Progress::quiet().step("sign")).await;
        assert_eq!(written.is_ok(), good);
        assert_eq!(fs::read(&path).expect("a file") == *bytes, !good);
        assert!(!scene.sample.folder.path().join("bundle.tar.part").exists());
    }
    scene.sample.verify(&fs::read(&path).expect("a file")).await.expect("a whole bundle");
}

#[tokio::test]
async fn a_signature_from_elsewhere_is_taken_only_where_it_fits() {
    let scene = Scene::new().await;
    let mut unfinished = scene.open(&scene.bytes).await.expect("a bundle");
    let metadata = unfinished.metadata();
    let (second, snapshot, root) = (scene.key("targets-2"), scene.key("snapshot-1"), scene.key("root-1"));
    let targets = metadata.payload(RoleType::Targets).expect("bytes");
    let other = metadata.payload(RoleType::Snapshot).expect("bytes");
    assert!(metadata.payload(RoleType::Root).is_err());
    let good = second.sign(&targets);
    for (case, key, signature) in [
        ("over another role", second.id_hex(), second.sign(&other)),
        ("by another key", second.id_hex(), snapshot.sign(&targets)),
        ("by a key of another role", snapshot.id_hex(), snapshot.sign(&targets)),
        ("by a root key", root.id_hex(), root.sign(&targets)),
        ("by a stranger", RoleKey::generate().id_hex(), RoleKey::generate().sign(&targets)),
        ("empty", second.id_hex(), Vec::new()),
        ("with a byte after it", second.id_hex(), [&good[..], &[0]].concat()),
    ] {
        // The snapshot's key has signed already, so that a signature of its own adds nothing.
        let added = metadata.add(&key, &signature);
        assert!(added.as_ref().map_or(true, Vec::is_empty), "{case}: {added:?}");
    }
    assert_eq!(metadata.add(&second.id_hex()[..8], &good).expect("it fits").len(), 1);
    assert!(metadata.progress().iter().all(|role| role.found == role.threshold));
    let path = scene.sample.folder.path().join("signed.tar");
    unfinished.write(&path, Cut::Whole, &Progress::quiet().step("sign")).await.expect("written");
    scene.sample.verify(&fs::read(path).expect("a file")).await.expect("a whole bundle");
}

#[tokio::test]
async fn a_bundle_that_is_written_in_parts_is_the_same_with_sums_of_its_own() {
    let scene = Scene::new().await;
    let second = Scene::signer(&scene.sample, &["targets-2"], Wanted::Add);
    let whole = scene.signed(&scene.bytes, &second).await;
    for part_bytes in [512, 4096, whole.len() as u64 - 512, whole.len() as u64] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("signed.tar");
        let mut unfinished = scene.open(&scene.bytes).await.expect("a bundle");
        unfinished.metadata().sign(&second).expect("signed");
        assert_eq!(unfinished.archive_bytes(), whole.len() as u64, "the signature counts");
        let size = PartSize::at_most(ByteCount::of(part_bytes)).expect("a size");
        let step = Progress::quiet().step("sign");
        let resigned = unfinished.write(&path, Cut::Parts(size), &step).await.expect("written");
        let parts: Vec<Vec<u8>> = resigned.files.iter().map(|file| fs::read(&file.path).expect("a part")).collect();
        assert_eq!(parts.concat(), whole, "{part_bytes}");
        assert_eq!(resigned.digest, Digest::of(&whole));
        assert!(resigned.files.iter().zip(&parts).all(|(file, part)| file.digest == Digest::of(part)));
        assert_eq!(parts.len() as u64, (whole.len() as u64).div_ceil(part_bytes));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), parts.len(), "nothing else is left");
    }
    // One that turns out to be damaged leaves nothing.
    let mut damaged = scene.bytes.clone();
    let last = damaged.len() - 1024 - 512;
    damaged[last] ^= 1;
    let folder = tempfile::tempdir().expect("a folder");
    let size = PartSize::at_most(ByteCount::of(1024)).expect("a size");
    let unfinished = scene.open(&damaged).await.expect("its head");
    let step = Progress::quiet().step("sign");
    assert!(unfinished.write(&folder.path().join("x.tar"), Cut::Parts(size), &step).await.is_err());
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

async fn written(sample: &Sample, version: u64, signer: &Signer, root: &TrustRoot, chain: &[Vec<u8>]) -> Vec<u8> {
    let path = sample.file_by(Images::usual(), version, signer, root, chain.to_vec()).await;
    fs::read(path).expect("the bundle")
}

#[tokio::test]
async fn a_removed_key_signs_nothing_any_more() {
    let sample = Sample::new();
    let old = sample.bytes(1).await;
    let change = RootChange {
        add: vec![RoleType::Targets],
        remove: vec!["targets-1".to_owned()],
        validity: vec![(RoleType::Root, Span::days(36_500))],
        ..RootChange::default()
    };
    let folder = RootFolder::open(sample.folder.path(), 16).expect("a chain");
    let local = LocalKeys { passphrase: PassphraseSource::default(), protection: Protection::Unencrypted };
    let pending = folder.begin(&change, &local, sample.created).expect("a root");
    let Rotated::Done(second) = folder.keep(&pending).expect("written") else { panic!("all keys are here") };
    drop(folder);

    // The key is still in its folder; asked for the new root, it is passed over.
    let signer = Signer::open(&sample.folder.path().join(KEYS_FOLDER), second.root(), &PassphraseSource::default());
    let signer = signer.expect("the new key is there");
    assert!(signer.keys(RoleType::Targets).all(|key| key.id() != Scene::key_of(&sample, "targets-1").id()));
    // Whoever stole it goes on signing as before, under the new chain.
    let chain = vec![sample.root.bytes().to_vec(), second.bytes().to_vec()];
    let forged = written(&sample, 2, &sample.signer, &second, &chain).await;
    let error = sample.verify(&forged).await.expect_err("it was removed");
    assert!(matches!(error, BundleError::Trust(TrustError::UnknownKey { .. })), "{error}");
    // Under the old chain, in an enclave that has seen the new one.
    let remembered = sample.remembered();
    let new = written(&sample, 3, &signer, &second, &chain).await;
    let verified = sample.verify_at(&new, &remembered, sample.now).await.expect("the first root is pinned");
    verified.remember().expect("remembered");
    let error = sample.verify_at(&old, &remembered, sample.now).await.expect_err("under the older root");
    assert!(matches!(error, BundleError::Trust(TrustError::RootRollback { offered: 1, known: 2, .. })), "{error}");
}

#[tokio::test]
async fn a_bundle_of_notices_alone_revokes_what_was_loaded() {
    let sample = Sample::new();
    let remembered = sample.remembered();
    let (one, two) = (sample.bytes(1).await, sample.bytes(2).await);
    sample.verify_at(&one, &remembered, sample.now).await.expect("good").remember().expect("remembered");
    let mut notices = Images::new();
    let revocation = Revocation {
        bundle: Some(crate::bundle::sample::NAME.to_owned()),
        version: Some(1),
        content: None,
        item: None,
        reason: "a scanner in it reports nothing".to_owned(),
    };
    notices.notices.revocations.push(revocation);
    // Sample bundles have one name, so that the notices come as a higher version of what they are about.
    let path = sample.file_of(notices, 3).await;
    let said = sample.verify_at(&fs::read(path).expect("a bundle"), &remembered, sample.now).await.expect("notices");
    assert!(said.catalog().images.is_empty() && said.catalog().notices.revocations.len() == 1);
    said.remember().expect("remembered");
    let error = sample.verify_at(&one, &remembered, sample.now).await.expect_err("it was revoked");
    assert!(matches!(error, BundleError::Trust(TrustError::Revoked { .. })), "{error}");
    let error = sample.verify_at(&two, &remembered, sample.now).await.expect_err("it is older");
    assert!(matches!(error, BundleError::Trust(TrustError::Rollback { .. })), "{error}");
}

#[tokio::test]
async fn a_layer_that_was_revoked_is_refused_in_every_bundle() {
    let sample = Sample::new();
    let remembered = sample.remembered();
    let mut notices = Images::new();
    let item = Some(Digest::of([7; 1024]));
    let reason = "a library with a back door".to_owned();
    notices.notices.revocations.push(Revocation { bundle: None, version: None, content: None, item, reason });
    let path = sample.file_of(notices, 1).await;
    let said = sample.verify_at(&fs::read(path).expect("a bundle"), &remembered, sample.now).await.expect("notices");
    said.remember().expect("remembered");
    // In the bundle that says so itself, before any of it is used: nobody could keep that.
    let mut itself = Images::usual();
    itself.notices = said.catalog().notices.clone();
    let itself = fs::read(sample.file_of(itself, 1).await).expect("a bundle");
    let unfinished = Unfinished::open(&itself[..], &sample.root, &Limits::default(), sample.now).await;
    let limits = Limits::default();
    let nothing = Remembered::nothing();
    let reader = BundleReader::open(&itself[..], &sample.root, &nothing, &limits, sample.now).await;
    for error in [unfinished.err(), reader.err()] {
        assert!(error.expect("refused").to_string().contains("which is in it"));
    }
    let error = sample.verify_at(&sample.bytes(2).await, &remembered, sample.now).await.expect_err("it has that layer");
    assert!(error.to_string().contains("a back door"), "{error}");
    let mut without = Images::new();
    let gapscan = without.image(&[b"another"]);
    without.item("images/gapscan", gapscan);
    let path = sample.file_of(without, 3).await;
    let good = sample.verify_at(&fs::read(path).expect("a bundle"), &remembered, sample.now).await.expect("without");
    good.remember().expect("remembered");
}

/// A permit is about versions, and about nothing else that is wrong with an old bundle.
#[tokio::test]
async fn a_permit_does_not_help_a_bundle_that_has_expired() {
    let mut plan = RootPlan::default();
    plan.validity.values_mut().for_each(|span| *span = Span::days(73_000));
    let sample = Sample::with_validity(plan);
    let remembered = sample.remembered();
    // The first of them expires at the end of 2125, the others a hundred years later.
    let one = fs::read(sample.file_for(Images::usual(), 1, Span::days(36_500)).await).expect("a bundle");
    let two = fs::read(sample.file_for(Images::usual(), 2, Span::days(73_000)).await).expect("a bundle");
    let mut images = Images::usual();
    images.notices.permits.push(Permit {
        bundle: crate::bundle::sample::NAME.to_owned(),
        version: 1,
        content: sample.verify(&one).await.expect("good").bundle().digest,
        until: "2200-01-01T00:00:00Z".parse().expect("a time"),
        reason: "a bad database".to_owned(),
    });
    let permitting = fs::read(sample.file_for(images, 3, Span::days(73_000)).await).expect("a bundle");
    for bytes in [&two, &permitting] {
        sample.verify_at(bytes, &remembered, sample.now).await.expect("good").remember().expect("remembered");
    }
    let error = sample.verify_at(&two, &remembered, sample.now).await.expect_err("not permitted");
    assert!(matches!(error, BundleError::Trust(TrustError::Rollback { .. })), "{error}");
    let last: jiff::Timestamp = "2125-12-07T23:59:59Z".parse().expect("a time");
    sample.verify_at(&one, &remembered, last).await.expect("permitted");
    let over: jiff::Timestamp = "2125-12-08T00:00:00Z".parse().expect("a time");
    let error = sample.verify_at(&one, &remembered, over).await.expect_err("it has expired");
    assert!(matches!(error, BundleError::Trust(TrustError::Expired { role: "timestamp", .. })), "{error}");
    sample.verify_at(&permitting, &remembered, over).await.expect("the others have not");
}
