//! The form of a profile's folder. What the shipped rules say is in `shipped_tests`.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

#[test]
fn the_program_holds_what_the_folders_hold() {
    let mirror = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles-mirror");
    let mut there = BTreeMap::new();
    for (folder, _) in SHIPPED_FILES {
        let mut files = BTreeMap::new();
        collect(&mirror.join(folder), &mirror.join(folder), &Limits::default(), &mut files)
            .expect("the folder is read");
        there.insert((*folder).to_owned(), files);
    }
    let held = |files: &[(&str, &str)]| files.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().to_vec())).collect();
    let shipped: BTreeMap<_, BTreeMap<_, _>> =
        SHIPPED_FILES.iter().map(|(folder, files)| ((*folder).to_owned(), held(files))).collect();
    assert_eq!(there.keys().collect::<Vec<_>>(), shipped.keys().collect::<Vec<_>>());
    for (folder, files) in &there {
        assert_eq!(files.keys().collect::<Vec<_>>(), shipped[folder].keys().collect::<Vec<_>>(), "{folder}");
        assert!(files == &shipped[folder], "{folder} differs");
    }
}

#[test]
fn shipped_profiles_compile_and_carry_what_a_report_needs() {
    let profiles = shipped();
    let names: Vec<_> = profiles.iter().map(|p| p.profile().name.as_str()).collect();
    assert_eq!(names, ["cluster-baseline", "container-baseline", "host-baseline", "image-baseline"]);
    let mut ids = BTreeSet::new();
    for profile in &profiles {
        assert!(profile.profile().controls.len() >= 15, "{}", profile.profile().name);
        for control in &profile.profile().controls {
            assert!(ids.insert(control.id.clone()), "{} is in two profiles", control.id);
            assert!(
                !control.check.is_empty() && control.references.iter().any(|r| r.scheme == "nist"),
                "{}",
                control.id
            );
        }
    }
    let resources: Vec<_> = profiles[0].resources().iter().map(ToString::to_string).collect();
    assert_eq!(
        resources,
        [
            "v1/namespaces",
            "v1/pods",
            "networking.k8s.io/v1/networkpolicies",
            "rbac.authorization.k8s.io/v1/clusterrolebindings",
            "rbac.authorization.k8s.io/v1/clusterroles",
            "rbac.authorization.k8s.io/v1/rolebindings",
            "rbac.authorization.k8s.io/v1/roles",
        ]
    );
    assert!(profiles[1..].iter().all(|p| p.resources().is_empty()));
}

const DOCUMENT: &str = "apiVersion: gapscan/v1\nkind: Profile\nname: p\nversion: '1'\ntitle: P\nengine: builtin\ntargets: [host]\nrules: [r.yaml]\n";

fn refused(files: &[(&str, &str)]) -> String {
    let files = files.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().to_vec())).collect();
    load(&files).expect_err("must be refused").to_string()
}

#[test]
fn a_folder_that_could_only_be_green_is_refused() {
    assert!(refused(&[("r.yaml", "")]).contains("there is no `profile.yaml`"));
    assert!(refused(&[("profile.yaml", DOCUMENT)]).contains("`r.yaml` is listed and is not there"));
    assert!(refused(&[("profile.yaml", DOCUMENT), ("r.yaml", "# nothing\n---\n")]).contains("it has no control"));
    let forgotten = refused(&[("profile.yaml", DOCUMENT), ("r.yaml", ""), ("more/s.yaml", "")]);
    assert!(forgotten.contains("`more/s.yaml` is there and is not listed"), "{forgotten}");
    for (from, to, part) in [
        ("[r.yaml]", "[]", "`rules` is empty"),
        ("[r.yaml]", "[r.yaml, r.yaml]", "listed twice"),
        ("[host]", "[]", "`targets` is empty"),
        ("builtin", "oscap", "its engine is `oscap`"),
        ("rules:", "parameters: {a: b}\nrules:", "no `xccdf`, `controls` or `parameters`"),
        ("rules:", "ruels: []\nrules:", "ruels"),
    ] {
        let message = refused(&[("profile.yaml", &DOCUMENT.replace(from, to)), ("r.yaml", "")]);
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_folder_is_read_without_following_links() {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in SHIPPED_FILES[2].1 {
        let file = folder.path().join(path);
        fs::create_dir_all(file.parent().expect("it has a parent")).expect("a folder");
        fs::write(file, text).expect("a file");
    }
    let read = load_folder(folder.path(), &Limits::default()).expect("it is a profile");
    assert_eq!(read.profile(), shipped()[2].profile());
    fs::remove_file(folder.path().join("rules/kernel.yaml")).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("rules/kernel.yaml")).expect("a link");
    let message = load_folder(folder.path(), &Limits::default()).expect_err("a link is no file of rules").to_string();
    assert!(message.contains("`rules/kernel.yaml` is listed and is not there"), "{message}");
    assert!(matches!(load_folder(Path::new("/nonexistent"), &Limits::default()), Err(ProfileError::File(_))));
}
