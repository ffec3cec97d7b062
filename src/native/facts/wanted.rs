//! What the collectors look at: one list for all of them, so that a rule sees the same paths whatever the target is.
//!
//! A pattern has at most one `*`, in the last component; it stands for any characters but a leading dot, as in a shell.

/// Files and folders of which mode and owner are facts.
pub(crate) const FILES: &[&str] = &[
    "/",
    "/boot",
    "/boot/grub/grub.cfg",
    "/etc",
    "/etc/apt/sources.list",
    "/etc/at.allow",
    "/etc/at.deny",
    "/etc/audit",
    "/etc/audit/audit.rules",
    "/etc/audit/auditd.conf",
    "/etc/audit/rules.d",
    "/etc/cni/net.d",
    "/etc/cni/net.d/*",
    "/etc/containerd/config.toml",
    "/etc/cron.allow",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.deny",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
    "/etc/crontab",
    "/etc/docker/daemon.json",
    "/etc/fstab",
    "/etc/group",
    "/etc/group-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/hosts",
    "/etc/hosts.equiv",
    "/etc/issue",
    "/etc/issue.net",
    "/etc/kubernetes",
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/manifests",
    "/etc/kubernetes/manifests/*",
    "/etc/kubernetes/pki",
    "/etc/kubernetes/pki/*",
    "/etc/kubernetes/proxy.conf",
    "/etc/kubernetes/scheduler.conf",
    "/etc/ld.so.preload",
    "/etc/login.defs",
    "/etc/machine-id",
    "/etc/motd",
    "/etc/nginx/nginx.conf",
    "/etc/pam.d",
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/profile",
    "/etc/resolv.conf",
    "/etc/security/opasswd",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/shells",
    "/etc/ssh",
    "/etc/ssh/ssh_config",
    "/etc/ssh/ssh_host_*",
    "/etc/ssh/sshd_config",
    "/etc/ssh/sshd_config.d",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/sudoers.d/*",
    "/etc/sysctl.conf",
    "/etc/systemd/system/kubelet.service",
    "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf",
    "/home",
    "/root",
    "/root/.bash_history",
    "/root/.netrc",
    "/root/.rhosts",
    "/root/.shosts",
    "/root/.ssh",
    "/root/.ssh/authorized_keys",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/tmp",
    "/usr/bin/su",
    "/usr/bin/sudo",
    "/usr/lib/systemd/system/kubelet.service",
    "/usr/sbin/sshd",
    "/var/lib/etcd",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeconfig",
    "/var/lib/kubelet/pki",
    "/var/log",
    "/var/log/audit",
    "/var/log/auth.log",
    "/var/log/btmp",
    "/var/log/journal",
    "/var/log/lastlog",
    "/var/log/messages",
    "/var/log/syslog",
    "/var/log/wtmp",
    "/var/run/docker.sock",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/var/tmp",
];

/// Configuration files whose content is a fact. None of them holds a secret by design; what looks like one in a URL is
/// masked by `config::mask`.
pub(crate) const CONFIGS: &[&str] = &[
    "/etc/apt/apt.conf",
    "/etc/apt/apt.conf.d/*",
    "/etc/at.allow",
    "/etc/at.deny",
    "/etc/audit/audit.rules",
    "/etc/audit/auditd.conf",
    "/etc/audit/rules.d/*.rules",
    "/etc/bash.bashrc",
    "/etc/chrony/chrony.conf",
    "/etc/cron.allow",
    "/etc/cron.deny",
    "/etc/crypto-policies/config",
    "/etc/debian_version",
    "/etc/default/grub",
    "/etc/default/useradd",
    "/etc/hosts.allow",
    "/etc/hosts.deny",
    "/etc/hosts.equiv",
    "/etc/issue",
    "/etc/issue.net",
    "/etc/ld.so.preload",
    "/etc/login.defs",
    "/etc/modprobe.d/*.conf",
    "/etc/motd",
    "/etc/nginx/conf.d/*.conf",
    "/etc/nginx/nginx.conf",
    "/etc/nginx/sites-enabled/*",
    "/etc/nsswitch.conf",
    "/etc/pam.d/common-account",
    "/etc/pam.d/common-auth",
    "/etc/pam.d/common-password",
    "/etc/pam.d/common-session",
    "/etc/pam.d/login",
    "/etc/pam.d/password-auth",
    "/etc/pam.d/sshd",
    "/etc/pam.d/su",
    "/etc/pam.d/system-auth",
    "/etc/profile",
    "/etc/profile.d/*.sh",
    "/etc/rsyslog.conf",
    "/etc/security/access.conf",
    "/etc/security/faillock.conf",
    "/etc/security/limits.conf",
    "/etc/security/limits.d/*.conf",
    "/etc/security/pwhistory.conf",
    "/etc/security/pwquality.conf",
    "/etc/security/pwquality.conf.d/*.conf",
    "/etc/selinux/config",
    "/etc/shells",
    "/etc/ssh/ssh_config",
    "/etc/ssh/sshd_config",
    "/etc/ssh/sshd_config.d/*.conf",
    "/etc/sudoers",
    "/etc/sudoers.d/*",
    "/etc/sysctl.conf",
    "/etc/sysctl.d/*.conf",
    "/etc/systemd/coredump.conf",
    "/etc/systemd/journald.conf",
    "/etc/systemd/timesyncd.conf",
    "/var/lib/kubelet/config.yaml",
];

/// Files to which links among [`CONFIGS`] lead by custom. An image's layer must be read with them in mind, for nobody
/// knows then what a link in a later layer leads to.
pub(crate) const LINK_TARGETS: &[&str] = &["/etc/nginx/sites-available/*"];

/// Kernel parameters that are facts, as paths below `/proc/sys`.
pub(crate) const SYSCTLS: &[&str] = &[
    "fs/protected_fifos",
    "fs/protected_hardlinks",
    "fs/protected_regular",
    "fs/protected_symlinks",
    "fs/suid_dumpable",
    "kernel/core_pattern",
    "kernel/core_uses_pid",
    "kernel/dmesg_restrict",
    "kernel/kexec_load_disabled",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/kptr_restrict",
    "kernel/modules_disabled",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/perf_event_paranoid",
    "kernel/randomize_va_space",
    "kernel/sysrq",
    "kernel/unprivileged_bpf_disabled",
    "kernel/yama/ptrace_scope",
    "net/core/bpf_jit_harden",
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv4/conf/all/accept_source_route",
    "net/ipv4/conf/all/log_martians",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/secure_redirects",
    "net/ipv4/conf/all/send_redirects",
    "net/ipv4/conf/default/accept_redirects",
    "net/ipv4/conf/default/accept_source_route",
    "net/ipv4/conf/default/log_martians",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/default/secure_redirects",
    "net/ipv4/conf/default/send_redirects",
    "net/ipv4/icmp_echo_ignore_broadcasts",
    "net/ipv4/icmp_ignore_bogus_error_responses",
    "net/ipv4/ip_forward",
    "net/ipv4/tcp_syncookies",
    "net/ipv6/conf/all/accept_ra",
    "net/ipv6/conf/all/accept_redirects",
    "net/ipv6/conf/all/accept_source_route",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/accept_ra",
    "net/ipv6/conf/default/accept_redirects",
    "net/ipv6/conf/default/accept_source_route",
    "user/max_user_namespaces",
    "vm/mmap_min_addr",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Where os-release(5) may be, in its order of precedence.
pub(crate) const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// The package database of dpkg, and the folder that distroless images have instead.
pub(crate) const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// See [`DPKG_STATUS`].
pub(crate) const DPKG_STATUS_D: &str = "/var/lib/dpkg/status.d";
/// The package database of apk, old place and new.
pub(crate) const APK: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// Where rpm has its database: if one is there, a system without dpkg and apk has packages that can't be read here.
pub(crate) const RPM: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// Trees that are never searched for special files: pseudo file systems.
pub(crate) const PSEUDO: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The parameter's name with dots, as sysctl(8) writes it.
pub(crate) fn sysctl_name(path: &str) -> String {
    path.replace('/', ".")
}

/// Whether an absolute path is one of these patterns.
pub(crate) fn matches(patterns: &[&str], path: &str) -> bool {
    patterns.iter().any(|pattern| match split(pattern) {
        None => *pattern == path,
        Some((folder, before, after)) => path
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|name| !name.contains('/') && fits(name, before, after)),
    })
}

/// A pattern's folder, and what its last component has before and after the `*`; `None` without one.
pub(crate) fn split(pattern: &str) -> Option<(&str, &str, &str)> {
    let (folder, last) = pattern.rsplit_once('/')?;
    let (before, after) = last.split_once('*')?;
    Some((folder, before, after))
}

/// Whether a file name fits a pattern's last component.
pub(crate) fn fits(name: &str, before: &str, after: &str) -> bool {
    name.len() >= before.len() + after.len()
        && name.starts_with(before)
        && name.ends_with(after)
        && (!before.is_empty() || !name.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_what_a_shell_expands() {
        assert!(matches(CONFIGS, "/etc/ssh/sshd_config.d/50-x.conf"));
        assert!(matches(FILES, "/etc/ssh/ssh_host_ed25519_key.pub"));
        for path in [
            "/etc/ssh/sshd_config.d/.conf",
            "/etc/ssh/sshd_config.d/a/b.conf",
            "/etc/ssh/sshd_config.d",
            "/etc/sudoers.d/.x",
        ] {
            assert!(!matches(CONFIGS, path), "{path}");
        }
    }

    #[test]
    fn the_script_can_hold_every_pattern_as_a_plain_word() {
        for path in FILES.iter().chain(CONFIGS).chain(SYSCTLS) {
            assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-*".contains(&b)), "{path}");
            let stars = path.matches('*').count();
            assert!(stars == 0 || stars == 1 && split(path).is_some(), "{path}");
        }
    }
}
