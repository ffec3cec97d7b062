//! Rotation of roots, right and wrong.

use std::num::NonZeroU64;

use serde_json::{Value, json};
use tough::schema::RoleType;
use tough::schema::key::Key;

use super::super::key::{RoleKey, hex};
use super::super::root::{self, KEYS_FOLDER, RootPlan};
use super::*;

struct Lineage {
    first: TrustRoot,
    key: RoleKey,
}

impl Lineage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let first = root::init(folder.path(), &RootPlan::default(), None, Timestamp::UNIX_EPOCH).expect("a root");
        let key = RoleKey::read(&folder.path().join(KEYS_FOLDER).join("root-1.pem"), &mut || unreachable!("not asked"))
            .expect("its key");
        Self { first, key }
    }

    /// Root 2 with a new root key, signed by these.
    fn second(&self, new: &RoleKey, version: u64, signers: &[&RoleKey]) -> Vec<u8> {
        let mut root = self.first.root().clone();
        root.version = NonZeroU64::new(version).expect("a version");
        let role = root.roles.get_mut(&RoleType::Root).expect("the role");
        for old in std::mem::replace(&mut role.keyids, vec![new.id().clone()]) {
            root.keys.remove(&old);
        }
        root.keys.insert(new.id().clone(), new.public().clone());
        to_bytes(&sign(root, signers).expect("signed"))
    }
}

#[test]
fn a_rotation_is_signed_by_the_old_and_the_new_keys() {
    let lineage = Lineage::new();
    let (first, old, new, stranger) = (&lineage.first, &lineage.key, RoleKey::generate(), RoleKey::generate());
    let chain = |second: &[u8]| verify_roots(&[first.bytes(), second], first).map(|root| root.signed.version.get());
    let good = lineage.second(&new, 2, &[old, &new]);
    assert_eq!(chain(&good).expect("a rotation"), 2);
    for (case, second) in [
        ("only by the new key", lineage.second(&new, 2, &[&new])),
        ("only by the old key", lineage.second(&new, 2, &[old])),
        ("by a stranger too", lineage.second(&new, 2, &[old, &new, &stranger])),
        ("a version left out", lineage.second(&new, 3, &[old, &new])),
        ("the same version again", lineage.second(&new, 1, &[old, &new])),
    ] {
        assert!(chain(&second).is_err(), "{case}");
    }

    // Once the new root is pinned, the old one alone is not enough, and a forked second root is seen.
    let pinned = TrustRoot::from_bytes(good.clone()).expect("a root");
    assert_eq!(verify_roots(&[first.bytes(), &good], &pinned).expect("the chain").signed.version.get(), 2);
    assert!(matches!(verify_roots(&[first.bytes()], &pinned), Err(TrustError::OtherRoot(_))));
    let other = RoleKey::generate();
    let fork = lineage.second(&other, 2, &[old, &other]);
    assert!(matches!(verify_roots(&[first.bytes(), &fork], &pinned), Err(TrustError::OtherRoot(_))));
    // Whoever pins the second root knows the first by it.
    let elsewhere = Lineage::new();
    assert!(verify_roots(&[elsewhere.first.bytes(), &good], &pinned).is_err());
    assert!(verify_roots(&[], first).is_err());
}

#[test]
fn a_root_that_could_not_do_its_work_is_refused() {
    let lineage = Lineage::new();
    let changed = |change: &dyn Fn(&mut Root)| {
        let mut root = lineage.first.root().clone();
        change(&mut root);
        TrustRoot::from_bytes(to_bytes(&sign(root, &[&lineage.key]).expect("signed")))
    };
    changed(&|_| {}).expect("unchanged");
    let two = NonZeroU64::new(2).expect("two");
    type Change<'a> = &'a dyn Fn(&mut Root);
    let cases: [(&str, Change<'_>); 5] = [
        ("a threshold that can't be reached", &|r| {
            r.roles.get_mut(&RoleType::Targets).expect("the role").threshold = two;
        }),
        ("one key twice", &|r| {
            let keys = r.roles.get_mut(&RoleType::Targets).expect("the role");
            keys.keyids.push(keys.keyids[0].clone());
            keys.threshold = two;
        }),
        ("a role left out", &|r| drop(r.roles.remove(&RoleType::Snapshot))),
        ("a key left out", &|r| {
            let id = r.roles[&RoleType::Timestamp].keyids[0].clone();
            r.keys.remove(&id);
        }),
        ("another specification", &|r| r.spec_version = "2.0.0".to_owned()),
    ];
    for (case, change) in cases {
        assert!(changed(change).is_err(), "{case}");
    }
    let mut damaged = lineage.first.bytes().to_vec();
    let at = damaged.iter().position(|b| *b == b'0').expect("a digit");
    damaged[at] = b'1';
    assert!(TrustRoot::from_bytes(damaged).is_err());
}

/// A key in a second spelling has a second id: one person could count twice towards a threshold.
#[test]
fn one_key_in_two_spellings_does_not_count_twice() {
    let lineage = Lineage::new();
    let before = serde_json::to_value(lineage.first.root()).expect("JSON");
    let id = before["roles"]["targets"]["keyids"][0].as_str().expect("an id").to_owned();
    let ecdsa = before["keys"][&id].clone();
    let pem = ecdsa["keyval"]["public"].as_str().expect("PEM").to_owned();
    let Key::Ecdsa { keyval, .. } =
        &lineage.first.root().keys[&lineage.first.root().roles[&RoleType::Targets].keyids[0]]
    else {
        panic!("it is a P-256 key");
    };
    let point = keyval.public.to_vec();
    let lower: String = (0..32).map(|n| format!("{:02x}", 0xa0 + n)).collect();
    let ed25519 = json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": lower } });
    let with = |key: &Value, change: &dyn Fn(&mut Value)| {
        let mut key = key.clone();
        change(&mut key);
        key
    };
    let cases = [
        (
            "a PEM of other line ends",
            &ecdsa,
            with(&ecdsa, &|key| key["keyval"]["public"] = json!(pem.replace('\n', "\r\n"))),
        ),
        ("the point in digits", &ecdsa, with(&ecdsa, &|key| key["keyval"]["public"] = json!(hex(&point)))),
        ("a field of its own", &ecdsa, with(&ecdsa, &|key| key["note"] = json!("again"))),
        ("a field of its own beside the key", &ecdsa, with(&ecdsa, &|key| key["keyval"]["note"] = json!("again"))),
        (
            "digits in upper case",
            &ed25519,
            with(&ed25519, &|key| key["keyval"]["public"] = json!(lower.to_uppercase())),
        ),
        ("a field in it", &ed25519, with(&ed25519, &|key| key["note"] = json!("again"))),
        ("a field beside its digits", &ed25519, with(&ed25519, &|key| key["keyval"]["note"] = json!("again"))),
    ];
    for (case, first, second) in cases {
        let mut root = before.clone();
        let ids: Vec<String> = [first, &second]
            .into_iter()
            .map(|key| {
                let parsed: Key = serde_json::from_value(key.clone()).unwrap_or_else(|e| panic!("{case}: {e}"));
                let id = hex(&parsed.key_id().expect("an id"));
                root["keys"][&id] = key.clone();
                id
            })
            .collect();
        assert_ne!(ids[0], ids[1], "{case}: another id");
        let read =
            |root: &Value| serde_json::from_value::<Root>(root.clone()).unwrap_or_else(|e| panic!("{case}: {e}"));
        root["roles"]["targets"] = json!({ "keyids": ids, "threshold": 2 });
        let error = check_root("root.json", &read(&root)).expect_err(case);
        assert!(error.to_string().contains("another form"), "{case}: {error}");
        // It is the second one that is refused.
        root["keys"].as_object_mut().expect("keys").remove(&ids[1]);
        root["roles"]["targets"] = json!({ "keyids": [ids[0]], "threshold": 1 });
        check_root("root.json", &read(&root)).unwrap_or_else(|e| panic!("{case}: {e}"));
    }
}
