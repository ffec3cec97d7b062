//! Bundles from sources that are slow, wrong, gone or interrupted, in one file and in parts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::*;
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::ByteCount;
use crate::bundle::sample::{Images, Sample};
use crate::bundle::source::{BlobStream, Distance, Memory, Referrer, Source, SourceError};
use crate::bundle::split::PartSize;

/// A registry, as it were: it notes which blobs it is asked for, and may spoil some.
struct Far {
    below: Memory,
    asked: Arc<Mutex<Vec<Digest>>>,
    spoilt: Option<Digest>,
    /// The blob of this digest comes when it is told to.
    held: Option<(Digest, Arc<Notify>)>,
}

#[async_trait]
impl Source for Far {
    fn distance(&self) -> Distance {
        Distance::Away
    }

    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, SourceError> {
        self.below.manifest(digest, limit).await
    }

    async fn referrers(&self, subject: &Digest, limits: &Limits) -> Result<Vec<Referrer>, SourceError> {
        self.below.referrers(subject, limits).await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, SourceError> {
        self.asked.lock().expect("no test panics in here").push(*digest);
        if let Some((held, told)) = &self.held
            && held == digest
        {
            told.notified().await;
        }
        if self.spoilt == Some(*digest) {
            return Ok(Box::new(tokio::io::AsyncReadExt::take(tokio::io::repeat(0xee), size)));
        }
        self.below.blob(digest, size).await
    }
}

struct Scene {
    sample: Sample,
    asked: Arc<Mutex<Vec<Digest>>>,
    spoilt: Option<Digest>,
    held: Option<(Digest, Arc<Notify>)>,
    cache: Option<Arc<Cache>>,
}

/// Layers of which one is larger than what is moved at once.
fn images() -> (Images, Vec<Digest>) {
    let layers: Vec<Vec<u8>> =
        vec![vec![1; 700_001], vec![2; 512], vec![3; 40_000], vec![], vec![5; 1025], vec![6; 300_000], vec![7; 9]];
    let mut images = Images::new();
    let gapscan = images.image(&[b"agent"]);
    images.item("images/gapscan", gapscan);
    for (n, layer) in layers.iter().enumerate() {
        let image = images.image(&[layer, &layers[0]]);
        images.item(&format!("images/i{n}"), image);
    }
    (images, layers.iter().map(Digest::of).collect())
}

impl Scene {
    fn new() -> Self {
        Self { sample: Sample::new(), asked: Arc::default(), spoilt: None, held: None, cache: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sample.folder.path().join(name)
    }

    fn cached(&mut self) {
        self.cache = Some(Arc::new(Cache::open(&self.path("cache"))));
    }

    fn asked(&self) -> Vec<Digest> {
        std::mem::take(&mut *self.asked.lock().expect("no test panics in here"))
    }

    async fn build(&self, name: &str, cut: Cut) -> Result<Written, BuildError> {
        self.build_version(1, name, cut).await
    }

    async fn assembled(&self, version: u64) -> Assembled {
        let (asked, spoilt, held) = (Arc::clone(&self.asked), self.spoilt, self.held.clone());
        let far = move |below| -> Arc<dyn Source> { Arc::new(Far { below, asked, spoilt, held }) };
        images().0.assemble_from(version, self.sample.created, far).await
    }

    async fn build_version(&self, version: u64, name: &str, cut: Cut) -> Result<Written, BuildError> {
        let assembled = self.assembled(version).await;
        let step = Progress::quiet().step("build");
        let path = self.path(name);
        let writing = Writing { path: &path, cut, cache: self.cache.as_ref(), step: &step };
        write(&assembled, &self.sample.signing(), &writing).await
    }

    /// The files whose names begin so.
    fn files(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        fs::read_dir(self.sample.folder.path())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
            .map(|path| {
                (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path).expect("read"))
            })
            .collect()
    }
}

fn size(bytes: u64) -> PartSize {
    PartSize::at_most(ByteCount::of(bytes)).expect("a size")
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_first_the_bytes_are_the_same() {
    let mut scene = Scene::new();
    let written = scene.build("a.tar", Cut::Whole).await.expect("a bundle");
    let bytes = fs::read(scene.path("a.tar")).expect("the bundle");
    assert_eq!(written.digest, Some(Digest::of(&bytes)));
    assert_eq!(written.bytes, bytes.len() as u64);
    scene.sample.verify(&bytes).await.expect("it is good");
    let asked = scene.asked();
    for late in images().1 {
        let told = Arc::new(Notify::new());
        scene.held = Some((late, Arc::clone(&told)));
        let building = scene.build("b.tar", Cut::Whole);
        let telling = async {
            // The others were all asked for, as far as there is room for several at once.
            while scene.asked.lock().expect("no test panics in here").len() < 4 {
                tokio::task::yield_now().await;
            }
            told.notify_one();
        };
        let (built, ()) = tokio::join!(building, telling);
        assert_eq!(built.expect("a bundle").digest, written.digest);
        assert_eq!(fs::read(scene.path("b.tar")).expect("the bundle"), bytes);
        let mut again = scene.asked();
        again.sort();
        let mut once = asked.clone();
        once.sort();
        assert_eq!(again, once, "each blob is asked for once");
        once.dedup();
        assert_eq!(again, once);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_are_the_archive_and_each_can_be_made_again_alone() {
    let scene = Scene::new();
    scene.build("a.tar", Cut::Whole).await.expect("a bundle");
    let whole = fs::read(scene.path("a.tar")).expect("the bundle");
    let everything = scene.asked().len();
    for bytes in [512, 4096 + 511, 100_000, 400_000, 1 << 30] {
        let name = format!("p{bytes}.tar");
        let written = scene.build(&name, Cut::Parts(size(bytes))).await.expect("parts");
        assert_eq!(written.digest, Some(Digest::of(&whole)));
        assert!(!scene.path(&name).exists(), "no whole file is made");
        let parts: Vec<Vec<u8>> = written.files.iter().map(|file| fs::read(&file.path).expect("a part")).collect();
        assert_eq!(parts.concat(), whole);
        assert_eq!(parts.len() as u64, size(bytes).count(whole.len() as u64));
        for (part, file) in parts.iter().zip(&written.files) {
            assert_eq!(Digest::of(part), file.digest);
        }
        assert!(parts.iter().rev().skip(1).all(|part| part.len() as u64 == size(bytes).bytes()));
        let before = scene.files(&name);
        assert!(before.keys().all(|name| !name.ends_with(".part")), "{:?}", before.keys());
        let chosen: Vec<u64> = match parts.len() as u64 {
            count @ 0..20 => (1..=count).collect(),
            count => vec![1, 2, count / 2, count],
        };
        for number in chosen {
            let path = written.files[number as usize - 1].path.clone();
            fs::write(&path, b"damaged").expect("write");
            scene.asked();
            let again = scene.build(&name, Cut::Part(size(bytes), number)).await.expect("the part");
            assert_eq!((again.digest, again.compared), (None, Some(Compared::Same)));
            assert_eq!(scene.files(&name), before, "part {number}");
            if bytes == 400_000 {
                assert!(scene.asked().len() < everything, "what is in other parts is not downloaded");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_another_content_or_number_is_refused_and_leaves_the_old_one() {
    let scene = Scene::new();
    let cut = size(400_000);
    let written = scene.build("a.tar", Cut::Parts(cut)).await.expect("parts");
    let before = scene.files("a.tar");
    let error = scene.build_version(2, "a.tar", Cut::Part(cut, 1)).await.expect_err("another content");
    assert!(matches!(error, BuildError::OtherPart { .. }), "{error}");
    assert_eq!(error.class(), ExitClass::Refused);
    assert_eq!(scene.files("a.tar"), before);
    let count = written.files.len() as u64;
    let error = scene.build("a.tar", Cut::Part(cut, count + 1)).await.expect_err("there is none");
    assert!(matches!(error, BuildError::NoSuchPart { .. }), "{error}");
    let error = scene.build("a.tar", Cut::Part(size(100_000), 1)).await.expect_err("another size");
    assert!(matches!(error, BuildError::OtherPart { .. }), "{error}");
    assert_eq!(scene.files("a.tar"), before);
    fs::remove_file(scene.path("a.tar.sha256")).expect("the sums");
    let made = scene.build("a.tar", Cut::Part(cut, 1)).await.expect("nothing contradicts it");
    assert_eq!(made.compared, Some(Compared::Unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_bundle_leaves_nothing_of_an_older_one_of_its_name() {
    let scene = Scene::new();
    scene.build("a.tar", Cut::Parts(size(200_000))).await.expect("parts");
    fs::write(scene.path("a.tar.20260101"), b"somebody's own").expect("write");
    let parts = |scene: &Scene| -> Vec<String> {
        scene.files("a.tar").into_keys().filter(|n| !n.contains("sha256") && !n.ends_with("20260101")).collect()
    };
    assert!(parts(&scene).len() > 4);
    scene.build("a.tar", Cut::Parts(size(700_000))).await.expect("parts");
    assert_eq!(parts(&scene), ["a.tar.001", "a.tar.002"]);
    scene.build("a.tar", Cut::Whole).await.expect("a bundle");
    assert_eq!(parts(&scene), ["a.tar"]);
    scene.build("a.tar", Cut::Parts(size(700_000))).await.expect("parts");
    assert_eq!(parts(&scene), ["a.tar.001", "a.tar.002"]);
    assert!(scene.path("a.tar.20260101").exists(), "what the sums did not name stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_blob_leaves_nothing_and_the_old_bundle_stays() {
    for cut in [Cut::Whole, Cut::Parts(size(100_000))] {
        let mut scene = Scene::new();
        for (version, (bad, old)) in images().1.into_iter().flat_map(|bad| [(bad, false), (bad, true)]).enumerate() {
            if bad == Digest::of(b"") {
                continue;
            }
            scene.spoilt = None;
            if old {
                scene.build_version(version as u64 + 1, "a.tar", cut).await.expect("the old bundle");
            }
            let before = scene.files("a.tar");
            scene.spoilt = Some(bad);
            let error = scene.build_version(version as u64 + 100, "a.tar", cut).await.expect_err("spoilt");
            assert!(matches!(error, BuildError::Changed { .. }), "{error}");
            let after = scene.files("a.tar");
            assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
            assert_eq!(after, before);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_build_leaves_nothing() {
    for cut in [Cut::Whole, Cut::Parts(size(100_000))] {
        let mut scene = Scene::new();
        scene.held = Some((images().1[5], Arc::new(Notify::new())));
        let building = scene.build("a.tar", cut);
        let waiting = async {
            while !scene.files("a.tar").keys().any(|name| name.ends_with(".part")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            built = building => panic!("it can't end: {:?}", built.map(|_| ())),
            () = waiting => {}
        }
        assert_eq!(scene.files("a.tar"), BTreeMap::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_builds_to_one_place_the_second_is_refused() {
    let mut scene = Scene::new();
    let told = Arc::new(Notify::new());
    scene.held = Some((images().1[0], Arc::clone(&told)));
    let second = async {
        while scene.asked.lock().expect("no test panics in here").is_empty() {
            tokio::task::yield_now().await;
        }
        for cut in [Cut::Whole, Cut::Parts(size(4096)), Cut::Part(size(4096), 1)] {
            let error = scene.build("a.tar", cut).await.expect_err("it is taken");
            assert!(matches!(error, BuildError::Busy { .. }), "{error}");
        }
        told.notify_one();
    };
    let (first, ()) = tokio::join!(scene.build("a.tar", Cut::Whole), second);
    first.expect("a bundle");
    let names: Vec<String> = scene.files("a.tar").into_keys().filter(|n| !n.contains("sha256")).collect();
    assert_eq!(names, ["a.tar"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_not_replaced_and_told_before_anything_is_asked_for() {
    for (cut, taken) in [(Cut::Whole, "a.tar"), (Cut::Parts(size(100_000)), "a.tar.003")] {
        for folder in [true, false] {
            let scene = Scene::new();
            let path = scene.path(taken);
            // A socket stands for a device, which only root can make.
            let socket = (!folder).then(|| std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
            if folder {
                fs::create_dir(&path).expect("a folder");
            }
            let error = scene.build("a.tar", cut).await.expect_err("it is taken");
            assert!(matches!(&error, BuildError::Write { path: told, .. } if *told == path), "{error}");
            assert!(error.remedy().is_some());
            assert_eq!(scene.asked(), [], "nothing is downloaded in vain");
            assert!(!path.symlink_metadata().expect("it is there").is_file());
            let unfinished = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".part");
            assert!(!fs::read_dir(scene.sample.folder.path()).expect("the folder").flatten().any(|e| unfinished(&e)));
            drop(socket);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_behind_and_fails_ends_the_build_at_once() {
    let mut scene = Scene::new();
    // Nobody ever tells this one to come.
    scene.held = Some((images().1[0], Arc::new(Notify::new())));
    let assembled = scene.assembled(1).await;
    let (metadata, _) = signed::sign(&assembled.contents, &scene.sample.signing()).expect("metadata");
    let plan = Plan::new(&assembled, metadata).expect("a plan");
    let output = Arc::new(Output::create(&scene.path("a.tar"), Cut::Whole, plan.total()).expect("an output"));
    let spans = plan.slots.iter().map(|slot| slot.span.clone());
    let tide = Arc::new(Tide::new(plan.head_span(), spans, plan.end_span()));
    let attempt = Attempt { output, tide };
    let (output, tide, step) = (&attempt.output, &attempt.tide, Progress::quiet().step("build"));
    fs::remove_file(scene.path("a.tar.part")).expect("it was made");
    let filling = Filling { plan: &plan, sources: &assembled.blobs, output, tide, cache: None, step: &step };
    let error = attempt.fill(filling).await.err().expect("there is nothing to read");
    assert!(matches!(error, BuildError::Write { .. }), "{error}");
}

#[tokio::test]
async fn a_file_system_without_room_is_told_before_anything_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("a.tar");
    let Err(error) = Output::create(&whole, Cut::Whole, u64::MAX / 2) else { panic!("there is no such room") };
    let BuildError::NoRoom { needed, free, .. } = &error else { panic!("{error}") };
    assert!(*needed == u64::MAX / 2 && *free > 0 && free < needed);
    assert_eq!(error.class(), ExitClass::Unreachable);
    assert!(error.remedy().is_some());
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing is left");
    let many = Output::create(&whole, Cut::Parts(size(512)), 512 * 10_000);
    assert!(matches!(many.err(), Some(BuildError::TooManyParts { count: 10_000, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_downloaded_once_is_not_downloaded_again() {
    let mut scene = Scene::new();
    scene.cached();
    let first = scene.build("a.tar", Cut::Whole).await.expect("a bundle");
    assert!(first.reused_bytes == 0 && first.fetched_bytes > 1_000_000);
    assert!(!scene.asked().is_empty());
    // A new process, another file, the same file, parts, and one part.
    let same = |scene: &mut Scene| {
        scene.cached();
        assert_eq!(scene.asked(), []);
    };
    for (name, cut) in [
        ("b.tar", Cut::Whole),
        ("a.tar", Cut::Whole),
        ("a.tar", Cut::Parts(size(100_000))),
        ("a.tar", Cut::Part(size(100_000), 3)),
        ("a.tar", Cut::Whole),
    ] {
        same(&mut scene);
        let again = scene.build(name, cut).await.expect("a bundle");
        assert_eq!(again.fetched_bytes, 0);
        assert!(again.digest.is_none_or(|digest| Some(digest) == first.digest));
    }
    same(&mut scene);
    // Parts alone can be the only place.
    scene.build("c.tar", Cut::Parts(size(100_000))).await.expect("parts");
    for file in ["a.tar", "b.tar"] {
        fs::remove_file(scene.path(file)).expect("remove");
    }
    same(&mut scene);
    scene.build("d.tar", Cut::Whole).await.expect("a bundle");
    assert_eq!(scene.asked(), []);
    scene.cache = None;
    scene.build("e.tar", Cut::Whole).await.expect("a bundle");
    assert!(!scene.asked().is_empty(), "without a cache everything is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_replaced_archive_costs_a_download_and_nothing_else() {
    let mut scene = Scene::new();
    scene.cached();
    let first = scene.build("a.tar", Cut::Whole).await.expect("a bundle");
    let everything = scene.asked().len();
    scene.cached();
    // Changed behind the cache's back: its list was read before.
    let mut bytes = fs::read(scene.path("a.tar")).expect("the bundle");
    let at = bytes.windows(600).position(|w| w == [6; 600]).expect("a layer");
    bytes[at + 300] ^= 1;
    fs::write(scene.path("a.tar"), &bytes).expect("write");
    let again = scene.build("b.tar", Cut::Whole).await.expect("a bundle");
    assert_eq!(again.digest, first.digest);
    assert_eq!(scene.asked(), [images().1[5]], "only the damaged one is downloaded");
    fs::write(scene.path("a.tar"), b"short").expect("write");
    fs::remove_file(scene.path("b.tar")).expect("remove");
    let again = scene.build("c.tar", Cut::Whole).await.expect("a bundle");
    assert_eq!(again.digest, first.digest);
    assert_eq!(scene.asked().len(), everything - 1, "all but the empty one, which is everywhere");
}

fn on_path(program: &str) -> bool {
    let found = Command::new(program).arg("--help").output().is_ok();
    if !found {
        println!("skipped: needs {program}");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_courier_checks_parts_with_sha256sum_and_openssl() {
    if !on_path("sha256sum") || !on_path("openssl") {
        return;
    }
    let scene = Scene::new();
    let folder = scene.sample.folder.path();
    let check = |name: &str| {
        let sums = format!("{name}.sha256");
        Command::new("sha256sum")
            .args(["--check", "--strict", "--ignore-missing", &sums])
            .current_dir(folder)
            .output()
            .expect("sha256sum")
    };
    for (name, cut) in [("a.tar", Cut::Whole), ("back\\slash.tar", Cut::Parts(size(300_000)))] {
        let written = scene.build(name, cut).await.expect("a bundle");
        let checked = check(name);
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(String::from_utf8_lossy(&checked.stdout).matches(": OK").count(), written.files.len());
        let sums = written.sums.expect("sums");
        assert_eq!(sums.signatures.len(), 1);
        let root = scene.sample.signer.root();
        for (id, key) in &root.keys {
            let id = crate::trust::public::short_id(id);
            let signature = folder.join(format!("{name}.sha256.{id}.sig"));
            if !signature.exists() {
                continue;
            }
            assert!(sums.signatures.contains(&signature));
            let pem = folder.join(format!("{id}.pem"));
            fs::write(&pem, crate::trust::public::to_pem(key).expect("PEM")).expect("write");
            let verify = |file: &Path| {
                let mut openssl = Command::new("openssl");
                openssl.args(["dgst", "-sha256", "-verify"]).arg(&pem).arg("-signature").arg(&signature).arg(file);
                openssl.output().expect("openssl").status.success()
            };
            assert!(verify(&sums.sums));
            assert!(!verify(&pem), "it would see another file");
        }
        let damaged = &written.files[0].path;
        let mut bytes = fs::read(damaged).expect("read");
        bytes[700] ^= 1;
        fs::write(damaged, bytes).expect("write");
        assert!(!check(name).status.success(), "it would see damage");
    }
}
