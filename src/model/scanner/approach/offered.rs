//! What all approaches have in common: a command and an environment, with the placeholders in them.

use std::collections::{BTreeMap, BTreeSet};

use super::{ARCHIVE, ClusterApproach, CommandApproach, ExecApproach, INPUTS, InTarget, MountApproach, TARGET};
use crate::base::text::brief;
use crate::model::scanner::archive::ArchiveNeeds;
use crate::model::scanner::egress::EGRESS;
use crate::model::scanner::needs::Capability;

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

impl<'a> Offered<'a> {
    /// A command that nothing is mounted for.
    fn command(command: &'a [String], env: &'a BTreeMap<String, String>) -> Self {
        Self {
            field: "",
            mount: None,
            archive: None,
            command,
            env,
            capabilities: &[],
            placeholders: &[],
            in_target: None,
        }
    }
}

impl<'a> From<&'a MountApproach> for Offered<'a> {
    fn from(from: &'a MountApproach) -> Self {
        let (mount, archive) = (from.mount.as_deref(), from.archive.as_ref());
        Self { mount, archive, capabilities: &from.capabilities, ..Self::command(&from.command, &from.env) }
    }
}

impl<'a> From<&'a CommandApproach> for Offered<'a> {
    fn from(from: &'a CommandApproach) -> Self {
        Self::command(&from.command, &from.env)
    }
}

impl<'a> From<&'a ExecApproach> for Offered<'a> {
    fn from(from: &'a ExecApproach) -> Self {
        Self { in_target: from.in_target(), ..Self::command(&from.command, &from.env) }
    }
}

impl<'a> From<&'a ClusterApproach> for Offered<'a> {
    fn from(from: &'a ClusterApproach) -> Self {
        Self::command(&from.command, &from.env)
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
pub(super) fn placeholders(text: &str) -> Result<Vec<&str>, ()> {
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
    use super::super::Approaches;
    use super::*;
    use crate::model::access::Way;

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
}
