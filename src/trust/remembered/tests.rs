//! Versions, roots, notices, and a state that was cut off, lost or exchanged.

use std::fs;

use super::*;
use crate::model::notice::Revocation;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn candidate(name: &str, version: u64) -> Candidate {
    Candidate {
        roots: vec![Digest::of("root 1")],
        name: name.to_owned(),
        version,
        content: Digest::of("a"),
        created: at("2026-01-01T00:00:00Z"),
        items: BTreeSet::from([Digest::of("an item")]),
    }
}

#[test]
fn only_newer_versions_or_the_same_content_are_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = Remembered::in_folder(folder.path().join("state"));
    let (a, b) = (Digest::of("a"), Digest::of("b"));
    let now = at("2026-01-02T00:00:00Z");
    let check = |version, content, now| remembered.check(Candidate { content, ..candidate("content", version) }, now);

    check(5, a, now).expect("the first").remember(&Notices::default(), Use::First).expect("remembered");
    check(5, a, now).expect("the same again").remember(&Notices::default(), Use::First).expect("remembered");
    assert!(matches!(check(4, a, now), Err(TrustError::Rollback { offered: 4, known: 5, .. })));
    assert!(matches!(check(5, b, now), Err(TrustError::OtherContent { version: 5, .. })));
    assert!(matches!(check(6, b, at("2026-01-01T23:58:59Z")), Err(TrustError::ClockBack { .. })));
    assert!(matches!(check(6, b, at("1970-01-01T00:00:00Z")), Err(TrustError::NotYetValid { .. })));
    check(6, b, at("2026-01-01T23:59:30Z"))
        .expect("newer; a drift")
        .remember(&Notices::default(), Use::First)
        .expect("remembered");
    assert!(check(6, b, at("2026-01-01T23:58:59Z")).is_err(), "a drift does not move the latest known time back");
    assert!(check(5, a, now).is_err());
    // Another lineage and another name have their own memory.
    let other = Candidate { roots: vec![Digest::of("other")], ..candidate("content", 1) };
    let _ = remembered.check(other, now).expect("another lineage");
    let _ = remembered.check(candidate("other", 1), now).expect("another name");
}

#[test]
fn a_bundle_under_an_older_root_could_be_signed_by_a_revoked_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = Remembered::in_folder(folder.path());
    let now = at("2026-01-02T00:00:00Z");
    let under = |root: u64, text: &str, name: &str| {
        let mut roots: Vec<Digest> = (1..root).map(|n| Digest::of(format!("root {n}"))).collect();
        roots.push(Digest::of(text));
        remembered.check(Candidate { roots, ..candidate(name, 9) }, now)
    };
    under(1, "root 1", "content").expect("the first").remember(&Notices::default(), Use::First).expect("remembered");
    under(2, "root 2", "content").expect("rotated").remember(&Notices::default(), Use::First).expect("remembered");
    assert!(matches!(under(1, "root 1", "content"), Err(TrustError::RootRollback { offered: 1, known: 2, .. })));
    assert!(matches!(under(1, "root 1", "another"), Err(TrustError::RootRollback { .. })), "whatever its name");
    assert!(matches!(under(2, "a fork", "another"), Err(TrustError::OtherRoot(_))));
    let _ = under(3, "root 3", "another").expect("rotated again");
}

#[test]
fn two_offers_made_at_once_can_not_bring_the_older_one_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = Remembered::in_folder(folder.path());
    let now = at("2026-01-02T00:00:00Z");
    let check = |version| remembered.check(candidate("c", version), now);
    let (older, newer) = (check(1).expect("nothing known"), check(2).expect("nothing known"));
    newer.remember(&Notices::default(), Use::First).expect("remembered");
    assert!(matches!(older.remember(&Notices::default(), Use::First), Err(TrustError::Rollback { .. })));
}

#[test]
fn a_damaged_memory_and_a_name_that_is_a_path_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = Remembered::in_folder(folder.path());
    let now = at("2026-01-02T00:00:00Z");
    let check = |name: &str| remembered.check(candidate(name, 1), now);
    for name in ["../x", "a/b", "", "-a", "A", "a\0", "a.b", "ROOT"] {
        assert!(matches!(check(name), Err(TrustError::State { .. })), "{name:?}");
    }
    check("c").expect("new").remember(&Notices::default(), Use::First).expect("remembered");
    for file in ["c.json", "ROOT"] {
        let path = folder.path().join(Digest::of("root 1").hex()).join(file);
        let good = fs::read(&path).expect("remembered");
        fs::write(&path, b"{").expect("write");
        assert!(matches!(check("c"), Err(TrustError::State { .. })), "{file}");
        fs::write(&path, good).expect("write");
    }
}

fn revocation(reason: &str) -> Revocation {
    Revocation { bundle: None, version: None, content: None, item: None, reason: reason.to_owned() }
}

fn revoking(revocation: Revocation) -> Notices {
    Notices { revocations: vec![revocation], permits: Vec::new() }
}

fn permitting(version: u64, content: &str, until: &str) -> Notices {
    let (bundle, content, reason) = ("c".to_owned(), Digest::of(content), "a bad database".to_owned());
    Notices { revocations: Vec::new(), permits: vec![Permit { bundle, version, content, until: at(until), reason }] }
}

/// A state in which version 7 of the bundle `c` was loaded.
fn at_seven(folder: &tempfile::TempDir) -> Remembered {
    let remembered = Remembered::in_folder(folder.path());
    let offer = remembered.check(candidate("c", 7), at("2026-01-02T00:00:00Z")).expect("new");
    offer.remember(&Notices::default(), Use::First).expect("remembered");
    remembered
}

#[test]
fn what_was_revoked_is_refused_under_its_root_and_under_no_other() {
    let now = at("2026-01-02T00:00:00Z");
    let cases = [
        ("by its version", Revocation { bundle: Some("c".to_owned()), version: Some(7), ..revocation("bad") }),
        (
            "by its content",
            Revocation { bundle: Some("c".to_owned()), content: Some(Digest::of("a")), ..revocation("bad") },
        ),
        ("by an item in it", Revocation { item: Some(Digest::of("an item")), ..revocation("bad") }),
    ];
    for (case, revocation) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let remembered = at_seven(&folder);
        let notices = Candidate { items: BTreeSet::new(), content: Digest::of("n"), ..candidate("notices", 1) };
        // The same notices under another root, which says nothing about these bundles.
        let foreign = Candidate { roots: vec![Digest::of("other")], ..notices.clone() };
        let said = revoking(revocation);
        remembered.check(foreign, now).expect("new").remember(&said, Use::First).expect("remembered");
        let _ = remembered.check(candidate("c", 7), now).expect("nothing was revoked under this root");
        let raced = remembered.check(candidate("c", 7), now).expect("not revoked yet");
        remembered.check(notices, now).expect("new").remember(&said, Use::First).expect("remembered");
        let error = remembered.check(candidate("c", 7), now).expect_err(case);
        assert!(matches!(&error, TrustError::Revoked { reason, .. } if reason == "bad"), "{case}: {error}");
        assert!(matches!(raced.remember(&Notices::default(), Use::Again), Err(TrustError::Revoked { .. })), "{case}");
        let mended = Candidate { items: BTreeSet::new(), content: Digest::of("b"), ..candidate("c", 8) };
        let _ = remembered.check(mended, now).expect("another version without the item");
        // A bundle that says so of itself is not kept, nor is what it says.
        let itself = Remembered::in_folder(folder.path().join("other"));
        let offer = itself.check(candidate("c", 7), now).expect("new");
        assert!(matches!(offer.remember(&said, Use::First), Err(TrustError::Revoked { .. })), "{case}");
        let _ = itself.check(candidate("c", 7), now).expect("nothing was kept");
    }
}

#[test]
fn a_permit_lets_one_older_version_in_once_until_its_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = at_seven(&folder);
    let now = at("2026-01-03T00:00:00Z");
    let check = |version, content: &str, now| {
        remembered.check(Candidate { content: Digest::of(content), ..candidate("c", version) }, now)
    };
    let load = |version, content: &str, now| -> Result<(), TrustError> {
        check(version, content, now)?.remember(&Notices::default(), Use::First)
    };
    let mut number = 0;
    let mut say = |notices: &Notices| {
        number += 1;
        let offer = remembered.check(Candidate { content: Digest::of("n"), ..candidate("notices", number) }, now);
        offer.expect("new").remember(notices, Use::First).expect("remembered");
    };
    assert!(matches!(load(5, "five", now), Err(TrustError::Rollback { offered: 5, known: 7, .. })));
    say(&permitting(5, "five", "2026-02-01T00:00:00Z"));
    let second = |text: &str| check(5, "five", at(text));
    let _ = second("2026-02-01T00:00:00Z").expect("to its last second");
    assert!(matches!(second("2026-02-01T00:00:01Z"), Err(TrustError::PermitOver { .. })), "though it was never used");
    assert!(matches!(load(5, "other", now), Err(TrustError::Rollback { .. })), "a permit for other content");
    assert!(matches!(load(4, "five", now), Err(TrustError::Rollback { .. })), "a permit for another version");
    load(5, "five", now).expect("permitted");
    load(5, "five", now).expect("a load that is repeated");
    check(5, "five", now).expect("read again").remember(&Notices::default(), Use::Again).expect("remembered");
    // A reader that still finds the newest does not end it; one who loads the newest does.
    check(7, "a", now).expect("the newest").remember(&Notices::default(), Use::Again).expect("remembered");
    load(5, "five", now).expect("still in use");
    assert!(matches!(load(6, "six", now), Err(TrustError::Rollback { known: 7, .. })), "the newest is not forgotten");
    let late = at("2026-02-01T00:00:01Z");
    assert!(matches!(check(5, "five", late), Err(TrustError::PermitOver { .. })), "also for what is in use");
    load(7, "a", now).expect("the newest");
    assert!(matches!(load(5, "five", now), Err(TrustError::PermitUsed { .. })));
    say(&permitting(5, "five", "2026-02-01T00:00:00Z"));
    assert!(matches!(load(5, "five", now), Err(TrustError::PermitUsed { .. })), "the same permit again is no new one");
    say(&permitting(5, "five", "2026-02-02T00:00:00Z"));
    load(5, "five", now).expect("a new permit");
    load(8, "eight", now).expect("newer");
    assert!(matches!(load(5, "five", now), Err(TrustError::PermitUsed { .. })));
    // A revocation counts more than a permit.
    say(&permitting(6, "six", "2026-02-01T00:00:00Z"));
    say(&revoking(Revocation { bundle: Some("c".to_owned()), version: Some(6), ..revocation("bad") }));
    assert!(matches!(load(6, "six", now), Err(TrustError::Revoked { .. })));
}

#[test]
fn a_state_that_knows_less_than_the_ledger_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = at_seven(&folder);
    let now = at("2026-01-03T00:00:00Z");
    let recorded = |version, content: &str, root: &str| Witnessed {
        bundle: BundleRef { name: "c".to_owned(), version, digest: Digest::of(content), root: Digest::of(root) },
        at: at("2026-01-02T12:00:00Z"),
    };
    let check = |by: Vec<Witnessed>, on_loss, version, content: &str| {
        let candidate = Candidate { content: Digest::of(content), ..candidate("c", version) };
        remembered.clone().witnessed(by, on_loss).check(candidate, now)
    };
    let _ = check(vec![recorded(7, "a", "root 1")], OnLoss::Refuse, 7, "a").expect("both know the same");
    let _ = check(vec![recorded(6, "x", "root 1")], OnLoss::Refuse, 7, "a").expect("the state knows more");
    let _ = check(vec![recorded(9, "x", "another root")], OnLoss::Refuse, 7, "a").expect("that is another bundle");
    for on_loss in [OnLoss::Refuse, OnLoss::Adopt] {
        let other = check(vec![recorded(7, "b", "root 1")], on_loss, 7, "a");
        assert!(matches!(other, Err(TrustError::StateLost { .. })), "other content of the same version");
    }
    let newer = || vec![recorded(6, "x", "root 1"), recorded(9, "nine", "root 1")];
    assert!(matches!(check(newer(), OnLoss::Refuse, 9, "nine"), Err(TrustError::StateLost { .. })), "an older copy");
    assert!(matches!(check(newer(), OnLoss::Refuse, 10, "ten"), Err(TrustError::StateLost { .. })));
    // An operator who knows why takes what was recorded: older is still refused, and from then on it is remembered.
    assert!(matches!(check(newer(), OnLoss::Adopt, 8, "eight"), Err(TrustError::Rollback { known: 9, .. })));
    assert!(matches!(check(newer(), OnLoss::Adopt, 9, "x"), Err(TrustError::OtherContent { .. })));
    let offer = check(newer(), OnLoss::Adopt, 9, "nine").expect("what was recorded");
    offer.remember(&Notices::default(), Use::Again).expect("remembered");
    let _ = check(newer(), OnLoss::Refuse, 9, "nine").expect("known again");

    fs::remove_dir_all(folder.path()).expect("removed");
    assert!(matches!(check(newer(), OnLoss::Refuse, 9, "nine"), Err(TrustError::StateLost { .. })), "a lost state");
    assert!(matches!(check(newer(), OnLoss::Adopt, 7, "a"), Err(TrustError::Rollback { known: 9, .. })));
    check(newer(), OnLoss::Adopt, 10, "ten").expect("newer").remember(&Notices::default(), Use::First).expect("kept");
    let _ = check(newer(), OnLoss::Refuse, 10, "ten").expect("known again");
}

/// Every file of a folder with its content.
fn snapshot(folder: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(snapshot(&path)),
            false => files.push((path.clone(), fs::read(&path).expect("a file"))),
        }
    }
    files.sort();
    files
}

#[test]
fn a_state_that_was_cut_off_at_any_write_accepts_nothing_older() {
    let now = at("2026-01-03T00:00:00Z");
    let next = || {
        let roots = vec![Digest::of("root 1"), Digest::of("root 2")];
        Candidate { roots, content: Digest::of("eight"), items: BTreeSet::new(), ..candidate("c", 8) }
    };
    let mut said = revoking(Revocation { item: Some(Digest::of("an item")), ..revocation("bad") });
    said.permits = permitting(5, "five", "2026-02-01T00:00:00Z").permits;
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = at_seven(&folder);
    let before = snapshot(folder.path());
    remembered.check(next(), now).expect("newer").remember(&said, Use::First).expect("remembered");
    let after = snapshot(folder.path());
    // The order in which `remember` writes; what is written is whole, and half a file beside it has another name.
    let order = ["ROOT", "NOTICES", "c.json"];
    let changed: Vec<&(PathBuf, Vec<u8>)> = after.iter().filter(|file| !before.contains(file)).collect();
    assert_eq!(changed.len(), order.len(), "a file that is written and not cut here: {changed:?}");
    for written in 0..=order.len() {
        fs::remove_dir_all(folder.path()).expect("removed");
        for (path, content) in &before {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("write");
        }
        for name in &order[..written] {
            let (path, content) = changed.iter().find(|(path, _)| path.ends_with(name)).expect("it was written");
            fs::write(path, content).expect("write");
        }
        let lineage = folder.path().join(Digest::of("root 1").hex());
        fs::write(lineage.join(".gapscan-abcdef"), &after[0].1[..after[0].1.len() / 2]).expect("write");
        let case = format!("killed after {written} files");
        assert!(remembered.check(candidate("c", 6), now).is_err(), "{case}: an older version");
        let other = Candidate { content: Digest::of("b"), items: BTreeSet::new(), ..candidate("c", 7) };
        assert!(remembered.check(other, now).is_err(), "{case}: other content");
        let older_root = remembered.check(candidate("c", 7), now);
        assert_eq!(older_root.is_err(), written > 0, "{case}: what was accepted before goes when the root is known");
        let again = remembered.check(next(), now).expect("what was being remembered can be loaded again");
        again.remember(&said, Use::First).expect("remembered");
        let kept: Vec<_> =
            snapshot(folder.path()).into_iter().filter(|(p, _)| !p.ends_with(".gapscan-abcdef")).collect();
        assert_eq!(kept, after, "{case}: it ends as if nothing had happened");
    }
}

#[test]
fn more_notices_than_can_be_kept_are_refused_and_the_state_stays_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let remembered = at_seven(&folder);
    let now = at("2026-01-03T00:00:00Z");
    // Each of these characters takes two in the file.
    let reason = "\"".repeat(500);
    let bundle = Some("b".repeat(63));
    let content = Some(Digest::of("x"));
    let long = Revocation { bundle, content, reason: reason.clone(), version: None, item: None };
    let revocations = |count: u64| -> Vec<Revocation> {
        let reason = |number| format!("{number:05}{}", &reason[..495]);
        (0..count).map(|number| Revocation { reason: reason(number), ..long.clone() }).collect()
    };
    let permits = |count: u64| -> Vec<Permit> {
        let one = permitting(1, "x", "2100-01-01T00:00:00Z").permits.remove(0);
        (1..=count).map(|version| Permit { version, reason: reason.clone(), ..one.clone() }).collect()
    };
    let said = |revoked, permitted| Notices { revocations: revocations(revoked), permits: permits(permitted) };
    let notices = Candidate { items: BTreeSet::new(), ..candidate("notices", 1) };
    let lineage = folder.path().join(Digest::of("root 1").hex());
    for (case, said) in [("too many", said(10_001, 0)), ("too long", said(7_500, 7_500))] {
        let offer = remembered.check(notices.clone(), now).expect("new");
        let error = offer.remember(&said, Use::First).expect_err(case);
        assert!(matches!(error, TrustError::StateFull { .. }), "{case}: {error}");
        assert!(!lineage.join("notices.json").exists(), "{case}: it is not remembered");
        let _ = remembered.check(candidate("c", 7), now).expect("everything else goes on");
    }
}
