use super::*;
use crate::bundle::contents::Entry;
use jiff::Timestamp;

fn archive(folder: &Path, name: &str, content: &[u8]) -> (PathBuf, Contents) {
    let path = folder.join(name);
    let mut bytes = vec![0; 512];
    bytes.extend_from_slice(content);
    fs::write(&path, bytes).expect("write");
    let blob = Entry::blob(Digest::of(content), content.len() as u64, "x/y");
    (path, Contents::new("a".to_owned(), 1, Timestamp::UNIX_EPOCH, b"{}", vec![blob]))
}

fn read(mut stored: Stored) -> Vec<u8> {
    let mut bytes = Vec::new();
    stored.read_to_end(&mut bytes).expect("it can be read");
    bytes
}

fn lists(folder: &Path) -> usize {
    fs::read_dir(folder.join(FOLDER)).map_or(0, Iterator::count)
}

#[test]
fn lists_of_archives_that_are_gone_or_changed_are_removed_and_foreign_files_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("cache");
    let (one, contents) = archive(folder.path(), "one.tar", b"one");
    let (two, others) = archive(folder.path(), "two.tar", b"two");
    let cache = Cache::open(&home);
    assert!(cache.find(&Digest::of("one"), 3).is_none());
    cache.record(std::slice::from_ref(&one), &contents, 0).expect("recorded");
    cache.record(std::slice::from_ref(&two), &others, 0).expect("recorded");
    let cache = Cache::open(&home);
    assert_eq!(read(cache.find(&Digest::of("one"), 3).expect("it is known")), b"one");
    assert_eq!(read(cache.verified(&Digest::of("two"), 3).expect("it is right")), b"two");
    assert!(cache.find(&Digest::of("one"), 4).is_none(), "another length");
    cache.distrust(&Digest::of("one"));
    assert!(cache.find(&Digest::of("one"), 3).is_none());

    fs::write(home.join(FOLDER).join("notes.json"), b"mine").expect("write");
    let garbage = format!("{}.json", Digest::of("x").hex());
    fs::write(home.join(FOLDER).join(garbage), b"{").expect("write");
    fs::remove_file(&one).expect("remove");
    fs::write(&two, b"longer than it was before, so it is no more what it was").expect("write");
    let cache = Cache::open(&home);
    assert!(cache.find(&Digest::of("two"), 3).is_none());
    assert_eq!(lists(&home), 1, "only the file that is none of ours");
}

#[tokio::test]
async fn a_blob_in_several_parts_reads_the_same_both_ways() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, contents) = archive(folder.path(), "whole.tar", b"0123456789");
    let bytes = fs::read(folder.path().join("whole.tar")).expect("read");
    let parts = [&bytes[..513], &bytes[513..515], &bytes[515..520], &bytes[520..]];
    let paths: Vec<PathBuf> = (0..parts.len()).map(|n| folder.path().join(format!("p.{n}"))).collect();
    for (path, part) in paths.iter().zip(parts) {
        fs::write(path, part).expect("write");
    }
    let cache = Cache::open(folder.path());
    cache.record(&paths, &contents, 0).expect("recorded");
    let cache = Cache::open(folder.path());
    let digest = Digest::of("0123456789");
    assert_eq!(read(cache.find(&digest, 10).expect("it is known")), b"0123456789");
    let mut streamed = Vec::new();
    let stored = cache.verified(&digest, 10).expect("it is right");
    stored.into_stream().expect("a stream").read_to_end(&mut streamed).await.expect("it can be read");
    assert_eq!(streamed, b"0123456789");
}

#[test]
fn a_blob_that_is_not_what_it_was_is_not_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("cache");
    let (path, contents) = archive(folder.path(), "one.tar", b"one");
    let cache = Cache::open(&home);
    cache.record(std::slice::from_ref(&path), &contents, 0).expect("recorded");
    let cache = Cache::open(&home);
    fs::write(&path, [1; 515]).expect("write");
    assert!(cache.verified(&Digest::of("one"), 3).is_none());
    assert!(cache.find(&Digest::of("one"), 3).is_none(), "it is not tried again");
}

#[test]
fn the_number_of_lists_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("cache");
    for n in 0..ARCHIVES + 3 {
        let (path, contents) = archive(folder.path(), &format!("{n}.tar"), format!("content {n}").as_bytes());
        Cache::open(&home).record(&[path], &contents, 0).expect("recorded");
    }
    let cache = Cache::open(&home);
    assert_eq!(lists(&home), ARCHIVES);
    let last = format!("content {}", ARCHIVES + 2);
    assert!(cache.find(&Digest::of(&last), last.len() as u64).is_some(), "the newest stay");
}

#[test]
fn builders_at_the_same_time_lose_nothing_of_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("cache");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (folder, home) = (folder.path(), &home);
            scope.spawn(move || {
                let (path, contents) = archive(folder, &format!("{n}.tar"), format!("{n}").as_bytes());
                for _ in 0..5 {
                    Cache::open(home).record(std::slice::from_ref(&path), &contents, 0).expect("recorded");
                }
            });
        }
    });
    let cache = Cache::open(&home);
    for n in 0..8 {
        assert!(cache.find(&Digest::of(n.to_string()), 1).is_some(), "{n}");
    }
}
