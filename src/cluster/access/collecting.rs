//! One look of gapscan's agent at a container, from beside it or beside its copy.

use std::time::Duration;

use super::exec::Caps;
use crate::model::record::RunId;
use crate::model::target::Target;

/// One look at a container.
#[derive(Clone, Debug)]
pub struct Collecting<'a> {
    /// The container.
    pub target: &'a Target,
    /// The run.
    pub run: RunId,
    /// The scan's number in it: it names what is made.
    pub scan: u32,
    /// gapscan's own image, as `HOST/REPOSITORY@sha256:…`.
    pub image: &'a str,
    /// How much is kept of what the agent sends.
    pub caps: Caps,
    /// How long the agent may take.
    pub deadline: Duration,
}

impl Collecting<'_> {
    /// Names the scan among those of all runs.
    pub(super) fn word(&self) -> String {
        format!("{}-{}", self.run, self.scan)
    }
}
