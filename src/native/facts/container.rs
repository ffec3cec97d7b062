//! Facts from a running container: one exec of a fixed, read-only POSIX script, one round trip.
//!
//! The output is a list of records. Each begins on a line of its own with the nonce, which is random for each exec, and
//! ends only where the next one begins; so that nothing in a file, a name or a process title can end one or begin
//! another, as long as it was there before the script ran. (Programs of the target that run meanwhile can read the nonce
//! from `/proc`, and could as well replace the shell: a target that works against its own scan can lie to everything
//! that runs inside it. The image collector does not depend on the target.)
//!
//! How long it may run is the caller's to limit, and how much it may print ([`Limits::collector_bytes`]): what is cut
//! off makes facts absent, never different.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::files::{self, Owners};
use super::packages::{self, Manager};
use super::parts::{Parts, owners};
use super::proc::{self, MountLine, Seen};
use super::{
    Collected, Configs, FileFact, Files, Missing, Mount, Package, Process, Socket, Special, SystemFacts, config, name,
    os_release, passwd, wanted,
};
use crate::base::limits::Limits;
use crate::model::reason::Reason;

/// A random text that marks the records of one exec: 32 lower-case hexadecimal digits. Never use one twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A fresh one, of 128 random bits.
    ///
    /// # Panics
    /// When the operating system gives no random numbers.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random numbers");
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to exec in the container, without standard input and without a terminal: `sh -c SCRIPT gapscan NONCE`. It is about
/// 12 KiB long. Its standard output goes to [`parse`]; standard error says nothing that is needed, and the exit status
/// means nothing, for the end of the output says whether it is whole.
pub fn command(nonce: &Nonce, limits: &Limits) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), script(limits), "gapscan".to_owned(), nonce.to_string()]
}

/// The script with its lists, without comments and indentation: it travels in a URL, and audit logs keep it.
fn script(limits: &Limits) -> String {
    let mut lean = String::new();
    for line in include_str!("collect.sh").lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        lean.push_str(line);
        lean.push('\n');
    }
    lean.replace("@BYTES@", &limits.fact_file_bytes.to_string())
        .replace("@TOTAL@", &limits.collector_bytes.saturating_add(1).to_string())
        .replace("@SYSCTLS@", &wanted::SYSCTLS.join(" "))
        .replace("@CONFIGS@", &wanted::CONFIGS.join(" "))
        .replace("@FILES@", &wanted::FILES.join(" "))
}

/// The facts in what the script printed. Output that is cut, or garbage, gives facts that are absent with
/// [`Reason::CollectorFailed`].
pub fn parse(output: &[u8], nonce: &Nonce, limits: &Limits) -> SystemFacts {
    let output = Output::read(output, nonce);
    let users = output.list("/etc/passwd", limits, passwd::users);
    let groups = output.list("/etc/group", limits, passwd::groups);
    let owners = owners(&users, &groups);
    let mounts = output.mounts(limits);
    Parts {
        os: output.os(limits),
        packages: output.packages(limits),
        passwords: output.list("/etc/shadow", limits, passwd::passwords),
        special_files: output.special(&owners, limits),
        files: output.files(&owners, limits),
        configs: output.configs(limits),
        processes: output.processes(&mounts, limits),
        sockets: output.sockets(limits),
        sysctls: output.sysctls(limits),
        image: Err(Missing::new(Reason::FactMissing, "a container's image is a target of its own")),
        mounts: mounts.map(|list| list.into_iter().map(|line| line.fact).collect::<Vec<Mount>>()),
        users,
        groups,
    }
    .assemble()
}

/// One record, or two of them that hold a file between them.
enum Item<'a> {
    File(File<'a>),
    /// A keyword and what follows it.
    Word(&'a [u8], &'a [u8]),
}

struct File<'a> {
    state: &'a [u8],
    path: &'a str,
    body: Cow<'a, [u8]>,
    status: &'a [u8],
}

impl<'a> File<'a> {
    /// Its content; `None` where it does not exist.
    fn content(&self, limits: &Limits) -> Collected<Option<&[u8]>> {
        let path = self.path;
        match (self.state, self.status) {
            (b"ok", b"0") if self.body.len() as u64 > limits.fact_file_bytes => {
                Err(Missing::too_large(path, limits.fact_file_bytes))
            }
            (b"ok", b"0") => Ok(Some(&self.body)),
            (b"absent", _) => Ok(None),
            (b"denied", _) => Err(Missing::unreadable(format!("`{path}` may not be read"))),
            (b"special", _) => Err(Missing::unreadable(format!("`{path}` is no regular file, or a link to nowhere"))),
            (b"big", _) => Err(Missing::too_large(path, limits.fact_file_bytes)),
            _ => Err(Missing::failed(format!("reading `{path}` failed"))),
        }
    }
}

/// The files of a batch: `paths` are those that were read, `text` their lines, each after the path and a colon, and at the end the
/// status of the program that read them, after an equals sign. A path of a batch begins with a slash and has no colon, so that
/// nothing in a file can pass for a line of another one, or for the status.
fn batch<'a>(paths: Vec<&'a str>, text: &'a [u8]) -> impl Iterator<Item = Item<'a>> {
    let mut bodies: BTreeMap<&[u8], Vec<u8>> = paths.iter().map(|path| (path.as_bytes(), Vec::new())).collect();
    let (mut status, mut whole): (&[u8], bool) = (b"", true);
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        // The status is the last line, or is none.
        whole &= status.is_empty();
        let (path, content) = split_once(line, b':');
        match (bodies.get_mut(path), line.strip_prefix(b"=")) {
            (Some(body), _) => {
                body.extend_from_slice(content);
                body.push(b'\n');
            }
            (None, Some(end)) => status = end,
            (None, None) => whole = false,
        }
    }
    // 1 is what grep says where no file has a line.
    let status: &[u8] = match status {
        b"0" | b"1" if whole => b"0",
        b"2" if whole => SOME_UNREAD,
        _ => b"",
    };
    paths.into_iter().map(move |path| {
        let body = Cow::Owned(bodies.remove(path.as_bytes()).unwrap_or_default());
        Item::File(File { state: b"ok", path, body, status })
    })
}

/// The status of files of which some could not be read, and it is not known which.
const SOME_UNREAD: &[u8] = b"2";

/// The records that arrived whole.
struct Output<'a> {
    /// Outside of sections.
    top: Vec<Item<'a>>,
    /// By name: the records inside, and what its end says.
    sections: BTreeMap<&'a [u8], (Vec<Item<'a>>, &'a [u8])>,
}

fn cut() -> Missing {
    Missing::failed("the collector's output ends before this")
}

impl<'a> Output<'a> {
    fn read(output: &'a [u8], nonce: &Nonce) -> Self {
        let mut read = Self { top: Vec::new(), sections: BTreeMap::new() };
        let mut open: Option<(&[u8], Vec<Item>)> = None;
        let mut file: Option<File> = None;
        let mut together: Vec<&str> = Vec::new();
        for record in records(output, nonce) {
            let (word, rest) = split_once(record, b' ');
            if let Some(mut whole) = file.take() {
                if word != b">" {
                    break;
                }
                let items = open.as_mut().map_or(&mut read.top, |(_, items)| items);
                match whole.body {
                    Cow::Borrowed(text) if whole.state == b"many" => {
                        items.extend(batch(std::mem::take(&mut together), text));
                    }
                    _ => {
                        whole.status = rest;
                        items.push(Item::File(whole));
                    }
                }
                continue;
            }
            match word {
                b"m" => {
                    let Ok(path) = str::from_utf8(rest) else { break };
                    together.push(path);
                }
                b"<" => {
                    let (head, body) = split_once(rest, b'\n');
                    let (state, path) = split_once(head, b' ');
                    let Ok(path) = str::from_utf8(path) else { break };
                    file = Some(File { state, path, body: Cow::Borrowed(body), status: b"" });
                }
                b"[" if open.is_none() => open = Some((rest, Vec::new())),
                // Files of a batch that never came must not be taken for empty ones of the next.
                b"]" if !together.is_empty() => break,
                b"]" => {
                    let (name, end) = split_once(rest, b' ');
                    match open.take() {
                        Some((begun, items)) if begun == name => read.sections.insert(name, (items, end)),
                        _ => break,
                    };
                }
                _ => open.as_mut().map_or(&mut read.top, |(_, items)| items).push(Item::Word(word, rest)),
            }
        }
        read
    }

    fn file(&self, path: &str) -> Collected<&File<'a>> {
        self.top
            .iter()
            .find_map(|item| match item {
                Item::File(file) if file.path == path => Some(file),
                _ => None,
            })
            .ok_or_else(cut)
    }

    fn section(&self, name: &str) -> Collected<&(Vec<Item<'a>>, &'a [u8])> {
        self.sections.get(name.as_bytes()).ok_or_else(cut)
    }

    /// A file of one entry a line; no file, no entries.
    fn list<T>(
        &self,
        path: &str,
        limits: &Limits,
        read: impl Fn(&[u8], &Limits) -> Collected<Vec<T>>,
    ) -> Collected<Vec<T>> {
        read(self.file(path)?.content(limits)?.unwrap_or_default(), limits)
    }

    fn os(&self, limits: &Limits) -> Collected<BTreeMap<String, String>> {
        for path in wanted::OS_RELEASE {
            if let Some(content) = self.file(path)?.content(limits)? {
                return Ok(os_release::parse(content));
            }
        }
        Err(Missing::new(Reason::FactMissing, "there is no os-release file"))
    }

    fn mounts(&self, limits: &Limits) -> Collected<Vec<MountLine>> {
        let content = self.file("/proc/self/mountinfo")?.content(limits)?;
        proc::mountinfo(content.ok_or_else(|| Missing::unreadable("there is no `/proc/self/mountinfo`"))?, limits)
    }

    fn processes(&self, mounts: &Collected<Vec<MountLine>>, limits: &Limits) -> Collected<Vec<Process>> {
        let root =
            self.top.iter().any(|item| matches!(item, Item::Word(b"id", rest) if split_once(rest, b' ').1 == b"0"));
        if !root && mounts.as_ref().map_or(true, |mounts| proc::hides_processes(mounts)) {
            return Err(Missing::unreadable("`/proc` hides the processes of other users, or may do so"));
        }
        let mut list = Vec::new();
        let mut any = false;
        let own = self.own_processes();
        for item in &self.section("processes")?.0 {
            let Item::Word(b"p", rest) = item else { continue };
            let (pid, status) = split_once(rest, b'\n');
            let pid = number(pid).ok_or_else(|| Missing::failed("`/proc` has a process without a number"))?;
            any = true;
            if own.contains(&pid) {
                continue;
            }
            if let Seen::Process(process) = proc::status(pid, status)? {
                if list.len() == limits.fact_items {
                    return Err(Missing::truncated("the list of processes", limits));
                }
                list.push(process);
            }
        }
        if any { Ok(list) } else { Err(Missing::unreadable("`/proc` shows no process")) }
    }

    /// The collector's shell, and what it started: none of them is the target's, and nothing of the target's can become one.
    fn own_processes(&self) -> BTreeSet<u32> {
        let shell = self.top.iter().find_map(|item| match item {
            Item::Word(b"id", rest) => number(split_once(rest, b' ').0),
            _ => None,
        });
        let mut own = BTreeSet::from_iter(shell);
        let processes = self.sections.get(&b"processes"[..]).map(|(items, _)| items.as_slice()).unwrap_or_default();
        let parents: Vec<(u32, u32)> = processes
            .iter()
            .filter_map(|item| match item {
                Item::Word(b"p", rest) => {
                    let (pid, status) = split_once(rest, b'\n');
                    Some((number(pid)?, proc::parent(status)?))
                }
                _ => None,
            })
            .collect();
        // The numbers of children need not be above those of their parents.
        loop {
            let known = own.len();
            own.extend(
                parents.iter().filter(|(_, parent)| own.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>(),
            );
            if own.len() == known {
                return own;
            }
        }
    }

    fn sockets(&self, limits: &Limits) -> Collected<Vec<Socket>> {
        let mut list = Vec::new();
        for protocol in ["tcp", "tcp6", "udp", "udp6"] {
            let path = format!("/proc/net/{protocol}");
            match self.file(&path)?.content(limits)? {
                Some(content) => list.extend(proc::sockets(protocol, content, limits)?),
                // A kernel without IPv6 has no such table.
                None if protocol.ends_with('6') => {}
                None => return Err(Missing::unreadable(format!("there is no `{path}`"))),
            }
        }
        Ok(list)
    }

    fn sysctls(&self, limits: &Limits) -> Collected<BTreeMap<String, String>> {
        let (items, end) = self.section("sysctls")?;
        ended(end)?;
        let text = |value: &[u8]| String::from_utf8_lossy(value.trim_ascii()).into_owned();
        let mut all = BTreeMap::new();
        for item in items {
            match item {
                Item::Word(b"s", rest) => {
                    let (path, value) = split_once(rest, b' ');
                    all.insert(wanted::sysctl_name(&name::text(path)), text(value));
                }
                Item::File(file) => {
                    // One that could not be read after all is not there, as one that may not be read: a kernel may deny what
                    // its mode allows. A value comes in one read, or not at all.
                    if file.status != SOME_UNREAD {
                        file.content(limits)?;
                    }
                    if !file.body.is_empty() {
                        let path = file.path.strip_prefix("/proc/sys/").unwrap_or(file.path);
                        all.insert(wanted::sysctl_name(path), text(&file.body));
                    }
                }
                Item::Word(..) => {}
            }
        }
        Ok(all)
    }

    fn configs(&self, limits: &Limits) -> Collected<Configs> {
        let mut configs = BTreeMap::new();
        let mut unread = Vec::new();
        for item in &self.section("configs")?.0 {
            match item {
                Item::File(file) => match file.content(limits) {
                    Ok(Some(content)) => drop(configs.insert(file.path.to_owned(), config::lines(content))),
                    Ok(None) => {}
                    Err(_) => unread.push(file.path.to_owned()),
                },
                Item::Word(b"u", path) => unread.push(name::text(path)),
                Item::Word(..) => {}
            }
            if configs.len() + unread.len() > limits.fact_items {
                return Err(Missing::truncated("the list of configuration files", limits));
            }
        }
        Ok((configs, unread))
    }

    fn files(&self, owners: &Collected<Owners>, limits: &Limits) -> Collected<Files> {
        let (items, end) = self.section("files")?;
        ended(end)?;
        let owners = owners.as_ref().map_err(Missing::clone)?;
        let mut files = BTreeMap::new();
        let mut unread = Vec::new();
        for item in items {
            match item {
                Item::Word(b"u", path) => unread.push(name::text(path)),
                Item::Word(how @ (b"e" | b"l" | b"d"), rest) => {
                    let mut fact = file_fact(rest, owners)?;
                    fact.symlink = *how != b"e";
                    files.insert(fact.path.clone(), fact);
                }
                _ => {}
            }
            if files.len() + unread.len() > limits.fact_items {
                return Err(Missing::truncated("the list of well-known files", limits));
            }
        }
        Ok((files, unread))
    }

    fn special(&self, owners: &Collected<Owners>, limits: &Limits) -> Collected<Special> {
        let (items, end) = self.section("special")?;
        let (status, complaints) = split_once(end, b' ');
        // 1 is what find says after complaints, which are counted by themselves; any other status is a find that died.
        ended(if status == b"1" { b"0" } else { status })?;
        let owners = owners.as_ref().map_err(Missing::clone)?;
        let mut list = Vec::new();
        let mut unread = Vec::new();
        for item in items {
            match item {
                Item::Word(b"f", rest) => list.push(file_fact(rest, owners)?),
                Item::Word(b"d", path) => unread.push(name::text(path)),
                _ => {}
            }
            if list.len().max(unread.len()) > limits.fact_items {
                return Err(Missing::truncated("the list of special files", limits));
            }
        }
        if complaints != b"0" && unread.is_empty() {
            // Somewhere below the root, find does not say where in a way that a name can't forge.
            unread.push("/".to_owned());
        }
        Ok((list, unread))
    }

    fn packages(&self, limits: &Limits) -> Collected<Vec<Package>> {
        let (items, _) = self.section("packages")?;
        let mut list = Vec::new();
        let mut found = false;
        let mut rpm = false;
        for item in items {
            let Item::File(file) = item else { continue };
            let content = file.content(limits)?;
            rpm |= file.path == "rpm";
            let Some(content) = content else { continue };
            let more = match file.path {
                "rpm" => packages::rpm(content, limits)?,
                path if wanted::APK.contains(&path) => packages::read(content, Manager::Apk, limits)?,
                _ => packages::read(content, Manager::Dpkg, limits)?,
            };
            // rpm without a database answers nothing, and so does one that can't read it.
            found |= file.path != "rpm" || !more.is_empty();
            list.extend(more);
            if list.len() > limits.fact_items {
                return Err(Missing::truncated("the list of packages", limits));
            }
        }
        if found { Ok(list) } else { Err(packages::none_found(rpm)) }
    }
}

/// What the end of a section says about the tools in it.
fn ended(end: &[u8]) -> Collected<()> {
    match end {
        b"0" => Ok(()),
        b"tool" => Err(Missing::new(
            Reason::ToolMissing,
            "the target has no tool that can read this (`find`, `stat`, `head` or `cat`)",
        )),
        b"big" => Err(Missing::new(Reason::FactTruncated, "the target has more than 5000 accounts or groups")),
        _ => Err(Missing::failed("a tool in the target failed")),
    }
}

/// `HEXMODE UID GID NAME`, where the name is whatever follows.
fn file_fact(record: &[u8], owners: &Owners) -> Collected<FileFact> {
    let read = || {
        let (mode, rest) = split_once(record, b' ');
        let (uid, rest) = split_once(rest, b' ');
        let (gid, path) = split_once(rest, b' ');
        let mode = u32::from_str_radix(str::from_utf8(mode).ok()?, 16).ok()?;
        let kind = files::kind(mode)?;
        path.starts_with(b"/").then_some(())?;
        Some(files::fact(name::text(path), kind, mode, (number(uid)?, number(gid)?), owners))
    };
    read().ok_or_else(|| Missing::failed("`stat` in the target answered with what was not asked for"))
}

fn number(text: &[u8]) -> Option<u32> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn split_once(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    bytes.iter().position(|b| *b == at).map_or((bytes, b""), |i| (&bytes[..i], &bytes[i + 1..]))
}

/// The records between the markers, without the nonce. The last one may be cut, and does not count; a whole output ends
/// with the record `.`, which nothing needs to read.
fn records<'a>(output: &'a [u8], nonce: &Nonce) -> Vec<&'a [u8]> {
    let marker = format!("{nonce} ");
    let mut records = Vec::new();
    let mut begun: Option<usize> = None;
    let mut line = 0;
    while line < output.len() {
        if output[line..].starts_with(marker.as_bytes()) {
            if let Some(begin) = begun {
                // Without the line break before the marker, which belongs to it.
                records.push(&output[begin..line - 1]);
            }
            begun = Some(line + marker.len());
        }
        line = output[line..].iter().position(|b| *b == b'\n').map_or(output.len(), |n| line + n + 1);
    }
    records
}

#[cfg(test)]
mod tests;
