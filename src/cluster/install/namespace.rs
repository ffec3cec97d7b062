//! The runner's namespace: restricted Pod Security.

use serde_json::json;

use super::{Manifest, Settings};
use crate::cluster::object::{Kind, ObjectRef};

pub(super) fn namespace(settings: &Settings) -> Manifest {
    let restricted = "restricted";
    let body = json!({ "metadata": { "labels": {
        "pod-security.kubernetes.io/enforce": restricted,
        "pod-security.kubernetes.io/audit": restricted,
        "pod-security.kubernetes.io/warn": restricted,
    } } });
    Manifest::new(settings, ObjectRef::cluster_wide(Kind::Namespace, &settings.namespace), body)
}
