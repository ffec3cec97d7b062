//! Roots that follow each other, made by one machine and by several.

use super::*;
use crate::base::digest::Digest;
use crate::base::quantity::Span;
use crate::trust::passphrase::PassphraseSource;
use crate::trust::root::{RootPlan, init};

const ROTATIONS: u64 = 16;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn local() -> LocalKeys {
    LocalKeys { passphrase: PassphraseSource::default(), protection: Protection::Unencrypted }
}

fn plan(root_keys: u64, root_threshold: u64) -> RootPlan {
    let mut plan = RootPlan::default();
    plan.keys.insert("root".to_owned(), root_keys);
    plan.threshold.insert("root".to_owned(), root_threshold);
    plan
}

fn made(plan: &RootPlan) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path(), plan, None, now()).expect("a root");
    folder
}

fn open(folder: &Path) -> RootFolder {
    RootFolder::open(folder, ROTATIONS).expect("a chain")
}

fn rotate(folder: &Path, change: &RootChange) -> Result<Rotated, TrustError> {
    let folder = RootFolder::open(folder, ROTATIONS)?;
    let pending = folder.begin(change, &local(), now())?;
    folder.keep(&pending)
}

fn key(folder: &Path, name: &str) -> RoleKey {
    RoleKey::read(&folder.join(KEYS_FOLDER).join(format!("{name}.pem")), &mut || unreachable!("not asked"))
        .expect("a key")
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn keys_come_and_go_and_the_chain_of_roots_holds() {
    let folder = made(&RootPlan::default());
    let first = open(folder.path()).newest().clone();
    let add = RootChange { add: vec![RoleType::Targets, RoleType::Root], ..RootChange::default() };
    let Rotated::Done(second) = rotate(folder.path(), &add).expect("rotated") else { panic!("all keys are here") };
    assert_eq!((first.version(), second.version()), (1, 2));
    let targets = key(folder.path(), "targets-2");
    assert!(second.root().roles[&RoleType::Targets].keyids.contains(targets.id()));

    let change = RootChange {
        remove: vec!["targets-1".to_owned(), key(folder.path(), "root-1").id_hex()[..8].to_owned()],
        validity: vec![(RoleType::Root, Span::days(10)), (RoleType::Targets, Span::days(5))],
        ..RootChange::default()
    };
    let opened = open(folder.path());
    let pending = opened.begin(&change, &local(), now()).expect("a root");
    let said = pending.changes().join("\n");
    for words in
        ["targets: key", "root: key", "is removed", "root: expires 2026-01-11", "targets: metadata is valid for 5d"]
    {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let Rotated::Done(third) = opened.keep(&pending).expect("written") else { panic!("all keys are here") };
    drop(opened);
    assert_eq!(third.version(), 3);
    assert!(!third.root().keys.contains_key(key(folder.path(), "targets-1").id()), "it is in no role any more");
    assert_eq!(listing(folder.path()), ["1.root.json", "2.root.json", "3.root.json", "keys", "root.json"]);
    assert_eq!(fs::read(folder.path().join("root.json")).expect("a root"), third.bytes());
    let chain = root::read_chain(folder.path(), &first, ROTATIONS).expect("the chain holds for who pinned the first");
    assert_eq!(chain.len(), 3);
    let refs: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    assert!(metadata::verify_roots(&[refs[0], refs[2]], &first).is_err(), "a version that was left out");
    assert!(metadata::verify_roots(&[refs[1], refs[0]], &first).is_err(), "out of order");
}

#[test]
fn a_root_of_several_people_waits_until_enough_of_them_signed() {
    // Three people, each with one of the three root keys; two must sign.
    let all = made(&plan(3, 2));
    let people: Vec<tempfile::TempDir> = (1..=3)
        .map(|number| {
            let folder = tempfile::tempdir().expect("a folder");
            fs::create_dir(folder.path().join(KEYS_FOLDER)).expect("a folder");
            for name in ["1.root.json", "root.json", &format!("keys/root-{number}.pem")] {
                fs::copy(all.path().join(name), folder.path().join(name)).expect("a copy");
            }
            folder
        })
        .collect();
    let change = RootChange {
        remove: vec![key(all.path(), "root-3").id_hex()],
        add: vec![RoleType::Root],
        threshold: vec![(RoleType::Root, 3)],
        ..RootChange::default()
    };
    let Rotated::Waiting(path) = rotate(people[0].path(), &change).expect("begun") else { panic!("one is not enough") };
    assert!(rotate(people[0].path(), &change).is_err(), "a root that waits is not replaced");
    assert!(people[0].path().join("keys/root-4.pem").exists(), "the new key has the next number");
    let opened = open(people[0].path());
    let missing = opened.pending().expect("readable").expect("there").missing();
    drop(opened);
    let counts: Vec<_> = missing.iter().map(|m| (m.of, m.found, m.threshold)).collect();
    assert_eq!(counts, [(1, 1, 2), (2, 2, 3)]);
    assert!(!people[0].path().join("2.root.json").exists());

    // The third may sign for the old root, and is not in the new one: both thresholds count.
    let carried = people[2].path().join("2.root.json.pending");
    fs::copy(&path, &carried).expect("a copy");
    let opened = open(people[2].path());
    let mut pending = opened.pending().expect("readable").expect("there");
    assert_eq!(opened.sign(&mut pending, &local()).expect("signed").len(), 1);
    assert!(matches!(opened.keep(&pending).expect("kept"), Rotated::Waiting(_)));
    assert_eq!(opened.sign(&mut pending, &local()).expect("nothing left").len(), 0);
    assert_eq!(pending.missing().iter().map(|m| m.of).collect::<Vec<_>>(), [2]);
    drop(opened);

    fs::copy(&carried, people[1].path().join("2.root.json.pending")).expect("a copy");
    let opened = open(people[1].path());
    let mut pending = opened.pending().expect("readable").expect("there");
    opened.sign(&mut pending, &local()).expect("signed");
    let Rotated::Done(second) = opened.keep(&pending).expect("kept") else { panic!("all have signed") };
    assert_eq!(second.version(), 2);
    assert_eq!(listing(people[1].path()), ["1.root.json", "2.root.json", "keys", "root.json"]);
}

#[test]
fn a_pending_root_that_was_changed_on_the_way_is_not_signed() {
    let folder = made(&plan(2, 2));
    fs::rename(folder.path().join("keys/root-2.pem"), folder.path().join("away.pem")).expect("moved");
    let change = RootChange { add: vec![RoleType::Snapshot], ..RootChange::default() };
    let Rotated::Waiting(path) = rotate(folder.path(), &change).expect("begun") else { panic!("a key is away") };
    let good = fs::read(&path).expect("a pending root");
    let pending: Signed<Root> = metadata::parse("p", &good).expect("a pending root");
    let stranger = RoleKey::generate();
    type Change<'a> = &'a dyn Fn(&mut Signed<Root>);
    let cases: [(&str, Change<'_>); 4] = [
        ("other content under the signatures", &|p| p.signed.expires = "2030-01-01T00:00:00Z".parse().expect("a time")),
        ("a stranger's signature", &|p| {
            let message = metadata::payload(p).expect("a form");
            metadata::insert_signature(p, stranger.id(), stranger.sign(&message));
        }),
        ("another version", &|p| {
            p.signed.version = NonZeroU64::new(3).expect("three");
            p.signatures.clear();
        }),
        ("thresholds out of reach", &|p| {
            p.signed.roles.get_mut(&RoleType::Targets).expect("a role").threshold = NonZeroU64::new(9).expect("nine");
            p.signatures.clear();
        }),
    ];
    for (case, change) in cases {
        let mut changed = pending.clone();
        change(&mut changed);
        fs::write(&path, metadata::to_bytes(&changed)).expect("write");
        assert!(open(folder.path()).pending().is_err(), "{case}");
    }
    fs::write(&path, &good).expect("write");
    fs::rename(folder.path().join("away.pem"), folder.path().join("keys/root-2.pem")).expect("moved");
    let opened = open(folder.path());
    let mut pending = opened.pending().expect("readable").expect("there");
    let second = key(folder.path(), "root-2");
    let signature = second.sign(&pending.payload().expect("a form"));
    assert!(pending.add(&second.id_hex()[..8], stranger.sign(b"x")).is_err(), "a signature that does not fit");
    assert!(pending.add(&stranger.id_hex(), signature.clone()).is_err(), "a key that is not named");
    assert!(pending.add(&second.id_hex()[..7], signature.clone()).is_err(), "too few digits");
    assert!(pending.add(&second.id_hex()[..8], signature.clone()).expect("it fits"));
    assert!(!pending.add(&second.id_hex()[..8], signature).expect("it is there"));
    assert!(matches!(opened.keep(&pending).expect("kept"), Rotated::Done(_)));
}

#[test]
fn what_makes_no_root_is_refused_and_changes_nothing() {
    let folder = made(&plan(2, 2));
    let before = listing(folder.path());
    let keys = listing(&folder.path().join(KEYS_FOLDER));
    let id = key(folder.path(), "root-1").id_hex();
    let stranger = folder.path().join("keys/root-1.pem");
    for (case, change) in [
        ("nothing", RootChange::default()),
        ("a threshold out of reach", RootChange { remove: vec!["root-1".to_owned()], ..RootChange::default() }),
        ("no signature at all", RootChange { threshold: vec![(RoleType::Root, 0)], ..RootChange::default() }),
        ("as it is", RootChange { threshold: vec![(RoleType::Root, 2)], ..RootChange::default() }),
        ("a key that is not there", RootChange { remove: vec!["ffffffffff".to_owned()], ..RootChange::default() }),
        ("a file that is not there", RootChange { remove: vec!["root-9".to_owned()], ..RootChange::default() }),
        ("too few digits", RootChange { remove: vec![id[..7].to_owned()], ..RootChange::default() }),
        ("a private key", RootChange { add_public: vec![(RoleType::Root, stranger)], ..RootChange::default() }),
    ] {
        assert!(rotate(folder.path(), &change).is_err(), "{case}");
    }
    let late: Timestamp = "2050-01-01T00:00:00Z".parse().expect("a time");
    let change = RootChange { add: vec![RoleType::Targets], ..RootChange::default() };
    assert!(open(folder.path()).begin(&change, &local(), late).is_err(), "the old expiry has passed");
    assert_eq!((listing(folder.path()), listing(&folder.path().join(KEYS_FOLDER))), (before, keys));
}

#[test]
fn a_rotation_that_was_killed_at_any_step_is_finished_or_begun_anew() {
    let folder = made(&RootPlan::default());
    let first = fs::read(folder.path().join("root.json")).expect("a root");
    let change = RootChange { add: vec![RoleType::Targets], ..RootChange::default() };
    let Rotated::Done(second) = rotate(folder.path(), &change).expect("rotated") else { panic!("all keys are here") };

    // Killed after N.root.json was written and before root.json was, with the pending file still there.
    fs::write(folder.path().join("root.json"), &first).expect("write");
    fs::write(folder.path().join("2.root.json.pending"), second.bytes()).expect("write");
    assert_eq!(open(folder.path()).newest().fingerprint(), Digest::of(second.bytes()));
    assert_eq!(listing(folder.path()), ["1.root.json", "2.root.json", "keys", "root.json"]);
    assert_eq!(fs::read(folder.path().join("root.json")).expect("a root"), second.bytes());
    // Killed after the new key was written and before any root was: the key is there and nothing names it.
    fs::remove_file(folder.path().join("2.root.json")).expect("remove");
    fs::write(folder.path().join("root.json"), &first).expect("write");
    let Rotated::Done(again) = rotate(folder.path(), &change).expect("rotated") else { panic!("all keys are here") };
    assert_eq!(again.version(), 2);
    assert!(folder.path().join("keys/targets-3.pem").exists(), "it got another number");
    // Killed between 1.root.json and root.json of the very first.
    fs::remove_file(folder.path().join("2.root.json")).expect("remove");
    fs::remove_file(folder.path().join("root.json")).expect("remove");
    assert_eq!(open(folder.path()).newest().bytes(), first);
}

#[test]
fn a_key_made_elsewhere_is_taken_by_its_public_half() {
    let folder = made(&RootPlan::default());
    let elsewhere = RoleKey::generate();
    let path = folder.path().join("hsm.pem");
    fs::write(&path, public::to_pem(elsewhere.public()).expect("PEM")).expect("write");
    let change = RootChange {
        add_public: vec![(RoleType::Root, path.clone()), (RoleType::Targets, path)],
        threshold: vec![(RoleType::Root, 2)],
        ..RootChange::default()
    };
    assert!(matches!(rotate(folder.path(), &change).expect("begun"), Rotated::Waiting(_)));
    let opened = open(folder.path());
    let mut pending = opened.pending().expect("readable").expect("there");
    let signature = elsewhere.sign(&pending.payload().expect("a form"));
    assert!(pending.add(&elsewhere.id_hex(), signature).expect("it fits"));
    let Rotated::Done(second) = opened.keep(&pending).expect("kept") else { panic!("both have signed") };
    assert!(second.root().roles[&RoleType::Targets].keyids.contains(elsewhere.id()));
}

#[test]
fn a_chain_ends_before_nobody_would_follow_it() {
    let folder = made(&RootPlan::default());
    let change =
        |number: u64| RootChange { validity: vec![(RoleType::Root, Span::days(number))], ..RootChange::default() };
    rotate(folder.path(), &change(20)).expect("a second root");
    let before = listing(folder.path());
    let full = RootFolder::open(folder.path(), 2).expect("a chain of two");
    let error = full.begin(&change(30), &local(), now()).expect_err("a third one");
    assert!(error.to_string().contains("at most 2 roots"), "{error}");
    drop(full);
    assert_eq!(listing(folder.path()), before);
    rotate(folder.path(), &change(30)).expect("where three are allowed");
}

#[test]
fn a_root_that_is_too_long_leaves_no_keys_behind() {
    let folder = made(&RootPlan::default());
    let keys = listing(&folder.path().join(KEYS_FOLDER));
    let change = RootChange { add: vec![RoleType::Targets; 200], ..RootChange::default() };
    let error = rotate(folder.path(), &change).expect_err("it is too long");
    assert!(error.to_string().contains("more than 65536 bytes"), "{error}");
    assert_eq!(listing(&folder.path().join(KEYS_FOLDER)), keys);
}
