//! The way to the cluster, as files on this machine describe it.

use jiff::SignedDuration;

use super::check::Check;
use super::expiry::{self, Clock};
use crate::base::exit::ExitClass;
use crate::cluster::inspect::entrance::{Certificates, Entrance, FileMode, Kept, Place, TokenLife};

/// A token that lives longer than this and lies in a file is as good as one without end: whoever reads the file has it for
/// long enough.
const LONG: SignedDuration = SignedDuration::from_hours(24);

/// Who else has an own way to write.
const OTHERS_WRITE: u32 = 0o022;
const OTHERS_READ: u32 = 0o044;

pub(super) fn judge(entrance: &Entrance, clock: Clock) -> Vec<Check> {
    let context = entrance.context.as_str();
    let mut checks: Vec<Check> = entrance.files.iter().map(|file| mode(file, entrance)).collect();
    checks.push(server(entrance));
    checks.extend(token(entrance, clock));
    if entrance.key == Kept::Embedded {
        checks.push(
            Check::warn(
                "kubeconfig-key",
                context,
                "a client key is in the kubeconfig: Kubernetes can't take its certificate back before that expires",
            )
            .with_remedy("let the runner have a service account's token, as `gapscan install` does"),
        );
    }
    if entrance.password {
        let check = Check::warn("kubeconfig-password", context, "a password is in it");
        checks.push(check.with_remedy("use a token that expires"));
    }
    if let Some(plugin) = &entrance.plugin {
        let detail = format!("it runs `{plugin}` for credentials, which may want a network or a person");
        let check = Check::warn("kubeconfig-plugin", context, detail);
        checks.push(check.with_remedy("a scan by schedule should have credentials of its own"));
    }
    if let Some(proxy) = &entrance.proxy {
        let detail = match proxy.strip_prefix('$') {
            Some(variable) => format!("a proxy is named in the environment ({variable})"),
            None => "a proxy is named in the kubeconfig".to_owned(),
        };
        let check = Check::warn("kubeconfig-proxy", context, format!("{detail}; what it breaks open it could read"));
        checks.push(check.with_remedy("reach the API server without a proxy, which TLS to it then spans"));
    }
    if let Some(whom) = &entrance.acts_as {
        let check = Check::warn("kubeconfig-impersonation", context, format!("it acts as `{whom}`"));
        checks.push(check.with_remedy("use an identity of its own: an audit log then has one name for it"));
    }
    checks.extend(certificates(
        "kubeconfig-certificate",
        &format!("client certificate of {context}"),
        &entrance.certificate,
        clock,
    ));
    let authority = format!("CA of {context}");
    match certificates("kubeconfig-ca", &authority, &entrance.authority, clock) {
        Some(check) => checks.push(check),
        None => checks.push(
            Check::warn("kubeconfig-ca", authority, "no CA is named, so that every CA of this system could vouch")
                .with_remedy("put the cluster's CA into the kubeconfig as certificate-authority-data"),
        ),
    }
    checks
}

fn mode(file: &FileMode, entrance: &Entrance) -> Check {
    const NAME: &str = "kubeconfig-mode";
    let subject = file.path.display().to_string();
    let Some(mode) = file.mode else {
        return Check::unknown(NAME, subject, format!("the {} can't be looked at", file.what));
    };
    let shown = format!("its mode is {mode:04o}");
    // What Kubernetes mounts into a pod can be read by whoever is in it, and by nobody else.
    if entrance.place == Place::Pod {
        return Check::ok(NAME, subject, format!("{shown}, in this pod alone"));
    }
    let secret = file.what != "kubeconfig"
        || entrance.key == Kept::Embedded
        || entrance.token == Kept::Embedded
        || entrance.password;
    let remedy = format!("chmod 600 {}", file.path.display());
    match mode {
        mode if mode & OTHERS_WRITE != 0 => {
            Check::refused(NAME, subject, format!("{shown}: others may put their server or program into it"))
                .with_remedy(remedy)
        }
        mode if mode & OTHERS_READ != 0 && secret => {
            Check::refused(NAME, subject, format!("{shown}: others may read the credentials in it")).with_remedy(remedy)
        }
        mode if mode & OTHERS_READ != 0 => {
            Check::warn(NAME, subject, format!("{shown}: others may read it")).with_remedy(remedy)
        }
        _ => Check::ok(NAME, subject, shown),
    }
}

fn server(entrance: &Entrance) -> Check {
    const NAME: &str = "kubeconfig-server";
    let remedy = "put the cluster's CA into the kubeconfig as certificate-authority-data; gapscan has no off switch";
    let Some(server) = &entrance.server else {
        return Check::bad(NAME, &entrance.context, "it names no server").with_class(ExitClass::Usage);
    };
    if entrance.skips_verification {
        let detail = "insecure-skip-tls-verify is set, which gapscan refuses";
        return Check::refused(NAME, server, detail).with_remedy(remedy);
    }
    if !server.to_ascii_lowercase().starts_with("https://") {
        let detail = "it is no https address, which gapscan refuses";
        return Check::refused(NAME, server, detail).with_remedy("name the server's https address");
    }
    let place = match entrance.place {
        Place::Kubeconfig => "by a kubeconfig",
        Place::Pod => "as a pod of the cluster",
    };
    Check::ok(NAME, server, format!("https, verified, {place}"))
}

fn token(entrance: &Entrance, clock: Clock) -> Option<Check> {
    const NAME: &str = "kubeconfig-token";
    let (subject, place) = match &entrance.token {
        Kept::Absent => return None,
        Kept::Embedded => (format!("token of {}", entrance.context), "in the kubeconfig"),
        Kept::File(path) => (path.display().to_string(), "in a file"),
    };
    let remedy = "take one that expires: `kubectl create token`, or a projected token, which is renewed";
    Some(match entrance.token_life {
        TokenLife::Unknown => Check::unknown(NAME, subject, format!("the token {place} can't be read")),
        TokenLife::Endless => {
            let detail = format!("the token {place} says of no end: it is good until somebody takes it back");
            Check::warn(NAME, subject, detail).with_remedy(remedy)
        }
        TokenLife::Until { expires, .. } if expires <= clock.now => {
            expiry::judge_end(NAME, &subject, expires, clock, remedy)
        }
        TokenLife::Until { issued, expires } => {
            let life = expires.duration_since(issued.unwrap_or(clock.now));
            // A token that a kubelet renews says a year where the server stretches it for old clients; the file is replaced.
            if life > LONG && entrance.token == Kept::Embedded {
                let detail = format!("the token {place} is good for {}, until {expires}", expiry::words(life));
                Check::warn(NAME, subject, detail).with_remedy(remedy)
            } else {
                Check::ok(NAME, subject, format!("the token {place} expires at {expires}"))
            }
        }
    })
}

fn certificates(name: &'static str, subject: &str, found: &Certificates, clock: Clock) -> Option<Check> {
    let renew = "ask the cluster's administrator for a new one";
    match found {
        Certificates::Absent => None,
        Certificates::Unreadable(why) => {
            Some(Check::bad(name, subject, format!("it can't be read: {why}")).with_class(ExitClass::Usage))
        }
        // Of several CAs one that is good is enough; that another one ends is worth a word.
        Certificates::Valid(times) => {
            let last = times.iter().max_by_key(|(_, end)| *end)?;
            Some(expiry::judge(name, subject, (Some(last.0), last.1), clock, renew))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::check::State;
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).expect("a time")
    }

    fn good() -> Entrance {
        Entrance {
            place: Place::Kubeconfig,
            context: "c".to_owned(),
            files: vec![FileMode { path: "/k".into(), what: "kubeconfig", mode: Some(0o600) }],
            server: Some("https://k:6443".to_owned()),
            skips_verification: false,
            proxy: None,
            authority: Certificates::Valid(vec![(at(0), at(1000))]),
            certificate: Certificates::Absent,
            key: Kept::Absent,
            token: Kept::Embedded,
            token_life: TokenLife::Until { issued: Some(at(100)), expires: at(101) },
            password: false,
            plugin: None,
            acts_as: None,
        }
    }

    fn worst(change: impl FnOnce(&mut Entrance)) -> Vec<(&'static str, State)> {
        let mut entrance = good();
        change(&mut entrance);
        let clock = Clock { now: at(100), near: SignedDuration::from_hours(24 * 30) };
        let checks = judge(&entrance, clock);
        checks.into_iter().filter(|check| check.state != State::Ok).map(|check| (check.name, check.state)).collect()
    }

    #[test]
    fn a_good_one_is_good_and_each_fault_is_named() {
        use State::{Bad, Unknown, Warn};
        assert_eq!(worst(|_| {}), []);
        let mode = |mode| worst(move |e: &mut Entrance| e.files[0].mode = mode);
        assert_eq!(mode(Some(0o644)), [("kubeconfig-mode", Bad)]);
        assert_eq!(mode(Some(0o620)), [("kubeconfig-mode", Bad)]);
        assert_eq!(mode(None), [("kubeconfig-mode", Unknown)]);
        let without_secret = worst(|e| {
            e.files[0].mode = Some(0o644);
            e.token = Kept::Absent;
        });
        assert_eq!(without_secret, [("kubeconfig-mode", Warn)]);
        assert_eq!(worst(|e| e.skips_verification = true), [("kubeconfig-server", Bad)]);
        assert_eq!(worst(|e| e.server = Some("http://k".to_owned())), [("kubeconfig-server", Bad)]);
        assert_eq!(worst(|e| e.server = None), [("kubeconfig-server", Bad)]);
        let life = |life| worst(move |e: &mut Entrance| e.token_life = life);
        assert_eq!(life(TokenLife::Endless), [("kubeconfig-token", Warn)]);
        assert_eq!(life(TokenLife::Unknown), [("kubeconfig-token", Unknown)]);
        assert_eq!(life(TokenLife::Until { issued: None, expires: at(99) }), [("kubeconfig-token", Bad)]);
        assert_eq!(life(TokenLife::Until { issued: Some(at(0)), expires: at(365) }), [("kubeconfig-token", Warn)]);
        assert_eq!(worst(|e| e.key = Kept::Embedded), [("kubeconfig-key", Warn)]);
        assert_eq!(worst(|e| e.password = true), [("kubeconfig-password", Warn)]);
        assert_eq!(worst(|e| e.plugin = Some("aws".to_owned())), [("kubeconfig-plugin", Warn)]);
        assert_eq!(worst(|e| e.proxy = Some("http://p".to_owned())), [("kubeconfig-proxy", Warn)]);
        assert_eq!(worst(|e| e.acts_as = Some("root".to_owned())), [("kubeconfig-impersonation", Warn)]);
        assert_eq!(worst(|e| e.authority = Certificates::Absent), [("kubeconfig-ca", Warn)]);
        let client = |end| worst(move |e: &mut Entrance| e.certificate = Certificates::Valid(vec![(at(0), end)]));
        assert_eq!(client(at(120)), [("kubeconfig-certificate", Warn)]);
        assert_eq!(client(at(99)), [("kubeconfig-certificate", Bad)]);
        let unreadable = worst(|e| e.authority = Certificates::Unreadable("x".to_owned()));
        assert_eq!(unreadable, [("kubeconfig-ca", Bad)]);
    }

    #[test]
    fn a_proxy_is_told_without_what_may_be_secret_in_its_address() {
        let mut entrance = good();
        entrance.proxy = Some("http://me:hunter2@proxy".to_owned());
        let clock = Clock { now: at(100), near: SignedDuration::ZERO };
        assert!(!format!("{:?}", judge(&entrance, clock)).contains("hunter2"));
    }
}
