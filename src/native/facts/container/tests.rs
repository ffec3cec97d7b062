use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::super::parts::inconsistent;
use super::*;

fn nonce() -> Nonce {
    Nonce("0123456789abcdef0123456789abcdef".to_owned())
}

/// What the script prints on this machine in this shell; only the search for special files is confined to a folder.
fn run(shell: &[&str], folder: &Path) -> Option<Vec<u8>> {
    if !Path::new(shell[0]).exists() {
        println!("skipped: needs {}", shell[0]);
        return None;
    }
    let script = script(&Limits::default()).replace("find / -xdev", &format!("find '{}' -xdev", folder.display()));
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &script, "gapscan", nonce().as_str()])
        .stdin(Stdio::null())
        .output()
        .expect("the shell runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell:?} complains");
    Some(output.stdout)
}

const SHELLS: [&[&str]; 3] = [&["/usr/bin/dash"], &["/usr/bin/busybox", "sh"], &["/usr/bin/bash"]];

fn hostile_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("folder");
    let names = [
        "plain".to_owned(),
        "two\nlines".to_owned(),
        "\nffffffffffffffffffffffffffffffff ] special 0 0\nffffffffffffffffffffffffffffffff .\n".to_owned(),
        "\u{1b}[2Jquote'\"$(id)`id`\\".to_owned(),
        "x".repeat(255),
        "ends with: No such file or directory".to_owned(),
    ];
    for name in names {
        let path = folder.path().join(name);
        std::fs::write(&path, "").expect("file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4666)).expect("mode");
    }
    std::fs::write(folder.path().join("harmless"), "").expect("file");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("link");
    folder
}

#[test]
fn every_shell_tells_the_same_about_this_machine() {
    let folder = hostile_folder();
    let mut first: Option<SystemFacts> = None;
    for shell in SHELLS {
        let Some(output) = run(shell, folder.path()) else { continue };
        let mut facts = parse(&output, &nonce(), &Limits::default());
        assert_eq!(inconsistent(&facts), Vec::<String>::new(), "{shell:?}");
        for fact in ["os", "users", "groups", "files", "configs", "mounts", "sockets", "sysctls", "specialFiles"] {
            assert_eq!(facts.missing.get(fact), None, "{shell:?}: {fact}");
        }
        let special = facts.special_files.as_deref().unwrap_or_default();
        assert_eq!(special.len(), 6, "{shell:?}: {special:#?}");
        assert!(special.iter().all(|f| f.mode == 0o4666 && f.kind == "file"), "{special:#?}");
        let prefix = format!("{}/", folder.path().display());
        let names: Vec<&str> = special.iter().filter_map(|f| f.path.strip_prefix(&prefix)).collect();
        assert!(names.contains(&"two\nlines"), "{names:?}");
        assert!(names.iter().any(|n| n.ends_with("ffff .\n")), "{names:?}");
        assert_eq!(facts.unreadable.as_deref(), Some(&[][..]), "{shell:?}");
        // What changes between two runs.
        facts.processes = None;
        facts.missing.remove("processes");
        facts.sockets = None;
        facts.mounts = None;
        match &first {
            None => first = Some(facts),
            Some(first) => {
                assert!(first.sysctls.as_ref().is_some_and(|all| all.len() > 10), "{shell:?}");
                let (first, facts) =
                    (serde_json::to_value(first).expect("json"), serde_json::to_value(&facts).expect("json"));
                for (name, fact) in first.as_object().expect("object") {
                    assert!(facts.get(name) == Some(fact), "{shell:?}: {name} differs");
                }
            }
        }
    }
}

#[test]
fn a_shell_without_any_tool_tells_what_it_can() {
    if !Path::new("/usr/bin/dash").exists() {
        println!("skipped: needs /usr/bin/dash");
        return;
    }
    let script =
        script(&Limits::default()).replace("PATH=\"$PATH:/usr/sbin:/usr/bin:/sbin:/bin\"", "PATH=/nonexistent");
    assert!(script.contains("PATH=/nonexistent"));
    let output = Command::new("/usr/bin/dash")
        .args(["-c", &script, "gapscan", nonce().as_str()])
        .stdin(Stdio::null())
        .output()
        .expect("dash runs");
    let facts = parse(&output.stdout, &nonce(), &Limits::default());
    assert_eq!(inconsistent(&facts), Vec::<String>::new());
    for fact in ["users", "groups", "os", "mounts", "sockets", "processes", "configs"] {
        assert_eq!(facts.missing.get(fact), None, "{fact}");
    }
    for fact in ["files", "specialFiles", "unreadable", "sysctls"] {
        assert_eq!(facts.missing[fact].reason, Reason::ToolMissing, "{fact}");
    }
}

#[test]
fn the_command_is_whole_and_fits_in_a_url() {
    let command = command(&nonce(), &Limits::default());
    assert_eq!((command[0].as_str(), command[1].as_str(), command[4].as_str()), ("sh", "-c", nonce().as_str()));
    assert!(!["@FILES@", "@CONFIGS@", "@SYSCTLS@", "@BYTES@"].iter().any(|word| command[2].contains(word)));
    assert!(command[2].len() < 16 << 10, "{}", command[2].len());
    assert_ne!(Nonce::random(), Nonce::random());
}

#[test]
fn only_regular_files_are_opened() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "content").expect("file");
    std::fs::write(at("huge"), "x".repeat(200)).expect("file");
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o644.into(), 0).expect("fifo");
    for (name, target) in
        [("loop", "loop"), ("dangling", "none"), ("to-fifo", "fifo"), ("endless", "/dev/zero"), ("link", "file")]
    {
        std::os::unix::fs::symlink(target, at(name)).expect("link");
    }
    let limits = Limits { fact_file_bytes: 100, ..Limits::default() };
    let script = script(&limits);
    let functions = &script[..script.find("unlisted()").expect("the functions end there")];
    let names = ["file", "link", "huge", "fifo", "loop", "dangling", "to-fifo", "endless", "none", "file/x"];
    let gets: String = names.iter().map(|name| format!("get '{}'\n", at(name).display())).collect();
    let paths = names.map(|name| at(name).display().to_string()).join(" ");
    let output = Command::new("sh")
        .args(["-c", &format!("{functions}\n{gets}large {paths}\nsay \"z$Z\"\nsay ."), "x", nonce().as_str()])
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    let large = format!("{} z {} \n", nonce().as_str(), at("huge").display());
    assert!(String::from_utf8_lossy(&output.stdout).contains(&large), "{output:?}");
    let read = Output::read(&output.stdout, &nonce());
    let content = |name: &str| read.file(&at(name).display().to_string()).expect("there").content(&limits);
    assert_eq!(content("file").expect("file"), Some(&b"content"[..]));
    assert_eq!(content("link").expect("link"), Some(&b"content"[..]));
    assert_eq!(content("none").expect("none"), None);
    assert_eq!(content("huge").expect_err("huge").reason, Reason::FactTruncated);
    for name in ["fifo", "loop", "dangling", "to-fifo", "endless"] {
        assert_eq!(content(name).expect_err(name).reason, Reason::UnreadablePaths, "{name}");
    }
}

#[test]
fn no_hash_leaves_the_target() {
    let masked = |lines: &str, function: &str| {
        let script = script(&Limits::default());
        let functions = &script[..script.find("unlisted()").expect("the functions end there")];
        let output = Command::new("sh")
            .args(["-c", &format!("{functions}\nprintf '%s' '{lines}' | {function}"), "x", "n"])
            .output()
            .expect("sh runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let hashes = [
        ("$y$j9T$SECRETsalt$SECREThash", "$y$"),
        ("$6$SECRET$SECRET", "$6$"),
        ("$5$SECRET$SECRET", "$5$"),
        ("$1$SECRET$SECRET", "$1$"),
        ("$2y$10$SECRET", "$2b$"),
        ("$gy$SECRET", "$gy$"),
        ("$7$SECRET", "$7$"),
        ("$SECRET$x", "$?"),
        ("abSECRETDES12", "............."),
        ("_SECRETabcdefghijklm", "_"),
        ("!$6$SECRET$SECRET", "!"),
        ("*", "!"),
        ("", ""),
        ("SECRET", "!"),
        ("SECRETSECRETSECRET", "$?"),
    ];
    for (hash, mask) in hashes {
        let line = format!("u:{hash}:1:2:3:4:5:6:");
        assert_eq!(masked(&line, "mshadow"), format!("u:{mask}:1:2:3:4:5::\n"), "{hash}");
        let line = format!("u:{hash}:1:2:G,SECRET:/h:/s");
        assert_eq!(masked(&line, "mpasswd"), format!("u:{mask}:1:2::/h:/s\n"), "{hash}");
        let line = format!("g:{hash}:1:a,b");
        assert_eq!(masked(&line, "mgroup"), "g:x:1:a,b\n", "{hash}");
        // What is left of it means the same as the whole.
        let limits = Limits::default();
        let whole = passwd::passwords(format!("u:{hash}:::::::").as_bytes(), &limits).expect("shadow");
        let left = passwd::passwords(format!("u:{mask}:::::::").as_bytes(), &limits).expect("masked");
        assert_eq!(whole, left, "{hash}");
    }
}

/// A whole output of a small system, with another nonce for each use.
fn sample(nonce: &Nonce) -> Vec<u8> {
    let mut text = String::new();
    let n = nonce.as_str();
    let file = |state: &str, path: &str, body: &str| format!("{n} < {state} {path}\n{body}\n{n} > 0\n");
    text += &format!("{n} id 99 0\n");
    text += &file("ok", "/etc/os-release", "ID=debian\n");
    text += &file("ok", "/usr/lib/os-release", "ID=debian\n");
    text += &file("ok", "/etc/passwd", "root:x:0:0::/root:/bin/sh\nme:x:7:7::/:/bin/sh\n");
    text += &file("ok", "/etc/group", "root:x:0:\n");
    text += &file("denied", "/etc/shadow", "");
    text +=
        &file("ok", "/proc/self/mountinfo", "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /proc rw - proc proc rw\n");
    text += &format!("{n} [ processes\n");
    // The last three are the collector's shell, a child of it, and a child of that one.
    for (pid, parent) in [(1, 0), (2, 1), (3, 99999), (5, 98), (99, 0), (98, 99)] {
        text += &format!(
            "{n} p {pid}\nName:\tx\nState:\tS\nPPid:\t{parent}\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nVmSize:\t1 kB\nCapEff:\t0000000000000001\nNoNewPrivs:\t0\nSeccomp:\t0\n"
        );
    }
    text += &format!("{n} ] processes\n");
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        text += &file(if table.ends_with('6') { "absent" } else { "ok" }, &format!("/proc/net/{table}"), "header\n");
    }
    text +=
        &format!("{n} [ sysctls\n{n} s net/ipv4/ip_forward 0\n{n} m /proc/sys/kernel/a\n{n} m /proc/sys/kernel/b\n");
    text += &format!("{n} < many\n/proc/sys/kernel/a:1\t2\n=2\n\n{n} > 0\n{n} ] sysctls 0\n");
    text += &format!("{n} [ configs\n");
    text += &file("ok", "/etc/login.defs", "# c\nUMASK 022\n");
    text += &file("denied", "/etc/sudoers", "");
    text += &format!("{n} u /etc/sudoers.d\n{n} ] configs\n");
    text += &format!("{n} [ files\n{n} u /root/.ssh\n{n} e 81a4 0 0 /etc/passwd\n{n} l 43ff 0 0 /tmp\n{n} ] files 0\n");
    text += &format!("{n} [ packages\n");
    text += &file(
        "ok",
        "/var/lib/dpkg/status",
        "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nVersion: 2\n",
    );
    text += &format!("{n} ] packages\n");
    text += &format!(
        "{n} [ special\n{n} d /root\n{n} f 89ed 0 9 /bin/a\nb\n{n} f 43ff 0 0 /tmp\n{n} ] special 1 1\n{n} .\n"
    );
    text.into_bytes()
}

#[test]
fn a_whole_output_gives_whole_facts() {
    let facts = parse(&sample(&nonce()), &nonce(), &Limits::default());
    assert_eq!(inconsistent(&facts), Vec::<String>::new());
    let missing: Vec<_> = facts.missing.iter().map(|(name, why)| (name.as_str(), why.reason)).collect();
    assert_eq!(missing, [("image", Reason::FactMissing), ("passwords", Reason::UnreadablePaths)]);
    let special = facts.special_files.expect("special files");
    assert_eq!((special[0].path.as_str(), special[0].unowned), ("/bin/a\nb", true));
    assert_eq!(facts.unreadable.expect("unreadable"), ["/root"]);
    assert_eq!(facts.unreadable_files.expect("unreadable"), ["/root/.ssh"]);
    assert_eq!(facts.unreadable_configs.expect("unreadable"), ["/etc/sudoers", "/etc/sudoers.d"]);
    assert_eq!(facts.configs.expect("configs")["/etc/login.defs"], ["UMASK 022"]);
    assert!(facts.files.expect("files")["/tmp"].symlink);
    let processes: Vec<u32> = facts.processes.expect("processes").iter().map(|process| process.pid).collect();
    assert_eq!(processes, [1, 2, 3]);
    let sysctls = facts.sysctls.expect("sysctls");
    assert_eq!(sysctls["net.ipv4.ip_forward"], "0");
    assert_eq!((sysctls["kernel.a"].as_str(), sysctls.get("kernel.b")), ("1\t2", None));
}

#[test]
fn a_batch_gives_each_file_its_lines_or_none_at_all() {
    let facts = |text: &str, status: &str| {
        let n = nonce();
        let output = format!(
            "{n} [ configs\n{n} m /etc/a\n{n} m /etc/b\n{n} < many\n{text}{status}\n{n} > 0\n{n} ] configs\n{n} .\n"
        );
        let facts = parse(output.as_bytes(), &n, &Limits::default());
        (facts.configs.expect("configs"), facts.unreadable_configs.expect("unread"))
    };
    let lines = "/etc/a:one\n/etc/a:/etc/b:two\n/etc/a:=0\n";
    let (configs, unread) = facts(lines, "=0\n");
    assert_eq!(configs["/etc/a"], ["one", "/etc/b:two", "=0"]);
    assert_eq!((configs["/etc/b"].len(), unread.len()), (0, 0), "an empty file is one");
    for (text, status) in [(lines, ""), (lines, "=2\n"), (lines, "=137\n"), ("x\n", "=0\n"), ("=0\n/etc/a:x\n", "")] {
        let (configs, unread) = facts(text, status);
        assert!(configs.is_empty(), "{text}{status}: {configs:?}");
        assert_eq!(unread, ["/etc/a", "/etc/b"], "{text}{status}");
    }
}

#[test]
fn a_batch_that_never_came_leaves_no_empty_files() {
    let n = nonce();
    let output =
        format!("{n} [ configs\n{n} m /etc/a\n{n} ] configs\n{n} m /etc/b\n{n} < many\n=0\n\n{n} > 0\n{n} .\n");
    let facts = parse(output.as_bytes(), &n, &Limits::default());
    assert_eq!(facts.configs, None);
    assert_eq!(facts.missing["configs"].reason, Reason::CollectorFailed);
}

#[test]
fn what_the_target_hides_is_absent_and_not_empty() {
    let text = String::from_utf8(sample(&nonce())).expect("text");
    let missing = |from: &str, to: &str, fact: &str| {
        assert!(text.contains(from), "{from}");
        let facts = parse(text.replace(from, to).as_bytes(), &nonce(), &Limits::default());
        assert_eq!(inconsistent(&facts), Vec::<String>::new());
        facts.missing.get(fact).unwrap_or_else(|| panic!("{fact} is there")).reason
    };
    assert_eq!(missing("id 99 0", "id 99 7", "image"), Reason::FactMissing);
    let hidden = text.replace("id 99 0", "id 99 7").replace("proc proc rw", "proc proc rw,hidepid=invisible");
    let facts = parse(hidden.as_bytes(), &nonce(), &Limits::default());
    assert_eq!(facts.missing["processes"].reason, Reason::UnreadablePaths);
    assert_eq!(missing("] special 1 1", "] special tool", "specialFiles"), Reason::ToolMissing);
    assert_eq!(missing("] special 1 1", "] special tool", "unreadable"), Reason::ToolMissing);
    assert_eq!(missing("] special 1 1", "] special 137 0", "specialFiles"), Reason::CollectorFailed);
    assert_eq!(missing("] files 0", "] files tool", "files"), Reason::ToolMissing);
    assert_eq!(missing("] files 0", "] files 1", "unreadableFiles"), Reason::CollectorFailed);
    assert_eq!(missing("< ok /var/lib/dpkg/status", "< absent /var/lib/dpkg/status", "packages"), Reason::ToolMissing);
    assert_eq!(
        missing("< ok /var/lib/dpkg/status", "< special /var/lib/dpkg/status", "packages"),
        Reason::UnreadablePaths
    );
    assert_eq!(missing("< ok /etc/passwd", "< denied /etc/passwd", "users"), Reason::UnreadablePaths);
    assert_eq!(missing("< ok /etc/passwd", "< big /etc/passwd", "specialFiles"), Reason::FactTruncated);
    let calm = text.replace(&format!("{} d /root\n", nonce()), "");
    let facts = parse(calm.as_bytes(), &nonce(), &Limits::default());
    assert_eq!(facts.unreadable.expect("complaints without a path"), ["/"]);
}

#[test]
fn lists_beyond_their_limits_are_absent() {
    let limits = Limits { fact_items: 1, fact_file_bytes: 30, ..Limits::default() };
    let facts = parse(&sample(&nonce()), &nonce(), &limits);
    for fact in ["processes", "users", "mounts", "packages", "specialFiles", "configs"] {
        assert_eq!(facts.missing[fact].reason, Reason::FactTruncated, "{fact}");
    }
}

/// Whether every fact of `part` is either that of `whole` or missing.
fn no_lie(part: &SystemFacts, whole: &SystemFacts) -> bool {
    let (part, whole) = (serde_json::to_value(part).expect("json"), serde_json::to_value(whole).expect("json"));
    part.as_object().expect("object").iter().all(|(name, value)| name == "missing" || whole.get(name) == Some(value))
}

#[test]
fn output_cut_anywhere_loses_facts_and_changes_none() {
    let output = sample(&nonce());
    let whole = parse(&output, &nonce(), &Limits::default());
    for length in 0..output.len() {
        let part = parse(&output[..length], &nonce(), &Limits::default());
        assert_eq!(inconsistent(&part), Vec::<String>::new(), "{length}");
        assert!(no_lie(&part, &whole), "{length}: {part:#?}");
        assert!(length >= output.len() - 2 || part.missing.contains_key("specialFiles"), "{length}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(output in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let facts = parse(&output, &nonce(), &Limits::default());
        prop_assert_eq!(facts.missing.len(), 16);
    }

    #[test]
    fn mutations_never_panic(at in any::<prop::sample::Index>(), with in proptest::collection::vec(any::<u8>(), 0..6), cut in 0_usize..40) {
        let mut output = sample(&nonce());
        let at = at.index(output.len());
        let end = output.len().min(at + cut);
        output.splice(at..end, with);
        let facts = parse(&output, &nonce(), &Limits::default());
        prop_assert_eq!(inconsistent(&facts), Vec::<String>::new());
    }

    #[test]
    fn file_names_cannot_forge(name in proptest::collection::vec(any::<u8>().prop_filter("no NUL", |b| *b != 0), 0..80)) {
        let n = nonce();
        let mut output = format!("{n} < ok /etc/passwd\n\n{n} > 0\n{n} < ok /etc/group\n\n{n} > 0\n{n} [ special\n{n} f 89ed 0 0 /").into_bytes();
        output.extend(&name);
        output.extend(format!("\n{n} ] special 0 0\n{n} .\n").as_bytes());
        let facts = parse(&output, &n, &Limits::default());
        let special = facts.special_files.expect("special files");
        prop_assert_eq!(special.len(), 1);
        prop_assert_eq!(&special[0].path, &format!("/{}", super::super::name::text(&name)));
    }
}
