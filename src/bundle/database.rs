//! Databases of vulnerabilities: when they were built, by what they say of themselves.
//!
//! Known are Trivy's (`trivy.db`, `trivy-java.db` with `metadata.json` beside, as folders and as the artifacts that Trivy's
//! registries have) and Grype's (`vulnerability.db`, schemas 5 and 6). One whose date nobody knows can't be used later, so it
//! is refused where it is collected. What a hostile database may try: a huge file of metadata, a folder without end, an
//! archive that inflates without end (the bounds), an SQLite file whose schema does something (it is opened to be read
//! only, its schema is not trusted, and only a real table is asked).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;

use super::image_file;
use super::oci::{Descriptor, Manifest};
use super::platform::checked;
use super::source::{Source, SourceError};
use crate::base::exit::ExitClass;
use crate::base::file;
use crate::base::limits::Limits;
use crate::base::text::brief;

/// The layers of Trivy's databases.
const TRIVY_LAYERS: [(&str, &str); 2] = [
    ("application/vnd.aquasec.trivy.db.layer.v1.tar+gzip", "Trivy database"),
    ("application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip", "Trivy Java database"),
];
/// Bytes of `metadata.json`; it has some 200.
const METADATA_BYTES: u64 = 1 << 20;
/// How deep in a dependency's folder databases are looked for: Grype's is in `6`, Trivy's in `db`.
const DEPTH: usize = 2;
/// How many names are looked at.
const NAMES: usize = 10_000;
/// How much the definition and the content may differ: people write the day.
const TOLERANCE: Duration = Duration::from_secs(86_400);

/// A database that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// What it is, for people.
    pub what: String,
    /// When it was built, where it says so.
    pub built: Option<Timestamp>,
}

/// `metadata.json` of Trivy's databases (`UpdatedAt`) and of Grype's schema 5 (`built`).
#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "UpdatedAt")]
    updated_at: Option<Timestamp>,
    built: Option<Timestamp>,
}

impl Metadata {
    fn date(bytes: &[u8]) -> Option<Timestamp> {
        let metadata: Self = serde_json::from_slice(bytes).ok()?;
        // Go's zero time stands for none.
        metadata.updated_at.or(metadata.built).filter(|time| *time > Timestamp::UNIX_EPOCH)
    }
}

/// The databases in a folder, or the one that a file is.
///
/// # Errors
/// When something can't be read.
pub fn on_disk(path: &Path) -> Result<Vec<Database>, SourceError> {
    let mut found = Vec::new();
    if path.is_file() {
        found.extend(at(path)?);
        return Ok(found);
    }
    let mut todo = vec![(path.to_owned(), 0)];
    let mut names = 0;
    while let Some((folder, depth)) = todo.pop() {
        let failed = |e| SourceError::new(ExitClass::Unreachable, format!("read `{}`", folder.display())).because(e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            names += 1;
            if names > NAMES {
                return Ok(found);
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() && depth < DEPTH {
                todo.push((entry.path(), depth + 1));
            } else if kind.is_file() {
                found.extend(at(&entry.path())?);
            }
        }
    }
    found.sort_by(|a, b| a.what.cmp(&b.what));
    Ok(found)
}

fn at(path: &Path) -> Result<Option<Database>, SourceError> {
    let beside = || {
        let metadata = path.with_file_name("metadata.json");
        file::read_capped(&metadata, METADATA_BYTES).ok().and_then(|bytes| Metadata::date(&bytes))
    };
    let (what, built) = match path.file_name().and_then(|name| name.to_str()) {
        Some("trivy.db") => ("Trivy database", beside()),
        Some("trivy-java.db") => ("Trivy Java database", beside()),
        Some("vulnerability.db") => ("Grype database", grype(path)?.or_else(beside)),
        _ => return Ok(None),
    };
    Ok(Some(Database { what: format!("{what} `{}`", path.display()), built }))
}

/// The build date in Grype's own table (schema 6: `db_metadata`).
fn grype(path: &Path) -> Result<Option<Timestamp>, SourceError> {
    let failed = |e: rusqlite::Error| {
        SourceError::new(ExitClass::Usage, format!("read the Grype database `{}`", path.display())).because(e)
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match Connection::open_with_flags(path, flags).and_then(|database| build_timestamp(&database)) {
        Ok(text) => Ok(text.as_deref().and_then(go_time)),
        // What is no SQLite file says nothing. Whether it is of use, the scanner will say; how old it is, nobody can.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn build_timestamp(database: &Connection) -> rusqlite::Result<Option<String>> {
    database.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    let tables: u64 = database.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'db_metadata' \
         AND sql NOT LIKE '%VIRTUAL%' AND sql NOT LIKE '%GENERATED%'",
        [],
        |row| row.get(0),
    )?;
    if tables != 1 {
        return Ok(None);
    }
    let asked = "SELECT CAST(build_timestamp AS TEXT) FROM db_metadata LIMIT 1";
    match database.query_row(asked, [], |row| row.get(0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        answer => answer,
    }
}

/// A time as Go's SQLite drivers write it: `2026-01-02 03:04:05+00:00`, or with a `T`.
fn go_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })
}

/// The databases that an artifact is.
///
/// # Errors
/// When it can't be read.
pub async fn of_artifact(
    descriptor: &Descriptor,
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<Vec<Database>, SourceError> {
    let refuse = |reason| SourceError::new(ExitClass::Refused, format!("use {}: {reason}", descriptor.digest));
    let bytes = checked(descriptor, source.manifest(&descriptor.digest, limits.manifest_bytes).await?)?;
    let Manifest::Image { layers, .. } = Manifest::parse(&descriptor.media_type, &bytes).map_err(refuse)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for layer in &layers {
        let Some((_, what)) = TRIVY_LAYERS.iter().find(|(media_type, _)| *media_type == layer.media_type) else {
            continue;
        };
        let metadata = image_file::read_from_layer(layer, source, "metadata.json", METADATA_BYTES, limits).await?;
        let built = metadata.and_then(|bytes| Metadata::date(&bytes));
        found.push(Database { what: (*what).to_owned(), built });
    }
    Ok(found)
}

/// The date that counts for a dependency: that of its oldest database, or else what the definition says.
///
/// # Errors
/// When neither says it, or they contradict each other.
pub fn date(
    name: &str,
    databases: &[Database],
    defined: Option<Timestamp>,
    needed: bool,
) -> Result<Option<Timestamp>, SourceError> {
    let refuse = |reason: String, remedy: &str| {
        let message = format!("use dependency `{}`: {reason}", brief(name));
        Err(SourceError::new(ExitClass::Usage, message).with_remedy(remedy))
    };
    let write = "write when it was built, as `built: 2026-01-01T00:00:00Z`";
    if let (Some(dateless), None) = (databases.iter().find(|d| d.built.is_none()), defined) {
        return refuse(
            format!("its {} does not say when it was built, and neither does the definition", dateless.what),
            write,
        );
    }
    for database in databases {
        let (Some(own), Some(defined)) = (database.built, defined) else { continue };
        if own.duration_since(defined).unsigned_abs() > TOLERANCE {
            return refuse(
                format!("its {} was built at {own}, and the definition says {defined}", database.what),
                "leave `built` out: the content says it",
            );
        }
    }
    let own = databases.iter().filter_map(|d| d.built).min();
    let built = match databases.iter().any(|d| d.built.is_none()) {
        true => own.min(defined).or(defined),
        false => own.or(defined),
    };
    if built.is_none() && needed {
        return refuse("it has a maxAge, and nothing says when it was built".to_owned(), write);
    }
    Ok(built.map(super::writer::whole_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::oci;
    use crate::bundle::source::Memory;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn databases_on_disk_say_when_they_were_built() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["6", "db", "deep/er/est", "other"] {
            fs::create_dir_all(path(name)).expect("a folder");
        }
        let database = Connection::open(path("6/vulnerability.db")).expect("SQLite");
        database
            .execute_batch(
                "CREATE TABLE db_metadata (build_timestamp datetime NOT NULL, model integer);
                 INSERT INTO db_metadata VALUES ('2026-03-04 05:06:07.123+00:00', 6);",
            )
            .expect("a table");
        drop(database);
        fs::write(path("db/trivy.db"), b"bolt").expect("a file");
        fs::write(path("db/metadata.json"), br#"{"Version":2,"UpdatedAt":"2026-03-01T00:00:00.5Z"}"#).expect("a file");
        // Too deep to be one that a scanner would find.
        fs::write(path("deep/er/est/trivy.db"), b"bolt").expect("a file");
        let found = on_disk(folder.path()).expect("databases");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].built, Some(time("2026-03-04T05:06:07.123Z")));
        assert_eq!(found[1].built, Some(time("2026-03-01T00:00:00.5Z")));
        assert_eq!(
            date("d", &found, None, true).expect("a date"),
            Some(time("2026-03-01T00:00:00Z")),
            "the older counts"
        );

        for (text, fits) in [("{}", false), ("null", false), (r#"{"built":"2026-03-01T00:00:00Z"}"#, true)] {
            fs::write(path("other/metadata.json"), text).expect("a file");
            fs::write(path("other/vulnerability.db"), b"").expect("a file");
            let found = on_disk(&path("other")).expect("databases");
            assert_eq!(found[0].built.is_some(), fits, "{text}");
            assert_eq!(date("d", &found, None, false).is_ok(), fits, "{text}");
        }
        fs::write(path("other/vulnerability.db"), b"this is no database at all").expect("a file");
        let found = on_disk(&path("other")).expect("something");
        assert_eq!(found[0].built, Some(time("2026-03-01T00:00:00Z")), "schema 5 says it beside");
        fs::remove_file(path("other/vulnerability.db")).expect("remove");
        let hostile = Connection::open(path("other/vulnerability.db")).expect("SQLite");
        hostile
            .execute_batch(
                "CREATE VIEW db_metadata AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                 SELECT max(i) AS build_timestamp FROM n;",
            )
            .expect("a view");
        drop(hostile);
        fs::remove_file(path("other/metadata.json")).expect("remove");
        assert_eq!(on_disk(&path("other")).expect("no endless query")[0].built, None);
    }

    #[test]
    fn a_date_must_be_known_and_not_contradicted() {
        let of = |built: Option<&str>| Database { what: "database".to_owned(), built: built.map(time) };
        let (day, next, week) = ("2026-03-01T00:00:00Z", "2026-03-01T20:00:00Z", "2026-03-08T00:00:00Z");
        assert_eq!(date("d", &[], None, false).expect("no database"), None);
        assert_eq!(date("d", &[], Some(time(day)), true).expect("defined"), Some(time(day)));
        assert_eq!(date("d", &[of(Some(next))], Some(time(day)), true).expect("about the same"), Some(time(next)));
        assert_eq!(date("d", &[of(None)], Some(time(day)), true).expect("defined"), Some(time(day)));
        assert_eq!(date("d", &[of(None), of(Some(next))], Some(time(day)), true).expect("the older"), Some(time(day)));
        assert!(date("d", &[], None, true).is_err(), "a maxAge of nothing");
        assert!(date("d", &[of(None)], None, false).is_err());
        assert!(date("d", &[of(Some(day)), of(None)], None, false).is_err());
        let error = date("d", &[of(Some(week))], Some(time(day)), false).expect_err("a contradiction").to_string();
        assert!(error.contains("2026-03-08") && error.contains("2026-03-01"), "{error}");
    }

    #[tokio::test]
    async fn trivys_artifact_says_when_it_was_built() {
        let layer = |metadata: Option<&str>| {
            let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
            let files = [("trivy.db", Some("bolt")), ("metadata.json", metadata)];
            for (name, content) in files.into_iter().filter_map(|(name, content)| Some((name, content?))) {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, name, content.as_bytes()).expect("an entry");
            }
            archive.into_inner().expect("a tar").finish().expect("gzip")
        };
        for (metadata, built) in [
            (Some(r#"{"UpdatedAt":"2026-03-01T00:00:00Z"}"#), Some("2026-03-01T00:00:00Z")),
            (Some(r#"{"UpdatedAt":"0001-01-01T00:00:00Z"}"#), None),
            (Some("no JSON"), None),
            (None, None),
        ] {
            let layer = layer(metadata);
            let manifest = serde_json::to_vec(&serde_json::json!({
                "schemaVersion": 2, "config": Descriptor::of("application/vnd.aquasec.trivy.config.v1+json", b"{}"),
                "layers": [Descriptor::of(TRIVY_LAYERS[0].0, &layer)],
            }))
            .expect("JSON");
            let mut memory = Memory::default();
            memory.insert(layer);
            memory.insert(manifest.clone());
            let source: Arc<dyn Source> = Arc::new(memory);
            let descriptor = Descriptor::of(oci::MANIFEST, &manifest);
            let found = of_artifact(&descriptor, &source, &Limits::default()).await.expect("an artifact");
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].built, built.map(time), "{metadata:?}");
        }
    }
}
