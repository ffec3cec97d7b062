//! The archive as the reader sees it: blocks that are compared with the ones that must come.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::archive::{self, BLOCK};
use super::contents::{Entry, METADATA};
use super::error::BundleError;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::trust::metadata::{self, MetadataFiles, SMALL_METADATA_BYTES, TIMESTAMP_FILE};

/// The archive as a stream of blocks.
pub(super) struct Input<R> {
    pub(super) reader: R,
    /// How far it was read.
    pub(super) offset: u64,
}

impl<R: AsyncRead + Unpin + Send> Input<R> {
    pub(super) async fn some(&mut self, buffer: &mut [u8]) -> Result<usize, BundleError> {
        let failed = |source| BundleError::Io { offset: self.offset, source };
        let count = self.reader.read(buffer).await.map_err(failed)?;
        self.offset += count as u64;
        Ok(count)
    }

    pub(super) async fn exact(&mut self, entry: &str, buffer: &mut [u8]) -> Result<(), BundleError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.some(&mut buffer[filled..]).await? {
                0 => return Err(BundleError::Truncated { entry: entry.to_owned(), offset: self.offset }),
                count => filled += count,
            }
        }
        Ok(())
    }

    async fn block(&mut self, entry: &str) -> Result<[u8; BLOCK], BundleError> {
        let mut block = [0; BLOCK];
        self.exact(entry, &mut block).await?;
        Ok(block)
    }

    pub(super) async fn expect_header(&mut self, name: &str, size: u64) -> Result<(), BundleError> {
        let block = self.block(name).await?;
        check_header(name, size, &block, self.offset - BLOCK as u64)
    }

    pub(super) async fn padding(&mut self, name: &str, size: u64) -> Result<(), BundleError> {
        let offset = self.offset;
        let mut zeros = [0; BLOCK];
        let zeros = &mut zeros[..archive::padding(size)];
        self.exact(name, zeros).await?;
        if zeros.iter().any(|b| *b != 0) {
            return Err(BundleError::Padding { entry: name.to_owned(), offset });
        }
        Ok(())
    }

    /// Content of a size that was checked against a limit.
    async fn content(&mut self, name: &str, size: u64) -> Result<Vec<u8>, BundleError> {
        let mut bytes = vec![0; size as usize];
        self.exact(name, &mut bytes).await?;
        self.padding(name, size).await?;
        Ok(bytes)
    }

    /// An entry that the signed metadata lists, held in memory.
    pub(super) async fn entry(&mut self, entry: &Entry) -> Result<Vec<u8>, BundleError> {
        self.expect_header(&entry.name, entry.size).await?;
        let bytes = self.content(&entry.name, entry.size).await?;
        let found = Digest::of(&bytes);
        if found != entry.digest {
            // The padding behind it was read, too.
            let (offset, size) = (self.offset - archive::padding(entry.size) as u64, entry.size);
            let (entry, expected) = (entry.name.clone(), entry.digest);
            return Err(BundleError::Digest { entry, offset, size, expected, found });
        }
        Ok(bytes)
    }

    /// A metadata file, which must have one of these names and at most so many bytes. Its header must be the canonical
    /// one for the size that it claims.
    async fn small_file(&mut self, names: &[String], limit: u64) -> Result<(String, Vec<u8>), BundleError> {
        let expected = names.first().map(|n| format!("{METADATA}{n}")).unwrap_or_default();
        let block = self.block(&expected).await?;
        let size =
            archive::claimed_size(&block).ok_or_else(|| unexpected(&expected, &block, self.offset - BLOCK as u64))?;
        let found = names.iter().find(|name| archive::header(&format!("{METADATA}{name}"), size) == Some(block));
        let Some(name) = found else { return Err(unexpected(&expected, &block, self.offset - BLOCK as u64)) };
        if size > limit {
            return Err(BundleError::TooLarge { what: format!("`{METADATA}{name}`"), found: size, limit });
        }
        Ok((name.clone(), self.content(name, size).await?))
    }

    /// The metadata files that a bundle begins with.
    pub(super) async fn metadata(&mut self, limits: &Limits) -> Result<MetadataFiles, BundleError> {
        let mut files = MetadataFiles::new();
        let mut version = 1;
        let timestamp = loop {
            let mut names = vec![TIMESTAMP_FILE.to_owned()];
            if version <= limits.root_rotations {
                names.insert(0, metadata::root_file(version));
            }
            if version == 1 {
                names.truncate(1);
            }
            let (name, bytes) = self.small_file(&names, SMALL_METADATA_BYTES).await?;
            if name == TIMESTAMP_FILE {
                break bytes;
            }
            files.insert(name, bytes);
            version += 1;
        };
        let snapshot_name = metadata::snapshot_file(&timestamp)?;
        files.insert(TIMESTAMP_FILE.to_owned(), timestamp);
        let (name, snapshot) = self.small_file(&[snapshot_name], SMALL_METADATA_BYTES).await?;
        let targets_name = metadata::targets_file(&name, &snapshot)?;
        files.insert(name, snapshot);
        let (name, targets) = self.small_file(&[targets_name], limits.metadata_bytes).await?;
        files.insert(name, targets);
        Ok(files)
    }
}

/// That this block, which is at `offset`, is the one header that an entry of this name and size has.
pub(super) fn check_header(name: &str, size: u64, block: &[u8; BLOCK], offset: u64) -> Result<(), BundleError> {
    let expected = archive::header(name, size).ok_or_else(|| BundleError::TooLarge {
        what: format!("`{name}`"),
        found: size,
        limit: archive::MAX_SIZE,
    })?;
    if *block == expected { Ok(()) } else { Err(unexpected(name, block, offset)) }
}

fn unexpected(name: &str, block: &[u8; BLOCK], offset: u64) -> BundleError {
    let hint = if block.iter().all(|b| *b == 0) {
        "the rest was cut off, or an entry was removed"
    } else if &block[257..262] != b"ustar" {
        "the archive is damaged, or is no bundle"
    } else {
        "an entry was added, removed, repeated, swapped or changed"
    };
    BundleError::Header { entry: name.to_owned(), offset, found: archive::describe(block), hint }
}
