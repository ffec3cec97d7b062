//! One check, and what all of them come to.

use std::error::Error;

use jiff::Timestamp;
use serde::Serialize;

use crate::base::exit::{Classify, ExitClass};
use crate::base::text::printable;

/// The name of every check, in the order in which they are made. `docs/doctor.md` says what each looks at.
pub const NAMES: [&str; 40] = [
    "kubeconfig",
    "kubeconfig-mode",
    "kubeconfig-server",
    "kubeconfig-token",
    "kubeconfig-key",
    "kubeconfig-password",
    "kubeconfig-plugin",
    "kubeconfig-proxy",
    "kubeconfig-impersonation",
    "kubeconfig-certificate",
    "kubeconfig-ca",
    "tls-handshake",
    "tls-protocol",
    "tls-certificate",
    "server-reachable",
    "server-version",
    "server-clock",
    "server-image-volumes",
    "server-native-sidecars",
    "server-ephemeral-containers",
    "server-projected-tokens",
    "server-admission-policies",
    "server-network-policies",
    "server-pod-security",
    "server-nodes",
    "identity",
    "rights",
    "rights-beyond",
    "network-enforced",
    "canary-cleanup",
    "leftover-grants",
    "leftover-objects",
    "ledger",
    "ledger-cleanup",
    "ledger-clock",
    "spool-space",
    "trust-root",
    "bundle",
    "registry",
    "waivers",
];

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Scans work, and somebody should know.
    Warn,
    /// Not as it must be.
    Bad,
    /// It could not be found out, which is never ok.
    Unknown,
}

impl State {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// One of [`NAMES`]. The same may be there for several subjects.
    pub name: &'static str,
    /// What was looked at.
    pub subject: String,
    /// How it ended.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do about it; absent where it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// How the process ends because of it.
    #[serde(skip)]
    class: ExitClass,
}

impl Check {
    fn new(name: &'static str, subject: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        debug_assert!(NAMES.contains(&name), "check `{name}` is in no list");
        let clean = |text: String| printable(&text).into_owned();
        let class = match state {
            State::Ok | State::Warn => ExitClass::Success,
            State::Bad | State::Unknown => ExitClass::NotEvaluated,
        };
        Self { name, subject: clean(subject.into()), state, detail: clean(detail.into()), remedy: None, class }
    }

    pub(super) fn ok(name: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, subject, State::Ok, detail)
    }

    pub(super) fn warn(name: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, subject, State::Warn, detail)
    }

    /// What scans need and is not so: they would end as not evaluated.
    pub(super) fn bad(name: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, subject, State::Bad, detail)
    }

    /// What must not be trusted or used as it is.
    pub(super) fn refused(name: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { class: ExitClass::Refused, ..Self::bad(name, subject, detail) }
    }

    pub(super) fn unknown(name: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, subject, State::Unknown, detail)
    }

    /// Bad because of an error, which knows how the process ends and what to do.
    pub(super) fn failed(name: &'static str, subject: impl Into<String>, error: &impl Classify) -> Self {
        let remedy = error.remedy();
        Self { class: error.class(), remedy, ..Self::bad(name, subject, chain(error)) }
    }

    /// Unknown because of an error.
    pub(super) fn unseen(name: &'static str, subject: impl Into<String>, error: &impl Classify) -> Self {
        Self { remedy: error.remedy(), ..Self::unknown(name, subject, chain(error)) }
    }

    #[must_use]
    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    #[must_use]
    pub(super) fn with_class(self, class: ExitClass) -> Self {
        Self { class, ..self }
    }
}

/// `message: cause: cause`
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// Something that was not looked at, because it was not asked for or can't be without what is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Omitted {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Omitted {
    pub(super) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        let why: String = why.into();
        Self { what: what.into(), why: printable(&why).into_owned() }
    }
}

/// All that was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The version of gapscan that looked.
    pub gapscan: &'static str,
    /// When.
    pub at: Timestamp,
    /// The checks.
    pub checks: Vec<Check>,
    /// What was not looked at.
    pub not_looked_at: Vec<Omitted>,
}

/// Whether warnings count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warnings {
    /// They are shown, and the exit code is that of success.
    Shown,
    /// They make it 1 where nothing is worse.
    Count,
}

/// Which class is told where there are several: what makes all else doubtful comes first.
const ORDER: [ExitClass; 5] =
    [ExitClass::Ledger, ExitClass::Refused, ExitClass::Usage, ExitClass::Unreachable, ExitClass::NotEvaluated];

impl Report {
    /// How many checks ended so.
    pub fn count(&self, state: State) -> usize {
        self.checks.iter().filter(|check| check.state == state).count()
    }

    /// How the process ends.
    pub fn class(&self, warnings: Warnings) -> ExitClass {
        let has = |class: &ExitClass| self.checks.iter().any(|check| check.class == *class);
        if let Some(class) = ORDER.into_iter().find(has) {
            return class;
        }
        // Whatever class it has: what is bad or unknown is no success.
        if self.count(State::Bad) + self.count(State::Unknown) > 0 {
            return ExitClass::NotEvaluated;
        }
        match warnings {
            Warnings::Count if self.count(State::Warn) > 0 => ExitClass::ThresholdNotMet,
            Warnings::Count | Warnings::Shown => ExitClass::Success,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        Report { gapscan: "0", at: Timestamp::UNIX_EPOCH, checks, not_looked_at: Vec::new() }
    }

    #[test]
    fn what_is_unknown_is_never_success_and_what_makes_all_doubtful_comes_first() {
        let ok = || Check::ok("bundle", "b", "");
        let class = |checks: Vec<Check>| report(checks).class(Warnings::Shown);
        assert_eq!(class(vec![ok()]), ExitClass::Success);
        assert_eq!(class(vec![ok(), Check::warn("bundle", "b", "")]), ExitClass::Success);
        assert_eq!(report(vec![Check::warn("bundle", "b", "")]).class(Warnings::Count), ExitClass::ThresholdNotMet);
        assert_eq!(class(vec![ok(), Check::unknown("bundle", "b", "")]), ExitClass::NotEvaluated);
        assert_eq!(class(vec![ok(), Check::bad("bundle", "b", "")]), ExitClass::NotEvaluated);
        let unreachable = || Check::bad("bundle", "b", "").with_class(ExitClass::Unreachable);
        assert_eq!(class(vec![Check::unknown("bundle", "b", ""), unreachable()]), ExitClass::Unreachable);
        assert_eq!(class(vec![unreachable(), Check::refused("bundle", "b", "")]), ExitClass::Refused);
        let ledger = Check::bad("bundle", "b", "").with_class(ExitClass::Ledger);
        assert_eq!(class(vec![Check::refused("bundle", "b", ""), ledger]), ExitClass::Ledger);
        let odd = Check::bad("bundle", "b", "").with_class(ExitClass::Success);
        assert_eq!(class(vec![odd]), ExitClass::NotEvaluated);
    }

    #[test]
    fn every_check_is_described() {
        let page = include_str!("../../../docs/doctor.md");
        assert_eq!(NAMES.iter().collect::<BTreeSet<_>>().len(), NAMES.len());
        for name in NAMES {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
