//! Commands in a container: by a scanner in a pod of its own, or by a program of the container's own.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::offered::placeholders;
use super::{DELIVERED, TARGET};
use crate::base::text::brief;

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
    /// The command, as in [`CommandApproach`](super::CommandApproach).
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
    pub(super) fn problems(&self) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::super::Approaches;
    use super::*;

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
