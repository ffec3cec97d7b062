//! Whom a scanner has to talk to: a name for it in its definition, and what the operator binds that name to.
//!
//! A definition comes from outside the enclave and can't know what is inside, so that it names no address: nothing in a bundle can
//! aim a scanner at anything. What the name leads to, and that it leads anywhere at all, policy says.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ScannerDocument;
use crate::base::text::brief;

/// What the names of placeholders begin with that stand for somebody whom a scanner talks to.
pub const EGRESS: &str = "egress.";

/// Somebody whom a scanner has to talk to. An approach whose command or environment says `${egress.NAME}` needs it, and only with
/// policy's leave: without that it is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EgressNeed {
    /// Lower-case letters, digits and hyphens. `${egress.NAME}` stands for `SERVICE.NAMESPACE.svc:PORT`, a name that the pod
    /// knows without asking anybody.
    pub name: String,
    /// Who that is, and what for, for whoever decides on it and for the record: a sentence without its period.
    pub why: String,
}

/// A port of a service of the cluster: `NAMESPACE/SERVICE:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ServicePort {
    namespace: String,
    service: String,
    port: NonZeroU16,
}

impl ServicePort {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The service's port, by TCP.
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The name by which pods know it: `SERVICE.NAMESPACE.svc`.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

/// A text that names no port of a service.
#[derive(Debug, thiserror::Error)]
#[error("read `{}` as a port of a service: it must be NAMESPACE/SERVICE:PORT", brief(.0))]
pub struct ServicePortError(String);

impl FromStr for ServicePort {
    type Err = ServicePortError;

    fn from_str(text: &str) -> Result<Self, ServicePortError> {
        let parse = || {
            let (namespace, rest) = text.split_once('/')?;
            let (service, port) = rest.split_once(':')?;
            // What has a sign or a zero in front is a number for Rust, and a typing error for people.
            let port: NonZeroU16 = port.parse().ok().filter(|number: &NonZeroU16| number.to_string() == port)?;
            let named = is_label(namespace) && is_label(service);
            named.then(|| Self { namespace: namespace.to_owned(), service: service.to_owned(), port })
        };
        parse().ok_or_else(|| ServicePortError(text.to_owned()))
    }
}

impl TryFrom<String> for ServicePort {
    type Error = ServicePortError;

    fn try_from(text: String) -> Result<Self, ServicePortError> {
        text.parse()
    }
}

impl From<ServicePort> for String {
    fn from(port: ServicePort) -> Self {
        port.to_string()
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// Whether this names a namespace or a service (RFC 1123, a label).
fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<u8>| b.is_some_and(plain);
    text.len() <= 63
        && text.bytes().all(|b| plain(b) || b == b'-')
        && ends(text.bytes().next())
        && ends(text.bytes().next_back())
}

/// That a scanner may talk to a service: `SCANNER/NAME=NAMESPACE/SERVICE:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressGrant {
    /// The scanner's name.
    pub scanner: String,
    /// What its definition calls whom it talks to.
    pub name: String,
    /// Who that is here.
    pub service: ServicePort,
}

/// A text that allows no scanner anything.
#[derive(Debug, thiserror::Error)]
#[error("read `{}` as egress of a scanner: it must be SCANNER/NAME=NAMESPACE/SERVICE:PORT", brief(.0))]
pub struct EgressGrantError(String);

impl FromStr for EgressGrant {
    type Err = EgressGrantError;

    fn from_str(text: &str) -> Result<Self, EgressGrantError> {
        let parse = || {
            let (whose, service) = text.split_once('=')?;
            let (scanner, name) = whose.split_once('/')?;
            let named = is_label(scanner) && is_label(name);
            named.then_some(())?;
            Some(Self { scanner: scanner.to_owned(), name: name.to_owned(), service: service.parse().ok()? })
        };
        parse().ok_or_else(|| EgressGrantError(text.to_owned()))
    }
}

impl fmt::Display for EgressGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}={}", self.scanner, self.name, self.service)
    }
}

/// What is wrong with whom the scanner says that it talks to, each with its field.
pub fn problems(scanner: &ScannerDocument) -> Vec<String> {
    let mut problems = Vec::new();
    let approaches = scanner.approaches.offered();
    for (at, need) in scanner.egress.iter().enumerate() {
        let name = brief(&need.name);
        if !is_label(&need.name) {
            problems.push(format!("egress[{at}].name: `{name}` must be lower-case letters, digits and hyphens"));
        } else if scanner.egress[..at].iter().any(|other| other.name == need.name) {
            problems.push(format!("egress[{at}].name: `{name}` is there already"));
        } else if !approaches.iter().any(|offered| offered.egress().contains(need.name.as_str())) {
            problems.push(format!(
                "egress[{at}]: no command and no environment says `${{{EGRESS}{name}}}`, so that nothing talks to it"
            ));
        }
        if need.why.trim().is_empty() {
            problems.push(format!("egress[{at}].why: it is empty, and somebody has to decide on it"));
        }
    }
    for offered in &approaches {
        let field = offered.field;
        for name in offered.egress() {
            let shown = brief(name);
            if !offered.has_network() {
                problems.push(format!(
                    "approaches.{field}: `${{{EGRESS}{shown}}}` means nothing here, for the scanner has no network of its own"
                ));
            } else if !scanner.egress.iter().any(|need| need.name == name) {
                problems.push(format!("approaches.{field}: `${{{EGRESS}{shown}}}` is of nobody that `egress` names"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_a_service_is_named_exactly() {
        let port: ServicePort = "security/clair:6060".parse().expect("a port");
        assert_eq!((port.namespace(), port.service(), port.port()), ("security", "clair", 6060));
        assert_eq!((port.host().as_str(), port.to_string().as_str()), ("clair.security.svc", "security/clair:6060"));
        for text in [
            "",
            "clair:6060",
            "security/clair",
            "security/clair:0",
            "security/clair:06060",
            "security/clair:+1",
            "security/clair:65536",
            "security/clair:http",
            "Security/clair:1",
            "a/b/c:1",
            "security/10.0.0.1:1",
            "-a/b:1",
            "a/b-:1",
            "a/*:1",
            "169.254.169.254/x:80",
        ] {
            assert!(text.parse::<ServicePort>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_grant_is_for_one_name_of_one_scanner() {
        let grant: EgressGrant = "clair/advisories=security/clair:6060".parse().expect("a grant");
        assert_eq!((grant.scanner.as_str(), grant.name.as_str()), ("clair", "advisories"));
        assert_eq!(grant.to_string(), "clair/advisories=security/clair:6060");
        for text in
            ["clair=security/clair:1", "*/x=security/clair:1", "clair/x=clair:1", "clair/x", "/x=a/b:1", "a/=a/b:1"]
        {
            assert!(text.parse::<EgressGrant>().is_err(), "{text}");
        }
    }
}
