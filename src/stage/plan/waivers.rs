//! Which waivers count.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::quantity::Span;

/// Which waivers count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct WaiverPolicy {
    /// Documents of the kind Waivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// The public keys (PEM) of those who may approve them, by signatures beside each document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<PathBuf>,
    /// So many of them must have signed a document; two without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<NonZeroUsize>,
    /// A waiver that expires later than so long from now does not count yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Span>,
    /// Where nobody is named who may approve.
    #[serde(skip_serializing_if = "Unsigned::is_default")]
    pub unsigned: Unsigned,
}

/// Whether waivers count that nobody signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unsigned {
    /// They don't.
    #[default]
    Refuse,
    /// They do, and every report says that they are unsigned.
    Accept,
}

impl Unsigned {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl WaiverPolicy {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How many approvals a document needs.
    pub fn threshold(&self) -> usize {
        self.threshold.map_or(2, NonZeroUsize::get)
    }

    /// All that makes no sense in it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (named, needed) = (self.approvers.len(), self.threshold());
        if named > 0 && needed > named {
            problems.push(format!(
                "policy.waivers asks for {needed} approvals and names {named} of those who may approve: name more, or say `threshold: {named}`"
            ));
        }
        if named > 0 && self.unsigned == Unsigned::Accept {
            problems
                .push("policy.waivers names approvers and accepts what is unsigned; only one can be meant".to_owned());
        }
        if named == 0 && self.threshold.is_some() {
            problems.push("policy.waivers has a threshold and names nobody who may approve".to_owned());
        }
        problems
    }

    /// The same with its paths made whole.
    pub(super) fn below(self, folder: &Path) -> Self {
        let whole = |paths: Vec<PathBuf>| paths.into_iter().map(|path| folder.join(path)).collect();
        Self { files: whole(self.files), approvers: whole(self.approvers), ..self }
    }
}
