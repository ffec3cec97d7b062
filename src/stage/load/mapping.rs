//! Where in the registry an item of a bundle is found, and what other programs must be told about it
//! (docs/reference-mapping.md).
//!
//! The function is [`Mapping::repository`]: `HOST/PREFIX/` and the item's repository, unchanged. It gives no two items one
//! name: within a prefix because an item's repository is its own in the bundle, which is checked again here; and over all
//! prefixes because a prefix must not end like a section of a bundle ([`Mapping::new`]), so that the name says where the
//! prefix ends. The tags of two bundles in one repository differ, because a bundle's name has no dot.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::text::brief;
use crate::bundle::catalog;
use crate::model::catalog::{CATALOG_REPOSITORY, Catalog};
use crate::model::provenance::BundleRef;
use crate::registry::reference::NameError;
use crate::registry::{Prefix, Reference, Repository};

/// The first components of items' repositories.
const SECTIONS: [&str; 4] = ["images", "profiles", "dependencies", "charts"];

/// Why items have no place in a registry.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// Names below this prefix could be those of another.
    #[error(
        "put a bundle below `{prefix}`: it ends in `{last}`, as repositories of bundles below another prefix begin"
    )]
    Prefix {
        /// The prefix.
        prefix: Prefix,
        /// Its last component.
        last: String,
    },
    /// The prefix leaves no room.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Two items would be one.
    #[error("find a place for `{second}`: `{first}` has `{repository}` already")]
    Collision {
        /// An item.
        first: String,
        /// Another.
        second: String,
        /// What both would be.
        repository: Repository,
    },
    /// An item's repository is none.
    #[error("find a place for `{}`: it is in no section of a bundle", brief(.repository))]
    Section {
        /// The item's repository.
        repository: String,
    },
}

impl Classify for MappingError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Prefix { .. } => ExitClass::Usage,
            Self::Name(error) => error.class(),
            Self::Collision { .. } | Self::Section { .. } => ExitClass::Refused,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Prefix { .. } => Some("choose another prefix, for example with `/gapscan` at its end".to_owned()),
            Self::Name(error) => error.remedy(),
            Self::Collision { .. } | Self::Section { .. } => None,
        }
    }
}

/// The mapping of a bundle's names below one prefix.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    prefix: &'a Prefix,
}

/// An item with its place.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapped {
    /// Its repository in the bundle.
    pub item: String,
    /// What it is called upstream, without tag and digest; `None` for what came from no registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Its repository in the registry, with the host.
    pub name: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
}

impl<'a> Mapping<'a> {
    /// The mapping below this prefix.
    ///
    /// # Errors
    /// When the prefix ends like a section of a bundle: `HOST/a/images` and the repository `catalog` would be what `HOST/a`
    /// and `images/catalog` are.
    pub fn new(prefix: &'a Prefix) -> Result<Self, MappingError> {
        let last = prefix.path.as_ref().and_then(|path| path.as_str().rsplit('/').next());
        match last {
            Some(last) if SECTIONS.contains(&last) => {
                Err(MappingError::Prefix { prefix: prefix.clone(), last: last.to_owned() })
            }
            _ => Ok(Self { prefix }),
        }
    }

    /// The repository in the registry of an item's repository in the bundle: `catalog`, or a section and a name.
    ///
    /// # Errors
    /// When it is in no section, or too long with the prefix.
    pub fn repository(&self, item: &str) -> Result<Repository, MappingError> {
        let in_section = || item.split_once('/').is_some_and(|(s, name)| SECTIONS.contains(&s) && !name.contains('/'));
        if item != CATALOG_REPOSITORY && !in_section() {
            return Err(MappingError::Section { repository: item.to_owned() });
        }
        Ok(self.prefix.repository(item)?)
    }

    /// All items of a catalog with their places, by item.
    ///
    /// # Errors
    /// When two would have the same place, or one has none.
    pub fn items(&self, catalog: &Catalog) -> Result<Vec<Mapped>, MappingError> {
        let named = catalog::items(catalog).map(|item| (item.repository.as_str(), item.source.as_str(), item.digest));
        self.places(named)
    }

    fn places<'i>(&self, items: impl Iterator<Item = (&'i str, &'i str, Digest)>) -> Result<Vec<Mapped>, MappingError> {
        let mut taken: BTreeMap<Repository, Mapped> = BTreeMap::new();
        for (item, source, digest) in items {
            let repository = self.repository(item)?;
            let upstream = source.parse::<Reference>().ok().map(|r| format!("{}/{}", r.registry, r.repository));
            let name = format!("{}/{repository}", self.prefix.registry);
            let mapped = Mapped { item: item.to_owned(), upstream, name, digest };
            if let Some(first) = taken.get(&repository) {
                let shown = |mapped: &Mapped| brief(mapped.upstream.as_ref().unwrap_or(&mapped.item));
                return Err(MappingError::Collision { first: shown(first), second: shown(&mapped), repository });
            }
            taken.insert(repository, mapped);
        }
        let mut all: Vec<Mapped> = taken.into_values().collect();
        all.sort_by(|a, b| a.item.cmp(&b.item));
        Ok(all)
    }

    /// A file for `/etc/containers/registries.conf.d/` (containers-registries.conf(5)): the upstream names of the bundle's
    /// items, pulled by digest, are found in the registry.
    pub fn containers_registries(&self, bundle: &BundleRef, items: &[Mapped]) -> String {
        let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for item in items {
            if let Some(upstream) = &item.upstream {
                places.entry(upstream).or_default().push(&item.name);
            }
        }
        let mut text = format!(
            "# For podman, skopeo, buildah and CRI-O: /etc/containers/registries.conf.d/gapscan-{name}.conf\n\
             # Bundle {name} version {version}, loaded into {prefix}.\n\
             # What is pulled by digest under its upstream name comes from the registry. A pull by tag goes upstream, and\n\
             # fails where there is no upstream: a tag is nothing that was signed. Where the lock chose one platform of\n\
             # several, the digest in the registry is that of this platform, and the digest of the upstream index is not there.\n",
            name = bundle.name,
            version = bundle.version,
            prefix = self.prefix,
        );
        if places.is_empty() {
            text.push_str("# No item of it came from a registry.\n");
        }
        for (upstream, names) in places {
            let _ = write!(text, "\n[[registry]]\nprefix = \"{upstream}\"\nlocation = \"{upstream}\"\n");
            // Several items of one upstream repository: each is asked in turn, and only one can have a digest's content.
            for name in names {
                let _ =
                    write!(text, "[[registry.mirror]]\nlocation = \"{name}\"\npull-from-mirror = \"digest-only\"\n");
            }
        }
        text
    }

    /// A `hosts.toml` for containerd (docs/hosts.md): how nodes reach the registry. `ca` is the file on the nodes.
    pub fn containerd_hosts(&self, bundle: &BundleRef, items: &[Mapped], ca: &str) -> String {
        let host = &self.prefix.registry;
        let mut text = format!(
            "# For containerd: /etc/containerd/certs.d/{host}/hosts.toml (config_path = \"/etc/containerd/certs.d\")\n\
             # Bundle {name} version {version}, loaded into {prefix}.\n\
             # containerd maps hosts, not repositories: it can be told that a host is reached at another address, and not\n\
             # that one repository has another name there. So this file says only how the registry is reached, and pods name\n\
             # images as they are called in it, by digest:\n",
            name = bundle.name,
            version = bundle.version,
            prefix = self.prefix,
        );
        for item in items.iter().filter(|item| item.item.starts_with("images/")) {
            let _ = writeln!(text, "#   {}@{}", item.name, item.digest);
        }
        let _ = write!(
            text,
            "\nserver = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{}\"\n",
            ca.replace('\\', "\\\\").replace('"', "\\\""),
        );
        text
    }

    /// A ValidatingAdmissionPolicy with its binding: in the namespaces that gapscan makes for its scans, containers run only
    /// from digests of the bundle. What a pod had before may stay, so that one of an older version can still be ended.
    pub fn image_policy(&self, bundle: &BundleRef, items: &[Mapped]) -> String {
        let name = format!("gapscan-images-{}", bundle.name);
        let mut digests: Vec<String> = items
            .iter()
            .filter(|item| item.item.starts_with("images/"))
            .map(|item| format!("      '{}'", item.digest))
            .collect();
        digests.sort();
        digests.dedup();
        let digests = digests.join(",\n");
        format!(
            "\
# Bundle {bundle_name} version {version}, loaded into {prefix}. Print it again when another version was loaded: runs use the
# newest. What a pod only mounts, as the image that is scanned, is not looked at: it does not run.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {name}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - apiGroups: ['']
      apiVersions: ['v1']
      operations: ['CREATE', 'UPDATE']
      resources: ['pods', 'pods/ephemeralcontainers']
  variables:
  - name: digests
    expression: |-
      [
{digests}
      ]
  - name: before
    expression: |-
      oldObject == null ? [] :
      oldObject.spec.containers.map(c, c.image) +
      oldObject.spec.?initContainers.orValue([]).map(c, c.image) +
      oldObject.spec.?ephemeralContainers.orValue([]).map(c, c.image)
  - name: foreign
    expression: |-
      (object.spec.containers.map(c, c.image) +
      object.spec.?initContainers.orValue([]).map(c, c.image) +
      object.spec.?ephemeralContainers.orValue([]).map(c, c.image))
      .filter(i, !(i in variables.before))
      .filter(i, !(i.matches('@sha256:[0-9a-f]{{64}}$') && i.split('@')[1] in variables.digests))
  validations:
  - expression: variables.foreign.size() == 0
    messageExpression: >-
      'not from a digest of bundle {bundle_name} version {version}: ' + variables.foreign.join(', ')
    reason: Forbidden
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {name}
spec:
  policyName: {name}
  validationActions: [Deny]
  matchResources:
    namespaceSelector:
      matchExpressions:
      - {{key: app.kubernetes.io/managed-by, operator: In, values: [gapscan]}}
      - {{key: gapscan.dev/run, operator: Exists}}
",
            bundle_name = bundle.name,
            version = bundle.version,
            prefix = self.prefix,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    fn bundle() -> BundleRef {
        BundleRef { name: "enclave".to_owned(), version: 3, digest: Digest::of("b"), root: Digest::of("r") }
    }

    fn item_names() -> impl Strategy<Value = String> {
        let section = prop::sample::select(SECTIONS.as_slice());
        // Names that are also those of sections and of the catalog are where a collision would come from.
        let name = prop_oneof![
            prop::sample::select([SECTIONS.as_slice(), &["catalog", "a", "b"]].concat()).prop_map(str::to_owned),
            "[a-z0-9]{1,4}(-[a-z0-9]{1,3})?",
        ];
        prop_oneof![Just("catalog".to_owned()), (section, name).prop_map(|(s, n)| format!("{s}/{n}"))]
    }

    fn prefixes() -> impl Strategy<Value = String> {
        let component = prop_oneof![
            prop::sample::select([SECTIONS.as_slice(), &["catalog", "a", "b"]].concat()).prop_map(str::to_owned),
            "[a-z0-9]{1,3}",
        ];
        prop::collection::vec(component, 0..4).prop_map(|path| {
            let host = "r.example:5000".to_owned();
            if path.is_empty() { host } else { format!("{host}/{}", path.join("/")) }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        #[test]
        fn no_two_items_below_any_prefixes_have_one_name(
            p1 in prefixes(), i1 in item_names(), p2 in prefixes(), i2 in item_names(),
        ) {
            let (q1, q2) = (prefix(&p1), prefix(&p2));
            let (Ok(m1), Ok(m2)) = (Mapping::new(&q1), Mapping::new(&q2)) else { return Ok(()) };
            let one = m1.repository(&i1).expect("a place");
            let two = m2.repository(&i2).expect("a place");
            prop_assert_eq!(one == two, p1 == p2 && i1 == i2, "{} {} {} {}", p1, i1, p2, i2);
        }
    }

    #[test]
    fn the_collision_that_a_prefix_like_a_section_would_make_is_refused() {
        let refused = prefix("r.example/a/images");
        assert!(matches!(Mapping::new(&refused), Err(MappingError::Prefix { .. })));
        // Which is what it would have been:
        assert_eq!(
            refused.repository("catalog").expect("a name"),
            prefix("r.example/a").repository("images/catalog").expect("a name")
        );
    }

    #[test]
    fn two_references_that_map_to_one_internal_name() {
        let p = prefix("r.example/a");
        let mapping = Mapping::new(&p).expect("a mapping");
        let items = [
            ("images/web", "quay.io/one/web:1", Digest::of("1")),
            ("images/web", "docker.io/two/web:1", Digest::of("2")),
        ];
        let error = mapping.places(items.into_iter()).expect_err("refused");
        assert_eq!(error.class(), ExitClass::Refused);
        assert!(error.to_string().contains("`docker.io/two/web`: `quay.io/one/web` has `a/images/web`"), "{error}");
        for nowhere in ["images", "images/a/b", "other/a", "", "catalog/a"] {
            assert!(matches!(mapping.repository(nowhere), Err(MappingError::Section { .. })), "{nowhere}");
        }
    }

    fn sample(mapping: &Mapping<'_>) -> Vec<Mapped> {
        let digest = Digest::of("x");
        let items = [
            (
                "images/web",
                "quay.io/one/web:1@sha256:1111111111111111111111111111111111111111111111111111111111111111",
                digest,
            ),
            ("images/old-web", "quay.io/one/web:0.9", Digest::of("y")),
            ("images/gapscan", "gapscan 0.1.0", Digest::of("z")),
            ("dependencies/db", "dir:db", Digest::of("w")),
        ];
        mapping.places(items.into_iter()).expect("places")
    }

    #[test]
    fn what_containers_must_be_told() {
        let p = prefix("r.example:5000/a");
        let mapping = Mapping::new(&p).expect("a mapping");
        insta::assert_snapshot!("registries.conf", mapping.containers_registries(&bundle(), &sample(&mapping)));
    }

    #[test]
    fn what_containerd_must_be_told() {
        let p = prefix("r.example:5000/a");
        let mapping = Mapping::new(&p).expect("a mapping");
        let text =
            mapping.containerd_hosts(&bundle(), &sample(&mapping), "/etc/containerd/certs.d/r.example:5000/ca.crt");
        insta::assert_snapshot!("hosts.toml", text);
    }

    #[test]
    fn what_the_api_server_must_be_told() {
        let p = prefix("r.example:5000/a");
        let mapping = Mapping::new(&p).expect("a mapping");
        insta::assert_snapshot!("image-policy.yaml", mapping.image_policy(&bundle(), &sample(&mapping)));
    }
}
