//! Package databases: dpkg's status file (deb822, dpkg-query(1)), and apk's `installed`.

use std::io::{self, BufRead};

use super::{Collected, Missing, Package, name};
use crate::base::limits::Limits;
use crate::model::reason::Reason;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Dpkg,
    Apk,
}

/// The longest line whose content counts: names and versions are far shorter, and longer lines are descriptions.
const LINE_BYTES: usize = 16 << 10;

/// The packages in a database, read line by line, so that its size is no matter.
///
/// Of dpkg's, those count whose files are there: every state but `not-installed` and `config-files`, whatever the wish is
/// (a package on hold is installed as well). An entry without a state counts, for distroless images have such.
///
/// # Errors
/// [`Reason::CollectorFailed`] for an entry without name or version, or a line that can't be in such a file;
/// [`Reason::FactTruncated`] beyond the limit; [`Reason::CollectorFailed`] when reading fails.
pub(crate) fn read(mut reader: impl BufRead, manager: Manager, limits: &Limits) -> Collected<Vec<Package>> {
    let mut list = Vec::new();
    let mut entry = Entry::default();
    let mut line = Vec::new();
    let failed = |error: io::Error| Missing::failed(format!("the package database can't be read: {error}"));
    while next_line(&mut reader, &mut line).map_err(failed)? {
        if line.trim_ascii().is_empty() {
            std::mem::take(&mut entry).finish(manager, &mut list, limits)?;
        } else {
            entry.add(&line, manager)?;
        }
    }
    entry.finish(manager, &mut list, limits)?;
    Ok(list)
}

/// Reads one line without its end; what is beyond [`LINE_BYTES`] is dropped. False at the end.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|b| *b == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = LINE_BYTES - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[derive(Default)]
struct Entry {
    any: bool,
    name: Option<String>,
    version: Option<String>,
    arch: String,
    state: Option<String>,
}

impl Entry {
    fn add(&mut self, line: &[u8], manager: Manager) -> Collected<()> {
        self.any = true;
        if manager == Manager::Dpkg && matches!(line[0], b' ' | b'\t' | b'#') {
            return Ok(());
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return Err(Missing::failed("the package database has a line that is no field"));
        };
        let value = || name::text(line[colon + 1..].trim_ascii());
        let slot = match (manager, &line[..colon]) {
            (Manager::Dpkg, b"Package") | (Manager::Apk, b"P") => &mut self.name,
            (Manager::Dpkg, b"Version") | (Manager::Apk, b"V") => &mut self.version,
            (Manager::Dpkg, b"Status") => &mut self.state,
            (Manager::Dpkg, b"Architecture") | (Manager::Apk, b"A") => {
                self.arch = value();
                return Ok(());
            }
            _ => return Ok(()),
        };
        match slot {
            // Two readings of one entry must not be possible.
            Some(_) => Err(Missing::failed("the package database has an entry with a field twice")),
            None => {
                *slot = Some(value());
                Ok(())
            }
        }
    }

    fn finish(self, manager: Manager, list: &mut Vec<Package>, limits: &Limits) -> Collected<()> {
        let absent = matches!(
            self.state.as_deref().and_then(|state| state.split_ascii_whitespace().last()),
            Some("not-installed" | "config-files")
        );
        if !self.any || absent {
            return Ok(());
        }
        let (Some(name), Some(version)) = (self.name, self.version) else {
            return Err(Missing::failed("the package database has an entry without name or version"));
        };
        if list.len() == limits.fact_items {
            return Err(Missing::truncated("the package database", limits));
        }
        let manager = match manager {
            Manager::Dpkg => "dpkg",
            Manager::Apk => "apk",
        };
        list.push(Package { name, version, arch: self.arch, manager: manager.to_owned() });
        Ok(())
    }
}

/// The answer of `rpm -qa` with the query format of the container's script: name, version, architecture, separated by tabs.
pub(crate) fn rpm(raw: &[u8], limits: &Limits) -> Collected<Vec<Package>> {
    let mut list = Vec::new();
    for line in raw.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
        let [package, version, arch] = fields[..] else {
            return Err(Missing::failed("`rpm -qa` answered with a line that was not asked for"));
        };
        if list.len() == limits.fact_items {
            return Err(Missing::truncated("the package database", limits));
        }
        let arch = if arch == b"(none)" { String::new() } else { name::text(arch) };
        list.push(Package { name: name::text(package), version: name::text(version), arch, manager: "rpm".to_owned() });
    }
    Ok(list)
}

/// Why there are no packages to tell of.
pub(crate) fn none_found(rpm_database: bool) -> Missing {
    if rpm_database {
        Missing::new(
            Reason::ToolMissing,
            "the package database is rpm's, which this collector can't read without `rpm`",
        )
    } else {
        Missing::new(
            Reason::ToolMissing,
            "there is no package database of dpkg or apk, and software without one is not seen",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dpkg(raw: &str) -> Collected<Vec<Package>> {
        read(raw.as_bytes(), Manager::Dpkg, &Limits::default())
    }

    #[test]
    fn packages_whose_files_are_there_count() {
        let raw = "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nDescription: x\n Package: fake\n\n\
                   Package: gone\nStatus: deinstall ok config-files\nVersion: 2\n\n\
                   Package: held\nStatus: hold ok installed\nVersion: 3\nArchitecture: all\n\n\n\
                   Package: less\nVersion: 4\n\
                   ";
        let list = dpkg(raw).expect("packages");
        let brief: Vec<_> = list.iter().map(|p| (p.name.as_str(), p.version.as_str(), p.arch.as_str())).collect();
        assert_eq!(brief, [("a", "1", "amd64"), ("held", "3", "all"), ("less", "4", "")]);
    }

    #[test]
    fn a_database_that_is_not_understood_is_absent() {
        for raw in [
            "Package: a\n",
            "Package: a\nVersion: 1\nVersion: 2\n",
            "Binary file (standard input) matches\n",
            "Version: 1\n",
        ] {
            assert!(dpkg(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn an_endless_line_costs_no_memory() {
        let raw =
            format!("Package: a\nVersion: 1\nDescription: {}\n\nPackage: b\nVersion: 2\n", "x".repeat(3 * LINE_BYTES));
        assert_eq!(dpkg(&raw).expect("packages").len(), 2);
    }

    #[test]
    fn reads_apk() {
        let raw = b"C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\nF:lib\nR:ld.so\n\nP:busybox\nV:1.36-r0\nA:x86_64\n\n";
        let list = read(&raw[..], Manager::Apk, &Limits::default()).expect("packages");
        assert_eq!(list.len(), 2);
        assert_eq!(
            (list[0].name.as_str(), list[0].version.as_str(), list[0].manager.as_str()),
            ("musl", "1.2.4-r2", "apk")
        );
    }

    #[test]
    fn reads_what_rpm_answers() {
        let list = rpm(b"bash\t5.1.8-9.el9\tx86_64\ngpg-pubkey\t1-2\t(none)\n", &Limits::default()).expect("packages");
        assert_eq!((list[1].name.as_str(), list[1].arch.as_str()), ("gpg-pubkey", ""));
        assert!(rpm(b"error: x\n", &Limits::default()).is_err());
    }
}
