//! A bundle in a file that somebody touches while it is read, and one that is not read to its end.

use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::attack::{block, good};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::bundle::BundleError;
use crate::bundle::archive::{BLOCK, END};
use crate::bundle::random::{BundleFile, FileBlob};
use crate::bundle::read_at::OneFile;
use crate::trust::remembered::Remembered;

fn opened(path: &Path) -> BundleFile {
    let archive = Arc::new(OneFile::open(path).expect("a file"));
    let (sample, nothing) = (&good().sample, Remembered::nothing());
    block(BundleFile::open(archive, &sample.root, &nothing, &Limits::default(), sample.now)).expect("a good bundle")
}

/// Reads a blob; gives what was handed on.
fn read(blob: &FileBlob) -> (Vec<u8>, Result<(), BundleError>) {
    let mut bytes = Vec::new();
    let end = blob.each_piece(0, |piece| {
        bytes.extend_from_slice(&piece);
        ControlFlow::Continue(())
    });
    (bytes, end)
}

/// Blobs that have something in them.
fn full(file: &BundleFile) -> Vec<FileBlob> {
    file.blobs().filter(|blob| blob.entry().size > 0).collect()
}

fn overwrite(path: &Path, bytes: &[u8], at: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("the file");
    file.write_all_at(bytes, at).expect("written");
}

/// What was opened and verified is what is read, whatever is put under its name meanwhile.
#[test]
fn file_replaced_after_verification() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, other) = (folder.path().join("good.tar"), folder.path().join("other.tar"));
    fs::write(&path, &good().bytes).expect("a file");
    fs::write(&other, block(good().sample.bytes(2))).expect("a file");
    let file = opened(&path);
    fs::rename(&other, &path).expect("replaced");
    for blob in file.blobs() {
        let (bytes, end) = read(&blob);
        end.expect("the file that was opened");
        assert_eq!(Digest::of(&bytes), blob.entry().digest);
    }
    let proof = file.finish().expect("the file that was opened");
    assert_eq!((proof.bundle().version, proof.bytes()), (1, good().bytes.len() as u64));
    assert_eq!(opened(&path).head().bundle().version, 2, "it was replaced");
}

/// Each reading verifies anew: what is sent are never bytes that were changed after somebody looked at them.
#[test]
fn file_changed_in_place_while_it_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("good.tar");
    let bytes = &good().bytes;
    fs::write(&path, bytes).expect("a file");
    let count = full(&opened(&path)).len();
    assert!(count > 3);
    for at in 0..count {
        let place = full(&opened(&path))[at].offset();
        let size = full(&opened(&path))[at].entry().size;
        let header = place - BLOCK as u64;
        for (what, from) in
            [("content", place), ("its end", place + size - 1), ("header", header + 100), ("padding", place + size)]
        {
            if what == "padding" && size.is_multiple_of(BLOCK as u64) {
                continue;
            }
            for seen_before in [false, true] {
                let file = opened(&path);
                let blob = &full(&file)[at];
                if seen_before {
                    read(blob).1.expect("not changed yet");
                }
                overwrite(&path, &[bytes[from as usize] ^ 1], from);
                let (handed_on, end) = read(blob);
                let error = end.expect_err(what);
                let fits = match what {
                    "header" => matches!(error, BundleError::Header { .. }),
                    "padding" => matches!(error, BundleError::Padding { .. }),
                    _ => matches!(error, BundleError::Digest { .. }),
                };
                assert!(fits, "{what}: {error}");
                assert!((handed_on.len() as u64) < size, "{what}: all of it was handed on");
                if !seen_before {
                    for other in file.blobs().filter(|other| other.offset() != blob.offset()) {
                        read(&other).1.expect("not changed");
                    }
                    assert!(matches!(file.finish(), Err(BundleError::Unread(1))), "{what}");
                }
                overwrite(&path, &bytes[from as usize..=from as usize], from);
            }
        }
    }
    // It ends sooner than it did, or its end is another.
    let end = bytes.len() as u64;
    for (what, change) in [
        ("cut", &(|file: &File| file.set_len(end - 1)) as &dyn Fn(&File) -> std::io::Result<()>),
        ("end", &|file: &File| file.write_all_at(&[1], end - END.len() as u64)),
    ] {
        fs::write(&path, bytes).expect("a file");
        let file = opened(&path);
        file.blobs().for_each(|blob| read(&blob).1.expect("whole"));
        change(&OpenOptions::new().write(true).open(&path).expect("the file")).expect("changed");
        let error = file.finish().expect_err(what);
        assert!(matches!(error, BundleError::Truncated { .. } | BundleError::EndMarker { .. }), "{what}: {error}");
    }
}

/// A blob that nobody read, or not to its end, is not proven, and one that was vouched for is named.
#[test]
fn nothing_is_proven_of_what_was_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("good.tar");
    fs::write(&path, &good().bytes).expect("a file");
    let count = opened(&path).blobs().len();
    assert!(matches!(opened(&path).finish(), Err(BundleError::Unread(unread)) if unread == count));
    for left in 0..count {
        let file = opened(&path);
        let blobs: Vec<FileBlob> = file.blobs().collect();
        let others = || blobs.iter().enumerate().filter(|(at, _)| *at != left).map(|(_, blob)| blob);
        others().for_each(|blob| read(blob).1.expect("good"));
        assert!(matches!(file.finish(), Err(BundleError::Unread(1))));

        let file = opened(&path);
        let blobs: Vec<FileBlob> = file.blobs().collect();
        blobs.iter().enumerate().filter(|(at, _)| *at != left).for_each(|(_, blob)| read(blob).1.expect("good"));
        blobs[left].vouched_by_registry();
        let proof = file.finish().expect("known elsewhere");
        assert_eq!(proof.unread(), [blobs[left].entry().digest]);
    }
}
