//! Evidence, kept once by its digest, compressed where that helps. It may have close to a gigabyte, and goes in and out as a
//! stream.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rusqlite::blob::{Blob, ZeroBlob};
use rusqlite::{Connection, OptionalExtension, params};

use crate::base::digest::{Digest, Hasher};
use crate::base::spool::{Content as _, Spool, Spooled};
use crate::model::evidence::Evidence;

/// Bytes that are moved at once.
const PIECE: usize = 256 << 10;

const INSERT: &str = "INSERT INTO evidence VALUES (?, ?, ?, ?, ?)";

/// Keeps this evidence, unless it is kept already. `folder` is where a large one is held while it is compressed.
pub(super) fn keep(conn: &Connection, evidence: &Evidence, folder: &Path) -> rusqlite::Result<()> {
    let reference = evidence.reference();
    let digest = reference.digest.to_string();
    let known = conn.prepare_cached("SELECT 1 FROM evidence WHERE digest = ?")?.exists([&digest])?;
    if known {
        return Ok(());
    }
    let deflated = deflate(evidence.content(), folder).map_err(unkept)?;
    let (encoding, bytes) = match &deflated {
        Some(smaller) => ("deflate", smaller),
        None => ("identity", evidence.content()),
    };
    if let Some(bytes) = bytes.in_memory() {
        conn.prepare_cached(INSERT)?.execute(params![
            digest,
            reference.length,
            reference.media_type,
            encoding,
            bytes
        ])?;
        return Ok(());
    }
    let zeros = ZeroBlob(bytes.length());
    conn.prepare_cached(INSERT)?.execute(params![digest, reference.length, reference.media_type, encoding, zeros])?;
    // Within the transaction: whoever sees the row sees its bytes.
    let mut row = open(conn, conn.last_insert_rowid(), Access::Write)?;
    let written = copy(bytes.reader(), &mut row).map_err(unkept)?;
    row.close()?;
    if written != bytes.length() {
        return Err(unkept(io::Error::from(io::ErrorKind::UnexpectedEof)));
    }
    Ok(())
}

/// What can't be read from where it was held, as the error that it makes for whoever records.
fn unkept(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

fn open(conn: &Connection, row: i64, access: Access) -> rusqlite::Result<Blob<'_>> {
    conn.blob_open(c"main", c"evidence", c"bytes", row, access == Access::Read)
}

fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(copied),
            n => {
                to.write_all(&buffer[..n])?;
                copied += n as u64;
            }
        }
    }
}

/// The bytes in raw DEFLATE (RFC 1951), if that is shorter.
fn deflate(bytes: &Spooled, folder: &Path) -> io::Result<Option<Spooled>> {
    let mut encoder = DeflateEncoder::new(Spool::new(folder), Compression::default());
    copy(bytes.reader(), &mut encoder)?;
    let deflated = encoder.finish()?.finish();
    Ok((deflated.length() < bytes.length()).then_some(deflated))
}

/// What is kept under a digest.
pub(super) enum Kept {
    /// Nothing.
    Absent,
    /// These bytes, which have that digest.
    Whole,
    /// Something else, and what is wrong with it.
    Damaged(String),
}

/// Writes the evidence of this digest to `to`, and says whether that is what it was; if it is not, what was written is
/// nothing.
pub(super) fn fetch(conn: &Connection, digest: &Digest, to: &mut impl Write) -> rusqlite::Result<Kept> {
    let mut statement = conn.prepare_cached("SELECT rowid, length, encoding FROM evidence WHERE digest = ?")?;
    let row = statement
        .query_row([digest.to_string()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    let Some((row, length, encoding)) = row else { return Ok(Kept::Absent) };
    let stored = BufReader::with_capacity(PIECE, open(conn, row, Access::Read)?);
    // One byte more than it should be is enough to know; an edited row must not fill the memory.
    let most = length.saturating_add(1);
    let mut hashed = Hashed { to, hasher: Hasher::new() };
    let copied = match encoding.as_str() {
        "identity" => copy(stored.take(most), &mut hashed),
        "deflate" => copy(DeflateDecoder::new(stored).take(most), &mut hashed),
        other => return Ok(Kept::Damaged(format!("its encoding `{}` is unknown", crate::base::text::brief(other)))),
    };
    let (arrived, found) = (hashed.hasher.length(), hashed.hasher.finish());
    match copied {
        Err(error) => Ok(Kept::Damaged(format!("it can't be read or inflated: {error}"))),
        Ok(_) if arrived == length && found == *digest => Ok(Kept::Whole),
        Ok(_) => Ok(Kept::Damaged("its bytes do not have this digest".to_owned())),
    }
}

/// Hashes what is written through it.
struct Hashed<'w, W> {
    to: &'w mut W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
