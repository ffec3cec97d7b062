//! Evidence, kept once by its digest, compressed where that helps.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rusqlite::{Connection, OptionalExtension, params};

use crate::base::digest::Digest;
use crate::model::evidence::Evidence;

/// Keeps this evidence, unless it is kept already.
pub(super) fn keep(conn: &Connection, evidence: &Evidence) -> rusqlite::Result<()> {
    let reference = evidence.reference();
    let digest = reference.digest.to_string();
    let known = conn.prepare_cached("SELECT 1 FROM evidence WHERE digest = ?")?.exists([&digest])?;
    if known {
        return Ok(());
    }
    let deflated = deflate(evidence.bytes());
    let (encoding, bytes) = match &deflated {
        Some(smaller) => ("deflate", smaller.as_slice()),
        None => ("identity", evidence.bytes()),
    };
    conn.prepare_cached("INSERT INTO evidence VALUES (?, ?, ?, ?, ?)")?.execute(params![
        digest,
        reference.length,
        reference.media_type,
        encoding,
        bytes
    ])?;
    Ok(())
}

/// The bytes in raw DEFLATE (RFC 1951), if that is shorter.
fn deflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().filter(|deflated| deflated.len() < bytes.len())
}

/// What is kept under a digest.
pub(super) enum Kept {
    /// Nothing.
    Absent,
    /// These bytes, which have that digest.
    Whole(Vec<u8>),
    /// Something else, and what is wrong with it.
    Damaged(String),
}

/// The evidence of this digest, checked.
pub(super) fn fetch(conn: &Connection, digest: &Digest) -> rusqlite::Result<Kept> {
    let mut statement = conn.prepare_cached("SELECT length, encoding, bytes FROM evidence WHERE digest = ?")?;
    let row = statement
        .query_row([digest.to_string()], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    let Some((length, encoding, stored)) = row else { return Ok(Kept::Absent) };
    let bytes = match encoding.as_str() {
        "identity" => stored,
        "deflate" => {
            let mut bytes = Vec::new();
            // One byte more than it should be is enough to know; an edited row must not fill the memory.
            if DeflateDecoder::new(stored.as_slice()).take(length.saturating_add(1)).read_to_end(&mut bytes).is_err() {
                return Ok(Kept::Damaged("it can't be inflated".to_owned()));
            }
            bytes
        }
        other => return Ok(Kept::Damaged(format!("its encoding `{}` is unknown", crate::base::text::brief(other)))),
    };
    if bytes.len() as u64 != length || Digest::of(&bytes) != *digest {
        return Ok(Kept::Damaged("its bytes do not have this digest".to_owned()));
    }
    Ok(Kept::Whole(bytes))
}
