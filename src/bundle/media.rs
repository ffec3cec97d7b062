//! The parts of a bundle from media of which not all can be in the drive at once: one forward pass, each part once, and
//! somebody who is asked for the one that is not there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::parts::{MissingPart, PartName, PartSet, PartsError};

/// What is asked when a part can't be found or used. It gives another place to look, or nothing where the places known are
/// to be looked at again.
pub trait Ask: Send {
    /// Asks for this part. `why` says what is wrong, as "it is in none of ...".
    ///
    /// # Errors
    /// With [`MissingPart`] inside, when nobody brings it.
    fn ask(&mut self, number: u32, why: &str) -> io::Result<Option<PathBuf>>;
}

/// Where the parts of one bundle are looked for.
#[derive(Clone, Debug)]
pub struct Media {
    name: String,
    /// Folders, and files that were named.
    places: Vec<PathBuf>,
    /// Files that turned out to be damaged, as long as somebody brings others.
    refused: Vec<PathBuf>,
}

impl Media {
    /// The media with the parts that were found so far, and the places where they were looked for.
    pub fn new(set: &PartSet, places: &[PathBuf]) -> Self {
        Self { name: set.name().to_owned(), places: places.to_vec(), refused: Vec::new() }
    }

    /// The name of the whole archive's file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The places that were named.
    pub fn places(&self) -> &[PathBuf] {
        &self.places
    }

    /// Looks here, too, from now on.
    pub fn add(&mut self, place: PathBuf) {
        self.places.push(place);
    }

    /// Uses this file no more.
    pub fn refuse(&mut self, file: PathBuf) {
        self.refused.push(file);
    }

    /// The parts that can be found now.
    ///
    /// # Errors
    /// As [`PartSet::find`].
    pub fn found(&self) -> Result<PartSet, PartsError> {
        let mut files = Vec::new();
        for place in &self.places {
            for folder_or_file in around(place) {
                files.extend(self.candidates(folder_or_file).into_iter().map(|(_, path)| path));
            }
        }
        files.retain(|path| !self.refused.contains(path));
        files.sort();
        files.dedup();
        PartSet::find(&files)
    }

    /// The file of this part, if it is in one of the places now.
    fn part(&self, number: u32) -> Option<PathBuf> {
        let places = self.places.iter().rev().flat_map(|place| around(place));
        places
            .flat_map(|place| self.candidates(place))
            .find(|(found, path)| *found == number && !self.refused.contains(path))
            .map(|(_, path)| path)
    }

    /// The parts of this bundle in a folder, or the one that a file is. What can't be looked at has none: a medium that was
    /// taken out.
    fn candidates(&self, place: &Path) -> Vec<(u32, PathBuf)> {
        let entries = fs::read_dir(if place.as_os_str().is_empty() { Path::new(".") } else { place });
        let paths: Vec<PathBuf> = match entries {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => vec![place.to_owned()],
        };
        let ours = |path: PathBuf| {
            let name = PartName::of(&path).filter(|name| name.whole == self.name && path.is_file())?;
            Some((name.number, path))
        };
        let mut parts: Vec<(u32, PathBuf)> = paths.into_iter().filter_map(ours).collect();
        parts.sort();
        parts
    }
}

/// A place and, where it is a file, the folder that it is in: the other parts may lie beside it. What lies beside a folder
/// belongs to somebody else.
fn around(place: &Path) -> impl Iterator<Item = &Path> {
    let beside = if place.is_dir() { None } else { place.parent() };
    std::iter::once(place).chain(beside)
}

/// The archive as a stream. A part's file is open only while it is read, so that its medium can be taken out.
pub struct MediaReader<A> {
    media: Media,
    ask: A,
    /// The length of the whole, where it is known already.
    total: Option<u64>,
    part_bytes: Option<u64>,
    number: u32,
    at: u64,
    file: Option<File>,
}

impl<A: Ask> MediaReader<A> {
    /// The archive from its start, to its end where `total` says where that is.
    pub fn new(media: Media, ask: A, total: Option<u64>) -> Self {
        Self { media, ask, total, part_bytes: None, number: 1, at: 0, file: None }
    }

    /// Opens the part that is due; asks for it until it is there in its full length.
    fn open(&mut self) -> io::Result<File> {
        let mut why = "it is in none of the places that were named".to_owned();
        loop {
            if let Some(path) = self.media.part(self.number) {
                match self.open_at(&path) {
                    Ok(file) => return Ok(file),
                    Err(reason) => why = format!("`{}` can't be used: {reason}", path.display()),
                }
            }
            if let Some(place) = self.ask.ask(self.number, &why)? {
                self.media.add(place);
            }
        }
    }

    fn open_at(&mut self, path: &Path) -> Result<File, String> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|error| error.to_string())?;
        let usual = *self.part_bytes.get_or_insert(bytes);
        let left = self.total.map(|total| total.saturating_sub(self.at));
        match left.map(|left| left.min(usual)) {
            Some(expected) if expected != bytes => Err(format!("it has {bytes} bytes instead of {expected}")),
            // The last one may be shorter, and without a total nobody knows which that is.
            None if bytes > usual => Err(format!("it has {bytes} bytes, and part 1 has {usual}")),
            _ => Ok(file),
        }
    }
}

impl<A: Ask> Read for MediaReader<A> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.file {
                let count = file.read(buffer)?;
                self.at += count as u64;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.file = None;
                self.number = self.number.checked_add(1).ok_or_else(|| io::Error::other("there are too many parts"))?;
            }
            if self.total.is_some_and(|total| self.at >= total) {
                return Ok(0);
            }
            self.file = Some(self.open()?);
        }
    }
}

/// Nobody is asked: what is not there is missing.
#[derive(Clone, Copy, Debug)]
pub struct NobodyToAsk;

impl Ask for NobodyToAsk {
    fn ask(&mut self, number: u32, _: &str) -> io::Result<Option<PathBuf>> {
        Err(io::Error::new(io::ErrorKind::NotFound, MissingPart { number }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::parts::missing_part;

    /// What was asked, in order.
    type Asked = std::sync::Arc<std::sync::Mutex<Vec<(u32, String)>>>;

    /// A drive for one medium, and somebody who changes it.
    struct Drive {
        root: PathBuf,
        asked: Asked,
        left: usize,
    }

    impl Ask for Drive {
        fn ask(&mut self, number: u32, why: &str) -> io::Result<Option<PathBuf>> {
            self.asked.lock().expect("not poisoned").push((number, why.to_owned()));
            if self.left == 0 {
                return NobodyToAsk.ask(number, why);
            }
            self.left -= 1;
            let drive = self.root.join("drive");
            fs::remove_dir_all(&drive).expect("taken out");
            fs::rename(self.root.join(format!("medium-{number}")), &drive)?;
            Ok(None)
        }
    }

    fn scene(lengths: &[usize]) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut whole = Vec::new();
        for (at, length) in lengths.iter().enumerate() {
            let name = if at == 0 { "drive".to_owned() } else { format!("medium-{}", at + 1) };
            let medium = folder.path().join(name);
            fs::create_dir(&medium).expect("a medium");
            let bytes: Vec<u8> = (0..*length).map(|n| (n * 3 + at) as u8).collect();
            fs::write(medium.join(format!("out.tar.{:03}", at + 1)), &bytes).expect("written");
            whole.extend(bytes);
        }
        (folder, whole)
    }

    fn reader(folder: &Path, total: Option<u64>, left: usize) -> (MediaReader<Drive>, Asked) {
        let places = [folder.join("drive")];
        let media = Media::new(&PartSet::find(&places).expect("part 1"), &places);
        let asked = std::sync::Arc::default();
        let drive = Drive { root: folder.to_owned(), asked: std::sync::Arc::clone(&asked), left };
        (MediaReader::new(media, drive, total), asked)
    }

    #[test]
    fn each_medium_is_asked_for_once_and_in_order() {
        let (folder, whole) = scene(&[1024, 1024, 1024, 100]);
        let (mut reader, asked) = reader(folder.path(), Some(whole.len() as u64), 9);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes, whole);
        let asked: Vec<u32> = asked.lock().expect("not poisoned").iter().map(|(number, _)| *number).collect();
        assert_eq!(asked, [2, 3, 4]);
    }

    #[test]
    fn a_part_of_a_wrong_length_is_asked_for_again_and_giving_up_names_it() {
        let (folder, whole) = scene(&[1024, 1000, 1024]);
        let (mut reader, asked) = reader(folder.path(), Some(3072), 1);
        let mut bytes = Vec::new();
        let error = reader.read_to_end(&mut bytes).expect_err("nobody brings it");
        assert_eq!(missing_part(&error), Some(MissingPart { number: 2 }));
        assert_eq!(bytes, whole[..1024]);
        let asked = asked.lock().expect("not poisoned");
        assert!(asked[0].1.contains("none of the places"), "{asked:?}");
        assert!(asked[1].1.contains("1000 bytes instead of 1024"), "{asked:?}");
    }

    #[test]
    fn what_lies_beside_a_folder_is_not_in_it() {
        let (folder, _) = scene(&[1024, 1024]);
        fs::write(folder.path().join("out.tar.001"), "of an older bundle").expect("written");
        let places = [folder.path().join("drive")];
        let media = Media::new(&PartSet::find(&places).expect("part 1"), &places);
        assert_eq!(media.found().expect("part 1").numbers().collect::<Vec<_>>(), [1]);
        assert_eq!(media.part(1), Some(folder.path().join("drive/out.tar.001")));
    }

    #[test]
    fn a_refused_file_is_not_found_any_more() {
        let (folder, _) = scene(&[1024, 1024]);
        let places = [folder.path().join("drive"), folder.path().join("medium-2/out.tar.002")];
        let mut media = Media::new(&PartSet::find(&places).expect("both"), &places);
        assert_eq!(media.found().expect("both").numbers().collect::<Vec<_>>(), [1, 2]);
        media.refuse(places[1].clone());
        assert_eq!(media.found().expect("one").numbers().collect::<Vec<_>>(), [1]);
        let other = folder.path().join("other");
        fs::create_dir(&other).expect("a medium");
        fs::write(other.join("out.tar.002"), [1; 1024]).expect("written");
        media.add(other.clone());
        assert_eq!(media.found().expect("both").path(2), Some(other.join("out.tar.002").as_path()));
    }
}
