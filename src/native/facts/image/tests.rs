use std::io::Write as _;
use std::sync::Arc;

use super::super::SystemFacts;
use super::super::parts::inconsistent;
use super::*;
use crate::base::limits::Limits;

/// A layer as a builder writes it.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn new() -> Self {
        Self::default()
    }

    fn raw(mut self, name: &str, kind: tar::EntryType, mode: u32, owner: (u64, u64), link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, mode: u32, data: &str) -> Self {
        self.raw(name, tar::EntryType::Regular, mode, (0, 0), "", data.as_bytes())
    }

    fn owned(self, name: &str, owner: (u64, u64)) -> Self {
        self.raw(name, tar::EntryType::Regular, 0o644, owner, "", b"")
    }

    fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(name, tar::EntryType::Directory, mode, (0, 0), "", b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(name, tar::EntryType::Symlink, 0o777, (0, 0), target, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut body = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body += &format!("{length} {key}={value}\n");
        }
        self.raw("pax", tar::EntryType::XHeader, 0o644, (0, 0), "", body.as_bytes())
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = self.0.clone();
        tar.extend([0; 1024]);
        tar
    }

    fn read(&self) -> Result<LayerFacts, ImageError> {
        read(&self.tar())
    }
}

fn read(tar: &[u8]) -> Result<LayerFacts, ImageError> {
    read_layer(tar, &Digest::of(tar), &Limits::default())
}

fn image(layers: &[Layer]) -> SystemFacts {
    let layers: Vec<Arc<LayerFacts>> = layers.iter().map(|l| Arc::new(l.read().expect("layer"))).collect();
    // Through JSON, as a cache would keep them.
    let layers: Vec<Arc<LayerFacts>> = layers
        .iter()
        .map(|l| Arc::new(serde_json::from_str(&serde_json::to_string(&**l).expect("json")).expect("own json")))
        .collect();
    let facts = merge(&layers, &config(&layers), &Limits::default()).expect("image");
    assert_eq!(inconsistent(&facts), Vec::<String>::new());
    facts
}

fn config(layers: &[Arc<LayerFacts>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    serde_json::json!({"rootfs": {"type": "layers", "diff_ids": ids}, "config": {}}).to_string().into_bytes()
}

fn special(facts: &SystemFacts) -> Vec<&str> {
    facts.special_files.as_ref().expect("special files").iter().map(|f| f.path.as_str()).collect()
}

fn base() -> Layer {
    Layer::new()
        .dir("./", 0o755)
        .dir("etc/", 0o755)
        .link("etc/nginx/sites-enabled/default", "/etc/nginx/sites-available/default")
        .file("etc/nginx/sites-available/default", 0o644, "listen 80;\n")
        .file("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nme:x:7:7::/:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nme:x:7:\n")
        .file("etc/shadow", 0o640, "root:*:::::::\n")
        .link("etc/os-release", "../usr/lib/os-release")
        .file("usr/lib/os-release", 0o644, "ID=debian\n")
        .link("bin", "usr/bin")
        .file("usr/bin/su", 0o4755, "x")
        .file("usr/bin/plain", 0o755, "x")
        .raw("usr/bin/su2", tar::EntryType::Link, 0o755, (0, 0), "usr/bin/su", b"")
        .dir("tmp/", 0o1777)
        .file("opt/a/b/open", 0o666, "")
        .owned("srv/mine", (7, 7))
        .owned("srv/nobodys", (9, 7))
        .file("var/lib/dpkg/status", 0o644, "Package: a\nStatus: install ok installed\nVersion: 1\n\n")
}

#[test]
fn one_layer_tells_everything() {
    let facts = image(&[base()]);
    assert_eq!(special(&facts), ["/opt/a/b/open", "/srv/nobodys", "/tmp", "/usr/bin/su", "/usr/bin/su2"]);
    assert_eq!(facts.os.as_ref().expect("os")["ID"], "debian");
    assert_eq!(facts.configs.as_ref().expect("configs")["/etc/nginx/sites-enabled/default"], ["listen 80;"]);
    assert_eq!(facts.unreadable_configs.as_deref(), Some(&[][..]));
    assert_eq!(facts.packages.as_ref().expect("packages").len(), 1);
    assert_eq!(facts.users.as_ref().expect("users").len(), 2);
    let files = facts.files.as_ref().expect("files");
    assert_eq!(files["/etc/shadow"].perm, "0640");
    assert_eq!(files["/tmp"].perm, "1777");
    assert_eq!(files["/usr/bin/su"].perm, "4755");
    assert!(!files.contains_key("/etc/sudoers"));
    assert_eq!(facts.unreadable_files.as_deref(), Some(&[][..]));
    assert_eq!(facts.image.as_ref().expect("image").layers, 1);
    assert_eq!(facts.missing["processes"].reason, Reason::FactMissing);
}

#[test]
fn later_layers_replace_remove_and_hide() {
    let facts = image(&[base(), Layer::new().file("usr/bin/su", 0o755, "").file("opt/.wh.a", 0, "")]);
    assert_eq!(special(&facts), ["/srv/nobodys", "/tmp", "/usr/bin/su2"]);
    let facts = image(&[base(), Layer::new().file("opt/a/.wh..wh..opq", 0, "").file("opt/a/new", 0o666, "")]);
    assert_eq!(special(&facts), ["/opt/a/new", "/srv/nobodys", "/tmp", "/usr/bin/su", "/usr/bin/su2"]);
    let facts = image(&[base(), Layer::new().file("opt", 0o644, "").dir("tmp", 0o755)]);
    assert_eq!(special(&facts), ["/srv/nobodys", "/usr/bin/su", "/usr/bin/su2"]);
    let facts = image(&[base(), Layer::new().file(".wh..wh..opq", 0, "")]);
    assert_eq!(special(&facts), Vec::<&str>::new());
    assert_eq!(facts.users.as_deref(), Some(&[][..]));
    assert_eq!(facts.missing["packages"].reason, Reason::ToolMissing);
    // A file and its whiteout in one layer: the whiteout is about the layers below.
    let facts = image(&[base(), Layer::new().file("opt/.wh.a", 0, "").file("opt/a", 0o666, "")]);
    assert!(special(&facts).contains(&"/opt/a"));
    // Names twice: the last counts.
    let facts =
        image(&[Layer::new().file("a/b", 0o4755, "").file("a", 0o644, "").file("c", 0o4755, "").file("c", 0o755, "")]);
    assert_eq!(special(&facts), Vec::<&str>::new());
}

#[test]
fn replaced_lists_are_the_new_ones() {
    let facts = image(&[
        base(),
        Layer::new().file("etc/passwd", 0o666, "root::0:0::/:/bin/sh\n").file("etc/.wh.shadow", 0, ""),
    ]);
    assert_eq!(facts.users.as_ref().expect("users")[0].password, "empty");
    assert_eq!(facts.passwords.as_deref(), Some(&[][..]));
    assert_eq!(facts.files.as_ref().expect("files")["/etc/passwd"].perm, "0666");
    let odd = Layer::new().raw("etc/passwd", tar::EntryType::Fifo, 0o644, (0, 0), "", b"");
    assert_eq!(image(&[base(), odd]).missing["users"].reason, Reason::ImageUnreadable);
    let elsewhere = Layer::new().link("etc/passwd", "/usr/bin/plain");
    assert_eq!(image(&[base(), elsewhere]).missing["users"].reason, Reason::ImageUnreadable);
    let endless = Layer::new().link("etc/passwd", "passwd");
    assert_eq!(image(&[base(), endless]).missing["users"].reason, Reason::ImageUnreadable);
    let hard = Layer::new().raw("etc/passwd", tar::EntryType::Link, 0o644, (0, 0), "usr/bin/plain", b"");
    assert_eq!(image(&[base(), hard]).missing["users"].reason, Reason::ImageUnreadable);
}

#[test]
fn a_file_written_through_a_link_is_not_overlooked() {
    let facts =
        image(&[base(), Layer::new().link("x", "etc"), Layer::new().file("x/passwd", 0o644, "root::0:0::/:/bin/sh\n")]);
    assert_eq!(facts.missing["users"].reason, Reason::ImageUnreadable);
    assert_eq!(facts.missing["specialFiles"].reason, Reason::ImageUnreadable);
    let facts = image(&[
        base(),
        Layer::new().link("x", "/etc/sudoers.d"),
        Layer::new().file("x/evil", 0o644, "me ALL=(ALL) NOPASSWD: ALL\n"),
    ]);
    assert_eq!(facts.unreadable_configs.as_deref(), Some(&["/etc/sudoers.d".to_owned()][..]));
    let facts = image(&[base(), Layer::new().link("x", "etc"), Layer::new().file("x/.wh.shadow", 0o644, "")]);
    assert_eq!(facts.missing["passwords"].reason, Reason::ImageUnreadable);
    assert!(facts.users.is_some());
    let hide = Layer::new().file("x/.wh..wh..opq", 0o644, "");
    let facts = image(&[base(), Layer::new().link("x", "var"), hide]);
    assert_eq!(facts.missing["packages"].reason, Reason::ImageUnreadable);
    // Nothing of what is well known lies behind this one.
    let facts = image(&[base(), Layer::new().file("bin/new", 0o755, "")]);
    assert!(facts.users.is_some() && facts.special_files.is_some());
}

#[test]
fn gzip_and_cut_and_changed_layers() {
    let tar = base().tar();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).expect("gzip");
    let gzip = encoder.finish().expect("gzip");
    let id = Digest::of(&tar);
    let limits = Limits::default();
    assert!(read_layer(&gzip[..], &id, &limits).is_ok());
    for length in (0..gzip.len()).step_by(7) {
        assert!(read_layer(&gzip[..length], &id, &limits).is_err(), "{length}");
    }
    for length in (0..tar.len()).step_by(512) {
        assert!(read_layer(&tar[..length], &id, &limits).is_err(), "{length}");
    }
    assert!(matches!(read_layer(&tar[..], &Digest::of(b"x"), &limits), Err(ImageError::DiffId { .. })));
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0];
    assert!(matches!(read_layer(&zstd[..], &id, &limits), Err(ImageError::Compression("zstd"))));
    let small = Limits { layer_inflated_bytes: 1024, ..Limits::default() };
    assert!(matches!(read_layer(&gzip[..], &id, &small), Err(ImageError::Inflated(1024))));
    let few = Limits { layer_entries: 3, ..Limits::default() };
    assert!(matches!(read_layer(&gzip[..], &id, &few), Err(ImageError::Entries(3))));
}

/// As many members as one likes are one stream, so a bomb may be in any of them: what counts is what comes out.
#[test]
fn bombs_end_at_the_limit_whatever_frames_they_have() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("gzip");
        encoder.finish().expect("gzip")
    };
    let limit = 1 << 20;
    let limits = Limits { layer_inflated_bytes: limit, ..Limits::default() };
    let mut tar = Layer::new().file("a", 0o644, "a").tar();
    let one = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
    assert!(read_layer(&one[..], &Digest::of(&tar), &limits).is_ok(), "two members are one layer");
    // Zeros behind the end marker, and a file of zeros: neither is read for ever.
    let behind = [gzip(&tar), gzip(&vec![0; 64 << 20])].concat();
    let members: Vec<u8> = std::iter::once(gzip(&tar)).chain((0..2000).map(|_| gzip(&[0; 1024]))).flatten().collect();
    tar = Layer::new().file("a", 0o644, &"\0".repeat(64 << 20)).tar();
    for (what, bomb) in [("behind", behind), ("members", members), ("in a file", gzip(&tar))] {
        assert!(bomb.len() < 200_000, "{what} is small: {}", bomb.len());
        let found = read_layer(&bomb[..], &Digest::of(&tar), &limits);
        assert!(matches!(found, Err(ImageError::Inflated(found)) if found == limit), "{what}: {found:?}");
    }
}

#[test]
fn layers_must_be_those_of_the_configuration() {
    let a = Arc::new(base().read().expect("layer"));
    let b = Arc::new(Layer::new().read().expect("layer"));
    let config = config(&[Arc::clone(&a), Arc::clone(&b)]);
    let limits = Limits::default();
    assert!(merge(&[Arc::clone(&a), Arc::clone(&b)], &config, &limits).is_ok());
    assert!(matches!(
        merge(&[Arc::clone(&b), Arc::clone(&a)], &config, &limits),
        Err(ImageError::Layers { at: 1, .. })
    ));
    assert!(matches!(merge(&[a], &config, &limits), Err(ImageError::Layers { at: 2, .. })));
}

#[test]
fn hostile_archives_are_refused_by_name() {
    let refused = |layer: Layer, word: &str| match layer.read() {
        Err(error @ ImageError::Entry { .. }) => assert!(error.to_string().contains(word), "{error}"),
        other => panic!("{word}: {other:?}"),
    };
    refused(Layer::new().file("../etc/passwd", 0o644, ""), "`..`");
    refused(Layer::new().file("a/../../b", 0o644, ""), "`..`");
    refused(Layer::new().raw("a", tar::EntryType::Link, 0o644, (0, 0), "../x", b""), "`..`");
    refused(Layer::new().pax(&[("size", "1024")]).file("a", 0o644, "x"), "PAX size");
    refused(Layer::new().pax(&[("path", "b")]).pax(&[("path", "c")]).file("a", 0o644, "x"), "two PAX headers");
    refused(Layer::new().pax(&[("path", "b"), ("path", "c")]).file("a", 0o644, "x"), "twice");
    refused(Layer::new().pax(&[("path", "a\0b")]).file("a", 0o644, "x"), "NUL");
    refused(
        Layer::new()
            .pax(&[("path", "b")])
            .raw("l", tar::EntryType::GNULongName, 0, (0, 0), "", b"c\0")
            .file("a", 0o644, ""),
        "different names",
    );
    refused(
        Layer::new().raw("l", tar::EntryType::GNULongName, 0, (0, 0), "", &[b'c'; 5000]).file("a", 0o644, ""),
        "too long",
    );
    refused(
        Layer::new().raw("p", tar::EntryType::XHeader, 0, (0, 0), "", &vec![b'1'; 2 << 20]).file("a", 0o644, ""),
        "too long",
    );
    refused(
        Layer::new().raw("p", tar::EntryType::XHeader, 0, (0, 0), "", b"99 path=b\n").file("a", 0o644, ""),
        "malformed",
    );
    refused(Layer::new().raw("x", tar::EntryType::new(b'V'), 0, (0, 0), "", b""), "type");
    refused(Layer::new().pax(&[("uid", "4294967296")]).file("a", 0o644, ""), "number");
    refused(Layer::new().pax(&[("path", "b")]), "missing");
    let mut twice = base().tar();
    twice.extend(base().tar());
    assert!(matches!(read(&twice), Err(ImageError::Trailing)));
    let mut sum = base().tar();
    sum[0] ^= 1;
    assert!(read(&sum).is_err());
    // These are what they seem.
    let long = "d/".repeat(100) + "su";
    let facts = image(&[Layer::new().pax(&[("path", &long), ("uid", "70000")]).file("short", 0o4755, "")]);
    assert_eq!(facts.special_files.as_ref().expect("files")[0].path, format!("/{long}"));
    assert_eq!(facts.special_files.as_ref().expect("files")[0].uid, 70000);
    let mut name = Layer::new();
    name = name.raw("l", tar::EntryType::GNULongName, 0, (0, 0), "", b"no\xffutf8\0").file("a", 0o666, "");
    assert_eq!(special(&image(&[name])), ["/no\\xffutf8"]);
}

#[test]
fn too_many_files_make_the_fact_absent() {
    let limits = Limits { fact_items: 2, ..Limits::default() };
    let tar = Layer::new().file("a", 0o666, "").file("b", 0o666, "").file("c", 0o666, "").tar();
    let layer = Arc::new(read_layer(&tar[..], &Digest::of(&tar), &limits).expect("layer"));
    let facts = merge(&[Arc::clone(&layer)], &config(&[layer]), &limits).expect("image");
    assert_eq!(facts.missing["specialFiles"].reason, Reason::FactTruncated);
    assert_eq!(facts.missing["unreadable"].reason, Reason::FactTruncated);
}

/// One change in a layer, on few names, so that changes meet.
#[derive(Clone, Debug)]
enum Change {
    File(String, u32),
    Dir(String, u32),
    Remove(String),
    Hide(String),
}

fn change() -> impl proptest::strategy::Strategy<Value = Change> {
    use proptest::prelude::*;
    let path =
        proptest::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|parts| parts.join("/"));
    let mode = prop::sample::select(vec![0o644_u32, 0o755, 0o4755, 0o666, 0o2755]);
    (path, mode, 0..8).prop_map(|(path, mode, kind)| match kind {
        0..4 => Change::File(path, mode),
        4..6 => Change::Dir(path, mode),
        6 => Change::Remove(path),
        _ => Change::Hide(path),
    })
}

/// The same by a model that keeps every file: path to mode, and whether it is a folder.
fn model(layers: &[Vec<Change>]) -> Vec<String> {
    type Files = std::collections::BTreeMap<String, (u32, bool)>;
    let under = |files: &mut Files, path: &str| files.retain(|p, _| !p.starts_with(&format!("{path}/")));
    let mut files = Files::new();
    for layer in layers {
        for change in layer {
            match change {
                Change::Remove(path) => {
                    under(&mut files, path);
                    files.remove(path);
                }
                Change::Hide(path) => under(&mut files, path),
                Change::File(..) | Change::Dir(..) => {}
            }
        }
        for change in layer {
            let (path, mode, folder) = match change {
                Change::File(path, mode) => (path, *mode, false),
                Change::Dir(path, mode) => (path, *mode, true),
                Change::Remove(_) | Change::Hide(_) => continue,
            };
            if !folder {
                under(&mut files, path);
            }
            files.insert(path.clone(), (mode, folder));
        }
    }
    files.into_iter().filter(|(_, (mode, _))| mode & 0o6002 != 0).map(|(path, _)| format!("/{path}")).collect()
}

/// Whether no entry lies below a file of the same or a lower layer: a runtime could not extract such a layer.
fn extractable(layers: &[Vec<Change>]) -> bool {
    let mut files = std::collections::BTreeSet::new();
    for layer in layers {
        for change in layer {
            let (path, file) = match change {
                Change::File(path, _) => (path, true),
                Change::Dir(path, _) => (path, false),
                Change::Remove(_) | Change::Hide(_) => continue,
            };
            let mut above = path.as_str();
            while let Some((folder, _)) = above.rsplit_once('/') {
                if files.contains(folder) {
                    return false;
                }
                above = folder;
            }
            if file {
                files.insert(path.clone());
            }
        }
    }
    true
}

proptest::proptest! {
    #[test]
    fn layers_add_up_as_in_a_model(layers in proptest::collection::vec(proptest::collection::vec(change(), 0..6), 1..5)) {
        proptest::prop_assume!(extractable(&layers));
        let expected = model(&layers);
        let built: Vec<Layer> = layers.iter().map(|changes| {
            changes.iter().fold(Layer::new(), |layer, change| match change {
                Change::File(path, mode) => layer.file(path, *mode, ""),
                Change::Dir(path, mode) => layer.dir(&format!("{path}/"), *mode),
                Change::Hide(path) => layer.file(&format!("{path}/.wh..wh..opq"), 0o644, ""),
                Change::Remove(path) => match path.rsplit_once('/') {
                    Some((folder, file)) => layer.file(&format!("{folder}/.wh.{file}"), 0o644, ""),
                    None => layer.file(&format!(".wh.{path}"), 0o644, ""),
                },
            })
        }).collect();
        let facts = image(&built);
        let mut found = special(&facts);
        found.sort_unstable();
        let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expected.sort_unstable();
        proptest::prop_assert_eq!(found, expected);
    }

    #[test]
    fn garbage_never_panics(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)) {
        let _ = read(&bytes);
        bytes.splice(0..0, base().0);
        let _ = read(&bytes);
    }
}

#[test]
fn a_configuration_that_others_read_in_another_way_is_refused() {
    let read = |settings: &str| {
        let text = format!(r#"{{"config": {settings}, "rootfs": {{"type": "layers", "diff_ids": []}}}}"#);
        diff_ids(text.as_bytes(), &Limits::default())
    };
    read(r#"{"User": "1000", "Labels": {"user": "anybody", "USER": "any"}}"#)
        .expect("labels are the image's own words");
    for settings in [
        r#"{"User": "1000", "user": "0"}"#,
        r#"{"User": "1000", "USER": "0"}"#,
        r#"{"User": "1000", "U\u017fer": "0"}"#,
        r#"{"exposedPorts": {"22/tcp": {}}}"#,
    ] {
        assert!(matches!(read(settings), Err(ImageError::Config(_))), "{settings}");
    }
    let text = br#"{"rootfs": {"diff_ids": []}, "RootFS": {"diff_ids": ["x"]}}"#;
    assert!(matches!(diff_ids(text, &Limits::default()), Err(ImageError::Config(_))));
}
