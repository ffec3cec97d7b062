use std::collections::HashMap;
use std::io::Cursor;

use super::*;
use crate::cluster::agent::archive::{Place, Receipt, receive};

/// What a stream gives, one after the other.
type Pieces = Vec<Result<Bytes, &'static str>>;

/// Blobs in memory; what it says of each is what is there, whatever was asked for.
#[derive(Debug, Default)]
struct Shelf(HashMap<Digest, Pieces>);

#[async_trait]
impl BlobSource for Shelf {
    async fn open(&self, digest: &Digest, _: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, SourceError> {
        let missing = || SourceError { reason: Reason::ImageUnreadable, error: "there is no such blob".into() };
        let pieces = self.0.get(digest).ok_or_else(missing)?.clone();
        let pieces = pieces.into_iter().map(|piece| piece.map_err(io::Error::other));
        Ok(Box::new(StreamReader::new(stream::iter(pieces))))
    }

    fn reason(&self, _: &io::Error) -> Reason {
        Reason::RegistryUnreachable
    }
}

fn manifest() -> ImageManifest {
    ImageManifest { bytes: Bytes::from_static(b"{\"layers\":[]}"), media_type: "application/x".to_owned() }
}

/// An archive of these blobs, which the source has in these pieces.
fn archive(blobs: &[(&[u8], Pieces)]) -> ImageArchive {
    let sizes: Vec<(Digest, u64)> = blobs.iter().map(|(bytes, _)| (Digest::of(bytes), bytes.len() as u64)).collect();
    let shelf = Shelf(blobs.iter().map(|(bytes, pieces)| (Digest::of(bytes), pieces.clone())).collect());
    ImageArchive::new(manifest(), &sizes, Arc::new(shelf)).expect("it can be counted")
}

fn whole(bytes: &'static [u8]) -> (&'static [u8], Pieces) {
    (bytes, bytes.chunks(3).map(|piece| Ok(Bytes::from_static(piece))).collect())
}

/// All that is sent, or why it ended early, with what was sent until then.
async fn streamed(archive: &ImageArchive) -> (Vec<u8>, Option<SourceError>) {
    let (mut feed, mut failure) = archive.stream();
    let mut sent = Vec::new();
    let failed = tokio::select! {
        biased;
        Ok(error) = &mut failure => Some(error),
        read = feed.read_to_end(&mut sent) => {
            read.expect("it never says an error itself");
            None
        }
    };
    (sent, failed)
}

#[tokio::test]
async fn an_agent_takes_what_is_sent_and_each_blob_is_there_once() {
    let archive = archive(&[whole(b"configuration"), whole(b"a layer"), whole(b"a layer"), whole(b"")]);
    let (sent, failed) = streamed(&archive).await;
    assert!(failed.is_none());
    let folder = tempfile::tempdir().expect("a folder");
    let place =
        Place { into: folder.path().join("image.tar"), limit: archive.bytes(), silence: Duration::from_secs(60) };
    assert_eq!(receive(Cursor::new(sent), &place), Receipt::Whole { bytes: archive.bytes() });
    let file = std::fs::File::open(&place.into).expect("it is there");
    let mut names = Vec::new();
    let mut index = String::new();
    for entry in tar::Archive::new(file).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        names.push(entry.path().expect("a name").display().to_string());
        if names.last().is_some_and(|name| name == "index.json") {
            std::io::Read::read_to_string(&mut entry, &mut index).expect("text");
        }
    }
    // Two folders, the layout, its index, the manifest and three blobs.
    assert_eq!(names.len(), 8, "{names:?}");
    let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    let manifest = manifest();
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], json!(Digest::of(&manifest.bytes)));
    assert_eq!((descriptor["size"].as_u64(), &descriptor["mediaType"]), (Some(13), &json!("application/x")));
}

#[tokio::test]
async fn a_registry_that_fails_midway_ends_nothing_and_is_what_is_blamed() {
    let cut = (&b"a layer"[..], vec![Ok(Bytes::from_static(b"a la")), Err("it has another digest")]);
    let archive = archive(&[whole(b"configuration"), cut]);
    let (sent, failed) = streamed(&archive).await;
    let failed = failed.expect("it says so");
    assert_eq!(
        (failed.reason, failed.error.to_string().as_str()),
        (Reason::RegistryUnreachable, "it has another digest")
    );
    assert!(sent.ends_with(b"configurationa la"), "what came before it was sent");
    let missing =
        ImageArchive::new(manifest(), &[(Digest::of("x"), 1)], Arc::new(Shelf::default())).expect("it counts");
    let (_, failed) = streamed(&missing).await;
    assert_eq!(failed.map(|error| error.reason), Some(Reason::ImageUnreadable));
}

#[test]
fn sizes_that_can_not_be_true_make_no_archive() {
    let of = |blobs: &[(Digest, u64)]| ImageArchive::new(manifest(), blobs, Arc::new(Shelf::default()));
    let (one, two) = (Digest::of("1"), Digest::of("2"));
    assert!(of(&[(one, 5), (two, 5), (one, 5)]).is_some());
    assert!(of(&[(one, 5), (one, 6)]).is_none());
    assert!(of(&[(one, u64::MAX)]).is_none());
    assert!(of(&[(one, u64::MAX / 2), (two, u64::MAX / 2)]).is_none());
    let large = of(&[(one, 8 << 30)]).expect("it counts");
    assert!(large.within() > Duration::from_secs(2000) && large.within() < Duration::from_secs(4000));
}
