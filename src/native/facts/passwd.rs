//! `/etc/passwd`, `/etc/group` and `/etc/shadow`.
//!
//! A line that is not understood makes the whole fact absent: glibc is lenient (it takes ` 0` for 0), so that a skipped
//! line could be a second root. Hashes: the container's script masks them in the target, leaving the method's prefix,
//! which reads here like any other; the other collectors read the file here, and only the method gets out.

use super::{Collected, Group, Missing, Password, User, name};
use crate::base::limits::Limits;

/// The accounts in passwd(5).
pub(crate) fn users(raw: &[u8], limits: &Limits) -> Collected<Vec<User>> {
    records(raw, "/etc/passwd", limits, |fields| {
        let [login, password, uid, gid, rest @ ..] = fields else { return None };
        Some(User {
            name: name::text(login),
            password: match *password {
                b"" => "empty",
                b"x" => "shadowed",
                field if matches!(state(field), State::Locked) => "shadowed",
                _ => "exposed",
            }
            .to_owned(),
            uid: id(uid)?,
            gid: id(gid)?,
            home: rest.get(1).map(|f| name::text(f)).unwrap_or_default(),
            shell: rest.get(2).map(|f| name::text(f)).unwrap_or_default(),
        })
    })
}

/// The groups in group(5).
pub(crate) fn groups(raw: &[u8], limits: &Limits) -> Collected<Vec<Group>> {
    records(raw, "/etc/group", limits, |fields| {
        let [group, _, gid, rest @ ..] = fields else { return None };
        let members = rest.first().copied().unwrap_or_default();
        Some(Group {
            name: name::text(group),
            gid: id(gid)?,
            members: members.split(|b| *b == b',').filter(|m| !m.is_empty()).map(name::text).collect(),
        })
    })
}

/// The state of the passwords in shadow(5).
pub(crate) fn passwords(raw: &[u8], limits: &Limits) -> Collected<Vec<Password>> {
    records(raw, "/etc/shadow", limits, |fields| {
        let [login, password, rest @ ..] = fields else { return None };
        let days = |at: usize| -> Option<Option<i64>> {
            match rest.get(at).map(|f| f.trim_ascii()) {
                None | Some(b"") => Some(None),
                Some(field) => str::from_utf8(field).ok()?.parse().ok().map(Some),
            }
        };
        let (state, method) = match state(password) {
            State::Empty => ("empty", ""),
            State::Locked => ("locked", ""),
            State::Set(method) => ("set", method),
        };
        Some(Password {
            user: name::text(login),
            state: state.to_owned(),
            method: method.to_owned(),
            min_days: days(1)?,
            max_days: days(2)?,
            warn_days: days(3)?,
            inactive_days: days(4)?,
        })
    })
}

/// What a password field says.
enum State {
    Empty,
    Locked,
    Set(&'static str),
}

/// Reads a password field by crypt(5): only the method's prefix counts, which is also all that a masked field has.
fn state(field: &[u8]) -> State {
    const METHODS: [(&[u8], &str); 14] = [
        (b"$y$", "yescrypt"),
        (b"$gy$", "gost-yescrypt"),
        (b"$7$", "scrypt"),
        (b"$2a$", "bcrypt"),
        (b"$2b$", "bcrypt"),
        (b"$2x$", "bcrypt"),
        (b"$2y$", "bcrypt"),
        (b"$6$", "sha512"),
        (b"$5$", "sha256"),
        (b"$1$", "md5"),
        (b"$3$", "nt"),
        (b"$md5", "sunmd5"),
        (b"$sha1", "sha1"),
        (b"_", "bsdi-des"),
    ];
    if field.is_empty() {
        return State::Empty;
    }
    if let Some((_, method)) = METHODS.iter().find(|(prefix, _)| field.starts_with(prefix)) {
        return State::Set(method);
    }
    match field {
        [b'!' | b'*', ..] => State::Locked,
        [b'$', ..] => State::Set("unknown"),
        // No hash is shorter than that of DES: such a field lets nobody in.
        _ if field.len() < 13 => State::Locked,
        _ if field.len() == 13 => State::Set("des"),
        _ => State::Set("unknown"),
    }
}

/// A decimal id. Blanks around it are allowed because glibc allows them.
fn id(field: &[u8]) -> Option<u32> {
    let digits = field.trim_ascii();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn records<T>(raw: &[u8], path: &str, limits: &Limits, read: impl Fn(&[&[u8]]) -> Option<T>) -> Collected<Vec<T>> {
    let mut list = Vec::new();
    for (number, line) in raw.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii_start();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        if list.len() == limits.fact_items {
            return Err(Missing::truncated(path, limits));
        }
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let entry = read(&fields)
            .ok_or_else(|| Missing::failed(format!("line {} of `{path}` is not what it should be", number + 1)))?;
        list.push(entry);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    #[test]
    fn reads_accounts_as_glibc_does() {
        let raw = b"root:x:0:0:root:/root:/bin/bash\n# c\n\n  toor:: 0:0::/root:\nbad:$6$salt$hash:1:1:x:/:/bin/sh\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\nshort:!:7:7\n";
        let users = users(raw, &limits()).expect("users");
        let brief: Vec<_> = users.iter().map(|u| (u.name.as_str(), u.password.as_str(), u.uid)).collect();
        assert_eq!(
            brief,
            [
                ("root", "shadowed", 0),
                ("toor", "empty", 0),
                ("bad", "exposed", 1),
                ("nobody", "shadowed", 65534),
                ("short", "shadowed", 7)
            ]
        );
        assert_eq!(users[0].shell, "/bin/bash");
    }

    #[test]
    fn one_odd_line_makes_the_fact_absent() {
        for raw in ["root:x:0x0:0::/:/\n", "+::::::\n", "root:x:-1:0::/:/\n", "root\n", "a:x:4294967296:0::/:/\n"] {
            let missing = users(raw.as_bytes(), &limits()).expect_err(raw);
            assert!(missing.detail.contains("line 1 of `/etc/passwd`"), "{missing:?}");
        }
        assert!(passwords(b"root:!:1:x:2:3:::\n", &limits()).is_err());
    }

    #[test]
    fn no_hash_gets_out_of_shadow() {
        let raw = b"root:$y$j9T$secretsalt$secrethash:19000:0:99999:7:30::\nold:abSecretDES12:1::::::\nd:*:19000:0:99999:7:::\ne::19000:0:99999:7:::\nl:!$6$secret:1::::::\nw:$zz$secret:1::::::\n";
        let list = passwords(raw, &limits()).expect("passwords");
        let brief: Vec<_> = list.iter().map(|p| (p.user.as_str(), p.state.as_str(), p.method.as_str())).collect();
        assert_eq!(
            brief,
            [
                ("root", "set", "yescrypt"),
                ("old", "set", "des"),
                ("d", "locked", ""),
                ("e", "empty", ""),
                ("l", "locked", ""),
                ("w", "set", "unknown")
            ]
        );
        assert_eq!((list[0].min_days, list[0].max_days, list[0].inactive_days), (Some(0), Some(99999), Some(30)));
        assert_eq!(list[1].max_days, None);
        assert!(!serde_json::to_string(&list).expect("json").to_lowercase().contains("secret"));
    }

    #[test]
    fn reads_groups() {
        let list = groups(b"root:x:0:\nadm:x:4:syslog,me\n", &limits()).expect("groups");
        assert_eq!(list[1].members, ["syslog", "me"]);
        assert!(list[0].members.is_empty());
    }

    #[test]
    fn a_list_beyond_the_limit_is_absent() {
        let limits = Limits { fact_items: 1, ..Limits::default() };
        assert_eq!(
            groups(b"a:x:0:\nb:x:1:\n", &limits).expect_err("long").reason,
            crate::model::reason::Reason::FactTruncated
        );
    }
}
