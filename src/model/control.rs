//! Controls: what is expected of a target.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that is expected of a target, as a profile defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// A record of another version may say more; a person who writes one by hand must have meant something.
#[schemars(deny_unknown_fields)]
pub struct Control {
    /// Unique in its profile. Printable ASCII without spaces, at most 256 characters.
    pub id: String,
    /// One line.
    pub title: String,
    /// What is asked for and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How it is checked: a CEL expression, an XCCDF check reference, a scanner's own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub check: String,
    /// How it is fixed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// How bad a failure is.
    pub severity: Severity,
    /// Where else this control is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

/// The name of a control elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    /// `nist` (SP 800-53 control, as `AC-6`), `cci`, `stig` (rule or vulnerability id), `cis`, `pss` (Pod Security
    /// Standard), `cve`, `url`, or what a scanner calls it.
    pub scheme: String,
    /// The identifier in that scheme.
    pub id: String,
}

/// How bad a failure is, in the five steps that InSpec's impact has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Informational; impact 0.0.
    None,
    /// Impact 0.3.
    Low,
    /// Impact 0.5.
    Medium,
    /// Impact 0.7.
    High,
    /// Impact 0.9.
    Critical,
}

impl Severity {
    /// All, the worst first.
    pub const WORST_FIRST: [Self; 5] = [Self::Critical, Self::High, Self::Medium, Self::Low, Self::None];

    /// The severity of an InSpec impact: none below 0.1, low below 0.4, medium below 0.7, high below 0.9, else critical.
    pub fn of_impact(impact: f64) -> Self {
        match impact {
            i if i < 0.1 => Self::None,
            i if i < 0.4 => Self::Low,
            i if i < 0.7 => Self::Medium,
            i if i < 0.9 => Self::High,
            _ => Self::Critical,
        }
    }

    /// The InSpec impact of this severity, in 0.0 to 1.0.
    pub fn impact(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Low => 0.3,
            Self::Medium => 0.5,
            Self::High => 0.7,
            Self::Critical => 0.9,
        }
    }

    /// The lower-case word.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
