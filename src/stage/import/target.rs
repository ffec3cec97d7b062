//! Which target an imported result is about: what somebody says, or what the file says without a doubt. Nothing is guessed.

use crate::base::text::brief;
use crate::model::provenance::Said;
use crate::model::target::{Target, TargetSpec};
use crate::registry::Reference;
use crate::results::{Origin, Subject};

/// Why it is not known which target a result is about.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The file does not say it in a way that names one target.
    #[error("find out what was scanned: {0}")]
    Unsaid(String),
    /// What was named stands for several, or is none.
    #[error("import it for `{target}`: {why}")]
    Unfit {
        /// What was named.
        target: String,
        /// Why it can't be that.
        why: String,
    },
}

impl TargetError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Unsaid(_) => {
                "name it with --target: image/REF, node/NAME, pod/NS/NAME/CONTAINER, cluster or host".to_owned()
            }
            Self::Unfit { .. } => "name one container, image or node, the cluster, or this host".to_owned(),
        })
    }
}

/// The target, and who says that it is that. `subjects` is what was scanned in the scanner's words.
pub(super) fn resolve(
    named: Option<&TargetSpec>,
    origin: Option<&Origin>,
    subjects: &[String],
) -> Result<(Target, Said), TargetError> {
    if let Some(spec) = named {
        let digest = match (spec, origin.and_then(|origin| origin.subject.as_ref())) {
            // The file knows which one it was, if it means the same.
            (TargetSpec::Image(named), Some(Subject::Image(said, digest))) if named == said => *digest,
            _ => None,
        };
        return one(spec, subjects, digest).map(|target| (target, Said::ByImporter));
    }
    let unsaid = |why: String| Err(TargetError::Unsaid(why));
    let said = match origin.and_then(|origin| origin.subject.as_ref()) {
        Some(Subject::Image(reference, digest)) => {
            // As for a scan: a name without tag and digest names many images.
            let names_one = reference.parse::<Reference>().is_ok_and(|reference| reference.manifest().is_some());
            if !names_one {
                return unsaid(format!(
                    "the file says that it is the image `{}`, which no registry knows",
                    brief(reference)
                ));
            }
            one(&TargetSpec::Image(reference.clone()), subjects, *digest)
        }
        Some(Subject::Named(name)) => match name.parse::<TargetSpec>() {
            Ok(spec) => one(&spec, subjects, None),
            Err(_) => return unsaid(doubt(subjects)),
        },
        None => return unsaid(doubt(subjects)),
    };
    said.map(|target| (target, Said::ByFile)).map_err(|_| TargetError::Unsaid(doubt(subjects)))
}

fn doubt(subjects: &[String]) -> String {
    match subjects {
        [] => "the file does not say it".to_owned(),
        [one] => format!("the file says that it is `{}`, and not of which kind", brief(one)),
        [first, ..] => format!("the file names {} of them, as `{}`", subjects.len(), brief(first)),
    }
}

fn one(
    spec: &TargetSpec,
    subjects: &[String],
    digest: Option<crate::base::digest::Digest>,
) -> Result<Target, TargetError> {
    let unfit = |why: &str| Err(TargetError::Unfit { target: spec.to_string(), why: why.to_owned() });
    // As the scanner names it: there is no cluster and no machine to ask.
    let said = || subjects.first().map_or_else(|| "unknown".to_owned(), |name| brief(name));
    Ok(match spec {
        TargetSpec::Host => Target::Host { name: said() },
        TargetSpec::Cluster => Target::Cluster { name: said(), uid: None },
        TargetSpec::Node(name) => Target::Node { name: name.clone(), uid: None },
        TargetSpec::Image(reference) => {
            let parsed = match reference.parse::<Reference>() {
                Ok(parsed) => parsed,
                Err(error) => return unfit(&error.to_string()),
            };
            Target::Image { reference: reference.clone(), digest: parsed.digest.or(digest) }
        }
        TargetSpec::Pod { namespace, pod, container: Some(container) } => Target::Container {
            namespace: namespace.clone(),
            pod: pod.clone(),
            container: container.clone(),
            uid: None,
            image: None,
            digest: None,
            node: None,
        },
        TargetSpec::Pod { container: None, .. } => return unfit("a result is of one container"),
        TargetSpec::Namespace(_) => return unfit("a result is of one target"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(named: Option<&str>, subject: Option<Subject>, subjects: &[&str]) -> Result<(String, Said), String> {
        let named = named.map(|text| text.parse().expect("a target"));
        let origin = Origin { subject, ..Origin::default() };
        let subjects: Vec<String> = subjects.iter().map(|text| (*text).to_owned()).collect();
        let found = resolve(named.as_ref(), Some(&origin), &subjects);
        found.map(|(target, said)| (target.key(), said)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_named_counts_and_what_the_file_says_only_where_it_is_clear() {
        let image = |name: &str| Some(Subject::Image(name.to_owned(), None));
        let key = |key: &str, said| Ok((key.to_owned(), said));
        assert_eq!(of(None, image("registry.example/a:1"), &[]), key("image/registry.example/a:1", Said::ByFile));
        assert_eq!(of(Some("node/n"), image("registry.example/a:1"), &["x"]), key("node/n", Said::ByImporter));
        assert_eq!(of(Some("pod/a/b/c"), None, &[]), key("pod/a/b/c", Said::ByImporter));
        let named = |name: &str| Some(Subject::Named(name.to_owned()));
        assert_eq!(of(None, named("pod/a/b/c"), &[]), key("pod/a/b/c", Said::ByFile));
        for (case, result) in [
            ("nothing", of(None, None, &[])),
            ("a host or a node", of(None, None, &["localhost.localdomain"])),
            ("several", of(None, None, &["a", "b"])),
            ("an archive", of(None, image("images/alpine.tar.gz"), &[])),
            ("all that ran at once", of(None, named("ns/shop"), &["x"])),
            ("an id of another tool", of(None, named("f7767a46-386a-56c4-94df-13f192200202"), &["debian"])),
            ("a pod", of(Some("pod/a/b"), None, &[])),
            ("a namespace", of(Some("ns/a"), None, &[])),
            ("no reference", of(Some("image/A B"), None, &[])),
        ] {
            assert!(result.is_err(), "{case}: {result:?}");
        }
    }

    #[test]
    fn the_digest_is_the_files_only_if_it_means_the_same_image() {
        let digest = crate::base::digest::Digest::of("x");
        let origin = Origin {
            subject: Some(Subject::Image("registry.example/a:1".to_owned(), Some(digest))),
            ..Origin::default()
        };
        let of = |named: &str| match resolve(Some(&named.parse().expect("a target")), Some(&origin), &[]) {
            Ok((Target::Image { digest, .. }, _)) => digest,
            other => panic!("{other:?}"),
        };
        assert_eq!(of("image/registry.example/a:1"), Some(digest));
        assert_eq!(of("image/registry.example/b:1"), None);
    }
}
