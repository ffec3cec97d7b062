//! The database: its tables, its migrations, and how it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{LedgerError, is_damage};

/// The `application_id` in the header of the file: `gslg`.
const APPLICATION: i64 = 0x6773_6c67;

/// What makes each schema from the one before it; the last one is [`KNOWN`].
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// The newest schema that this program knows: `user_version` in the header of the file.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// How long a reader or writer waits for the other side of the same file. Writers hold it for milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// What a file is, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing was written to it yet.
    Empty,
    /// A ledger of this schema, which this program knows.
    Ledger(i64),
}

/// The path of a file beside the ledger.
pub(super) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

/// Opens the file at `path` for writing, and makes it where it is absent.
pub(super) fn open_for_writing(path: &Path) -> Result<(Connection, Found), LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |source| open_failed(path, source);
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    prepare(&conn).map_err(failed)?;
    let found = identify(&conn, path)?;
    // Each commit is on the disk before it is acknowledged, also in WAL mode.
    conn.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    conn.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    Ok((conn, found))
}

/// Opens the ledger at `path` for reading. Works on a read-only medium too.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Absent { path: path.to_owned() });
    }
    if path.is_dir() {
        return Err(LedgerError::Folder { path: path.to_owned() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |conn: rusqlite::Result<Connection>| {
        let conn = conn.map_err(|source| open_failed(path, source))?;
        prepare(&conn).map_err(|source| open_failed(path, source))?;
        match identify(&conn, path)? {
            Found::Ledger(_) => Ok(conn),
            Found::Empty => Err(LedgerError::NotLedger { path: path.to_owned() }),
        }
    };
    match open(Connection::open_with_flags(path, flags)) {
        // SQLite can't make its `-shm` file where nothing may be written. As long as nothing waits in a write-ahead log,
        // the file alone is everything.
        Err(LedgerError::Open { .. } | LedgerError::Read { .. }) if !has_log(path) => {
            open(Connection::open_with_flags(immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI))
        }
        other => other,
    }
}

fn has_log(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(PathBuf::from(name)).is_ok_and(|meta| meta.len() > 0)
}

fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri + "?immutable=1"
}

fn open_failed(path: &Path, source: rusqlite::Error) -> LedgerError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => LedgerError::NotLedger { path },
        _ if is_damage(&source) => LedgerError::Corrupt { path, what: "read the header".to_owned(), source },
        _ => LedgerError::Open { path, source },
    }
}

fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    // A ledger may come from elsewhere: nothing in its schema is to run as code, and a damaged page is to be noticed.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "foreign_keys", true)
}

fn identify(conn: &Connection, path: &Path) -> Result<Found, LedgerError> {
    let failed = |source| open_failed(path, source);
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    match (application, version, objects) {
        (0, 0, 0) => Ok(Found::Empty),
        (APPLICATION, newer, _) if newer > KNOWN => {
            Err(LedgerError::Newer { path: path.to_owned(), found: newer, known: KNOWN })
        }
        (APPLICATION, known, _) if known >= 1 => Ok(Found::Ledger(known)),
        _ => Err(LedgerError::NotLedger { path: path.to_owned() }),
    }
}

/// Brings the database from `from` to [`KNOWN`], in the transaction that `conn` is in.
pub(super) fn migrate(conn: &Connection, from: i64) -> rusqlite::Result<()> {
    for migration in &MIGRATIONS[usize::try_from(from).unwrap_or(0)..] {
        conn.execute_batch(migration)?;
    }
    conn.pragma_update(None, "application_id", APPLICATION)?;
    conn.pragma_update(None, "user_version", KNOWN)
}

/// The tables, indices and triggers that the database has and should not, or has not and should: one sentence each.
pub(super) fn differences(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let objects = |conn: &Connection| {
        let mut statement = conn.prepare(
            "SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY 1",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<std::collections::BTreeMap<String, String>>>()
    };
    let pristine = Connection::open_in_memory()?;
    migrate(&pristine, 0)?;
    let (expected, found) = (objects(&pristine)?, objects(conn)?);
    let mut differences = Vec::new();
    for (name, sql) in &expected {
        match found.get(name) {
            None => differences.push(format!("the {name} is missing")),
            Some(other) if other != sql => differences.push(format!("the {name} is not as gapscan made it")),
            Some(_) => {}
        }
    }
    for name in found.keys().filter(|name| !expected.contains_key(*name)) {
        differences.push(format!("the {name} was added"));
    }
    Ok(differences)
}
