//! One file out of an image, as a runtime would show it.
//!
//! What a hostile image may try, and where it stops: a layer that is not what its manifest names (hashed to its end
//! before the file is used); a layer that inflates without end, has no end of entries, or a file that is too large (the
//! limits); a link in place of the file (refused, never followed). Nothing is written to disk.

use std::io::{self, Read};
use std::sync::Arc;

use tokio_util::io::SyncIoBridge;

use super::oci::{Descriptor, Manifest};
use super::source::{Source, SourceError};
use crate::base::digest::Hasher;
use crate::base::exit::ExitClass;
use crate::base::limits::Limits;

/// What the layers say about a path, the upper ones first.
enum Found {
    File(Vec<u8>),
    /// This layer removed it: what lower layers have does not count.
    Removed,
    No,
}

/// Reads the file at the absolute `path` of an image: the last layer that has it wins, and one that removes it ends the
/// search. At most `limit` bytes.
///
/// # Errors
/// When it is not there, is no regular file, is larger, or the image is not what its manifest says.
pub async fn read(
    descriptor: &Descriptor,
    source: &Arc<dyn Source>,
    path: &str,
    limit: u64,
    limits: &Limits,
) -> Result<Vec<u8>, SourceError> {
    let refuse = |reason: String| {
        SourceError::new(ExitClass::Usage, format!("read `{}` of an image: {reason}", crate::base::text::brief(path)))
    };
    let wanted = normal(path).ok_or_else(|| refuse("it must be an absolute path without `..`".to_owned()))?;
    let mut descriptor = descriptor.clone();
    let mut depth = 0;
    let layers = loop {
        let bytes = source.manifest(&descriptor.digest, limits.manifest_bytes).await?;
        let bytes = super::platform::checked(&descriptor, bytes)?;
        match Manifest::parse(&descriptor.media_type, &bytes).map_err(refuse)? {
            Manifest::Image { layers, .. } => break layers,
            // Of an image for several platforms, the first: content is the same on all of them.
            Manifest::Index { manifests, .. } if depth < limits.index_depth => {
                let real = |d: &Descriptor| d.platform.as_ref().is_none_or(|p| p.os == "linux");
                let first = manifests.into_iter().find(real);
                descriptor = first.ok_or_else(|| refuse("it is for no platform".to_owned()))?;
                depth += 1;
            }
            Manifest::Index { .. } => return Err(refuse("its indexes are nested too deep".to_owned())),
        }
    };
    for layer in layers.iter().rev() {
        match in_layer(layer, source, &wanted, limit, limits).await? {
            Found::File(bytes) => return Ok(bytes),
            Found::Removed => break,
            Found::No => {}
        }
    }
    Err(refuse("it is not there".to_owned()))
}

/// The file `name` of one layer, if it is in it. At most `limit` bytes.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_from_layer(
    layer: &Descriptor,
    source: &Arc<dyn Source>,
    name: &str,
    limit: u64,
    limits: &Limits,
) -> Result<Option<Vec<u8>>, SourceError> {
    match in_layer(layer, source, name, limit, limits).await? {
        Found::File(bytes) => Ok(Some(bytes)),
        Found::Removed | Found::No => Ok(None),
    }
}

async fn in_layer(
    layer: &Descriptor,
    source: &Arc<dyn Source>,
    wanted: &str,
    limit: u64,
    limits: &Limits,
) -> Result<Found, SourceError> {
    let bridge = SyncIoBridge::new(source.blob(&layer.digest, layer.size).await?);
    let (name, layer, bounds) = (wanted.to_owned(), layer.clone(), limits.clone());
    let found = tokio::task::spawn_blocking(move || search(bridge, &layer, &name, limit, &bounds))
        .await
        .map_err(|panic| SourceError::new(ExitClass::Bug, "search a layer").because(panic))?;
    let shown = crate::base::text::brief(wanted);
    found.map_err(|e| {
        SourceError::new(ExitClass::Usage, format!("read `{shown}` of an image: a layer can't be read")).because(e)
    })
}

/// `a/b` of `/a/./b`; nothing for a relative path or one with `..`.
fn normal(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.is_empty() || parts.contains(&"..") { None } else { Some(parts.join("/")) }
}

fn search(stream: impl Read, layer: &Descriptor, wanted: &str, limit: u64, limits: &Limits) -> io::Result<Found> {
    let mut hashing = Hashing { inner: stream.take(layer.size + 1), hasher: Hasher::new() };
    let found = {
        let mut magic = [0; 4];
        let mut filled = 0;
        while filled < magic.len() {
            match hashing.read(&mut magic[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        let whole = (&magic[..filled]).chain(&mut hashing);
        match &magic[..filled] {
            [0x1f, 0x8b, ..] => walk(flate2::read::MultiGzDecoder::new(whole), wanted, limit, limits)?,
            [0x28, 0xb5, 0x2f, 0xfd] => {
                return Err(io::Error::other("it is compressed with zstd, which is not read here"));
            }
            _ => walk(whole, wanted, limit, limits)?,
        }
    };
    // To the end, past what the archive needed: only a whole layer has a digest.
    io::copy(&mut hashing, &mut io::sink())?;
    let length = hashing.hasher.length();
    if length != layer.size || hashing.hasher.finish() != layer.digest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("layer {} has other content", layer.digest)));
    }
    Ok(found)
}

fn walk(stream: impl Read, wanted: &str, limit: u64, limits: &Limits) -> io::Result<Found> {
    let mut archive = tar::Archive::new(stream.take(limits.layer_inflated_bytes));
    let mut found = Found::No;
    for (count, entry) in archive.entries()?.enumerate() {
        if count as u64 >= limits.layer_entries {
            return Err(io::Error::other("a layer has too many entries"));
        }
        let mut entry = entry?;
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
        let Some(name) = normal(&format!("/{name}")) else { continue };
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", &name));
        if let Some(removed) = last.strip_prefix(".wh.") {
            // An opaque folder hides what lower layers have in it; any other whiteout hides one name.
            let hidden = match removed {
                ".wh..opq" => folder.to_owned(),
                _ if folder.is_empty() => removed.to_owned(),
                _ => format!("{folder}/{removed}"),
            };
            let covers = hidden.is_empty() || wanted == hidden || wanted.starts_with(&format!("{hidden}/"));
            // A file of the same layer counts, wherever the whiteout stands.
            if covers && matches!(found, Found::No) {
                found = Found::Removed;
            }
            continue;
        }
        let kind = entry.header().entry_type();
        if name == wanted {
            if !kind.is_file() && !kind.is_contiguous() {
                return Err(io::Error::other(format!("it is no file but {kind:?}; name the file that it leads to")));
            }
            let mut bytes = Vec::new();
            entry.by_ref().take(limit + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(io::Error::other(format!("it is larger than {limit} bytes")));
            }
            found = Found::File(bytes);
        } else if wanted.starts_with(&format!("{name}/")) && !kind.is_dir() {
            return Err(io::Error::other(format!(
                "`{name}` on the way is no folder; name the folder that it leads to"
            )));
        }
    }
    Ok(found)
}

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::oci;
    use super::super::source::Memory;
    use super::*;
    use std::io::Write;

    fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, *content).expect("an entry");
        }
        archive.into_inner().expect("a layer")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("gzip");
        encoder.finish().expect("gzip")
    }

    async fn file(layers: &[Vec<u8>], path: &str) -> Result<Vec<u8>, SourceError> {
        let mut memory = Memory::default();
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "config": Descriptor::of(oci::EMPTY, b"{}"),
            "layers": layers.iter().map(|l| Descriptor::of(oci::LAYER_TAR, l)).collect::<Vec<_>>(),
        }))
        .expect("JSON");
        for bytes in layers.iter().chain([&manifest]) {
            memory.insert(bytes.clone());
        }
        let source: Arc<dyn Source> = Arc::new(memory);
        read(&Descriptor::of(oci::MANIFEST, &manifest), &source, path, 100, &Limits::default()).await
    }

    #[tokio::test]
    async fn the_last_layer_wins_and_a_removed_file_is_gone() {
        let low = gzip(&layer(&[("./a/b", b"low"), ("a/c", b"c")]));
        let high = layer(&[("a/b", b"high")]);
        assert_eq!(file(&[low.clone(), high.clone()], "/a/b").await.expect("a file"), b"high");
        assert_eq!(file(&[high.clone(), low.clone()], "/a//./b").await.expect("a file"), b"low");
        assert_eq!(file(&[low.clone(), high], "/a/c").await.expect("a file"), b"c");
        for whiteout in ["a/.wh.b", "a/.wh..wh..opq", ".wh.a", ".wh..wh..opq"] {
            let gone = layer(&[(whiteout, b"")]);
            assert!(file(&[low.clone(), gone], "/a/b").await.is_err(), "{whiteout}");
            let again = layer(&[(whiteout, b""), ("a/b", b"new")]);
            assert_eq!(file(&[low.clone(), again], "/a/b").await.expect("a file"), b"new", "{whiteout}");
        }
        assert!(file(&[low.clone(), layer(&[("a/.wh.c", b"")])], "/a/b").await.is_ok());
        for path in ["a/b", "/a/../a/b", "/", "/x"] {
            assert!(file(std::slice::from_ref(&low), path).await.is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn links_and_large_files_are_refused() {
        assert!(file(&[layer(&[("big", &[0; 101])])], "/big").await.is_err());
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "a", "/etc/shadow").expect("a link");
        let link = archive.into_inner().expect("a layer");
        for path in ["/a", "/a/b"] {
            let error = file(&[layer(&[("a/b", b"x")]), link.clone()], path).await.expect_err("a link");
            assert!(std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("leads to")), "{path}");
        }
    }
}
