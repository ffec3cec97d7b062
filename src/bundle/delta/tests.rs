use super::*;
use crate::base::progress::Progress;
use crate::bundle::sample::{Images, NAME, Sample};
use crate::bundle::writer::{self, Cut, Writing};
use crate::model::provenance::BundleRef;
use crate::model::receipt::{Outcome, ReadBack, ReceiptBlob, Runner};
use crate::trust::key::RoleKey;
use crate::trust::public::to_pem;
use std::path::PathBuf;

struct Scene {
    sample: Sample,
    runner: RoleKey,
}

fn images(layers: &[&[u8]]) -> Images {
    let mut images = Images::new();
    let gapscan = images.image(&[b"agent"]);
    images.item("images/gapscan", gapscan);
    let web = images.image(layers);
    images.item("images/web", web);
    images
}

impl Scene {
    fn new() -> Self {
        let (sample, runner) = (Sample::new(), RoleKey::generate());
        let scene = Self { sample, runner };
        std::fs::write(scene.key(), to_pem(scene.runner.public()).expect("PEM")).expect("write");
        scene
    }

    fn key(&self) -> PathBuf {
        self.sample.folder.path().join("runner.pub")
    }

    /// The receipt of a load that brought these blobs.
    fn receipt(&self, version: u64, content: Digest, blobs: &[(Digest, u64, &str)]) -> LoadReceipt {
        let now = self.sample.created;
        LoadReceipt {
            api_version: crate::base::document::ApiVersion::V1,
            kind: RECEIPT_KIND.to_owned(),
            bundle: BundleRef { name: NAME.to_owned(), version, digest: content, root: self.sample.root.fingerprint() },
            base: None,
            registry: "registry.example".to_owned(),
            started: now,
            finished: now,
            by: Runner { gapscan: "1".to_owned(), host: "h".to_owned(), user: "u".to_owned() },
            sources: vec!["a.tar".to_owned()],
            read_back: ReadBack::Sample,
            items: Vec::new(),
            blobs: blobs
                .iter()
                .map(|(digest, size, repository)| ReceiptBlob {
                    digest: *digest,
                    size: *size,
                    repositories: BTreeMap::from([((*repository).to_owned(), Outcome::Pushed)]),
                    read_back: false,
                })
                .collect(),
            tags: Vec::new(),
        }
    }

    fn sealed(&self, receipt: &LoadReceipt) -> PathBuf {
        self.sealed_as(RECEIPT_MEDIA_TYPE, &serde_json::to_vec(receipt).expect("JSON"), &self.runner)
    }

    fn sealed_as(&self, media_type: &str, payload: &[u8], key: &RoleKey) -> PathBuf {
        let path = self.sample.folder.path().join("receipt.json");
        std::fs::write(&path, envelope::seal(media_type, payload, key)).expect("write");
        path
    }

    fn read(&self, path: &Path, version: u64) -> Result<DeltaBase, BuildError> {
        let roots = [self.sample.root.fingerprint()];
        DeltaBase::read(path, &self.key(), Wanted { name: NAME, version, roots: &roots })
    }

    /// Builds a delta in this version, and gives its bytes with what it leaves out.
    async fn delta(&self, images: Images, version: u64, base: &DeltaBase) -> (Vec<u8>, LeftOut) {
        let (assembled, left_out) = images.assemble(version, self.sample.created).await.against(base);
        let path = self.sample.folder.path().join("delta.tar");
        let step = Progress::quiet().step("build");
        let writing = Writing { path: &path, cut: Cut::Whole, cache: None, step: &step };
        writer::write(&assembled, &self.sample.signing(), &writing).await.expect("a delta");
        (std::fs::read(path).expect("the delta"), left_out)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn what_the_receipt_lists_is_left_out_also_of_the_delta_of_a_delta() {
    let scene = Scene::new();
    let (old, new, newer) = ([1; 3000], [2; 3000], [3; 3000]);
    let blob = |bytes: &[u8]| (Digest::of(bytes), bytes.len() as u64, "images/web");
    let content = Digest::of("content 1");
    let base = scene.read(&scene.sealed(&scene.receipt(1, content, &[blob(&old)])), 2).expect("a base");
    let (bytes, left_out) = scene.delta(images(&[&old, &new]), 2, &base).await;
    assert_eq!((left_out.blobs, left_out.bytes), (1, 3000));
    assert_eq!(left_out.base, BaseRef { bundle: NAME.to_owned(), version: 1, content });
    assert!(!contains(&bytes, &old) && contains(&bytes, &new));
    assert!(contains(&bytes, b"\"base\":\"images/web\""), "where the base has it is signed");

    // The receipt of a delta lists everything, so the next one needs nothing but that.
    let content = Digest::of("content 2");
    let base = scene.read(&scene.sealed(&scene.receipt(2, content, &[blob(&old), blob(&new)])), 3).expect("a base");
    let (bytes, left_out) = scene.delta(images(&[&old, &new, &newer]), 3, &base).await;
    assert_eq!((left_out.blobs, left_out.base.version), (2, 2));
    assert!(!contains(&bytes, &old) && !contains(&bytes, &new) && contains(&bytes, &newer));
}

#[tokio::test]
async fn a_blob_of_another_length_or_in_no_proper_repository_stays() {
    let scene = Scene::new();
    let (one, two) = ([1; 3000], [2; 3000]);
    let there = [(Digest::of(one), 2999, "images/web"), (Digest::of(two), 3000, "../web")];
    let base = scene.read(&scene.sealed(&scene.receipt(1, Digest::of("c"), &there)), 2).expect("a base");
    let (bytes, left_out) = scene.delta(images(&[&one, &two]), 2, &base).await;
    assert_eq!(left_out.blobs, 0);
    assert!(contains(&bytes, &one) && contains(&bytes, &two));
}

#[test]
fn a_receipt_that_is_no_base_is_refused_with_a_remedy() {
    let scene = Scene::new();
    let good = scene.receipt(3, Digest::of("c"), &[]);
    let refuse = |path: &Path, version: u64, class: ExitClass, words: &str| {
        let error = scene.read(path, version).expect_err(words);
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.remedy().is_some(), "{error}");
    };
    scene.read(&scene.sealed(&good), 4).expect("it is good");
    refuse(&scene.sealed(&good), 3, ExitClass::Usage, "this is version 3");
    refuse(&scene.sealed(&good), 2, ExitClass::Usage, "it is of version 3");
    let mut other = good.clone();
    other.bundle.name = "other".to_owned();
    refuse(&scene.sealed(&other), 4, ExitClass::Usage, "bundle `other`");
    let mut other = good.clone();
    other.bundle.root = Digest::of("another root");
    refuse(&scene.sealed(&other), 4, ExitClass::Usage, "another root");
    let mut other = good.clone();
    other.kind = "Plan".to_owned();
    refuse(&scene.sealed(&other), 4, ExitClass::Refused, "it is a `Plan`");
    let payload = serde_json::to_vec(&good).expect("JSON");
    refuse(&scene.sealed_as("text/plain", &payload, &scene.runner), 4, ExitClass::Refused, "text/plain");
    let foreign = RoleKey::generate();
    refuse(&scene.sealed_as(RECEIPT_MEDIA_TYPE, &payload, &foreign), 4, ExitClass::Refused, "no signature on it");
    refuse(&scene.sealed_as(RECEIPT_MEDIA_TYPE, b"{}", &scene.runner), 4, ExitClass::Refused, "missing field");
    let text = std::fs::read_to_string(scene.sealed(&good)).expect("JSON");
    let path = scene.sample.folder.path().join("changed.json");
    std::fs::write(&path, text.replacen("\"payload\":\"e", "\"payload\":\"f", 1)).expect("write");
    refuse(&path, 4, ExitClass::Refused, "no signature on it");
}
