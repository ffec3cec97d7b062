//! The way of a bundle from keys to verification, by the command line, and what programs of others say about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A working folder with a definition, its content and a root.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder") };
        let made = desk.gapscan(&[
            "trust",
            "init",
            "trust",
            "--unencrypted",
            "--threshold",
            "targets=2",
            "--expires",
            "root=36500d,targets=36500d,snapshot=36500d,timestamp=36500d",
        ]);
        assert_success(&made);
        // The smallest thing that counts as a static program: an ELF header with one segment to load.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[18], elf[32], elf[54], elf[56], elf[64]) = (0x3e, 64, 56, 1, 1);
        desk.write("agent", &elf);
        desk.write("db/6/vulnerability.db", b"a database");
        desk.layout("image", b"a layer of the scanner");
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for scanner in ["grype", "openscap"] {
            let from = repository.join(format!("bundle/scanners/{scanner}.yaml"));
            desk.write(&format!("{scanner}.yaml"), &fs::read(from).expect("a definition"));
        }
        let profile =
            fs::read(repository.join("profiles-mirror/known-vulnerabilities/profile.yaml")).expect("a profile");
        desk.write("known-vulnerabilities/profile.yaml", &profile);
        desk.define(1, "");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    /// An OCI image layout with one image of one layer.
    fn layout(&self, name: &str, layer: &[u8]) {
        self.layout_of(name, "amd64", layer, layer.len() as u64);
    }

    /// The same for a platform, with a layer that is said to have this size. Gives the image's descriptor.
    fn layout_of(&self, name: &str, architecture: &str, layer: &[u8], size: u64) -> Value {
        let blob = |bytes: &[u8]| {
            let digest = gapscan::base::digest::Digest::of(bytes);
            self.write(&format!("{name}/blobs/sha256/{}", digest.hex()), bytes);
            digest
        };
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [gapscan::base::digest::Digest::of(layer)] },
        })
        .to_string();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob(config.as_bytes()), "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob(layer), "size": size }],
        })
        .to_string();
        let descriptor = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": blob(manifest.as_bytes()), "size": manifest.len(),
        });
        let mut named = descriptor.clone();
        named["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "1" });
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [named] });
        self.write(&format!("{name}/index.json"), index.to_string().as_bytes());
        descriptor
    }

    fn define(&self, version: u64, more: &str) {
        let yaml = format!(
            "apiVersion: gapscan/v1\nkind: Bundle\nname: content\nversion: {version}\nvalidFor: 36500d\n\
             classification: UNCLASSIFIED\nimages:\n- {{name: grype, from: 'oci:image:1'}}\n- {{name: openscap, from: 'oci:image'}}\n\
             scanners: [grype.yaml, openscap.yaml]\nprofiles:\n- path: known-vulnerabilities\n\
             dependencies:\n- {{name: grype-db, from: 'dir:db', built: 2026-01-01T00:00:00Z, maxAge: 7d}}\n{more}"
        );
        self.write("bundle.yaml", yaml.as_bytes());
    }

    fn gapscan(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapscan"));
        command.current_dir(self.folder.path()).args(args).env_remove("GAPSCAN_PASSPHRASE");
        command.env("SOURCE_DATE_EPOCH", "1767225600").output().expect("gapscan runs")
    }

    fn lock(&self) -> Output {
        self.gapscan(&["bundle", "lock", "--agent", "agent"])
    }

    fn build(&self, output: &str) -> Output {
        self.gapscan(&["bundle", "build", "--agent", "agent", "--keys", "trust", "-o", output])
    }

    fn verify(&self, file: &str) -> Output {
        self.gapscan(&["bundle", "verify", file, "--root", "trust/root.json", "--state", "state"])
    }

    fn built(version: u64) -> Self {
        let desk = Self::new();
        desk.define(version, "");
        assert_success(&desk.lock());
        assert_success(&desk.build("out.tar"));
        desk
    }

    fn extracted(&self) -> PathBuf {
        let folder = self.path("extracted");
        let archive = fs::File::open(self.path("out.tar")).expect("the bundle");
        tar::Archive::new(archive).unpack(&folder).expect("any reader of tar can unpack it");
        folder
    }
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn refused(output: &Output, code: i32, words: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    assert!(output.stdout.is_empty(), "nothing is claimed: {output:?}");
}

#[test]
fn a_bundle_is_locked_built_twice_the_same_verified_and_listed() {
    let desk = Desk::built(1);
    assert_success(&desk.build("again.tar"));
    let bundle = fs::read(desk.path("out.tar")).expect("the bundle");
    assert_eq!(bundle, fs::read(desk.path("again.tar")).expect("the same bundle"));
    assert!(!desk.path("out.tar.part").exists());
    assert_success(&desk.verify("out.tar"));
    assert_success(&desk.verify("out.tar"));

    let listed = desk.gapscan(&["bundle", "inspect", "out.tar", "--root", "trust/root.json", "-o", "json"]);
    assert_success(&listed);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["verified"], true);
    assert_eq!(listed["created"], "2026-01-01T00:00:00Z");
    assert_eq!(listed["catalog"]["classification"], "UNCLASSIFIED");
    // Five of its own, and those that ask whether the scanner could read everything, and kept to itself.
    assert_eq!(listed["catalog"]["profiles"][0]["controls"], 7);
    assert_eq!(listed["catalog"]["dependencies"][0]["maxAge"], "1w");
    let names: Vec<&str> =
        listed["catalog"]["images"].as_array().expect("images").iter().filter_map(|i| i["name"].as_str()).collect();
    assert_eq!(names, ["gapscan", "grype", "openscap"]);

    let shown = desk.gapscan(&["trust", "show", "trust", "-o", "json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["fingerprint"], listed["bundle"]["root"]);
    assert_eq!(shown["roles"]["targets"]["threshold"], 2);
}

#[test]
fn a_bundle_comes_through_a_pipe() {
    let desk = Desk::built(1);
    let output = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .current_dir(desk.folder.path())
        .args(["bundle", "inspect", "-", "--root", "trust/root.json"])
        .stdin(fs::File::open(desk.path("out.tar")).expect("the bundle"))
        .output()
        .expect("gapscan runs");
    assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("verified content version 1"), "{output:?}");
}

#[test]
fn a_listing_shows_all_that_somebody_approves() {
    let desk = Desk::built(1);
    let listed = desk.gapscan(&["bundle", "inspect", "out.tar", "--root", "trust/root.json"]);
    assert_success(&listed);
    let text = String::from_utf8_lossy(&listed.stdout);
    for words in [
        "marked    UNCLASSIFIED",
        "signed by",
        "images/grype",
        "SCANNER",
        "known-vulnerabilities",
        "2026-01-01 00:00Z",
        "1w  refuse",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}

#[test]
fn two_bundles_are_compared_in_words() {
    let desk = Desk::built(1);
    let compare = |after: &str, more: &[&str]| {
        let args = [&["bundle", "diff", "out.tar", after, "--root", "trust/root.json"][..], more].concat();
        desk.gapscan(&args)
    };
    // Another version with the same content needs no approval.
    desk.define(2, "");
    assert_success(&desk.lock());
    assert_success(&desk.build("same.tar"));
    let same = compare("same.tar", &[]);
    assert_success(&same);
    assert!(String::from_utf8_lossy(&same.stdout).contains("Nothing but version and times"), "{same:?}");

    desk.layout("image", b"another layer");
    let yaml = fs::read_to_string(desk.path("bundle.yaml")).expect("the definition");
    let yaml = yaml.replace("version: 2", "version: 3").replace("UNCLASSIFIED", "RESTRICTED");
    let yaml =
        yaml.replace("built: 2026-01-01T00:00:00Z, maxAge: 7d", "built: 2026-01-11T00:00:00Z, maxAge: 9d, onOld: warn");
    desk.write("bundle.yaml", yaml.as_bytes());
    let scanner = fs::read_to_string(desk.path("grype.yaml")).expect("a scanner");
    desk.write("grype.yaml", scanner.replace("deadline: 15m", "deadline: 20m").as_bytes());
    let profile = fs::read_to_string(desk.path("known-vulnerabilities/profile.yaml")).expect("a profile");
    let (first, second) = profile.match_indices("  - id: ").map(|(at, _)| at).take(2).collect::<Vec<_>>()[..]
        .try_into()
        .map(|[first, second]: [usize; 2]| (first, second))
        .expect("two controls");
    let gone = profile[first..second].lines().next().expect("an id").replace("  - id: ", "");
    desk.write("known-vulnerabilities/profile.yaml", [&profile[..first], &profile[second..]].concat().as_bytes());
    let locked = desk.lock();
    assert_success(&locked);
    let moved = String::from_utf8_lossy(&locked.stdout).into_owned();
    assert!(moved.contains("images/grype: sha256:") && moved.contains("upstream has another one"), "{moved}");
    assert!(moved.contains("grype.yaml") && moved.contains("profiles/known-vulnerabilities"), "{moved}");
    assert_success(&desk.build("other.tar"));

    let other = compare("other.tar", &[]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    // Lines are broken where they are long.
    let text = String::from_utf8_lossy(&other.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "classification was UNCLASSIFIED and is RESTRICTED",
        "dependencies/grype-db was built 2026-01-01T00:00:00Z and is of 2026-01-11T00:00:00Z: 10 days newer",
        "the greatest age of dependencies/grype-db was 1w and is 9d",
        "what happens when dependencies/grype-db is too old was refuse and is warn",
        "deadline of scanner grype was 15m and is 20m",
        &format!("profiles/known-vulnerabilities no longer asks for {gone}"),
        "images/grype was sha256:",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json = compare("other.tar", &["-o", "json"]);
    assert_eq!(json.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["same"], &json["after"]["version"]), (&Value::from(false), &Value::from(3)));
    let changes = json["changes"].as_array().expect("changes");
    assert!(changes.iter().any(|c| c["section"] == "profiles" && c["removed"][0] == gone.as_str()), "{changes:?}");
    refused(&compare("bundle.yaml", &[]), 4, "bundle.yaml");
}

/// A bundle in parts on two media, and the same in one file.
struct Carried {
    desk: Desk,
    /// The parts, in order.
    parts: Vec<String>,
    whole: Vec<u8>,
}

impl Carried {
    fn new() -> Self {
        let desk = Desk::new();
        desk.write("db/6/vulnerability.db", &[b'd'; 30_000]);
        assert_success(&desk.lock());
        assert_success(&desk.build("out.tar"));
        let whole = fs::read(desk.path("out.tar")).expect("the bundle");
        fs::create_dir_all(desk.path("a")).expect("a folder");
        fs::create_dir_all(desk.path("b")).expect("a folder");
        let built = desk.gapscan(&[
            "bundle",
            "build",
            "--agent",
            "agent",
            "--keys",
            "trust",
            "-o",
            "a/out.tar",
            "--split",
            "4096",
        ]);
        assert_success(&built);
        let count = whole.len().div_ceil(4096);
        let parts = (1..=count).map(|number| {
            let (from, medium) = (format!("a/out.tar.{number:03}"), if number % 2 == 0 { "b" } else { "a" });
            let to = format!("{medium}/out.tar.{number:03}");
            fs::rename(desk.path(&from), desk.path(&to)).expect("moved");
            to
        });
        let parts = parts.collect();
        fs::copy(desk.path("a/out.tar.sha256"), desk.path("b/out.tar.sha256")).expect("a copy");
        Self { desk, parts, whole }
    }

    fn run(&self, command: &[&str], files: &[&str]) -> Output {
        let [name, more @ ..] = command else { panic!("a command") };
        self.desk.gapscan(&[&["bundle", name], files, &["--root", "trust/root.json"], more].concat())
    }

    /// Turns a bit at this place of the archive.
    fn damage(&self, at: usize) -> usize {
        let path = self.desk.path(&self.parts[at / 4096]);
        let mut bytes = fs::read(&path).expect("a part");
        bytes[at % 4096] ^= 1;
        fs::write(&path, bytes).expect("written");
        at / 4096 + 1
    }
}

const READING: [&[&str]; 4] =
    [&["verify"], &["inspect"], &["inspect", "-o", "json"], &["mapping", "--registry", "registry.example/a"]];

#[test]
fn parts_are_read_like_the_bundle_that_they_are_of() {
    let carried = Carried::new();
    let backwards: Vec<&str> = carried.parts.iter().rev().map(String::as_str).collect();
    for command in READING {
        let whole = carried.run(command, &["out.tar"]);
        assert_success(&whole);
        for files in [&["a", "b"][..], &backwards, &["b/out.tar.002", "a"]] {
            let parts = carried.run(command, files);
            assert_success(&parts);
            assert_eq!(parts.stdout, whole.stdout, "{command:?} {files:?}");
        }
        refused(&carried.run(command, &["out.tar", "a", "b"]), 2, "this command takes one");
        refused(&carried.run(command, &["trust"]), 2, "NAME.001");
    }
    for part in &carried.parts {
        fs::rename(carried.desk.path(part), carried.desk.path(&part.replace("b/", "a/"))).expect("moved");
    }
    for (before, after) in [("out.tar", "a"), ("a", "out.tar"), ("a", "a/out.tar.003")] {
        let same = carried.run(&["diff"], &[before, after]);
        assert_success(&same);
        assert!(String::from_utf8_lossy(&same.stdout).contains("Nothing but version and times"), "{same:?}");
    }
}

#[test]
fn parts_that_are_missing_cut_or_damaged_are_named_by_their_numbers() {
    let carried = Carried::new();
    let (desk, count) = (&carried.desk, carried.parts.len());
    assert!(count > 9, "{count}");
    let all = [READING.as_slice(), &[&["diff"]]].concat();
    let refuse = |code: i32, words: &[&str]| {
        for command in &all {
            // Both of its bundles are the same one, so that one message is enough.
            let files: &[&str] = if *command == ["diff"] { &["out.tar", "both"] } else { &["a", "b"] };
            if *command == ["diff"] {
                let _ = fs::remove_dir_all(desk.path("both"));
                fs::create_dir(desk.path("both")).expect("a folder");
                for file in ["a", "b"].iter().flat_map(|medium| fs::read_dir(desk.path(medium)).expect("a medium")) {
                    let file = file.expect("a file");
                    fs::copy(file.path(), desk.path("both").join(file.file_name())).expect("a copy");
                }
            }
            let output = carried.run(command, files);
            for word in words {
                refused(&output, code, word);
            }
        }
    };
    let take = |number: usize| {
        let path = desk.path(&carried.parts[number - 1]);
        let bytes = fs::read(&path).expect("a part");
        fs::remove_file(&path).expect("removed");
        move || fs::write(&path, &bytes).expect("put in")
    };
    let (some, others) = (take(count - 3), take(count));
    let text = format!("missing: part {}, {count} of {count}", count - 3);
    refuse(5, &[&text, &format!("bring part {}, {count} again and repeat this", count - 3)]);
    some();
    others();
    // Without the first one nothing can begin.
    let first = take(1);
    refuse(5, &["missing: part 1", "bring part 1 again"]);
    first();

    for number in [1, 3] {
        let path = desk.path(&carried.parts[number - 1]);
        let bytes = fs::read(&path).expect("a part");
        fs::write(&path, &bytes[..3584]).expect("cut");
        refuse(
            4,
            &[&format!("part {number}"), "has 3584 bytes instead of 4096", &format!("bring part {number} again")],
        );
        fs::write(&path, &bytes).expect("mended");
    }

    // In a document, in the middle of a large blob, and in another one: each by its number, going by the sums beside them.
    let index = carried.whole.windows(10).position(|bytes| bytes == b"index.json").expect("the index") + 512;
    let number = carried.damage(index);
    refuse(4, &[&format!("damaged: part {number}"), "as the sums beside it say too"]);
    carried.damage(index);
    let layer = carried.whole.windows(9000).position(|bytes| bytes == [b'd'; 9000]).expect("the layer") + 12_000;
    let end = carried.whole.len() - 1024 - 512;
    let (middle, last) = (carried.damage(layer), carried.damage(end));
    refuse(4, &[&format!("part {} of {count}", middle.min(last)), "was changed or damaged"]);
    let told = carried.run(&["verify"], &["a", "b"]);
    for number in [middle, last] {
        refused(&told, 4, &format!("part {number} of {count}"));
    }
    refused(&told, 4, &format!("bring part {}, {} again", middle.min(last), middle.max(last)));
    assert!(!desk.path("state").exists());
}

#[test]
fn a_changed_cut_or_older_bundle_and_one_of_another_root_are_refused() {
    let desk = Desk::built(2);
    let mut bundle = fs::read(desk.path("out.tar")).expect("the bundle");
    desk.write("cut.tar", &bundle[..bundle.len() - 1024]);
    refused(&desk.verify("cut.tar"), 4, "truncated");
    desk.write("long.tar", &[&bundle[..], b"x"].concat());
    refused(&desk.verify("long.tar"), 4, "appended");
    // The first byte of the last blob, which is smaller than a block.
    let last = bundle.len() - 1024 - 512;
    bundle[last] ^= 1;
    desk.write("changed.tar", &bundle);
    refused(&desk.verify("changed.tar"), 4, "changed or damaged");
    assert!(!desk.path("state").exists(), "nothing was remembered of them");
    refused(&desk.verify("absent.tar"), 5, "absent.tar");

    assert_success(&desk.verify("out.tar"));
    desk.define(1, "");
    assert_success(&desk.lock());
    assert_success(&desk.build("older.tar"));
    refused(&desk.verify("older.tar"), 4, "version 2 was accepted before");

    let other = Desk::new();
    let root = other.path("trust/root.json");
    let root = root.to_str().expect("a path");
    refused(&desk.gapscan(&["bundle", "verify", "out.tar", "--root", root]), 4, "chain of roots");
}

#[test]
fn what_is_not_what_was_locked_is_not_built() {
    let desk = Desk::new();
    refused(&desk.build("out.tar"), 2, "bundle lock");
    assert_success(&desk.lock());

    desk.write("db/6/vulnerability.db", b"b database");
    refused(&desk.build("out.tar"), 4, "is locked");
    desk.write("db/6/vulnerability.db", &[1; 2000]);
    refused(&desk.build("out.tar"), 4, "bytes that its manifest says");
    desk.write("db/6/vulnerability.db", b"a database");
    desk.layout("image", b"another layer");
    refused(&desk.build("out.tar"), 2, "images/grype: sha256:");
    desk.layout("image", b"a layer of the scanner");
    desk.define(1, "# a comment\n");
    refused(&desk.build("out.tar"), 2, "changed after it was locked");
    desk.define(1, "");
    fs::remove_file(desk.path("trust/keys/targets-1.pem")).expect("a key");
    fs::remove_file(desk.path("trust/keys/targets-2.pem")).expect("a key");
    refused(&desk.build("out.tar"), 2, "asks for 2 signature(s) and 0 of its keys");

    let left: Vec<String> = fs::read_dir(desk.folder.path())
        .expect("the folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("out.tar"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "a failed build leaves nothing that looks like a bundle");
}

#[test]
fn the_wanted_platforms_are_chosen_and_the_index_is_noted() {
    let desk = Desk::new();
    let mut manifests = Vec::new();
    for architecture in ["arm64", "amd64", "s390x"] {
        let layer = format!("for {architecture}");
        let mut one = desk.layout_of("image", architecture, layer.as_bytes(), layer.len() as u64);
        one["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
        manifests.push(one);
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    desk.write("image/index.json", index.as_bytes());
    let define = |platforms: &str| {
        let yaml =
            fs::read_to_string(desk.path("bundle.yaml")).expect("the definition").replace("oci:image:1", "oci:image");
        let yaml: String = yaml.lines().filter(|l| !l.starts_with("platforms:")).map(|l| format!("{l}\n")).collect();
        desk.write("bundle.yaml", format!("{yaml}platforms: [{platforms}]\n").as_bytes());
    };
    let locked = || fs::read_to_string(desk.path("bundle.lock")).expect("the lock");

    define("linux/amd64");
    assert_success(&desk.lock());
    assert!(locked().contains(manifests[1]["digest"].as_str().expect("a digest")), "{}", locked());
    assert!(locked().contains("index: sha256:"), "{}", locked());
    assert!(!locked().contains(manifests[0]["digest"].as_str().expect("a digest")), "{}", locked());

    define("linux/amd64, linux/arm64");
    assert_success(&desk.lock());
    assert_success(&desk.build("out.tar"));
    assert_success(&desk.verify("out.tar"));
    let bundle = fs::read(desk.path("out.tar")).expect("the bundle");
    let has = |text: &str| bundle.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(has("for amd64") && has("for arm64") && !has("for s390x"));

    define("linux/arm64");
    refused(&desk.lock(), 2, "it is built for amd64");
}

#[test]
fn a_layer_that_has_no_place_in_an_archive_is_refused_when_it_is_locked() {
    let desk = Desk::new();
    desk.layout_of("image", "amd64", b"huge", 9 << 30);
    refused(&desk.lock(), 2, "an archive entry ends at 8 GiB");
    assert!(!desk.path("bundle.lock").exists());
}

#[test]
fn keys_are_encrypted_unless_told_and_never_overwritten() {
    let desk = Desk::new();
    desk.write("passphrase", b"open sesame\n");
    let init = ["trust", "init", "other", "--passphrase-file", "passphrase"];
    assert_success(&desk.gapscan(&init));
    let key = fs::read_to_string(desk.path("other/keys/targets-1.pem")).expect("a key");
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    refused(&desk.gapscan(&init), 2, "is there already");
    // Without a terminal there is nobody to ask.
    refused(&desk.gapscan(&["trust", "init", "third"]), 2, "passphrase");

    assert_success(&desk.lock());
    let build = |file| {
        desk.gapscan(&[
            "bundle",
            "build",
            "--agent",
            "agent",
            "--keys",
            "other",
            "-o",
            "o.tar",
            "--passphrase-file",
            file,
        ])
    };
    assert_success(&build("passphrase"));
    desk.write("wrong", b"sesame\n");
    refused(&build("wrong"), 2, "does not open it");
}

#[test]
fn a_new_definition_can_be_locked_as_it_is() {
    let desk = Desk::new();
    assert_success(&desk.gapscan(&["bundle", "new", "fresh"]));
    refused(&desk.gapscan(&["bundle", "new", "fresh"]), 2, "fresh/bundle.yaml");
    assert_success(&desk.gapscan(&["bundle", "lock", "-f", "fresh/bundle.yaml", "--agent", "agent"]));
}

#[test]
fn python_tuf_verifies_the_metadata_and_every_file() {
    let available = Command::new("python3").args(["-c", "import tuf.ngclient"]).output();
    if !available.is_ok_and(|o| o.status.success()) {
        println!("skipped: needs python3 with the module tuf");
        return;
    }
    let desk = Desk::built(1);
    let extracted = desk.extracted();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_tuf.py");
    let check = || {
        Command::new("python3").arg(&script).arg(&extracted).arg(desk.path("trust/root.json")).output().expect("python")
    };
    let output = check();
    assert_success(&output);
    let blobs = fs::read_dir(extracted.join("blobs/sha256")).expect("blobs").count();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (blobs + 2).to_string());
    fs::write(extracted.join("index.json"), b"{}").expect("write");
    assert!(!check().status.success(), "it would see a change");
}

#[test]
fn skopeo_reads_the_layout() {
    if !Command::new("skopeo").arg("--version").output().is_ok_and(|o| o.status.success()) {
        println!("skipped: needs skopeo");
        return;
    }
    let desk = Desk::built(1);
    let extracted = desk.extracted();
    for item in ["images/gapscan", "images/grype", "profiles/known-vulnerabilities", "dependencies/grype-db"] {
        let reference = format!("oci:{}:{item}", extracted.display());
        let output = Command::new("skopeo").args(["inspect", &reference]).output().expect("skopeo");
        assert_success(&output);
    }
    let target = desk.path("copy");
    let copied = Command::new("skopeo")
        .args([
            "copy",
            &format!("oci:{}:profiles/known-vulnerabilities", extracted.display()),
            &format!("oci:{}:x", target.display()),
        ])
        .output()
        .expect("skopeo");
    assert_success(&copied);
}
