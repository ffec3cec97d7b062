//! What goes wrong inside a pod. Nobody reads it but in the pod's log: the runner sees the consequences.

use std::io;
use std::path::PathBuf;

use crate::base::exit::{Classify, ExitClass};

/// What went wrong inside a pod.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file can't be read or written.
    #[error("{what} `{}`", .path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was kept can't be read back.
    #[error("read what the scanner left in `{}`", .path.display())]
    Spool {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The result is not what it was when the scanner ended.
    #[error("read `{}`: it was changed after the scanner had ended", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The collected bytes can't be written out.
    #[error("send what was collected")]
    Send(#[source] io::Error),
    /// What was collected can't be sent to the runner.
    #[error("send what was collected to the runner at {address}")]
    Upload {
        /// The runner.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A socket can't be opened.
    #[error("listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The container beside this one is not there.
    #[error("look at container `{id}` from beside it: {why}")]
    Neighbour {
        /// Its id.
        id: String,
        /// Why not.
        why: String,
    },
    /// The word that names a scan is none.
    #[error("name what is kept: the word must be letters, digits and hyphens")]
    Word,
    /// Signals can't be listened for.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
}

impl AgentError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

impl Classify for AgentError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File { .. }
            | Self::Spool { .. }
            | Self::Changed { .. }
            | Self::Send(_)
            | Self::Upload { .. }
            | Self::Listen { .. }
            | Self::Neighbour { .. }
            | Self::Signals(_) => ExitClass::Unreachable,
            Self::Word => ExitClass::Usage,
        }
    }
}
