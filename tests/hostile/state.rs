//! The third section: what time, versions, roots and the memory of them may be made to say.

use std::fs;
use std::num::NonZeroU64;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::attack::{Attack, Expect, Good, block, cases, good, verify};
use crate::base::exit::{Classify, ExitClass};
use crate::bundle::sample::{Images, Parts};
use crate::metadata::{key, sign};
use crate::trust::key::RoleKey;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

cases! {
    lower_version => |good| vec![after(good, 2, 1, Expect::Says("Rollback", "version 2 was accepted before"))];
    same_version_with_other_content => |good| {
        let attack = good.attack("one image more", other(good), Expect::Says("OtherContent", "with other content"));
        vec![Attack { before: vec![(good.bytes.clone(), good.sample.now)], ..attack }]
    };
    same_version_with_the_same_content => |good| vec![after(good, 1, 1, Expect::Accepted)];
    /// A version after which nothing newer could ever be loaded.
    version_u64_max => |good| {
        let mut parts = good.parts();
        good.sample.resigned(&mut parts, |targets| targets.version = NonZeroU64::MAX);
        vec![good.attack("fast-forward", parts.join(), Expect::Says("Metadata", "is higher than"))]
    };
    expired => |good| {
        let mut attacks = vec![];
        for (file, role) in [("timestamp.json", "timestamp"), ("snapshot.json", "snapshot"), ("targets.json", "targets")] {
            let bytes = expiring(good, file, role, "2098-12-31T00:00:00Z");
            let error = Expect::Says("Expired", role);
            attacks.push(at(good.attack(file, bytes.clone(), error), "2099-01-01T00:00:00Z"));
            attacks.push(at(good.attack(format!("{file}: in that second"), bytes.clone(), error), "2098-12-31T00:00:00Z"));
            attacks.push(at(good.attack(format!("{file}: a second before"), bytes, Expect::Accepted), "2098-12-30T23:59:59Z"));
        }
        let root = root(good, &[&key(&good.sample, "root")], |root| root["expires"] = json!("2098-12-31T00:00:00Z"));
        let mut parts = good.parts();
        *parts.at("1.root.json") = root.clone();
        let attack = good.attack("root", parts.join(), Expect::Says("Expired", "root"));
        attacks.push(at(Attack { root: TrustRoot::from_bytes(root).expect("a root"), ..attack }, "2099-01-01T00:00:00Z"));
        attacks
    };
    not_yet_valid => |good| {
        let early = Expect::Says("NotYetValid", "and the clock says");
        vec![
            at(good.attack("more than an hour before", good.bytes.clone(), early), "2025-12-31T22:59:59Z"),
            at(good.attack("an hour before", good.bytes.clone(), Expect::Accepted), "2025-12-31T23:00:00Z"),
        ]
    };
    clock_at_1970 => |good| {
        vec![at(good.attack("1970", good.bytes.clone(), Expect::Says("NotYetValid", "1970-01-01")), "1970-01-01T00:00:00Z")]
    };
    /// A clock that is far ahead expires what is good; and if it did not, it is noticed when it comes back.
    clock_at_2099 => |good| {
        let bytes = expiring(good, "targets.json", "targets", "2098-12-31T00:00:00Z");
        let attack = good.attack("and back", good.bytes.clone(), Expect::Says("ClockBack", "2099-01-01"));
        let late: Timestamp = "2099-01-01T00:00:00Z".parse().expect("a time");
        vec![
            at(good.attack("2099", bytes, Expect::Says("Expired", "2099-01-01")), "2099-01-01T00:00:00Z"),
            Attack { before: vec![(good.bytes.clone(), late)], ..attack },
        ]
    };
    clock_set_back => |good| {
        let before = vec![(good.bytes.clone(), good.sample.now)];
        let back = good.attack("more than a minute", good.bytes.clone(), Expect::Says("ClockBack", "was seen already"));
        let drift = good.attack("a minute", good.bytes.clone(), Expect::Accepted);
        vec![
            at(Attack { before: before.clone(), ..back }, "2026-01-31T23:58:59Z"),
            at(Attack { before, ..drift }, "2026-01-31T23:59:00Z"),
        ]
    };
    parts_of_two_bundles_mixed => |good| {
        let (one, two) = (good.parts(), Parts::of(&block(good.sample.bytes(2))));
        let mut attacks = Vec::new();
        // The first so many entries of one and the rest of the other, in both directions.
        for (what, head, tail) in [("one, then two", &one, &two), ("two, then one", &two, &one)] {
            for cut in 2..head.0.len() {
                let mixed = Parts([&head.0[..cut], &tail.0[cut.min(tail.0.len())..]].concat());
                // A cut after the last entry that differs mixes nothing.
                if mixed.0 != head.0 && mixed.0 != tail.0 {
                    attacks.push(good.attack(format!("{what}: {cut}"), mixed.join(), Expect::Refused));
                }
            }
        }
        attacks
    };
    /// The targets key is out of the newest root, and the bundle is signed by it.
    revoked_key => |good| {
        let (old, new) = (key(&good.sample, "root"), RoleKey::generate());
        let second = second(good, &[&old], |root| {
            let id = new.id_hex();
            root["keys"][&id] = json!(new.public());
            root["roles"]["targets"]["keyids"] = json!([id]);
        });
        let chained = chain(good, &[(2, second)]);
        vec![good.attack("targets", chained, Expect::Says("UnknownKey", "targets"))]
    };
    /// The rotation that removed a key is left out of the chain once it was seen.
    older_root => |good| {
        let rotated = chain(good, &[(2, second(good, &[&key(&good.sample, "root")], |_| {}))]);
        let attack = good.attack("root 1 after root 2", good.bytes.clone(), Expect::Says("RootRollback", "root 2 was seen before"));
        vec![Attack { before: vec![(rotated, good.sample.now)], ..attack }]
    };
    other_root_of_the_same_version => |good| {
        let key = key(&good.sample, "root");
        let one = chain(good, &[(2, second(good, &[&key], |_| {}))]);
        let two = chain(good, &[(2, second(good, &[&key], |root| root["expires"] = json!("2099-01-01T00:00:00Z")))]);
        let attack = good.attack("another root 2", two, Expect::Says("OtherRoot", "was accepted before"));
        vec![Attack { before: vec![(one, good.sample.now)], ..attack }]
    };
    root_rotation_signed_only_by_the_new_key => |good| {
        let (old, new) = (key(&good.sample, "root"), RoleKey::generate());
        let to_new = |signers: &[&RoleKey]| chain(good, &[(2, second(good, signers, |root| {
            let id = new.id_hex();
            root["keys"][&id] = json!(new.public());
            root["roles"]["root"]["keyids"] = json!([id]);
        }))]);
        let few = Expect::Says("Threshold", "2.root.json");
        vec![
            good.attack("by the new key", to_new(&[&new]), few),
            good.attack("by the old key", to_new(&[&old]), few),
            good.attack("by a third", to_new(&[&RoleKey::generate()]), Expect::Says("UnknownKey", "2.root.json")),
            good.attack("by both", to_new(&[&old, &new]), Expect::Accepted),
        ]
    };
    skipped_root_version => |good| {
        let key = key(&good.sample, "root");
        let (two, three) = (second(good, &[&key], |_| {}), second(good, &[&key], |root| root["version"] = json!(3)));
        let at = good.header_of("timestamp.json") as u64;
        vec![
            good.attack("1, 3", chain(good, &[(3, three.clone())]), Expect::At("Header", at)),
            good.attack("1, 3 under the name of 2", chain(good, &[(2, three.clone())]), Expect::Says("Metadata", "it is version 3")),
            good.attack("1, 2, 3", chain(good, &[(2, two), (3, three)]), Expect::Accepted),
        ]
    };
    pinned_root_that_is_not_in_the_chain => |good| {
        let key = key(&good.sample, "root");
        let two = second(good, &[&key], |_| {});
        let pinned = TrustRoot::from_bytes(two.clone()).expect("a root");
        let stranger = crate::bundle::sample::Sample::new();
        let other = good.attack("of strangers", block(stranger.bytes(1)), Expect::Says("OtherRoot", "fingerprint"));
        let older = good.attack("it ends before the pinned one", good.bytes.clone(), Expect::Says("OtherRoot", "it ends at root 1"));
        let newer = good.attack("it goes through the pinned one", chain(good, &[(2, two)]), Expect::Accepted);
        vec![other, Attack { root: pinned.clone(), ..older }, Attack { root: pinned, ..newer }]
    };
}

/// Until it is remembered that a version was accepted, nothing is: the bundle can be verified again. From then on no older
/// one is, wherever the file that says so was cut.
#[test]
fn killed_between_verified_and_state_saved() {
    let good = good();
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = Remembered::in_folder(folder.path().join("state"));
    let newer = block(good.sample.bytes(2));
    let proof = |bytes: &[u8]| verify(bytes, &good.sample.root, &remembered, good.sample.now);
    drop(proof(&newer).expect("verified, and killed before it was remembered"));
    assert!(!folder.path().join("state").exists(), "verifying writes nothing");
    proof(&good.bytes).expect("nothing is remembered yet");
    proof(&newer).expect("it can be verified again").remember().expect("remembered");
    proof(&newer).expect("killed after that, it can be loaded again");
    proof(&good.bytes).expect_err("an older version");

    let lineage =
        fs::read_dir(folder.path().join("state")).expect("state").next().expect("a lineage").expect("it").path();
    for name in ["sample.json", "ROOT"] {
        let file = lineage.join(name);
        let whole = fs::read(&file).expect("the state");
        for cut in 0..whole.len() {
            fs::write(&file, &whole[..cut]).expect("write");
            let error = proof(&newer).expect_err("what can't be read is not nothing");
            assert_eq!(error.class(), ExitClass::Refused, "{name} cut at {cut}: {error}");
        }
        fs::write(&file, &whole).expect("write");
    }
    proof(&newer).expect("the state is as it was");
}

fn at(attack: Attack, now: &str) -> Attack {
    Attack { now: now.parse().expect("a time"), ..attack }
}

/// Version `then` was accepted before version `now` is offered.
fn after(good: &Good, then: u64, now: u64, expect: Expect) -> Attack {
    let before = vec![(block(good.sample.bytes(then)), good.sample.now)];
    Attack { before, ..good.attack(format!("{now} after {then}"), block(good.sample.bytes(now)), expect) }
}

/// Version 1 with one image more.
fn other(good: &Good) -> Vec<u8> {
    let mut images = Images::usual();
    let more = images.image(&[b"more"]);
    images.item("images/more", more);
    fs::read(block(good.sample.file_of(images, 1))).expect("the bundle")
}

/// The good bundle where one of its files expires then.
fn expiring(good: &Good, file: &str, role: &str, when: &str) -> Vec<u8> {
    let mut parts = good.parts();
    let mut whole: Value = serde_json::from_slice(parts.at(file)).expect("JSON");
    whole["signed"]["expires"] = json!(when);
    *parts.at(file) = sign(&[&key(&good.sample, role)], &whole["signed"]);
    parts.join()
}

/// The first root after `change`, signed by these.
fn root(good: &Good, signers: &[&RoleKey], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut root: Value = serde_json::from_slice(good.sample.root.bytes()).expect("JSON");
    change(&mut root["signed"]);
    sign(signers, &root["signed"])
}

/// A root with version 2, after `change`.
fn second(good: &Good, signers: &[&RoleKey], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    root(good, signers, |root| {
        root["version"] = json!(2);
        change(root);
    })
}

/// The good bundle with these roots after the first.
fn chain(good: &Good, roots: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut parts = good.parts();
    for (at, (version, bytes)) in roots.iter().enumerate() {
        parts.0.insert(at + 1, (format!("metadata/{version}.root.json"), bytes.clone()));
    }
    parts.join()
}
