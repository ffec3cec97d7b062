use proptest::prelude::*;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use super::*;
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};

struct Media {
    folder: tempfile::TempDir,
}

impl Media {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("written");
        path
    }

    fn cut(&self, name: &str, whole: &[u8], part_bytes: usize) -> Vec<PathBuf> {
        let pieces = whole.chunks(part_bytes).enumerate();
        pieces.map(|(at, piece)| self.put(&format!("{name}.{:03}", at + 1), piece)).collect()
    }
}

fn whole(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn read_all(parts: &Parts, piece: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; piece];
    loop {
        match parts.read_at(&mut buffer, bytes.len() as u64)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

#[test]
fn names_of_parts_are_a_name_and_at_least_three_digits() {
    let of = |name: &str| PartName::of(Path::new(name)).map(|part| (part.whole, part.number));
    assert_eq!(of("/m/out.tar.001"), Some(("out.tar".to_owned(), 1)));
    assert_eq!(of("out.tar.1000"), Some(("out.tar".to_owned(), 1000)));
    assert_eq!(of("a.0012"), Some(("a".to_owned(), 12)));
    for other in
        ["out.tar", "out.tar.1", "out.tar.01", "out.tar.000", ".001", "out.tar.+01", "out.tar.99999999999", "001"]
    {
        assert_eq!(of(other), None, "{other}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn parts_in_any_order_and_from_any_media_are_the_whole(
        length in 1_usize..6000, part in 1_usize..8, piece in 1_usize..3000, seed: u64,
    ) {
        let (media, whole) = (Media::new(), whole(length));
        let mut places: Vec<PathBuf> = Vec::new();
        for (at, bytes) in whole.chunks(part * 512).enumerate() {
            let medium = (seed >> (at % 60)) & 3;
            places.push(media.put(&format!("{medium}/out.tar.{:03}", at + 1), bytes));
        }
        let turn = seed as usize % places.len();
        places.rotate_left(turn);
        let parts = PartSet::find(&places).expect("found").arrange(length as u64).expect("arranged");
        prop_assert!(parts.lacking().is_empty());
        prop_assert_eq!(read_all(&parts, piece).expect("read"), whole.clone());
        // The folders alone say the same.
        let folders: BTreeSet<PathBuf> = places.iter().map(|p| p.parent().expect("a folder").to_owned()).collect();
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        let parts = PartSet::find(&folders).expect("found").arrange(length as u64).expect("arranged");
        prop_assert_eq!(read_all(&parts, piece).expect("read"), whole);
    }
}

#[test]
fn what_lies_in_a_missing_part_is_missing_and_nothing_else() {
    let (media, whole) = (Media::new(), whole(4 * 1024 + 100));
    let places = media.cut("out.tar", &whole, 1024);
    fs::remove_file(&places[2]).expect("removed");
    let parts = PartSet::find(&[media.folder.path().to_owned()]).expect("found").arrange(4196).expect("arranged");
    assert_eq!(parts.count(), 5);
    assert_eq!(parts.lacking().iter().collect::<Vec<_>>(), [(&3, &Lack::Absent)]);
    assert!(parts.has(&(0..2048)) && !parts.has(&(0..2049)) && !parts.has(&(3071..3072)) && parts.has(&(3072..4196)));
    let mut buffer = [0; 10];
    assert_eq!(parts.read_at(&mut buffer, 2043).expect("the end of part 2"), 5);
    let error = parts.read_at(&mut buffer, 2048).expect_err("part 3");
    assert_eq!(missing_part(&error), Some(MissingPart { number: 3 }));
    assert_eq!(parts.read_at(&mut buffer, 4196).expect("the end"), 0);
    assert_eq!(parts.holding(&(1000..3000)), 1..=3);
}

#[test]
fn a_part_of_a_wrong_length_is_as_good_as_absent_even_the_first() {
    for wrong in 0..4 {
        let (media, whole) = (Media::new(), whole(4 * 1024));
        let places = media.cut("out.tar", &whole, 1024);
        fs::write(&places[wrong], &whole[..1000]).expect("cut");
        let parts = PartSet::find(&places).expect("found").arrange(4096).expect("arranged");
        let number = wrong as u32 + 1;
        let lack = Lack::Length { path: places[wrong].clone(), found: 1000, expected: 1024 };
        assert_eq!(parts.lacking().iter().collect::<Vec<_>>(), [(&number, &lack)]);
    }
}

#[test]
fn the_same_number_twice_with_the_same_bytes_is_one_part_and_with_other_bytes_refused() {
    let (media, whole) = (Media::new(), whole(2048));
    let mut places = media.cut("a/out.tar", &whole, 1024);
    places.push(media.put("b/out.tar.002", &whole[1024..]));
    places.push(places[0].clone());
    let parts = PartSet::find(&places).expect("found").arrange(2048).expect("arranged");
    assert_eq!(read_all(&parts, 100).expect("read"), whole);

    let mut other = whole[1024..].to_vec();
    other[3] ^= 1;
    places.push(media.put("c/out.tar.002", &other));
    let error = PartSet::find(&places).expect_err("refused");
    assert!(matches!(error, PartsError::Twice { number: 2, .. }), "{error}");
    assert_eq!(error.class(), ExitClass::Refused);
    let sums = format!("{}  out.tar.002\n", Digest::of(&whole[1024..]).hex());
    media.put("a/out.tar.sha256", sums.as_bytes());
    media.put("c/out.tar.sha256", sums.as_bytes());
    let message = PartSet::find(&places).expect_err("refused").to_string();
    assert!(message.contains("a/out.tar.002` is part 2 as it was made"), "{message}");
}

#[test]
fn parts_of_two_bundles_and_one_too_many_are_refused() {
    let (media, whole) = (Media::new(), whole(2048));
    media.cut("out.tar", &whole, 1024);
    let extra = media.put("out.tar.003", &whole[..1024]);
    let folder = [media.folder.path().to_owned()];
    let error = PartSet::find(&folder).expect("found").arrange(2048).expect_err("refused");
    assert!(matches!(&error, PartsError::TooMany { number: 3, count: 2, path, .. } if *path == extra), "{error}");
    media.put("other.tar.001", b"x");
    assert!(matches!(PartSet::find(&folder), Err(PartsError::TwoBundles { .. })));
    let empty = Media::new();
    empty.put("out.tar", b"a whole one is no part");
    assert!(matches!(PartSet::find(&[empty.folder.path().to_owned()]), Err(PartsError::NoParts { .. })));
}

#[test]
fn the_beginning_can_be_read_up_to_the_first_gap() {
    let (media, whole) = (Media::new(), whole(4096));
    let places = media.cut("out.tar", &whole, 1024);
    fs::remove_file(&places[2]).expect("removed");
    let set = PartSet::find(&[media.folder.path().to_owned()]).expect("found");
    let mut bytes = Vec::new();
    let error = Read::read_to_end(&mut set.beginning(), &mut bytes).expect_err("a gap");
    assert_eq!(missing_part(&error), Some(MissingPart { number: 3 }));
    assert_eq!(bytes, whole[..2048]);
}

#[test]
fn a_damaged_place_is_blamed_on_its_part_and_the_sums_tell_which_of_two() {
    let (media, whole) = (Media::new(), whole(3072));
    let places = media.cut("out.tar", &whole, 1024);
    let parts = || PartSet::find(&places).expect("found").arrange(3072).expect("arranged");
    let numbers = |range: Range<u64>| parts().blame(&range).into_iter().map(|b| (b.number, b.sums)).collect::<Vec<_>>();
    assert_eq!(numbers(1000..1100), [(1, SumsSay::Nothing), (2, SumsSay::Nothing)]);
    let line = |at: usize| format!("{} *out.tar.{:03}\n", Digest::of(&whole[at * 1024..][..1024]).hex(), at + 1);
    media.put("out.tar.sha256", format!("{}{}{}", line(0), line(1), line(2)).as_bytes());
    let mut damaged = whole[1024..2048].to_vec();
    damaged[0] ^= 1;
    fs::write(&places[1], damaged).expect("damaged");
    assert_eq!(numbers(1000..1100), [(2, SumsSay::Damaged)]);
    assert_eq!(numbers(2048..2050), [(3, SumsSay::Intact)]);
}

#[test]
fn numbers_are_listed_as_people_write_them() {
    assert_eq!(list([1, 2, 4, 6, 7, 8]), "1, 2, 4, 6-8");
    assert_eq!(list((0..60).map(|n| n * 2)).matches(',').count(), 19);
}

fn told(error: BundleError) -> PartsTrouble {
    match error {
        BundleError::Parts(PartsError::Broken { trouble, .. }) => trouble,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_wrong_in_the_beginning_is_told_by_the_parts_numbers() {
    let (media, whole) = (Media::new(), whole(4096));
    let places = media.cut("out.tar", &whole, 1024);
    let find = || PartSet::find(&places).expect("found");
    let damage = |offset, size| BundleError::Digest {
        entry: "index.json".to_owned(),
        offset,
        size,
        expected: Digest::of("a"),
        found: Digest::of("b"),
    };
    let numbers = |error| told(find().in_beginning(error)).numbers().collect::<Vec<_>>();
    assert_eq!(numbers(damage(1024, 100)), [1], "it ends with part 1");
    assert_eq!(numbers(damage(1025, 100)), [1, 2]);
    let refused = find().in_beginning(BundleError::Contents("no label".to_owned()));
    assert!(matches!(refused, BundleError::Contents(_)), "it is about no place");

    // The last one may be shorter, and so what it ends with is not blamed on it.
    fs::write(&places[3], &whole[..100]).expect("shorter");
    let refused = find().in_beginning(BundleError::Contents("no label".to_owned()));
    assert!(matches!(refused, BundleError::Contents(_)), "{refused}");

    // A part that was cut moves everything behind it, so that damage seems to be where there is none.
    fs::write(&places[0], &whole[..1000]).expect("cut");
    let trouble = told(find().in_beginning(damage(2000, 100)));
    let cut = Lack::Length { path: places[0].clone(), found: 1000, expected: 1024 };
    assert_eq!((trouble.lacking, trouble.damaged), (vec![(1, cut)], Vec::new()));
    let unread = told(find().in_beginning(BundleError::Contents("no label".to_owned())));
    assert_eq!(unread.numbers().collect::<Vec<_>>(), [1], "whatever could not be read because of it");
    fs::write(&places[3], &whole[3072..]).expect("as it was");
    assert_eq!(told(find().whole(4096).expect_err("part 1 is cut").into()).numbers().collect::<Vec<_>>(), [1]);
}
