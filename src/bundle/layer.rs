//! Layers that are made here: an uncompressed tar whose bytes follow from the names and contents of its files alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio_util::io::SyncIoBridge;

use super::source::{BlobStream, SourceError};
use crate::base::digest::{Digest, Hasher};
use crate::base::exit::ExitClass;

/// What is moved at once between the thread that reads files and whoever reads the layer.
const PIPE_BYTES: usize = 1 << 20;

/// The files of a layer, by their paths in it without a leading `/`. All belong to root and are from 1970.
#[derive(Clone, Debug, Default)]
pub struct LayerPlan {
    entries: BTreeMap<String, Planned>,
}

#[derive(Clone, Debug)]
enum Planned {
    Folder,
    File { mode: u32, content: Content },
}

#[derive(Clone, Debug)]
enum Content {
    Held(Bytes),
    OnDisk { path: PathBuf, size: u64 },
}

impl LayerPlan {
    /// Adds a file that is held in memory.
    pub fn add_bytes(&mut self, name: &str, mode: u32, bytes: impl Into<Bytes>) {
        self.add(name, Planned::File { mode, content: Content::Held(bytes.into()) });
    }

    /// Adds a file from disk; it is read when the layer is.
    ///
    /// # Errors
    /// When it is no regular file, or can't be looked at.
    pub fn add_file(&mut self, name: &str, mode: u32, path: &Path) -> Result<(), SourceError> {
        let meta = fs::metadata(path).map_err(|e| unreadable(path, e))?;
        if !meta.is_file() {
            return Err(refused(path, "it is no regular file"));
        }
        let content = Content::OnDisk { path: path.to_owned(), size: meta.len() };
        self.add(name, Planned::File { mode, content });
        Ok(())
    }

    /// Adds all files and folders below a folder, at the layer's root. Files get mode 0644, folders 0755.
    ///
    /// # Errors
    /// When something in it is neither file nor folder (a link could lead out of it), has a name that is no UTF-8, or
    /// can't be read.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), SourceError> {
        let mut todo = vec![(String::new(), folder.to_owned())];
        while let Some((prefix, folder)) = todo.pop() {
            for entry in fs::read_dir(&folder).map_err(|e| unreadable(&folder, e))? {
                let entry = entry.map_err(|e| unreadable(&folder, e))?;
                let path = entry.path();
                let name = entry.file_name().into_string().map_err(|_| refused(&path, "its name is no UTF-8"))?;
                let name = format!("{prefix}{name}");
                let kind = entry.file_type().map_err(|e| unreadable(&path, e))?;
                if kind.is_dir() {
                    self.add(&name, Planned::Folder);
                    todo.push((format!("{name}/"), path));
                } else if kind.is_file() {
                    self.add_file(&name, 0o644, &path)?;
                } else {
                    return Err(refused(&path, "it is neither a file nor a folder, and a bundle carries only these"));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, planned: Planned) {
        // A file in a folder brings the folder along, which sorts before it.
        for (at, _) in name.match_indices('/') {
            self.entries.entry(name[..at].to_owned()).or_insert(Planned::Folder);
        }
        self.entries.insert(name.to_owned(), planned);
    }

    /// Writes the layer.
    ///
    /// # Errors
    /// When a file can't be read or changes its length meanwhile, or `out` fails.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(out);
        for (name, planned) in &self.entries {
            let mut header = tar::Header::new_ustar();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match planned {
                Planned::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    archive.append_data(&mut header, format!("{name}/"), io::empty())?;
                }
                Planned::File { mode, content } => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_mode(*mode);
                    match content {
                        Content::Held(bytes) => {
                            header.set_size(bytes.len() as u64);
                            archive.append_data(&mut header, name, &bytes[..])?;
                        }
                        Content::OnDisk { path, size } => {
                            header.set_size(*size);
                            let file = Exactly { file: File::open(path)?, left: *size, path };
                            archive.append_data(&mut header, name, file)?;
                        }
                    }
                }
            }
        }
        archive.into_inner()?.flush()
    }

    /// The digest and the length of the layer. Reads all its files.
    ///
    /// # Errors
    /// As [`LayerPlan::write`].
    pub fn measure(&self) -> Result<(Digest, u64), SourceError> {
        struct Count(Hasher);
        impl Write for &mut Count {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.update(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut count = Count(Hasher::new());
        self.write(io::BufWriter::with_capacity(64 << 10, &mut count))
            .map_err(|e| SourceError::new(ExitClass::Unreachable, "read the files of a layer").because(e))?;
        let length = count.0.length();
        Ok((count.0.finish(), length))
    }

    /// The layer as a stream, made by a thread of the blocking pool that ends when the stream is read or dropped.
    pub fn stream(&self) -> BlobStream {
        let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
        let plan = self.clone();
        let handle = tokio::runtime::Handle::current();
        let task = tokio::task::spawn_blocking(move || {
            let mut out = io::BufWriter::with_capacity(256 << 10, SyncIoBridge::new_with_handle(writer, handle));
            plan.write(&mut out)
        });
        Box::new(Box::pin(Joined { reader, task: Some(task) }))
    }
}

/// Reads the pipe and then joins the thread that filled it, whose error would otherwise look like an early end.
struct Joined {
    reader: tokio::io::DuplexStream,
    task: Option<tokio::task::JoinHandle<io::Result<()>>>,
}

impl tokio::io::AsyncRead for Joined {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        use std::future::Future;
        use std::pin::Pin;
        use std::task::{Poll, ready};
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(cx, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(task) = &mut self.task else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(task).poll(cx));
        self.task = None;
        Poll::Ready(ended.unwrap_or_else(|panic| Err(io::Error::other(panic))))
    }
}

/// A file that must still have the length that it had when the layer was planned.
struct Exactly<'a> {
    file: File,
    left: u64,
    path: &'a Path,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let changed = || io::Error::other(format!("`{}` changed its length while it was read", self.path.display()));
        match self.left.checked_sub(count as u64) {
            Some(left) if count > 0 || left == 0 || buffer.is_empty() => {
                self.left = left;
                Ok(count)
            }
            Some(_) | None => Err(changed()),
        }
    }
}

fn unreadable(path: &Path, error: io::Error) -> SourceError {
    SourceError::new(ExitClass::Unreachable, format!("read `{}`", path.display())).because(error)
}

fn refused(path: &Path, reason: &str) -> SourceError {
    SourceError::new(ExitClass::Usage, format!("pack `{}`: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_folder_gives_the_same_layer_whatever_its_modes_and_times() {
        let make = || {
            let folder = tempfile::tempdir().expect("a folder");
            fs::create_dir_all(folder.path().join("b/deep")).expect("folders");
            fs::write(folder.path().join("b/deep/x"), [9; 3000]).expect("a file");
            fs::write(folder.path().join("a"), b"").expect("a file");
            fs::write(folder.path().join("n".repeat(150)), b"long").expect("a file");
            folder
        };
        let (one, two) = (make(), make());
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(two.path().join("a"), fs::Permissions::from_mode(0o600)).expect("chmod");
        let plan = |folder: &tempfile::TempDir| {
            let mut plan = LayerPlan::default();
            plan.add_folder(folder.path()).expect("a plan");
            plan
        };
        let (digest, size) = plan(&one).measure().expect("a layer");
        assert_eq!(plan(&two).measure().expect("a layer"), (digest, size));
        let mut bytes = Vec::new();
        plan(&one).stream().read_to_end(&mut bytes).await.expect("a layer");
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, size));
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<String> = archive
            .entries()
            .expect("entries")
            .map(|e| e.expect("an entry").path().expect("a path").display().to_string())
            .collect();
        assert_eq!(names, ["a", "b/", "b/deep/", "b/deep/x", &"n".repeat(150)]);
    }

    #[tokio::test]
    async fn a_link_is_refused_and_a_file_that_grows_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        fs::write(&path, b"1234").expect("a file");
        let mut plan = LayerPlan::default();
        plan.add_folder(folder.path()).expect("a plan");
        for changed in [&b"12345"[..], b"123"] {
            fs::write(&path, changed).expect("a file");
            assert!(plan.measure().is_err());
            assert!(plan.stream().read_to_end(&mut Vec::new()).await.is_err());
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("l")).expect("a link");
        assert!(LayerPlan::default().add_folder(folder.path()).is_err());
    }
}
