//! How a scanner reaches each kind of target: one command for each approach that its definition offers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::archive::ArchiveNeeds;
use super::egress::EGRESS;
use super::needs::Capability;
use crate::base::text::brief;
use crate::model::access::Way;

/// What the names of placeholders begin with that stand for the target of a scan and not for a parameter of a profile.
pub const TARGET: &str = "target.";

/// The folder that the scanner leaves its result in, which every approach knows: `/results` in a pod of its own.
pub const RESULTS: &str = "target.results";
/// The folder with the inputs of the profile, one file each: `/inputs` in a pod of its own.
pub const INPUTS: &str = "target.inputs";
/// The folder that is the root of the target's files: `/proc/1/root`, as an example.
pub const ROOT: &str = "target.root";
/// The path of the target image as an archive: an OCI image layout in one tar file.
pub const ARCHIVE: &str = "target.archive";
/// The path of a kubeconfig that leads to the target and to nothing else.
pub const KUBECONFIG: &str = "target.kubeconfig";
/// The namespace of the target's pod.
pub const NAMESPACE: &str = "target.namespace";
/// The name of the target's pod.
pub const POD: &str = "target.pod";
/// The name of the target.
pub const CONTAINER: &str = "target.container";
/// The file that was delivered to the target, as its own program finds it there.
pub const DELIVERED: &str = "target.delivered";
/// What the target's own program writes its result to, and what is read while it is written: `/dev/fd/3`.
pub const RESULT: &str = "target.result";

/// The exit code by which gapscan says that a program in the target was not run, or that what it left is not whole. No definition
/// that runs one may give it a meaning.
pub const NOT_DONE: u8 = 93;

/// The approaches that a scanner supports; at least one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Approaches {
    /// A scanner pod with the target image mounted read-only as an image volume, or beside it as an archive: for images, and for
    /// containers by the image that they were started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<MountApproach>,
    /// A scanner pod on the node, as root who may read and not write, with the node's file system mounted read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<MountApproach>,
    /// Commands in the container through the API server, as an identity that may run some in that pod alone. Placeholders:
    /// [`NAMESPACE`], [`POD`], [`CONTAINER`]; where the scanner runs in a pod of its own, [`KUBECONFIG`]; where it runs in the
    /// target, [`DELIVERED`] and [`RESULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecApproach>,
    /// The scanner as an ephemeral container beside the container, with its user, group and processes. Placeholders:
    /// [`ROOT`], [`NAMESPACE`], [`POD`], [`CONTAINER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<CommandApproach>,
    /// The scanner beside the container in a copy of its pod. Placeholders as for `debug`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<CommandApproach>,
    /// A scanner pod that lists API objects, as an identity that may list what is named here and nothing else. Placeholder:
    /// [`KUBECONFIG`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterApproach>,
}

/// How a scanner is run on a target whose files are mounted read-only, or on an image that it gets as an archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MountApproach {
    /// Where the target's files are mounted, as `/target`. An image that the scanner gets as an archive need not be mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// The image as an archive in the file that `${target.archive}` stands for, for scanners that read its layers: an OCI image
    /// layout in one tar file, with the blobs as the registry has them. Not there where this is absent; only `image` has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveNeeds>,
    /// The command with its arguments; no shell is involved. `${parameter}` stands for a parameter of the profile.
    pub command: Vec<String>,
    /// Environment variables; `${parameter}` as in the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What it may do besides, which only a pod on a node can be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
}

/// How a scanner is run that finds the target by itself, from what its placeholders stand for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CommandApproach {
    /// The command with its arguments; no shell is involved. `${parameter}` stands for a parameter of the profile, and
    /// `${target.…}` for one of the approach's placeholders.
    pub command: Vec<String>,
    /// Environment variables; placeholders as in the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// How a container is scanned by commands in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExecApproach {
    /// Where the command runs.
    #[serde(default, skip_serializing_if = "RunsIn::is_pod")]
    pub runs: RunsIn,
    /// With `in-target`: the file of the scanner's pod that the command needs, as an absolute path; `${parameter}` as in the
    /// command. It is in a folder of the target that nobody else can read for as long as the command runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivers: Option<String>,
    /// With `in-target`: the oldest version of the target's program that counts, as `1.3.0`. `version` says how it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// The command, as in [`CommandApproach`].
    pub command: Vec<String>,
    /// Environment variables, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// Where the command of a scanner that reaches its target by exec runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunsIn {
    /// In a pod of the scanner's, from which it runs commands in the target by itself.
    #[default]
    ScannerPod,
    /// In the target: the program is the target's own, and nobody can vouch for it. Policy must allow that.
    InTarget,
}

impl RunsIn {
    fn is_pod(&self) -> bool {
        *self == Self::ScannerPod
    }
}

/// What is to be known of a command that runs in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTarget<'a> {
    /// The file that is delivered.
    pub delivers: Option<&'a str>,
    /// The oldest version that counts.
    pub oldest: Option<&'a str>,
}

impl ExecApproach {
    /// What is to be known of a command that runs in the target; `None` where it does not.
    pub fn in_target(&self) -> Option<InTarget<'_>> {
        let known = || InTarget { delivers: self.delivers.as_deref(), oldest: self.oldest.as_deref() };
        (self.runs == RunsIn::InTarget).then(known)
    }

    /// What is wrong with what it says beside its command.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let pod = self.runs == RunsIn::ScannerPod;
        for (field, given) in [("delivers", &self.delivers), ("oldest", &self.oldest)] {
            if pod && given.is_some() {
                problems.push(format!("approaches.exec.{field}: it means something only with `runs: in-target`"));
            }
        }
        let Some(in_target) = self.in_target() else { return problems };
        match in_target.delivers.map(placeholders) {
            Some(Err(())) => problems.push("approaches.exec.delivers: it has a `${` without its `}`".to_owned()),
            Some(Ok(names)) if names.iter().any(|name| name.starts_with(TARGET)) => {
                problems.push("approaches.exec.delivers: it knows parameters only".to_owned());
            }
            Some(Ok(_)) | None => {}
        }
        if in_target.oldest.is_some_and(|oldest| !is_version(oldest)) {
            problems.push("approaches.exec.oldest: it must be numbers with points between them, as 1.3.0".to_owned());
        }
        let named =
            self.command.iter().chain(self.env.values()).any(|text| text.contains(&format!("${{{DELIVERED}}}")));
        if named && in_target.delivers.is_none() {
            problems.push(format!("approaches.exec.command: `${{{DELIVERED}}}` needs `delivers`"));
        }
        // The program is looked for before anything is delivered, so that it must be known.
        if self.command.first().is_some_and(|program| program.contains("${")) {
            problems
                .push("approaches.exec.command[0]: a program in the target is named without placeholders".to_owned());
        }
        for name in self.env.keys() {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.chars().all(fits) || !name.starts_with(|c: char| !c.is_ascii_digit()) {
                problems.push(format!("approaches.exec.env: `{}` is no name of a variable", brief(name)));
            }
        }
        problems
    }
}

fn is_version(text: &str) -> bool {
    text.len() <= 64 && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a version is this one or a newer one, number by number; what follows the first character that is neither digit nor
/// point does not count. `None` where it has no numbers.
pub fn is_at_least(version: &str, oldest: &str) -> Option<bool> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        text[..end].trim_end_matches('.').split('.').map(|part| part.parse().ok()).collect()
    };
    let (mut version, mut oldest) = (numbers(version)?, numbers(oldest)?);
    let longest = version.len().max(oldest.len());
    version.resize(longest, 0);
    oldest.resize(longest, 0);
    Some(version >= oldest)
}

/// How a scanner is run that lists API objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterApproach {
    /// What it lists, in all namespaces; at least one.
    pub resources: Vec<ListedResource>,
    /// The command, as in [`CommandApproach`].
    pub command: Vec<String>,
    /// Environment variables, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// A resource of the API as RBAC names it: `pods`, or `apps/deployments` with its group. Never `secrets`, whose list is their
/// contents; no wildcards and no subresources.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ListedResource {
    /// The API group; empty for the core group.
    group: String,
    /// The plural, in lower case.
    resource: String,
}

impl ListedResource {
    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The plural, in lower case.
    pub fn resource(&self) -> &str {
        &self.resource
    }
}

/// A text that names no resource that a scanner may list.
#[derive(Debug, thiserror::Error)]
#[error(
    "read resource `{}`: it must be RESOURCE or GROUP/RESOURCE in lower case, without wildcards, and not secrets",
    brief(.0)
)]
pub struct ListedResourceError(String);

impl FromStr for ListedResource {
    type Err = ListedResourceError;

    fn from_str(text: &str) -> Result<Self, ListedResourceError> {
        let fits = |part: &str, dots: bool| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.len() <= 253
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.'))
        };
        let (group, resource) = text.split_once('/').unwrap_or(("", text));
        if !(group.is_empty() && !text.starts_with('/') || fits(group, true))
            || !fits(resource, false)
            || resource == "secrets"
        {
            return Err(ListedResourceError(text.to_owned()));
        }
        Ok(Self { group: group.to_owned(), resource: resource.to_owned() })
    }
}

impl TryFrom<String> for ListedResource {
    type Error = ListedResourceError;

    fn try_from(text: String) -> Result<Self, ListedResourceError> {
        text.parse()
    }
}

impl From<ListedResource> for String {
    fn from(resource: ListedResource) -> Self {
        resource.to_string()
    }
}

impl fmt::Display for ListedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.resource),
            group => write!(f, "{group}/{}", self.resource),
        }
    }
}

/// What all approaches have, with the words for it.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// The approach's field in the document.
    pub field: &'static str,
    /// Where the target's files are mounted, where gapscan mounts them.
    pub mount: Option<&'a str>,
    /// The image as an archive, where the scanner wants it so.
    pub archive: Option<&'a ArchiveNeeds>,
    /// The command with its arguments.
    pub command: &'a [String],
    /// Environment variables.
    pub env: &'a BTreeMap<String, String>,
    /// What it may do besides reading everything on a node.
    pub capabilities: &'a [Capability],
    /// The placeholders that it knows besides parameters.
    pub placeholders: &'static [&'static str],
    /// What is to be known of a command that runs in the target.
    pub in_target: Option<InTarget<'a>>,
}

impl<'a> From<&'a MountApproach> for Offered<'a> {
    fn from(from: &'a MountApproach) -> Self {
        Self {
            field: "",
            mount: from.mount.as_deref(),
            archive: from.archive.as_ref(),
            command: &from.command,
            env: &from.env,
            capabilities: &from.capabilities,
            placeholders: &[],
            in_target: None,
        }
    }
}

impl<'a> From<&'a CommandApproach> for Offered<'a> {
    fn from(from: &'a CommandApproach) -> Self {
        Self {
            field: "",
            mount: None,
            archive: None,
            command: &from.command,
            env: &from.env,
            capabilities: &[],
            placeholders: &[],
            in_target: None,
        }
    }
}

impl<'a> From<&'a ExecApproach> for Offered<'a> {
    fn from(from: &'a ExecApproach) -> Self {
        Self {
            field: "",
            mount: None,
            archive: None,
            command: &from.command,
            env: &from.env,
            capabilities: &[],
            placeholders: &[],
            in_target: from.in_target(),
        }
    }
}

impl<'a> From<&'a ClusterApproach> for Offered<'a> {
    fn from(from: &'a ClusterApproach) -> Self {
        Self {
            field: "",
            mount: None,
            archive: None,
            command: &from.command,
            env: &from.env,
            capabilities: &[],
            placeholders: &[],
            in_target: None,
        }
    }
}

const MOUNTED: &[&str] = &[RESULTS, INPUTS];
const ARCHIVED: &[&str] = &[RESULTS, INPUTS, ARCHIVE];
const TRANSPORTED: &[&str] = &[RESULTS, INPUTS, KUBECONFIG, NAMESPACE, POD, CONTAINER];
/// Neither inputs nor a folder for results: nothing is written in the target but what is delivered.
const WITHIN: &[&str] = &[DELIVERED, RESULT, NAMESPACE, POD, CONTAINER];
/// No inputs: an ephemeral container can have no volume, and a copy runs as the scanner's user, which could read them.
const BESIDE: &[&str] = &[RESULTS, ROOT, NAMESPACE, POD, CONTAINER];
const LISTED: &[&str] = &[RESULTS, INPUTS, KUBECONFIG];

impl Approaches {
    /// The approaches that the definition names.
    pub fn offered(&self) -> Vec<Offered<'_>> {
        let Self { image, node, exec, debug, sidecar, cluster } = self;
        fn named<'o>(field: &'static str, placeholders: &'static [&'static str], offered: Offered<'o>) -> Offered<'o> {
            Offered { field, placeholders, ..offered }
        }
        let all = [
            image.as_ref().map(|a| named("image", if a.archive.is_some() { ARCHIVED } else { MOUNTED }, a.into())),
            node.as_ref().map(|a| named("node", MOUNTED, a.into())),
            exec.as_ref().map(|a| named("exec", if a.in_target().is_some() { WITHIN } else { TRANSPORTED }, a.into())),
            debug.as_ref().map(|a| named("debug", BESIDE, a.into())),
            sidecar.as_ref().map(|a| named("sidecar", BESIDE, a.into())),
            cluster.as_ref().map(|a| named("cluster", LISTED, a.into())),
        ];
        all.into_iter().flatten().collect()
    }

    /// What is wrong with what they say besides commands and environment.
    pub fn problems(&self) -> Vec<String> {
        self.exec.iter().flat_map(ExecApproach::problems).collect()
    }

    /// The ways to a container among them.
    pub fn ways(&self) -> Vec<Way> {
        let offers = |way: &Way| match way {
            Way::Exec => self.exec.is_some(),
            Way::Debug => self.debug.is_some(),
            Way::Sidecar => self.sidecar.is_some(),
            Way::Image => self.image.is_some(),
        };
        Way::ALL.into_iter().filter(offers).collect()
    }
}

impl Offered<'_> {
    /// The names of all placeholders in its command, its environment, and the file that it has delivered.
    pub fn names(&self) -> Vec<&str> {
        let texts = self.command.iter().chain(self.env.values()).map(String::as_str);
        let delivered = self.in_target.as_ref().and_then(|in_target| in_target.delivers);
        texts.chain(delivered).filter_map(|text| placeholders(text).ok()).flatten().collect()
    }

    /// The names of whom it talks to: of those that `egress` of the definition says who they are.
    pub fn egress(&self) -> BTreeSet<&str> {
        self.names().into_iter().filter_map(|name| name.strip_prefix(EGRESS)).collect()
    }

    /// Whether it runs in a network of its own, which a way out can be made for.
    pub fn has_network(&self) -> bool {
        !matches!(self.field, "debug" | "sidecar") && self.in_target.is_none()
    }

    /// Whether its command or its environment names the folder with inputs.
    pub fn wants_inputs(&self) -> bool {
        self.says(INPUTS)
    }

    /// Whether its command or its environment has this placeholder.
    fn says(&self, placeholder: &str) -> bool {
        let named = format!("${{{placeholder}}}");
        self.command.iter().chain(self.env.values()).any(|text| text.contains(&named))
    }

    /// What is wrong with how the scanner gets the target's files.
    fn source_problems(&self) -> Vec<String> {
        let field = self.field;
        let wrong = match (field, self.mount, self.archive) {
            ("node", None, _) => "mount: it is not there, so that the scanner would see nothing of the node",
            ("node", _, Some(_)) => "archive: only an image is to be had as an archive",
            ("image", None, None) => {
                "mount: neither it nor archive is there, so that the scanner would get nothing of the image"
            }
            (_, _, Some(needs)) if needs.layers.is_empty() => {
                "archive.layers: none is there, so that no image would fit"
            }
            (_, _, Some(_)) if !self.says(ARCHIVE) => {
                "archive: neither the command nor the environment says `${target.archive}`, where it will be"
            }
            _ => return Vec::new(),
        };
        vec![format!("approaches.{field}.{wrong}")]
    }

    /// What is wrong with the command and the environment, each with its place below `approaches`.
    pub fn problems(&self) -> Vec<String> {
        let field = self.field;
        let mut problems = self.source_problems();
        if self.command.is_empty() {
            problems.push(format!("approaches.{field}.command: it is empty"));
        }
        if field != "node" && !self.capabilities.is_empty() {
            problems.push(format!(
                "approaches.{field}.capabilities: its pod is in a namespace of the restricted Pod Security Standard, which \
                 refuses any; only one on a node can have some"
            ));
        }
        let commands = self.command.iter().enumerate().map(|(at, text)| (format!("command[{at}]"), text));
        let env = self.env.iter().map(|(name, text)| (format!("env.{}", brief(name)), text));
        for (place, text) in commands.chain(env) {
            let place = format!("approaches.{field}.{place}");
            match placeholders(text) {
                Err(()) => problems.push(format!("{place}: `{}` has a `${{` without its `}}`", brief(text))),
                Ok(names) => {
                    let unknown = |name: &&str| name.starts_with(TARGET) && !self.placeholders.contains(name);
                    let unknown = names.into_iter().filter(unknown);
                    problems.extend(unknown.map(|name| {
                        let known = self.placeholders.join(", ");
                        format!("{place}: `${{{}}}` means nothing to approach {field}: it knows {known}", brief(name))
                    }));
                }
            }
        }
        problems
    }
}

/// The names in `${…}`, or an error where one is not closed.
fn placeholders(text: &str) -> Result<Vec<&str>, ()> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let inside = &rest[start + 2..];
        let end = inside.find('}').ok_or(())?;
        names.push(&inside[..end]);
        rest = &inside[end + 1..];
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_exactly_and_is_never_secret() {
        for (text, group, resource) in
            [("pods", "", "pods"), ("apps/deployments", "apps", "deployments"), ("a.b-c/d0", "a.b-c", "d0")]
        {
            let read: ListedResource = text.parse().expect(text);
            assert_eq!((read.group(), read.resource(), read.to_string().as_str()), (group, resource, text));
        }
        for text in [
            "",
            "/",
            "/pods",
            "apps/",
            "*",
            "apps/*",
            "*/pods",
            "secrets",
            "x/secrets",
            "pods/exec/x",
            "Pods",
            "v1 pods",
        ] {
            assert!(text.parse::<ListedResource>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_approach_knows_its_own_placeholders_only() {
        let command = |words: &[&str]| CommandApproach {
            command: words.iter().map(|w| (*w).to_owned()).collect(),
            env: BTreeMap::new(),
        };
        let both = || command(&["a", "${target.pod}${parameter}", "${target.root}"]);
        let exec = ExecApproach { command: both().command, ..ExecApproach::default() };
        let approaches = Approaches { exec: Some(exec), debug: Some(both()), ..Approaches::default() };
        let found: Vec<String> = approaches.offered().iter().flat_map(Offered::problems).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("approaches.exec.command[2]: `${target.root}` means nothing"), "{found:?}");
        assert_eq!(approaches.ways(), [Way::Exec, Way::Debug]);
        let open = Approaches { sidecar: Some(command(&["${target.root"])), ..Approaches::default() };
        assert!(open.offered()[0].problems()[0].contains("without its"));
    }

    #[test]
    fn a_command_in_the_target_has_a_program_a_file_and_a_version() {
        let exec = |words: &[&str], delivers: Option<&str>, oldest: Option<&str>| ExecApproach {
            runs: RunsIn::InTarget,
            delivers: delivers.map(str::to_owned),
            oldest: oldest.map(str::to_owned),
            command: words.iter().map(|w| (*w).to_owned()).collect(),
            env: BTreeMap::new(),
        };
        let fine = exec(&["oscap", "${target.result}", "${target.delivered}"], Some("${content}"), Some("1.3"));
        assert_eq!(fine.problems(), [""; 0]);
        let approaches = Approaches { exec: Some(fine.clone()), ..Approaches::default() };
        assert_eq!(approaches.offered()[0].problems(), [""; 0]);
        for (wrong, field) in [
            (exec(&["${p}"], None, None), "command[0]: a program"),
            (exec(&["a", "${target.delivered}"], None, None), "command: `${target.delivered}` needs"),
            (exec(&["a"], Some("${target.pod}"), None), "delivers: it knows"),
            (exec(&["a"], Some("${x"), None), "delivers: it has"),
            (exec(&["a"], None, Some("1.x")), "oldest: it must be"),
            (exec(&["a"], None, Some("")), "oldest: it must be"),
            (ExecApproach { runs: RunsIn::ScannerPod, ..exec(&["a"], None, Some("1")) }, "oldest: it means"),
            (ExecApproach { env: [("A=B".to_owned(), String::new())].into(), ..exec(&["a"], None, None) }, "env: "),
        ] {
            let found = wrong.problems();
            assert!(matches!(&found[..], [one] if one.starts_with(&format!("approaches.exec.{field}"))), "{found:?}");
        }
        let results = exec(&["a", "${target.results}"], None, None);
        let approaches = Approaches { exec: Some(results), ..Approaches::default() };
        assert!(approaches.offered()[0].problems()[0].contains("means nothing"), "there is no such folder in a target");
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, oldest, wanted) in [
            ("1.3.7", "1.3.0", Some(true)),
            ("1.3", "1.3.0", Some(true)),
            ("1.2.17", "1.3.0", Some(false)),
            ("v1.10.0", "1.9", Some(true)),
            ("1.3.7-rc1", "1.3.7", Some(true)),
            ("1.4.", "1.4", Some(true)),
            ("unknown", "1", None),
            ("", "1", None),
            ("1..2", "1", None),
        ] {
            assert_eq!(is_at_least(version, oldest), wanted, "{version}");
        }
    }
}
