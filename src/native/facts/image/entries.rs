//! The entries of a layer's tar stream, read strictly.
//!
//! The tar crate reads headers and numbers and checks sums, in its raw mode; extension headers are read here, because
//! its own reading of them has no bound, and because what two readers understand differently must be refused: a PAX
//! size that is not the header's size (CVE-2025-62518), two PAX headers, a PAX name together with a GNU name. The
//! meaning follows Go's `archive/tar`, which is what container runtimes extract with.

use std::io::{self, Read};

use tar::EntryType;

use super::super::name;
use super::ImageError;
use crate::base::limits::Limits;

/// The longest path that Linux takes (`PATH_MAX`).
const PATH_BYTES: u64 = 4096;
/// Bytes of one PAX header; Go's reader takes as many.
const PAX_BYTES: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Char,
    Block,
    Fifo,
}

/// One entry, with its extension headers applied.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its place in the layer, counted from 1, extension headers included.
    pub(super) number: u64,
    /// From the root, without leading and double slashes; empty for the root itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The target of a link, as written.
    pub(super) link: Vec<u8>,
    /// The data is not the file's content as it is.
    pub(super) sparse: bool,
}

/// Extension headers that wait for their entry.
#[derive(Default)]
struct Pending {
    any: bool,
    pax: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    sparse: bool,
}

/// Calls `visit` with each entry and its data. Reads the stream to its end.
pub(super) fn walk(
    reader: impl Read,
    limits: &Limits,
    mut visit: impl FnMut(Entry, &mut dyn Read) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut archive = tar::Archive::new(reader);
    let mut pending = Pending::default();
    let mut number = 0;
    for raw in archive.entries().map_err(ImageError::Read)?.raw(true) {
        let mut raw = raw.map_err(ImageError::Read)?;
        number += 1;
        if number > limits.layer_entries {
            return Err(ImageError::Entries(limits.layer_entries));
        }
        let header_name = raw.header().path_bytes().into_owned();
        let refuse = |why| ImageError::Entry { number, name: name::text(&header_name), why };
        match raw.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => {
                if std::mem::replace(&mut pending.pax, true) {
                    return Err(refuse("it has two PAX headers"));
                }
                pending.any = true;
                let body = bounded(&mut raw, PAX_BYTES)?.ok_or_else(|| refuse("its PAX header is too long"))?;
                pax(&body, &mut pending).map_err(refuse)?;
            }
            kind @ (EntryType::GNULongName | EntryType::GNULongLink) => {
                pending.any = true;
                let mut body = bounded(&mut raw, PATH_BYTES)?.ok_or_else(|| refuse("its name is too long"))?;
                if let Some(end) = body.iter().position(|b| *b == 0) {
                    body.truncate(end);
                }
                let slot = if kind == EntryType::GNULongName { &mut pending.long_path } else { &mut pending.long_link };
                if slot.replace(body).is_some() {
                    return Err(refuse("it has two long names"));
                }
            }
            _ => {
                let entry = entry(number, raw.header(), std::mem::take(&mut pending)).map_err(refuse)?;
                visit(entry, &mut raw)?;
            }
        }
    }
    if pending.any {
        return Err(ImageError::Entry { number, name: String::new(), why: "the entry that it describes is missing" });
    }
    rest_is_zero(archive.into_inner())
}

fn bounded(reader: &mut impl Read, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
    let mut body = Vec::new();
    reader.take(limit + 1).read_to_end(&mut body).map_err(ImageError::Read)?;
    Ok((body.len() as u64 <= limit).then_some(body))
}

/// Builders pad archives with zeros up to a record; anything else is another archive, or a message.
fn rest_is_zero(mut reader: impl Read) -> Result<(), ImageError> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) if buffer[..n].iter().any(|b| *b != 0) => return Err(ImageError::Trailing),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ImageError::Read(error)),
        }
    }
}

/// Reads the records `LENGTH KEY=VALUE\n` of a PAX header (pax(1), "pax Extended Header").
fn pax(mut body: &[u8], pending: &mut Pending) -> Result<(), &'static str> {
    const MALFORMED: &str = "its PAX header is malformed";
    const TWICE: &str = "its PAX header has a key twice";
    while !body.is_empty() {
        let space = body.iter().position(|b| *b == b' ').ok_or(MALFORMED)?;
        let digits = &body[..space];
        if digits.is_empty() || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
            return Err(MALFORMED);
        }
        let length: usize = str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).ok_or(MALFORMED)?;
        let record = body.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or(MALFORMED)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or(MALFORMED)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let number = || str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok()).ok_or(MALFORMED);
        let twice = match key {
            b"path" => pending.path.replace(value.to_vec()).is_some(),
            b"linkpath" => pending.link.replace(value.to_vec()).is_some(),
            b"size" => pending.size.replace(number()?).is_some(),
            b"uid" => pending.uid.replace(number()?).is_some(),
            b"gid" => pending.gid.replace(number()?).is_some(),
            b"GNU.sparse.name" => {
                pending.sparse = true;
                pending.long_path.replace(value.to_vec()).is_some()
            }
            key if key.starts_with(b"GNU.sparse.") => {
                pending.sparse = true;
                false
            }
            _ => false,
        };
        if twice {
            return Err(TWICE);
        }
        body = &body[length..];
    }
    Ok(())
}

fn entry(number: u64, header: &tar::Header, pending: Pending) -> Result<Entry, &'static str> {
    const NUMBER: &str = "a number in its header is malformed or too large";
    let size = header.entry_size().map_err(|_| NUMBER)?;
    if pending.size.is_some_and(|pax| pax != size) {
        return Err("its PAX size differs from its header's size");
    }
    // With a sparse file the name in `path` is made up by GNU tar, and GNU.sparse.name is the name.
    let path = match (pending.path, pending.long_path) {
        (Some(pax), Some(gnu)) if pax != gnu && !pending.sparse => return Err("it has two different names"),
        (_, Some(path)) | (Some(path), None) => path,
        (None, None) => header.path_bytes().into_owned(),
    };
    let link = match (pending.link, pending.long_link) {
        (Some(pax), Some(gnu)) if pax != gnu => return Err("it has two different link targets"),
        (_, Some(link)) | (Some(link), None) => link,
        (None, None) => header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default(),
    };
    let folder = path.ends_with(b"/");
    let (kind, sparse) = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if folder => (Kind::Dir, false),
        EntryType::Regular | EntryType::Continuous => (Kind::File, pending.sparse),
        EntryType::GNUSparse => (Kind::File, true),
        EntryType::Directory => (Kind::Dir, false),
        EntryType::Symlink => (Kind::Symlink, false),
        EntryType::Link => (Kind::Hardlink, false),
        EntryType::Char => (Kind::Char, false),
        EntryType::Block => (Kind::Block, false),
        EntryType::Fifo => (Kind::Fifo, false),
        _ => return Err("its type is not one that a layer may have"),
    };
    if kind == Kind::File && header.entry_type() == EntryType::GNUSparse && size != 0 && header.as_gnu().is_none() {
        return Err("it is sparse without a GNU header");
    }
    let id = |pax: Option<u64>, header: io::Result<u64>| {
        let id = pax.map_or_else(|| header.map_err(|_| NUMBER), Ok)?;
        u32::try_from(id).map_err(|_| NUMBER)
    };
    Ok(Entry {
        number,
        path: normal(&path)?,
        kind,
        mode: header.mode().map_err(|_| NUMBER)? & 0o7777,
        uid: id(pending.uid, header.uid())?,
        gid: id(pending.gid, header.gid())?,
        link,
        sparse,
    })
}

/// The path without `.`, leading, trailing and double slashes.
pub(super) fn normal(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.len() as u64 > PATH_BYTES {
        return Err("its name is too long");
    }
    if path.contains(&0) {
        return Err("its name has a NUL");
    }
    let mut out = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name has `..`"),
            part => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    Ok(out)
}
