//! What must not cross the gap: each is refused with exit 4, and nothing is pushed or tagged.

use std::fs;
use std::path::Path;

use crate::enclave::{BUNDLE, Enclave, enclave};
use crate::lab::{Lab, Ran, lab};

/// Loads a file from a pipe into a prefix of its own, with a memory of versions of its own.
fn load(lab: &Lab, enclave: &Enclave, tar: &Path, root: &str, prefix: &str) -> Ran {
    let registry = format!("{}/{prefix}", lab.var("REGISTRY"));
    let state = enclave.file(&format!("state-{prefix}"));
    let ca = lab.ca().display().to_string();
    lab.inside_from(tar, &["load", "-", "--root", root, "--registry", &registry, "--ca", &ca, "--state", &state])
}

#[track_caller]
fn assert_nothing_tagged(lab: &Lab, prefix: &str) {
    for repository in lab.repositories().iter().filter(|r| r.starts_with(&format!("{prefix}/"))) {
        assert_eq!(lab.tags(repository), Vec::<String>::new(), "{repository} was tagged");
    }
}

#[track_caller]
fn assert_nothing_pushed(lab: &Lab, prefix: &str) {
    let pushed: Vec<String> = lab.repositories().into_iter().filter(|r| r.starts_with(&format!("{prefix}/"))).collect();
    assert_eq!(pushed, Vec::<String>::new(), "something was pushed");
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let good = fs::read(enclave.path.join("bundle.tar")).expect("the bundle is there");
    let flipped = enclave.path.join("flipped.tar");
    let root = enclave.file("trust/root.json");
    let end = good.len() - 1;
    // In the metadata, in its header, in the manifests, in the first and in the last blob, in the padding, in the end marker.
    for (number, offset) in
        [600, 257, good.len() / 1000, good.len() / 3, end - 2048, end - 600, end].into_iter().enumerate()
    {
        let mut bytes = good.clone();
        bytes[offset] ^= 0x20;
        fs::write(&flipped, &bytes).expect("the copy is written");
        let prefix = format!("flipped-{number}");
        load(lab, enclave, &flipped, &root, &prefix).exits(4);
        assert_nothing_tagged(lab, &prefix);
    }
}

#[test]
fn a_truncated_bundle_is_refused() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let good = fs::read(enclave.path.join("bundle.tar")).expect("the bundle is there");
    let cut = enclave.path.join("cut.tar");
    let root = enclave.file("trust/root.json");
    for (number, length) in [0, 512, 4096, good.len() / 2, good.len() - 1024, good.len() - 512].into_iter().enumerate()
    {
        fs::write(&cut, &good[..length]).expect("the copy is written");
        let prefix = format!("cut-{number}");
        load(lab, enclave, &cut, &root, &prefix).exits(4);
        assert_nothing_tagged(lab, &prefix);
    }
}

#[test]
fn an_older_version_is_refused() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    // A version counts from one; the bundle that is loaded already is 1, so a newer one goes first.
    let small = "profiles:\n- {path: PROFILES/host-baseline}\n".replace("PROFILES", &profiles());
    enclave.write_definition("newer.yaml", 3, &small);
    enclave.write_definition("older.yaml", 2, &small);
    enclave.build(lab, "newer.yaml", "newer.tar");
    enclave.build(lab, "older.yaml", "older.tar");
    let root = enclave.file("trust/root.json");
    load(lab, enclave, &enclave.path.join("newer.tar"), &root, "rollback").exits(0);
    let before = lab.tags("rollback/catalog");
    let ran = load(lab, enclave, &enclave.path.join("older.tar"), &root, "rollback").exits(4);
    assert!(ran.stderr.contains('3') && ran.stderr.contains('2'), "both versions are named: {}", ran.stderr);
    assert_eq!(lab.tags("rollback/catalog"), before);
    assert!(before.contains(&BUNDLE.to_owned()), "{before:?}");
}

#[test]
fn an_expired_bundle_is_refused() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    let small = "profiles:\n- {path: PROFILES/host-baseline}\n".replace("PROFILES", &profiles());
    enclave.write_definition("expired.yaml", 1, &small);
    let definition = enclave.file("expired.yaml");
    lab.outside(&["bundle", "lock", "-f", &definition, "--created", "2026-01-01T00:00:00Z"]).exits(0);
    let (keys, tar) = (enclave.file("trust"), enclave.file("expired.tar"));
    lab.outside(&["bundle", "build", "-f", &definition, "--keys", &keys, "-o", &tar]).exits(0);
    load(lab, enclave, Path::new(&tar), &enclave.file("trust/root.json"), "expired").exits(4);
    assert_nothing_pushed(lab, "expired");
}

#[test]
fn a_bundle_by_an_unknown_key_is_refused() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    lab.outside(&["trust", "init", &enclave.file("stranger"), "--unencrypted"]).exits(0);
    let root = enclave.file("stranger/root.json");
    load(lab, enclave, &enclave.path.join("bundle.tar"), &root, "stranger").exits(4);
    assert_nothing_pushed(lab, "stranger");
}

fn profiles() -> String {
    crate::enclave::sources().join("profiles-mirror").display().to_string()
}
