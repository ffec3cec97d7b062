//! Objects that gapscan makes in a cluster: their kinds, how they are named, and whose they are.

mod inventory;

use std::collections::BTreeMap;
use std::fmt;

pub(super) use inventory::named;
pub(crate) use inventory::{GONE, Inventory, delete, gone, rehearse};

use crate::model::record::RunId;

/// The label that every object of gapscan carries, with the value [`MANAGED_BY_VALUE`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "gapscan";
/// The label that names the run.
pub const RUN: &str = "gapscan.dev/run";
/// The label that names the scan in its run by its number.
pub const SCAN: &str = "gapscan.dev/scan";

/// The kinds of object that gapscan makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Namespace,
    ServiceAccount,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
    NetworkPolicy,
    Pod,
    Job,
    StatefulSet,
    Service,
    ConfigMap,
    PersistentVolumeClaim,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
    /// One is made and removed, and never read: to read those of a scan, gapscan would need the right to read all.
    Secret,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::ClusterRole => "ClusterRole",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Pod => "Pod",
            Self::Job => "Job",
            Self::StatefulSet => "StatefulSet",
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::ValidatingAdmissionPolicy => "ValidatingAdmissionPolicy",
            Self::ValidatingAdmissionPolicyBinding => "ValidatingAdmissionPolicyBinding",
            Self::Secret => "Secret",
        }
    }

    /// Whether the runner may read one of them by its name. What it makes for identities and networks, and secrets above all, it
    /// makes and removes without ever having to: that one is gone is seen by a second removal that finds nothing.
    fn is_read(self) -> bool {
        match self {
            Self::ServiceAccount
            | Self::Role
            | Self::RoleBinding
            | Self::ClusterRole
            | Self::ClusterRoleBinding
            | Self::NetworkPolicy
            | Self::Secret => false,
            Self::Namespace
            | Self::Pod
            | Self::Job
            | Self::StatefulSet
            | Self::Service
            | Self::ConfigMap
            | Self::PersistentVolumeClaim
            | Self::ValidatingAdmissionPolicy
            | Self::ValidatingAdmissionPolicyBinding => true,
        }
    }

    /// Whether those of a run are only in its own namespaces, where what has the name of one is of the run and can make way.
    fn is_alone_in_its_run(self) -> bool {
        matches!(self, Self::Secret | Self::ServiceAccount)
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::Namespace
            | Self::ServiceAccount
            | Self::Pod
            | Self::Secret
            | Self::Service
            | Self::ConfigMap
            | Self::PersistentVolumeClaim => "v1",
            Self::Role | Self::RoleBinding | Self::ClusterRole | Self::ClusterRoleBinding => {
                "rbac.authorization.k8s.io/v1"
            }
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::Job => "batch/v1",
            Self::StatefulSet => "apps/v1",
            Self::ValidatingAdmissionPolicy | Self::ValidatingAdmissionPolicyBinding => {
                "admissionregistration.k8s.io/v1"
            }
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::ServiceAccount => "serviceaccounts",
            Self::Role => "roles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRole => "clusterroles",
            Self::ClusterRoleBinding => "clusterrolebindings",
            Self::NetworkPolicy => "networkpolicies",
            Self::Pod => "pods",
            Self::Job => "jobs",
            Self::StatefulSet => "statefulsets",
            Self::Service => "services",
            Self::ConfigMap => "configmaps",
            Self::PersistentVolumeClaim => "persistentvolumeclaims",
            Self::ValidatingAdmissionPolicy => "validatingadmissionpolicies",
            Self::ValidatingAdmissionPolicyBinding => "validatingadmissionpolicybindings",
            Self::Secret => "secrets",
        }
    }

    /// Whether objects of the kind lie in namespaces.
    pub(crate) fn is_namespaced(self) -> bool {
        match self {
            Self::Namespace
            | Self::ClusterRole
            | Self::ClusterRoleBinding
            | Self::ValidatingAdmissionPolicy
            | Self::ValidatingAdmissionPolicyBinding => false,
            Self::ServiceAccount
            | Self::Role
            | Self::RoleBinding
            | Self::NetworkPolicy
            | Self::Pod
            | Self::Job
            | Self::StatefulSet
            | Self::Service
            | Self::ConfigMap
            | Self::PersistentVolumeClaim
            | Self::Secret => true,
        }
    }

    /// The path of all objects of the kind, in one namespace or in all.
    pub(crate) fn collection(self, namespace: Option<&str>) -> String {
        let version = self.api_version();
        let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural()),
            None => format!("{root}/{}", self.plural()),
        }
    }
}

/// Names one object. `kind/namespace/name` for people, `kind/name` where there is no namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ObjectRef {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl ObjectRef {
    pub(crate) fn namespaced(kind: Kind, namespace: &str, name: impl Into<String>) -> Self {
        Self { kind, namespace: Some(namespace.to_owned()), name: name.into() }
    }

    pub(crate) fn cluster_wide(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, namespace: None, name: name.into() }
    }

    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.kind.collection(self.namespace.as_deref()), self.name)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.word().to_lowercase())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "/{namespace}")?;
        }
        write!(f, "/{}", self.name)
    }
}

/// Whose an object is: of this run, and of this scan in it where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) run: RunId,
    pub(crate) scan: Option<u32>,
}

impl Mark {
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned()),
            (RUN.to_owned(), self.run.to_string()),
        ]);
        if let Some(scan) = self.scan {
            labels.insert(SCAN.to_owned(), scan.to_string());
        }
        labels
    }
}
