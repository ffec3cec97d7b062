//! gapscan's agent as a sidecar in somebody's manifest, or beside a copy of a running pod that is written out.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::{BundleSource, ClusterAccess, RegistryAccess};
use super::registries::Registries;
use super::scan::ScanError;
use super::scan::content::Content;
use crate::base::document::{self, DocumentError};
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::cluster::access::auto::User;
use crate::cluster::access::sidecar::inject::{At, Injection, Refusal, Wanted, inject};
use crate::cluster::access::sidecar::written_out;
use crate::cluster::object::{Kind, ObjectRef};
use crate::cluster::{Cluster, ClusterError};
use crate::registry::Reference;
use crate::registry::reference::NameError;
use crate::trust::remembered::Remembered;

/// Where gapscan's own image is.
#[derive(Clone, Debug)]
pub enum OwnImage {
    /// It is named, by its digest.
    Named(String),
    /// In a loaded bundle, which is verified.
    OfBundle {
        /// The bundle.
        bundle: BundleSource,
        /// How its registry is reached.
        registry: Box<RegistryAccess>,
    },
}

/// What is to have the agent.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Manifests, as text; the path is for messages.
    Manifests {
        /// Where they are from.
        path: PathBuf,
        /// YAML or JSON.
        text: String,
    },
    /// A pod of the cluster, of which a copy is written out.
    Pod {
        /// The cluster.
        cluster: ClusterAccess,
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
}

/// An injection, asked for by a person.
#[derive(Clone, Debug)]
pub struct InjectRequest {
    /// What is to have the agent.
    pub subject: Subject,
    /// The agent's image.
    pub image: OwnImage,
    /// The container that is to be looked at.
    pub container: Option<String>,
    /// As whom it runs, where the manifest does not say.
    pub user: Option<User>,
}

/// What came of it.
#[derive(Debug)]
pub struct Injected {
    /// The documents, each as a whole.
    pub documents: Vec<Value>,
    /// What was changed in which object.
    pub changed: Vec<Injection>,
    /// Objects with pods that were left as they were.
    pub passed_over: Vec<At>,
    /// What a copy lacks of its original.
    pub notes: Vec<String>,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The manifests.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] ScanError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The image's name.
    #[error(transparent)]
    Image(#[from] NameError),
    /// The image is not named by its digest.
    #[error("take `{0}` for gapscan's image: it has no digest, and a tag may mean another image tomorrow")]
    NoDigest(String),
    /// The bundle has no image of gapscan.
    #[error("take gapscan's image from bundle `{0}`, which has none")]
    NoImage(String),
    /// Objects that can't have it; all of them at once.
    #[error("inject into `{}`: {}", .path.display(), joined(.refused))]
    Refused {
        /// Where they are from.
        path: PathBuf,
        /// Which, and why.
        refused: Vec<Refusal>,
    },
    /// There is nothing to put it into.
    #[error("inject into `{}`: {why}", .path.display())]
    Nothing {
        /// What was read.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A pod that can't be copied.
    #[error("copy pod `{pod}`: {why}")]
    NoCopy {
        /// The pod, as `NAMESPACE/NAME`.
        pod: String,
        /// Why not.
        why: String,
    },
    /// What would be printed is not what was meant.
    #[error("write the manifests: {0}")]
    Write(String),
}

fn joined(refused: &[Refusal]) -> String {
    refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
}

impl Classify for InjectError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Document(error) => error.class(),
            Self::Bundle(error) => error.class(),
            Self::Cluster(error) => error.class(),
            Self::Image(_)
            | Self::NoDigest(_)
            | Self::NoImage(_)
            | Self::Refused { .. }
            | Self::Nothing { .. }
            | Self::NoCopy { .. } => ExitClass::Usage,
            Self::Write(_) => ExitClass::Bug,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.remedy(),
            Self::Cluster(error) => error.remedy(),
            Self::NoDigest(_) => Some("name it as HOST/REPOSITORY@sha256:…, as `gapscan load` printed it".to_owned()),
            Self::NoCopy { .. } => {
                Some("scan it in another way, as by exec; --explain says which there are".to_owned())
            }
            Self::Write(_) => Some("print JSON, which leaves nothing to be understood otherwise (-o json)".to_owned()),
            Self::Document(_) | Self::Image(_) | Self::NoImage(_) | Self::Refused { .. } | Self::Nothing { .. } => None,
        }
    }
}

/// Puts the agent in. Nothing is changed anywhere but in what is given back.
///
/// # Errors
/// When the manifests can't be read or can't have it, the bundle does not verify, or the cluster can't be reached.
pub async fn run(request: InjectRequest, limits: &Limits, now: jiff::Timestamp) -> Result<Injected, InjectError> {
    let image = own_image(request.image, limits, now).await?;
    match request.subject {
        Subject::Manifests { path, text } => {
            let wanted = Wanted { image: &image, container: request.container.as_deref(), user: request.user };
            into_manifests(&path, &text, &wanted)
        }
        Subject::Pod { cluster, namespace, pod } => {
            copy_of(&cluster, (&namespace, &pod), request.container.as_deref(), &image, limits).await
        }
    }
}

async fn own_image(image: OwnImage, limits: &Limits, now: jiff::Timestamp) -> Result<String, InjectError> {
    match image {
        OwnImage::Named(name) => {
            let reference: Reference = name.parse()?;
            match reference.digest {
                Some(_) => Ok(reference.to_string()),
                None => Err(InjectError::NoDigest(name)),
            }
        }
        OwnImage::OfBundle { bundle, registry } => {
            let prefix: crate::registry::Prefix = bundle.registry.parse()?;
            let registries = Registries::new([(prefix.registry.to_string(), *registry)].into(), limits.clone());
            let state = bundle.state.clone().unwrap_or_else(|| PathBuf::from("gapscan-state"));
            let content = Content::of_bundle(&bundle, &Remembered::in_folder(state), &registries, limits, now).await?;
            content.own_image.ok_or(InjectError::NoImage(bundle.name))
        }
    }
}

fn into_manifests(path: &Path, text: &str, wanted: &Wanted<'_>) -> Result<Injected, InjectError> {
    let nothing = |why: String| Err(InjectError::Nothing { path: path.to_owned(), why });
    let mut documents = document::from_kubernetes(path, text)?;
    let mut injected =
        Injected { documents: Vec::new(), changed: Vec::new(), passed_over: Vec::new(), notes: Vec::new() };
    let mut refused = Vec::new();
    for (index, document) in documents.iter_mut().enumerate() {
        let of_one = inject(document, index + 1, wanted);
        injected.changed.extend(of_one.done);
        injected.passed_over.extend(of_one.passed_over);
        refused.extend(of_one.refused);
    }
    if !refused.is_empty() {
        return Err(InjectError::Refused { path: path.to_owned(), refused });
    }
    if injected.changed.is_empty() {
        return match (wanted.container, injected.passed_over.is_empty()) {
            (Some(name), false) => {
                nothing(format!("no pod in it has a container `{}`", crate::base::text::brief(name)))
            }
            _ => nothing("nothing in it has pods".to_owned()),
        };
    }
    injected.documents = documents;
    Ok(injected)
}

async fn copy_of(
    access: &ClusterAccess,
    (namespace, name): (&str, &str),
    container: Option<&str>,
    image: &str,
    limits: &Limits,
) -> Result<Injected, InjectError> {
    let cluster = Cluster::connect(access.kubeconfig.as_deref(), access.context.as_deref(), limits).await?;
    let object = ObjectRef::namespaced(Kind::Pod, namespace, name);
    let pod: Pod = cluster.get(&format!("read {object}"), object.path()).await?;
    let refuse = |why: String| InjectError::NoCopy { pod: format!("{namespace}/{name}"), why };
    let containers: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.as_str()).collect();
    let container = match (container, &containers[..]) {
        (Some(container), _) => container,
        (None, [only]) => only,
        (None, several) => {
            return Err(refuse(format!(
                "it has several containers: {}; name one with --container",
                several.join(", ")
            )));
        }
    };
    let (manifest, copy) = written_out(&pod, container, image).map_err(refuse)?;
    Ok(Injected { documents: vec![manifest], changed: Vec::new(), passed_over: Vec::new(), notes: copy.notes })
}

/// The documents as YAML.
///
/// # Errors
/// When what was written would be read as something else.
pub fn yaml(documents: &[Value]) -> Result<String, InjectError> {
    let mut text = String::new();
    for one in documents {
        let document = document::to_kubernetes(one).map_err(|error| InjectError::Write(error.to_string()))?;
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&document);
        if !document.ends_with('\n') {
            text.push('\n');
        }
    }
    // Readers of YAML differ in what they take a plain word for.
    match document::from_kubernetes(Path::new("what was written"), &text) {
        Ok(read) if read == documents => Ok(text),
        Ok(_) => Err(InjectError::Write("as YAML they would be read as something else".to_owned())),
        Err(error) => Err(InjectError::Write(error.to_string())),
    }
}

/// The documents as JSON: one as itself, several as a list, as kubectl takes them.
pub fn json(documents: &[Value]) -> Value {
    match documents {
        [one] => one.clone(),
        several => json!({ "apiVersion": "v1", "kind": "List", "items": several }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A comment.
apiVersion: v1
kind: ConfigMap
metadata: {name: c, labels: {version: '1.10', answer: \"yes\", octal: '0644', number: '12', nothing: 'null', tilde: '~', exp: '1e3'}}
data:
  script: |
    #!/bin/sh
    echo \"a: b\"

  empty: ''
---
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  template:
    spec:
      securityContext: {runAsUser: 7, runAsGroup: 8, runAsNonRoot: yes}
      containers:
      - {name: app, image: r/app:1, env: [{name: A, value: 'on'}]}
      volumes:
      - name: keys
        secret: {secretName: k, defaultMode: 0400}
";

    fn wanted() -> Wanted<'static> {
        Wanted { image: "r/g@sha256:1", container: None, user: None }
    }

    #[test]
    fn manifests_are_read_as_kubectl_reads_them_and_written_so_that_all_read_the_same() {
        let path = Path::new("m.yaml");
        let injected = into_manifests(path, TEXT, &wanted()).expect("it has pods");
        assert_eq!(injected.documents.len(), 2);
        let spec = &injected.documents[1]["spec"]["template"]["spec"];
        assert_eq!(spec["volumes"][0]["secret"]["defaultMode"], 0o400);
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        let written = yaml(&injected.documents).expect("it is written");
        let again = into_manifests(path, &written, &wanted()).expect("it has pods");
        assert_eq!(again.documents, injected.documents);
        assert_eq!(again.changed[0].changes, [""; 0], "a second time changes nothing");
        // What strict readers and old ones take for something else is in quotes.
        for word in ["answer: \"yes\"", "answer: 'yes'"] {
            if written.contains(word) {
                return;
            }
        }
        panic!("{written}");
    }

    #[test]
    fn json_is_read_as_well_and_written_as_one_document() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"i","securityContext":{"runAsUser":1,"runAsGroup":1}}]}}"#;
        let injected = into_manifests(Path::new("-"), text, &wanted()).expect("it has pods");
        assert_eq!(json(&injected.documents), injected.documents[0]);
        let several = json(&[json!(1), json!(2)]);
        assert_eq!((&several["kind"], several["items"].as_array().map(Vec::len)), (&json!("List"), Some(2)));
    }

    #[test]
    fn what_has_nothing_to_put_it_into_is_refused() {
        let refused = |text: &str, container: Option<&'static str>| {
            into_manifests(Path::new("m.yaml"), text, &Wanted { container, ..wanted() })
                .expect_err("it is refused")
                .to_string()
        };
        assert!(refused("", None).contains("nothing in it has pods"));
        assert!(refused("apiVersion: v1\nkind: Service\n", None).contains("nothing in it has pods"));
        assert!(refused(TEXT, Some("other")).contains("has a container `other`"));
        assert!(refused("a: [", None).contains("read `m.yaml` as a Kubernetes manifest"));
        let root = TEXT.replace("runAsUser: 7", "runAsUser: 0");
        let message = refused(&root, None);
        assert!(message.contains("document 2, Deployment `d`, spec.template.spec.containers[app]"), "{message}");
    }
}
