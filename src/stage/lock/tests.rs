use serde_json::json;

use super::*;
use crate::base::digest::Digest;
use crate::base::exit::Classify;
use crate::bundle::oci::{self, Descriptor};
use crate::registry::serve::RunningServer;
use crate::registry::testing::{client, embedded, plain};
use crate::registry::{Blob, Client, ManifestName};

/// A registry with two images, and a definition that asks for them by tag.
struct Scene {
    folder: tempfile::TempDir,
    client: Client,
    _server: RunningServer,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = embedded(&folder.path().join("registry")).await;
        std::fs::write(folder.path().join("agent"), crate::bundle::agent::sample(1)).expect("an agent");
        let scene = Self { client: client(plain(server.address())), _server: server, folder };
        for name in ["one", "two"] {
            scene.push(name, name).await;
        }
        let host = scene.client.registry();
        let yaml = format!(
            "apiVersion: gapscan/v1\nkind: Bundle\nname: b\nversion: 1\nregistries:\n  {host}: {{plainHttp: true}}\n\
             images:\n- {{name: one, from: '{host}/one:1'}}\n- {{name: two, from: '{host}/two:1'}}\n"
        );
        std::fs::write(scene.folder.path().join("bundle.yaml"), yaml).expect("a definition");
        scene
    }

    /// Puts an image with this content under the tag `1` and something about it beside.
    async fn push(&self, name: &str, content: &str) -> Digest {
        let repository = name.parse().expect("a repository");
        let config = json!({ "architecture": "amd64", "os": "linux" }).to_string();
        let layer = Descriptor::of(oci::LAYER_TAR, content.as_bytes());
        for bytes in [config.as_bytes(), content.as_bytes()] {
            let blob = Blob { repository: &repository, digest: &Digest::of(bytes), size: bytes.len() as u64 };
            self.client.push_stream(blob, bytes, None, None).await.expect("a blob");
        }
        let config = Descriptor::of(oci::CONFIG, config.as_bytes());
        let image = json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string();
        let tag = ManifestName::Tag("1".parse().expect("a tag"));
        let digest =
            self.client.push_manifest(&repository, &tag, oci::MANIFEST, image.as_bytes()).await.expect("an image");
        let subject = Descriptor::of(oci::MANIFEST, image.as_bytes());
        let about = json!({ "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [layer],
            "subject": subject })
        .to_string();
        let name = ManifestName::Digest(Digest::of(&about));
        self.client.push_manifest(&repository, &name, oci::MANIFEST, about.as_bytes()).await.expect("a referrer");
        digest
    }

    async fn lock(&self, update: Update) -> Result<Locked, BuildError> {
        let request = LockRequest {
            definition: self.folder.path().join("bundle.yaml"),
            update,
            created: "2026-01-01T00:00:00Z".parse().expect("a time"),
            agent: self.folder.path().join("agent"),
            limits: Limits::default(),
        };
        lock(&request, &Progress::quiet()).await
    }

    fn only(names: &[&str]) -> Update {
        Update::Only(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(LOCK_FILE)
    }
}

#[tokio::test]
async fn an_update_moves_what_is_named_and_says_so() {
    let scene = Scene::new().await;
    let error = scene.lock(Scene::only(&["one"])).await.expect_err("there is no lock");
    assert!(error.to_string().contains("run `gapscan bundle lock` first"), "{error}");
    let first = scene.lock(Update::All).await.expect("locked");
    assert!(first.changes.is_empty());
    assert_eq!(first.lock.item("images/one").expect("one").companions.len(), 1, "the registry lists what is about it");
    let (one, two) = (scene.push("one", "newer one").await, scene.push("two", "newer two").await);

    let moved = scene.lock(Scene::only(&["two"])).await.expect("updated");
    let shown: Vec<String> = moved.changes.iter().map(Change::to_string).collect();
    let was = first.lock.item("images/two").expect("two").digest;
    assert_eq!(shown, [format!("images/two: {was} -> {two}, upstream has another one under that name")]);
    assert_eq!(moved.lock.item("images/one"), first.lock.item("images/one"), "it keeps its pin");
    assert_eq!(moved.lock.item("images/two").expect("two").digest, two);

    let error = scene.lock(Scene::only(&["three", "two"])).await.expect_err("no such item").to_string();
    assert!(error.contains("`three`") && error.contains("images/one"), "{error}");
    let all = scene.lock(Update::All).await.expect("updated");
    assert_eq!(all.lock.item("images/one").expect("one").digest, one);
    assert_eq!(all.changes.len(), 1);
}

#[tokio::test]
async fn what_is_not_named_and_can_not_stay_is_not_moved_in_silence() {
    let scene = Scene::new().await;
    let before = scene.lock(Update::All).await.expect("locked");
    let mut agent = crate::bundle::agent::sample(1);
    agent.push(0);
    std::fs::write(scene.folder.path().join("agent"), agent).expect("another program");
    let error = scene.lock(Scene::only(&["one"])).await.expect_err("it would move").to_string();
    assert!(error.contains("images/gapscan") && error.contains("its files were changed"), "{error}");
    let unchanged = BundleLock::read(&scene.file(), &Limits::default()).expect("the lock");
    assert_eq!(unchanged, before.lock, "nothing was written");
    scene.lock(Scene::only(&["one", "gapscan"])).await.expect("named");
    // What the definition asks for otherwise moves: the lock has no answer to that.
    let path = scene.folder.path().join("bundle.yaml");
    let text = std::fs::read_to_string(&path).expect("the definition");
    std::fs::write(&path, text.replace("/two:1'", "/one:1', referrers: leave")).expect("write");
    let changed = scene.lock(Scene::only(&["one"])).await.expect("asked otherwise");
    assert_eq!(changed.changes.len(), 1);
    assert!(changed.changes[0].why.contains("the definition asks"), "{}", changed.changes[0]);
}

#[tokio::test]
async fn a_pin_that_is_gone_upstream_is_explained() {
    let scene = Scene::new().await;
    scene.lock(Update::All).await.expect("locked");
    let now = scene.push("one", "newer one").await;
    let lock = BundleLock::read(&scene.file(), &Limits::default()).expect("the lock");
    let definition =
        Definition::read(&scene.folder.path().join("bundle.yaml"), &Limits::default()).expect("a definition");
    let gather = async |lock: &BundleLock| {
        let (agent, limits) = (scene.folder.path().join("agent"), Limits::default());
        gather(&definition, lock.created, Some(lock), &agent, &limits, &Progress::quiet()).await
    };
    // A tag that moved is no reason not to build what is locked.
    let collected = gather(&lock).await.expect("what is locked");
    assert_eq!(lock.differences(collected.lock()), Vec::<String>::new());

    let mut gone = lock;
    gone.items[1].digest = Digest::of("deleted by then");
    let error = gather(&gone).await.err().expect("it is gone");
    assert_eq!(error.class(), ExitClass::Refused);
    let message = error.to_string();
    assert!(message.contains(&format!("its tag `1` points to {now} now")), "{message}");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("--update")));
}

#[test]
fn the_example_profiles_of_scanners_are_listed() {
    use crate::bundle::profile::ProfileFolder;
    for (name, controls) in [
        ("example-inspec", &["accounts-one-root", "files-passwd", "files-motd"][..]),
        ("example-kube-bench", &["1.1.1", "1.10"]),
        ("example-falco", &["Shell_in_a_container", "Account_added_in_a_container"]),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles-mirror").join(name);
        let folder = ProfileFolder::read(&path, &Limits::default()).expect(name);
        let profile = folder.resolve(None, &Profiles).expect(name);
        let ids: Vec<&str> = profile.controls.iter().map(|control| control.id.as_str()).collect();
        let own = [crate::model::scanner::COMPLETE_CONTROL, crate::model::scanner::SILENT_CONTROL];
        assert_eq!(ids, [controls, &own].concat(), "{name}");
    }
}

#[test]
fn a_profile_of_a_scanner_whose_content_does_not_fit_is_refused_with_all_that_is_wrong() {
    use crate::bundle::profile::ProfileFolder;
    let folder = tempfile::tempdir().expect("a folder");
    let profile = folder.path().join("p");
    std::fs::create_dir_all(profile.join("controls")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(profile.join(name), text).expect("a file");
    let head =
        "apiVersion: gapscan/v1\nkind: Profile\nname: p\nversion: '1'\ntitle: t\nengine: cinc\ntargets: [container]\n";
    write("profile.yaml", &format!("{head}inspec: {{json: profile.json}}\n"));
    write("inspec.yml", "name: p\nversion: 1.0.0\n");
    write("controls/a.rb", "control 'a' do\nend\ncontrol 'b' do\nend\n");
    write("profile.json", "{\"name\": \"p\", \"version\": \"1.0.0\", \"controls\": [{\"id\": \"c\"}]}");
    let read = || ProfileFolder::read(&profile, &Limits::default());
    let error = read().expect("a profile").resolve(None, &Profiles).expect_err("it does not fit");
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let chain = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    for words in ["control `a`", "control `b`", "it has control `c`"] {
        assert!(chain.contains(words), "{words}: {chain}");
    }
    assert_eq!(error.class(), ExitClass::Usage);
    for (more, words) in [
        ("inspec: {json: a}\nfalco: {rules: [b]}\n", "exactly one of"),
        ("", "exactly one of"),
        ("inspec: {json: a}\nrules: [b]\n", "exactly one of"),
        ("falco: {rules: [b], disabled: [c]}\n", "disabled"),
    ] {
        write("profile.yaml", &format!("{head}{more}"));
        let error = read().expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    write("profile.yaml", &format!("{head}falco: {{rules: [b]}}\n").replace("engine: cinc", "engine: builtin"));
    assert!(read().expect_err("no rules").to_string().contains("engine: it must be a scanner"));
}
