//! What is scanned.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// One thing that is scanned, with the identity that it had then.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Target {
    /// The machine that gapscan runs on.
    Host {
        /// Its host name.
        name: String,
    },
    /// One container of a pod.
    Container {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// The pod's UID: its identity. Absent when the pod was never found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
        /// The image that the specification asks for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        /// The digest of the image that really runs (`containerStatuses[].imageID`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
        /// The node that it runs on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
    },
    /// An image in a registry.
    Image {
        /// The reference as it was asked for.
        reference: String,
        /// The digest of its manifest for the platform that was scanned. Absent when it was never resolved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
    },
    /// A node of the cluster.
    Node {
        /// Its name.
        name: String,
        /// Its UID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
    },
    /// The objects of the cluster.
    Cluster {
        /// The context's name, or the server's address.
        name: String,
        /// The UID of the namespace `kube-system`, which names a cluster as well as anything does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
    },
}

impl Target {
    /// The stable name by which results of one target are compared over time, in the form that the command line takes:
    /// `host`, `pod/NS/NAME/CONTAINER`, `image/REF`, `node/NAME`, `cluster`.
    pub fn key(&self) -> String {
        match self {
            Self::Host { .. } => "host".to_owned(),
            Self::Container { namespace, pod, container, .. } => format!("pod/{namespace}/{pod}/{container}"),
            Self::Image { reference, .. } => format!("image/{reference}"),
            Self::Node { name, .. } => format!("node/{name}"),
            Self::Cluster { .. } => "cluster".to_owned(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> TargetKind {
        match self {
            Self::Host { .. } => TargetKind::Host,
            Self::Container { .. } => TargetKind::Container,
            Self::Image { .. } => TargetKind::Image,
            Self::Node { .. } => TargetKind::Node,
            Self::Cluster { .. } => TargetKind::Cluster,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.key())
    }
}

/// The kinds of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// [`Target::Host`]
    Host,
    /// [`Target::Container`]
    Container,
    /// [`Target::Image`]
    Image,
    /// [`Target::Node`]
    Node,
    /// [`Target::Cluster`]
    Cluster,
}

impl TargetKind {
    /// The lower-case word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Container => "container",
            Self::Image => "image",
            Self::Node => "node",
            Self::Cluster => "cluster",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a user asks to be scanned: `host`, `cluster`, `image/REF`, `node/NAME`, `pod/NS/NAME[/CONTAINER]`, or the
/// selector `ns/NAME`. Names of namespaces, pods, containers and nodes are those that Kubernetes allows (RFC 1123:
/// lower-case letters, digits, `-` and `.`, at most 253 characters).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetSpec {
    /// This machine.
    Host,
    /// The objects of the cluster.
    Cluster,
    /// An image in a registry.
    Image(String),
    /// A node.
    Node(String),
    /// A pod, or one of its containers.
    Pod {
        /// The namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The container; all of them where absent.
        container: Option<String>,
    },
    /// Every container of every pod in a namespace.
    Namespace(String),
}

/// A text that names no target.
#[derive(Debug, thiserror::Error)]
#[error("read target `{}`: {reason}; a target is host, cluster, image/REF, node/NAME, pod/NS/NAME[/CONTAINER] or ns/NAME", crate::base::text::brief(.text))]
pub struct TargetSpecError {
    text: String,
    reason: &'static str,
}

impl crate::base::exit::Classify for TargetSpecError {
    fn class(&self) -> crate::base::exit::ExitClass {
        crate::base::exit::ExitClass::Usage
    }
}

impl FromStr for TargetSpec {
    type Err = TargetSpecError;

    fn from_str(text: &str) -> Result<Self, TargetSpecError> {
        let refuse = |reason| TargetSpecError { text: text.to_owned(), reason };
        let name = |part: &str| {
            let fits = !part.is_empty()
                && part.len() <= 253
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.']);
            if fits { Ok(part.to_owned()) } else { Err(refuse("a name in it is none that Kubernetes allows")) }
        };
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        match (kind, rest) {
            ("host", "") if text == kind => Ok(Self::Host),
            ("cluster", "") if text == kind => Ok(Self::Cluster),
            ("image", "") => Err(refuse("the image's reference is missing")),
            ("image", reference) => Ok(Self::Image(reference.to_owned())),
            ("node", node) => Ok(Self::Node(name(node)?)),
            ("ns", namespace) => Ok(Self::Namespace(name(namespace)?)),
            ("pod", path) => match path.split('/').collect::<Vec<_>>()[..] {
                [namespace, pod] => Ok(Self::Pod { namespace: name(namespace)?, pod: name(pod)?, container: None }),
                [namespace, pod, container] => {
                    Ok(Self::Pod { namespace: name(namespace)?, pod: name(pod)?, container: Some(name(container)?) })
                }
                _ => Err(refuse("a pod is named by its namespace and its name")),
            },
            _ => Err(refuse("its kind is unknown")),
        }
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Cluster => f.write_str("cluster"),
            Self::Image(reference) => write!(f, "image/{reference}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Pod { namespace, pod, container: None } => write!(f, "pod/{namespace}/{pod}"),
            Self::Pod { namespace, pod, container: Some(container) } => write!(f, "pod/{namespace}/{pod}/{container}"),
            Self::Namespace(name) => write!(f, "ns/{name}"),
        }
    }
}

impl Serialize for TargetSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "host",
            "cluster",
            "image/registry:5000/a/b@sha256:1",
            "node/lab",
            "pod/shop/web-1",
            "pod/shop/web-1/web",
            "ns/shop",
        ] {
            assert_eq!(text.parse::<TargetSpec>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn refuses_what_names_nothing() {
        for text in [
            "",
            "hosts",
            "host/x",
            "image/",
            "image",
            "pod/shop",
            "pod/shop/a/b/c",
            "ns/",
            "ns/Shop",
            "ns/../x",
            "node/-a",
        ] {
            assert!(text.parse::<TargetSpec>().is_err(), "{text:?}");
        }
    }
}
