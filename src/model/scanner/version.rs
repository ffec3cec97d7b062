//! How a scanner is asked for its version.

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a scanner is asked for its version: by a command of its own in the scan's pod, before the scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VersionQuestion {
    /// The command with its arguments; no shell and no placeholders. It has half a minute.
    pub command: Vec<String>,
    /// A regular expression for the first place in what it prints, standard output before standard error, where the version is:
    /// its first group, or all of it where it has none. Without one, the first number with a point in it, as `4.1.2-rc1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// What is looked for where no pattern is given.
const NUMBERS: &str = r"[0-9]+(?:\.[0-9A-Za-z]+)+(?:[-+~][0-9A-Za-z.]+)?";

/// Bytes of a compiled pattern, and of a version.
const PATTERN_BYTES: usize = 64 << 10;
const VERSION_BYTES: usize = 128;

impl VersionQuestion {
    /// The version in what the command printed, where it is there: printable, and at most 128 bytes of it.
    pub fn find(&self, printed: &str) -> Option<String> {
        let found = self.compiled().ok()?.captures(printed)?;
        let version = found.get(1).or_else(|| found.get(0))?.as_str().trim();
        let fits = !version.is_empty() && version.len() <= VERSION_BYTES && !version.contains(char::is_control);
        fits.then(|| version.to_owned())
    }

    /// What is wrong with it, each with its field.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.command.is_empty() {
            problems.push("version.command: it is empty".to_owned());
        }
        for (at, word) in self.command.iter().enumerate() {
            if word.contains("${") {
                problems.push(format!("version.command[{at}]: it knows no placeholders"));
            }
        }
        match self.compiled() {
            Ok(pattern) if pattern.captures_len() > 2 => {
                problems.push(
                    "version.pattern: it has more than one group, so that it is not clear which is meant".to_owned(),
                );
            }
            Ok(_) => {}
            // The library draws the pattern over several lines; its last line says what is wrong.
            Err(error) => {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                problems.push(format!("version.pattern: it is no regular expression: {why}"));
            }
        }
        problems
    }

    fn compiled(&self) -> Result<Regex, regex::Error> {
        RegexBuilder::new(self.pattern.as_deref().unwrap_or(NUMBERS)).size_limit(PATTERN_BYTES).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(pattern: Option<&str>) -> VersionQuestion {
        VersionQuestion { command: vec!["x".to_owned()], pattern: pattern.map(str::to_owned) }
    }

    #[test]
    fn the_version_is_where_the_pattern_says_or_else_the_first_that_looks_like_one() {
        for (pattern, printed, version) in [
            (None, "OpenSCAP command line tool (oscap) 1.3.7\nCopyright 2009", Some("1.3.7")),
            (None, "v0.9.4", Some("0.9.4")),
            (None, "5.24.7-beta.1 ", Some("5.24.7-beta.1")),
            (None, "version 5", None),
            (Some("(?m)^Version: (.*)$"), "Name: a 2.0\nVersion: 3\n", Some("3")),
            (Some("v[0-9]"), "a v7", Some("v7")),
            (Some("(x)?y"), "y", Some("y")),
            (Some("(?s).*"), "1\u{1b}[31m", None),
        ] {
            assert_eq!(question(pattern).find(printed).as_deref(), version, "{pattern:?} {printed:?}");
        }
        assert_eq!(question(Some(".*")).find(&"9".repeat(200)), None);
    }

    #[test]
    fn what_could_not_be_asked_or_found_is_a_problem() {
        let none = VersionQuestion { command: Vec::new(), pattern: Some("(a)(b)".to_owned()) };
        assert_eq!(none.problems().len(), 2, "{:?}", none.problems());
        let found = VersionQuestion { command: vec!["${x}".to_owned()], pattern: Some("(".to_owned()) }.problems();
        assert!(found[0].starts_with("version.command[0]: ") && found[1].contains("unclosed group"), "{found:?}");
        assert!(question(Some("a{9999}{9999}")).problems()[0].starts_with("version.pattern: "), "it has a bound");
        assert_eq!(question(None).problems(), [""; 0]);
    }
}
