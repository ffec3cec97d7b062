//! Small real bundles for tests: made, signed and written the way that the command does it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tough::schema::{Metafile, Signed, Snapshot as SnapshotRole, Targets, Timestamp as TimestampRole};

use super::BundleError;
use super::assembly::{Assembled, Assembly};
use super::contents::{BaseRef, Contents, Entry};
use super::oci::{self, Descriptor};
use super::reader::{BundleReader, VerifiedBundle};
use super::source::{Memory, Source};
use super::writer::{self, Cut, Signing, Writing};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::Span;
use crate::model::catalog::{Catalog, CatalogDependency, CatalogItem, GAPSCAN_IMAGE, OnOld, Requires};
use crate::model::notice::Notices;
use crate::trust::metadata;
use crate::trust::passphrase::PassphraseSource;
use crate::trust::remembered::Remembered;
use crate::trust::root::{self, KEYS_FOLDER, RootPlan, TrustRoot};
use crate::trust::signer::Signer;

/// The name of every sample bundle.
pub(crate) const NAME: &str = "sample";

/// A folder with a root and its keys, under which sample bundles are signed.
pub(crate) struct Sample {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) root: TrustRoot,
    pub(crate) signer: Signer,
    pub(crate) created: Timestamp,
    pub(crate) now: Timestamp,
}

/// Something to put into a sample bundle.
pub(crate) struct Images {
    source: Memory,
    items: Vec<(String, Descriptor)>,
    companions: Vec<(String, Descriptor, Option<String>)>,
    /// What the bundle says about others.
    pub(crate) notices: Notices,
}

impl Images {
    pub(crate) fn new() -> Self {
        Self { source: Memory::default(), items: Vec::new(), companions: Vec::new(), notices: Notices::default() }
    }

    /// Adds an image whose layers have these bytes, and gives its manifest's descriptor.
    pub(crate) fn image(&mut self, layers: &[&[u8]]) -> Descriptor {
        let config = serde_json::to_vec(&serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(Digest::of).collect::<Vec<_>>() },
        }))
        .expect("JSON");
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST,
            "config": Descriptor::of(oci::CONFIG, &config),
            "layers": layers.iter().map(|l| Descriptor::of(oci::LAYER_TAR, l)).collect::<Vec<_>>(),
        }))
        .expect("JSON");
        for layer in layers {
            self.source.insert(layer.to_vec());
        }
        self.source.insert(config);
        self.document(oci::MANIFEST, manifest)
    }

    /// Adds an index of these.
    pub(crate) fn index(&mut self, manifests: &[Descriptor]) -> Descriptor {
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests });
        self.document(oci::INDEX, serde_json::to_vec(&index).expect("JSON"))
    }

    /// Adds any document.
    pub(crate) fn document(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.source.insert(bytes);
        descriptor
    }

    /// Puts an image under a repository as `images/NAME` or `dependencies/NAME`.
    pub(crate) fn item(&mut self, repository: &str, descriptor: Descriptor) {
        self.items.push((repository.to_owned(), descriptor));
    }

    /// An artifact with an empty configuration and one layer, about `subject`.
    pub(crate) fn artifact(&mut self, content: &[u8], subject: Option<&Descriptor>) -> Descriptor {
        let kind = "application/vnd.example.signature";
        let mut manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST, "artifactType": kind,
            "config": Descriptor::of(oci::EMPTY, b"{}"),
            "layers": [Descriptor::of(kind, content)],
            "annotations": { "made": "by a test" },
        });
        if let Some(subject) = subject {
            manifest["subject"] = serde_json::json!(subject);
        }
        self.source.insert(b"{}".as_slice());
        self.source.insert(content.to_vec());
        self.document(oci::MANIFEST, serde_json::to_vec(&manifest).expect("JSON"))
    }

    /// Lets something travel with the item of this repository.
    pub(crate) fn companion(&mut self, repository: &str, descriptor: Descriptor, tag: Option<&str>) {
        self.companions.push((repository.to_owned(), descriptor, tag.map(str::to_owned)));
    }

    /// The item of this repository.
    pub(crate) fn descriptor(&self, repository: &str) -> Descriptor {
        self.items.iter().find(|(name, _)| name == repository).expect("an item").1.clone()
    }

    /// Four images (two share a layer, one is an index) and a dependency; some layers are empty or fill whole blocks.
    pub(crate) fn usual() -> Self {
        let mut images = Self::new();
        let gapscan = images.image(&[b"\x7fELF, as it were"]);
        images.item(&format!("images/{GAPSCAN_IMAGE}"), gapscan);
        let base = [7; 1024];
        let web = images.image(&[&base, b"web"]);
        images.item("images/web", web.clone());
        let twin = images.image(&[&base, b""]);
        images.item("images/twin", twin.clone());
        let many = images.index(&[web, twin]);
        images.item("images/many", many);
        let database = images.image(&[&[42; 700]]);
        images.item("dependencies/database", database);
        images
    }

    fn catalog(&self, version: u64, created: Timestamp) -> Catalog {
        let of = |section: &str| {
            self.items
                .iter()
                .filter(|(repository, _)| repository.starts_with(section))
                .map(|(repository, d)| CatalogItem {
                    name: repository.rsplit('/').next().expect("a name").to_owned(),
                    repository: repository.clone(),
                    source: "made for a test".to_owned(),
                    media_type: d.media_type.clone(),
                    digest: d.digest,
                    size: d.size,
                    licences: Vec::new(),
                    verified: None,
                })
                .collect::<Vec<_>>()
        };
        Catalog {
            name: NAME.to_owned(),
            version,
            created,
            classification: None,
            images: of("images/"),
            scanners: Vec::new(),
            profiles: Vec::new(),
            dependencies: of("dependencies/")
                .into_iter()
                .map(|item| CatalogDependency { item, built: None, max_age: None, on_old: OnOld::Refuse })
                .collect(),
            charts: Vec::new(),
            requires: Requires::default(),
            notices: self.notices.clone(),
        }
    }

    pub(crate) async fn assemble(self, version: u64, created: Timestamp) -> Assembled {
        self.assemble_from(version, created, |memory| Arc::new(memory)).await
    }

    /// The same from a source that is made of what they have.
    pub(crate) async fn assemble_from(
        self,
        version: u64,
        created: Timestamp,
        source: impl FnOnce(Memory) -> Arc<dyn Source>,
    ) -> Assembled {
        let catalog = self.catalog(version, created);
        let mut assembly = Assembly::new(&Limits::default());
        let source = source(self.source);
        for (repository, descriptor) in &self.items {
            assembly.add(repository, descriptor, &source).await.expect("an item");
        }
        for (repository, descriptor, tag) in &self.companions {
            assembly.add_companion(repository, descriptor, tag.as_deref(), &source).await.expect("a companion");
        }
        assembly.finish(&catalog).await.expect("a whole bundle")
    }
}

impl Sample {
    /// A new root with unencrypted keys that outlive any test.
    pub(crate) fn new() -> Self {
        Self::with_plan(RootPlan::default())
    }

    /// The same with other numbers of keys and thresholds.
    pub(crate) fn with_plan(mut plan: RootPlan) -> Self {
        // The TUF client looks at the machine's own clock, so nothing here may expire while this code is in use.
        plan.validity.values_mut().for_each(|v| *v = Span::days(36_500));
        Self::with_validity(plan)
    }

    /// The same with other lengths of validity, too: a hundred years and more.
    pub(crate) fn with_validity(plan: RootPlan) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let root = root::init(folder.path(), &plan, None, created).expect("a root");
        let signer = Signer::open(&folder.path().join(KEYS_FOLDER), root.root(), &PassphraseSource::default())
            .expect("its keys");
        Self { folder, root, signer, created, now: "2026-02-01T00:00:00Z".parse().expect("a time") }
    }

    /// Where versions may be remembered.
    pub(crate) fn remembered(&self) -> Remembered {
        Remembered::in_folder(self.folder.path().join("state"))
    }

    /// How its bundles are signed.
    pub(crate) fn signing(&self) -> Signing<'_> {
        Signing {
            signer: &self.signer,
            root: &self.root,
            chain: vec![self.root.bytes().to_vec()],
            valid_for: Span::days(36_500),
        }
    }

    /// The usual bundle in this version, as a file.
    pub(crate) async fn file(&self, version: u64) -> PathBuf {
        self.file_of(Images::usual(), version).await
    }

    /// A bundle of these images, as a file.
    pub(crate) async fn file_of(&self, images: Images, version: u64) -> PathBuf {
        self.file_by(images, version, &self.signer, &self.root, vec![self.root.bytes().to_vec()]).await
    }

    /// The same, valid for so long.
    pub(crate) async fn file_for(&self, images: Images, version: u64, valid_for: Span) -> PathBuf {
        let assembled = images.assemble(version, self.created).await;
        self.written(&assembled, version, &Signing { valid_for, ..self.signing() }).await
    }

    /// A bundle of these images that somebody signed under this root and chain, as a file.
    pub(crate) async fn file_by(
        &self,
        images: Images,
        version: u64,
        signer: &Signer,
        root: &TrustRoot,
        chain: Vec<Vec<u8>>,
    ) -> PathBuf {
        let assembled = images.assemble(version, self.created).await;
        let signing = Signing { signer, root, chain, valid_for: Span::days(36_500) };
        self.written(&assembled, version, &signing).await
    }

    async fn written(&self, assembled: &Assembled, version: u64, signing: &Signing<'_>) -> PathBuf {
        // A folder of its own, so that tests which share a sample do not meet.
        let within = tempfile::tempdir_in(self.folder.path()).expect("a folder").keep();
        let path = within.join(format!("{NAME}-{version}.tar"));
        let step = Progress::quiet().step("build");
        writer::write(assembled, signing, &Writing { path: &path, cut: Cut::Whole, cache: None, step: &step })
            .await
            .expect("a bundle");
        path
    }

    /// A bundle of these images as a delta against `base`, without the blobs of `there` (which repository has them).
    pub(crate) async fn delta_of(
        &self,
        images: Images,
        version: u64,
        base: BaseRef,
        there: &BTreeMap<Digest, String>,
    ) -> Vec<u8> {
        self.delta_for(images, version, base, there, Span::days(36_500)).await
    }

    /// The same, valid for so long.
    pub(crate) async fn delta_for(
        &self,
        images: Images,
        version: u64,
        base: BaseRef,
        there: &BTreeMap<Digest, String>,
        valid_for: Span,
    ) -> Vec<u8> {
        let assembled = images.assemble(version, self.created).await.leave_out(base, there);
        let path = self.folder.path().join(format!("{NAME}-{version}.delta.tar"));
        let (signing, step) = (Signing { valid_for, ..self.signing() }, Progress::quiet().step("build"));
        writer::write(&assembled, &signing, &Writing { path: &path, cut: Cut::Whole, cache: None, step: &step })
            .await
            .expect("a bundle");
        std::fs::read(path).expect("the bundle")
    }

    /// The usual bundle in this version, as bytes.
    pub(crate) async fn bytes(&self, version: u64) -> Vec<u8> {
        std::fs::read(self.file(version).await).expect("the bundle")
    }

    /// Verifies a whole archive at the sample's time, remembering nothing.
    pub(crate) async fn verify(&self, bytes: &[u8]) -> Result<VerifiedBundle, BundleError> {
        self.verify_at(bytes, &Remembered::nothing(), self.now).await
    }

    /// Verifies a whole archive.
    pub(crate) async fn verify_at(
        &self,
        bytes: &[u8],
        remembered: &Remembered,
        now: Timestamp,
    ) -> Result<VerifiedBundle, BundleError> {
        let mut reader = BundleReader::open(bytes, &self.root, remembered, &Limits::default(), now).await?;
        while let Some(blob) = reader.next_blob().await? {
            blob.skip().await?;
        }
        reader.finish().await
    }

    /// Signs anew after `change` has had its way with the list of targets and the other entries: what an attacker inside
    /// the signer's house could send, or a signer by mistake. Every outer check passes.
    pub(crate) fn resigned(&self, parts: &mut Parts, change: impl FnOnce(&mut Targets)) {
        let targets: Signed<Targets> =
            metadata::parse("t", parts.at("targets.json")).expect("the sample's own metadata");
        let mut targets = targets.signed;
        change(&mut targets);
        let (version, expires) = (targets.version, targets.expires);
        let meta = |name: &str| {
            let file = Metafile { length: None, hashes: None, version, _extra: HashMap::new() };
            HashMap::from([(name.to_owned(), file)])
        };
        let mut snapshot = SnapshotRole::new("1.0.0".to_owned(), version, expires);
        snapshot.meta = meta("targets.json");
        let mut timestamp = TimestampRole::new("1.0.0".to_owned(), version, expires);
        timestamp.meta = meta("snapshot.json");
        *parts.at("timestamp.json") = metadata::to_bytes(&self.signer.sign(timestamp).expect("keys"));
        *parts.at("snapshot.json") = metadata::to_bytes(&self.signer.sign(snapshot).expect("keys"));
        *parts.at("targets.json") = metadata::to_bytes(&self.signer.sign(targets).expect("keys"));
        for (name, _) in &mut parts.0 {
            for role in ["snapshot", "targets"] {
                if name.ends_with(&format!("{role}.json")) {
                    *name = format!("metadata/{version}.{role}.json");
                }
            }
        }
    }

    /// A bundle with these entries and a list of targets that fits them exactly.
    pub(crate) async fn relisted(&self, index: serde_json::Value, blobs: &[(&str, Vec<u8>)]) -> Vec<u8> {
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

/// An archive taken apart, so that a test can change a part and put it together again with headers that fit.
#[derive(Clone)]
pub(crate) struct Parts(pub(crate) Vec<(String, Vec<u8>)>);

impl Parts {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut parts = Vec::new();
        let mut at = 0;
        loop {
            let block: &[u8; 512] = bytes[at..at + 512].try_into().expect("a block");
            if block.iter().all(|b| *b == 0) {
                return Self(parts);
            }
            let name: Vec<u8> = block[..100].iter().copied().take_while(|b| *b != 0).collect();
            let size = super::archive::claimed_size(block).expect("a size");
            at += 512;
            let content = bytes[at..at + size as usize].to_vec();
            at += size as usize + super::archive::padding(size);
            parts.push((String::from_utf8(name).expect("ASCII"), content));
        }
    }

    pub(crate) fn join(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in &self.0 {
            let size = content.len() as u64;
            bytes.extend_from_slice(&super::archive::header(name, size).expect("a header"));
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + super::archive::padding(size), 0);
        }
        bytes.extend_from_slice(&super::archive::END);
        bytes
    }

    pub(crate) fn at(&mut self, suffix: &str) -> &mut Vec<u8> {
        let part = self.0.iter_mut().find(|(name, _)| name.ends_with(suffix));
        &mut part.expect("an entry of this name").1
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn map(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.iter().cloned().collect()
    }
}
