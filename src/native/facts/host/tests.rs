use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::super::parts::inconsistent;
use super::*;

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
    std::fs::write(path, content).expect("file");
}

fn machine() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path();
    let me = rustix::process::geteuid().as_raw();
    let mine = rustix::process::getegid().as_raw();
    write(root, "usr/lib/os-release", "ID=debian\n");
    write(root, "etc/passwd", &format!("root:x:0:0::/root:/bin/sh\nme:x:{me}:{mine}::/:/bin/sh\n"));
    write(root, "etc/group", &format!("root:x:0:\nme:x:{mine}:\n"));
    write(root, "etc/shadow", "root:$y$secret$secret:19000:0:99999:7:::\n");
    write(root, "etc/ssh/sshd_config", "# c\nPermitRootLogin no\n");
    write(root, "etc/ssh/sshd_config.d/50.conf", "X11Forwarding no\n");
    write(root, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n\n");
    write(root, "proc/1/mountinfo", "1 0 8:1 / / rw - ext4 /dev/a rw\n");
    write(
        root,
        "proc/1/status",
        "Name:\tinit\nState:\tS\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nVmSize:\t1 kB\nCapEff:\t0\nNoNewPrivs:\t0\nSeccomp:\t0\n",
    );
    write(root, "proc/1/net/tcp", "h\n");
    write(root, "proc/1/net/udp", "h\n");
    write(root, "proc/sys/net/ipv4/ip_forward", "1\n");
    write(root, "proc/sys/kernel/kptr_restrict", "1\n");
    write(root, "opt/open", "");
    write(root, "var/lib/docker/overlay2/x/diff/su", "");
    for path in ["opt/open", "var/lib/docker/overlay2/x/diff/su"] {
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(0o4666)).expect("mode");
    }
    symlink("/usr/lib/os-release", root.join("etc/os-release")).expect("link");
    symlink("../../../../../../../../usr/lib", root.join("opt/up")).expect("link");
    symlink("loop", root.join("opt/loop")).expect("link");
    folder
}

#[test]
fn a_root_elsewhere_is_read_as_its_own() {
    let folder = machine();
    let facts = collect(folder.path(), &Limits::default());
    assert_eq!(inconsistent(&facts), Vec::<String>::new());
    assert_eq!(facts.missing.keys().collect::<Vec<_>>(), ["image"], "{:#?}", facts.missing);
    assert_eq!(facts.os.expect("os")["ID"], "debian");
    let special: Vec<String> = facts.special_files.expect("special").into_iter().map(|f| f.path).collect();
    assert_eq!(special, ["/opt/open"]);
    assert_eq!(facts.unreadable.as_deref(), Some(&[][..]));
    assert_eq!(facts.processes.expect("processes")[0].name, "init");
    // Whoever reads `/proc/sys/net` reads of its own network.
    let kernel = [("kernel.kptr_restrict".to_owned(), "1".to_owned())];
    assert_eq!(facts.sysctls.expect("sysctls"), kernel.into());
    assert_eq!(facts.passwords.expect("passwords")[0].method, "yescrypt");
    let configs = facts.configs.expect("configs");
    assert_eq!(configs["/etc/ssh/sshd_config"], ["PermitRootLogin no"]);
    assert_eq!(configs["/etc/ssh/sshd_config.d/50.conf"], ["X11Forwarding no"]);
    let files = facts.files.expect("files");
    assert_eq!(files["/etc/passwd"].kind, "file");
    assert!(!files.contains_key("/etc/sudoers"));
}

#[test]
fn links_stay_below_the_root() {
    let folder = machine();
    let root = Root::open(folder.path()).expect("root");
    assert_eq!(root.read(b"/opt/up/os-release", 100).expect("read").expect("file"), b"ID=debian\n");
    assert!(matches!(root.find(b"/opt/loop"), Err(Gone::Unknown(_))));
    assert!(matches!(root.find(b"/opt/none/x"), Err(Gone::Absent)));
    assert!(matches!(root.find(b"/etc/passwd/x"), Err(Gone::Absent)));
    symlink("/outside-of-it", folder.path().join("opt/out")).expect("link");
    std::fs::write(folder.path().parent().expect("parent").join("outside-of-it"), "no").ok();
    assert!(matches!(root.find(b"/opt/out"), Err(Gone::Dangling(_))));
    std::fs::remove_file(folder.path().parent().expect("parent").join("outside-of-it")).ok();
}

#[test]
fn no_fifo_is_opened_and_no_huge_file_is_kept() {
    let folder = machine();
    let passwd = folder.path().join("etc/passwd");
    std::fs::remove_file(&passwd).expect("remove");
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, 0o644.into(), 0).expect("fifo");
    let config = std::fs::File::create(folder.path().join("etc/login.defs")).expect("file");
    config.set_len(1 << 40).expect("size");
    let facts = collect(folder.path(), &Limits::default());
    assert_eq!(inconsistent(&facts), Vec::<String>::new());
    assert_eq!(facts.missing["users"].reason, Reason::UnreadablePaths);
    assert_eq!(facts.missing["specialFiles"].reason, Reason::UnreadablePaths);
    assert_eq!(facts.unreadable_configs.as_deref(), Some(&["/etc/login.defs".to_owned()][..]));
}

#[test]
fn a_missing_root_is_absent_facts() {
    let facts = collect(Path::new("/nonexistent/root"), &Limits::default());
    assert_eq!(facts.missing.len(), 16);
}
