use std::collections::BTreeMap;
use std::path::PathBuf;

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{EncodePublicKey, LineEnding};
use serde_json::{Value, json};

use super::*;
use crate::base::exit::{Classify, ExitClass};
use crate::bundle::oci::{self, REF_NAME};
use crate::model::profile::Profile;
use crate::model::profile_document::ProfileDocument;

struct Nobody;

#[async_trait]
impl References for Nobody {
    async fn resolve(&self, reference: &str, _: Option<&Digest>) -> Result<Resolved, SourceError> {
        Err(SourceError::new(ExitClass::Unreachable, format!("ask for {reference}")))
    }
}

impl ProfileResolver for Nobody {
    fn rules(&self, _: &ProfileDocument, _: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError> {
        Err(SourceError::new(ExitClass::Bug, "list rules"))
    }

    fn xccdf(&self, _: &ProfileDocument, _: &BTreeMap<String, Vec<u8>>, _: &[u8]) -> Result<Profile, SourceError> {
        Err(SourceError::new(ExitClass::Bug, "list rules"))
    }

    fn content(&self, _: &ProfileDocument, _: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError> {
        Err(SourceError::new(ExitClass::Bug, "list rules"))
    }

    fn remote(&self, _: &Profile, _: &[u8]) -> Result<Vec<String>, SourceError> {
        Err(SourceError::new(ExitClass::Bug, "list rules"))
    }
}

/// A folder with a definition, an agent, and image layouts.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("agent"), crate::bundle::agent::sample(1)).expect("an agent");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn layout(&self, name: &str) -> Layout {
        std::fs::create_dir_all(self.path(name).join("blobs/sha256")).expect("a folder");
        Layout { folder: self.path(name), listed: Vec::new() }
    }

    async fn collect(&self, yaml: &str, lock: Option<&BundleLock>) -> Result<Collected, BuildError> {
        let text = format!("apiVersion: gapscan/v1\nkind: Bundle\nname: b\nversion: 1\n{yaml}");
        std::fs::write(self.path("bundle.yaml"), text).expect("a definition");
        let limits = Limits::default();
        let definition = Definition::read(&self.path("bundle.yaml"), &limits)?;
        let (agent, progress) = (self.path("agent"), Progress::quiet());
        let helpers =
            Helpers { agent: &agent, references: &Nobody, profiles: &Nobody, limits: &limits, progress: &progress };
        let collected = collect(&definition, "2026-01-01T00:00:00Z".parse().expect("a time"), lock, &helpers).await?;
        collected.assemble(&limits).await?;
        Ok(collected)
    }

    async fn refused(&self, yaml: &str, class: ExitClass, words: &str) {
        let error = self.collect(yaml, None).await.err().unwrap_or_else(|| panic!("{words}: accepted"));
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

struct Layout {
    folder: PathBuf,
    listed: Vec<Descriptor>,
}

impl Layout {
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes);
        std::fs::write(self.folder.join("blobs/sha256").join(descriptor.digest.hex()), bytes).expect("a blob");
        descriptor
    }

    fn document(&self, media_type: &str, value: &Value) -> Descriptor {
        self.blob(media_type, value.to_string().as_bytes())
    }

    fn image(&self, architecture: &str) -> Descriptor {
        let config = json!({ "architecture": architecture, "os": "linux",
            "config": { "Labels": { "org.opencontainers.image.licenses": "MIT" } } });
        let config = self.document(oci::CONFIG, &config);
        let layer = self.blob(oci::LAYER_TAR, architecture.as_bytes());
        self.document(oci::MANIFEST, &json!({ "schemaVersion": 2, "config": config, "layers": [layer] }))
    }

    fn index(&self, architectures: &[&str]) -> Descriptor {
        let manifests: Vec<Value> = architectures
            .iter()
            .map(|architecture| {
                let mut descriptor = json!(self.image(architecture));
                descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
                descriptor
            })
            .collect();
        // An order and blanks that nobody here would write: only bytes that are carried as they are keep the digest.
        let text = format!("{{ \"manifests\":  {}, \"schemaVersion\": 2 }}\n", Value::from(manifests));
        self.blob(oci::INDEX, text.as_bytes())
    }

    fn artifact(&self, content: &[u8], subject: Option<&Descriptor>) -> Descriptor {
        let empty = self.blob(oci::EMPTY, b"{}");
        let layer = self.blob("application/x-test", content);
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": empty,
            "artifactType": "application/x-test", "layers": [layer] });
        if let Some(subject) = subject {
            manifest["subject"] = json!(subject);
        }
        self.document(oci::MANIFEST, &manifest)
    }

    fn list(&mut self, descriptor: &Descriptor, name: Option<&str>) {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
        self.listed.push(descriptor);
        let index = json!({ "schemaVersion": 2, "manifests": self.listed });
        std::fs::write(self.folder.join("index.json"), index.to_string()).expect("an index");
    }
}

fn item<'a>(collected: &'a Collected, repository: &str) -> &'a crate::bundle::lock::LockedItem {
    collected.lock().item(repository).expect("an item")
}

#[tokio::test]
async fn an_index_for_all_platforms_keeps_its_digest_and_its_signatures() {
    let desk = Desk::new();
    let mut layout = desk.layout("image");
    let index = layout.index(&["amd64", "arm64", "s390x"]);
    let amd64 = layout.image("amd64");
    layout.list(&index, Some("1"));
    let of_index = layout.artifact(b"signature of the index", Some(&index));
    let of_image = layout.artifact(b"SBOM of the image", Some(&amd64));
    let of_sbom = layout.artifact(b"signature of the SBOM", Some(&of_image));
    let by_tag = layout.artifact(b"by tag", None);
    let of_nothing = layout.artifact(b"about something else", Some(&Descriptor::of(oci::MANIFEST, b"else")));
    for about in [&of_index, &of_image, &of_sbom, &of_nothing] {
        layout.list(about, None);
    }
    let tag = format!("sha256-{}.att", index.digest.hex());
    layout.list(&by_tag, Some(&tag));

    let all = "platforms: [all]\nimages: [{name: a, from: 'oci:image:1'}]\n";
    let collected = desk.collect(all, None).await.expect("all platforms");
    let found = item(&collected, "images/a");
    assert_eq!((found.digest, found.size, found.index), (index.digest, index.size, None));
    let mut expected = [of_index.digest, of_image.digest, of_sbom.digest, by_tag.digest];
    expected.sort();
    assert_eq!(found.companions.iter().map(|c| c.digest).collect::<Vec<_>>(), expected);
    assert_eq!(found.companions.iter().filter_map(|c| c.tag.clone()).collect::<Vec<_>>(), [tag]);
    assert_eq!(found.licences, ["MIT"]);

    // Without the whole index there is nothing that its signatures could be about.
    let one = "images: [{name: a, from: 'oci:image:1'}]\n";
    let collected = desk.collect(one, None).await.expect("one platform");
    let found = item(&collected, "images/a");
    assert_eq!((found.digest, found.index), (amd64.digest, Some(index.digest)));
    assert_eq!(found.companions.len(), 2, "the SBOM and its signature");
    for own in ["platforms: [all]", "referrers: leave"] {
        let text = format!("images: [{{name: a, from: 'oci:image:1', {own}}}]\n");
        let collected = desk.collect(&text, None).await.expect(own);
        let found = item(&collected, "images/a");
        assert_eq!(
            (found.digest == index.digest, found.companions.is_empty()),
            (own.contains("all"), !own.contains("all"))
        );
    }
    desk.refused("platforms: [all, linux/amd64]\n", ExitClass::Usage, "exclude each other").await;
    desk.refused("images: [{name: a, from: 'oci:image:1', platforms: []}]\n", ExitClass::Usage, "platforms is empty")
        .await;
}

#[tokio::test]
async fn what_was_locked_is_collected_again_whatever_came_upstream() {
    let desk = Desk::new();
    let mut layout = desk.layout("image");
    let image = layout.image("amd64");
    layout.list(&image, Some("1"));
    layout.list(&layout.artifact(b"signature", Some(&image)), None);
    let yaml = "images: [{name: a, from: 'oci:image:1'}]\n";
    let first = desk.collect(yaml, None).await.expect("locked");
    layout.list(&layout.artifact(b"later signature", Some(&image)), None);
    let again = desk.collect(yaml, Some(first.lock())).await.expect("built");
    assert_eq!(first.lock().differences(again.lock()), Vec::<String>::new());
    assert_eq!(first.catalog(), again.catalog());
    let anew = desk.collect(yaml, None).await.expect("locked anew");
    let changes = first.lock().changes(anew.lock());
    assert_eq!(changes.len(), 1);
    assert!(changes[0].why.contains("1 more, 0 fewer"), "{}", changes[0]);
}

#[tokio::test]
async fn endless_signatures_are_not_carried() {
    let desk = Desk::new();
    let mut layout = desk.layout("image");
    let image = layout.image("amd64");
    layout.list(&image, Some("1"));
    let mut subject = image;
    for depth in 0..5_u8 {
        subject = layout.artifact(&[depth], Some(&subject));
        layout.list(&subject, None);
    }
    let yaml = "images: [{name: a, from: 'oci:image:1'}]\n";
    desk.refused(yaml, ExitClass::Usage, "at more than 3 removes").await;
    desk.collect(&yaml.replace("1'", "1', referrers: leave"), None).await.expect("without them");
}

#[tokio::test]
async fn any_artifact_is_carried_as_it_is() {
    let desk = Desk::new();
    let mut layout = desk.layout("thing");
    let one = layout.artifact(b"one", None);
    let two = layout.artifact(b"two", None);
    let index = layout.document(oci::INDEX, &json!({ "schemaVersion": 2, "manifests": [one, two] }));
    layout.list(&one, Some("one"));
    layout.list(&index, Some("both"));
    let yaml = "dependencies:\n- {name: one, from: 'oci:thing:one', licences: [MIT OR Apache-2.0]}\n\
                - {name: both, from: 'oci:thing:both'}\n";
    let collected = desk.collect(yaml, None).await.expect("artifacts");
    assert_eq!(item(&collected, "dependencies/one").digest, one.digest);
    assert_eq!(item(&collected, "dependencies/both").digest, index.digest);
    assert_eq!(collected.catalog().dependencies[0].item.licences, ["MIT OR Apache-2.0"]);
}

#[tokio::test]
async fn an_image_that_must_be_signed_is_refused_without_its_signature() {
    let desk = Desk::new();
    let key = SigningKey::generate();
    let write_key = |name: &str, key: &SigningKey| {
        let pem = key.verifying_key().to_public_key_pem(LineEnding::LF).expect("PEM");
        std::fs::write(desk.path(name), pem).expect("a key");
    };
    write_key("right.pub", &key);
    write_key("wrong.pub", &SigningKey::generate());
    let mut layout = desk.layout("image");
    let index = layout.index(&["amd64", "arm64"]);
    layout.list(&index, Some("1"));
    let yaml = |key: &str| format!("images: [{{name: a, from: 'oci:image:1', verify: {{cosignKey: {key}}}}}]\n");
    desk.refused(&yaml("right.pub"), ExitClass::Refused, "none at all").await;

    let payload = json!({ "critical": {
        "identity": { "docker-reference": "r.example/a" }, "image": { "docker-manifest-digest": index.digest },
        "type": "cosign container image signature" }, "optional": null })
    .to_string();
    let signature: DerSignature = key.sign(payload.as_bytes());
    let mut layer = layout.blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature.as_bytes());
    layer.annotations.insert("dev.cosignproject.cosign/signature".to_owned(), text);
    let manifest = json!({ "schemaVersion": 2, "config": layout.blob(oci::CONFIG, b"{}"), "layers": [layer] });
    let manifest = layout.document(oci::MANIFEST, &manifest);
    layout.list(&manifest, Some(&format!("sha256-{}.sig", index.digest.hex())));

    // The signature is of the index, and counts for the platform that is chosen from it.
    let collected = desk.collect(&yaml("right.pub"), None).await.expect("signed");
    let verified = item(&collected, "images/a").verified.clone().expect("verified");
    assert_eq!((verified.subject, verified.signature), (index.digest, manifest.digest));
    assert_eq!(collected.catalog().images[1].verified.as_ref(), Some(&verified));
    desk.refused(&yaml("wrong.pub"), ExitClass::Refused, "no signature by the key").await;
    desk.refused(&yaml("agent"), ExitClass::Usage, "no ECDSA P-256 public key").await;
    // At build too: the pinned signature must still be there, and be one.
    desk.collect(&yaml("right.pub"), Some(collected.lock())).await.expect("built");
    std::fs::write(desk.path("image/blobs/sha256").join(manifest.digest.hex()), b"{}").expect("write");
    assert!(desk.collect(&yaml("right.pub"), Some(collected.lock())).await.is_err());
    desk.refused(
        "dependencies: [{name: a, from: 'file:agent', verify: {cosignKey: right.pub}}]\n",
        ExitClass::Usage,
        "no signature is looked up",
    )
    .await;
}

fn chart_archive(yaml: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(yaml.len() as u64);
    archive.append_data(&mut header, "web/Chart.yaml", yaml.as_bytes()).expect("an entry");
    archive.into_inner().expect("a tar").finish().expect("gzip")
}

#[tokio::test]
async fn a_chart_comes_from_a_file_or_from_upstream() {
    let desk = Desk::new();
    let good = "apiVersion: v2\nname: web\nversion: 1.2.3+x\nappVersion: '9'\n";
    std::fs::write(desk.path("web.tgz"), chart_archive(good)).expect("a chart");
    std::fs::write(desk.path("needy.tgz"), chart_archive(&format!("{good}dependencies: [{{name: db}}]\n")))
        .expect("one");
    let yaml = "charts: [{name: web, from: 'file:web.tgz'}]\n";
    let collected = desk.collect(yaml, None).await.expect("a chart");
    let chart = &collected.catalog().charts[0];
    assert_eq!((chart.chart.as_str(), chart.version.as_str(), chart.tag().as_str()), ("web", "1.2.3+x", "1.2.3_x"));
    assert_eq!(chart.app_version.as_deref(), Some("9"));
    let again = desk.collect(yaml, Some(collected.lock())).await.expect("built");
    assert_eq!(collected.lock(), again.lock());
    desk.refused(&yaml.replace("web.tgz", "needy.tgz"), ExitClass::Usage, "`web` depends on db,").await;
    desk.refused(&yaml.replace("file:web.tgz", "dir:web"), ExitClass::Usage, "helm package").await;

    let mut layout = desk.layout("charts");
    let config = layout.blob(crate::bundle::chart::CONFIG, br#"{"name":"web"}"#);
    let layer = layout.blob(crate::bundle::chart::CONTENT, &chart_archive(good));
    let pushed = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let pushed = layout.document(oci::MANIFEST, &pushed);
    layout.list(&pushed, Some("1.2.3_x"));
    layout.list(&layout.image("amd64"), Some("image"));
    let yaml = "charts: [{name: web, from: 'oci:charts:1.2.3_x'}]\n";
    let collected = desk.collect(yaml, None).await.expect("a chart");
    assert_eq!(item(&collected, "charts/web").digest, pushed.digest);
    let again = desk.collect(yaml, Some(collected.lock())).await.expect("built");
    assert_eq!((collected.lock(), collected.catalog()), (again.lock(), again.catalog()));
    desk.refused(&yaml.replace("1.2.3_x", "image"), ExitClass::Usage, "it is no chart").await;
}

#[tokio::test]
async fn a_database_says_when_it_was_built() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.path("db/db")).expect("a folder");
    std::fs::write(desk.path("db/db/trivy.db"), b"bolt").expect("a database");
    let yaml = "dependencies: [{name: db, from: 'dir:db', maxAge: 7d, onOld: warn}]\n";
    desk.refused(yaml, ExitClass::Usage, "does not say when it was built").await;
    std::fs::write(desk.path("db/db/metadata.json"), br#"{"UpdatedAt":"2026-01-02T03:04:05Z"}"#).expect("metadata");
    let collected = desk.collect(yaml, None).await.expect("dated");
    let built = Some("2026-01-02T03:04:05Z".parse().expect("a time"));
    assert_eq!(collected.catalog().dependencies[0].built, built);
    assert!(!collected.catalog().dependencies[0].on_old.is_refuse());
    let again = desk.collect(yaml, Some(collected.lock())).await.expect("built");
    assert_eq!((collected.lock(), collected.catalog()), (again.lock(), again.catalog()));
    let wrong = yaml.replace("maxAge", "built: 2026-02-01T00:00:00Z, maxAge");
    desk.refused(&wrong, ExitClass::Usage, "the definition says 2026-02-01").await;
    desk.refused(&yaml.replace("maxAge: 7d, ", ""), ExitClass::Usage, "onOld and no maxAge").await;

    // What was locked without a date can't be given an age later, be it pinned or not.
    let dateless = "dependencies: [{name: list, from: 'file:agent'}]\n";
    let collected = desk.collect(dateless, None).await.expect("it needs no date");
    let aged = dateless.replace("'}", "', maxAge: 7d}");
    for lock in [None, Some(collected.lock())] {
        let error = desk.collect(&aged, lock).await.err().expect("nobody could tell its age");
        assert!(error.to_string().contains("nothing says when it was built"), "{error}");
    }

    std::fs::create_dir_all(desk.path("inspec")).expect("a folder");
    std::fs::write(desk.path("inspec/inspec.yml"), "name: p\ndepends: [{name: far}]\n").expect("a profile");
    desk.refused("dependencies: [{name: p, from: 'dir:inspec'}]\n", ExitClass::Usage, "depends on `far`").await;
}
