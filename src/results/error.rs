//! Why a result can't be used.

use crate::base::exit::{Classify, ExitClass};
use crate::model::reason::Reason;

/// Why a result file says nothing about its target.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// There is nothing in it.
    #[error("read the result: it is empty")]
    Empty,
    /// It can't be read back from where it is kept.
    #[error("read the result back from this machine's disk")]
    Io(#[source] std::io::Error),
    /// It is larger than a result may be.
    #[error("read the result: it is larger than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// It has more findings than a result may have.
    #[error("read the result: it has more than {limit} findings")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// It ends in the middle.
    #[error("read the result: it ends early, at byte {offset}")]
    Truncated {
        /// Where it ends.
        offset: u64,
    },
    /// It is not in the format.
    #[error("read the result as {format}: {detail} at byte {offset}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// About where.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// It is well-formed, and the result of something else.
    #[error("read the result as {format}: {detail}")]
    Foreign {
        /// The format.
        format: &'static str,
        /// How it shows.
        detail: String,
    },
}

impl ResultsError {
    /// As what all controls count that this result was to be about.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Empty => Reason::NoOutput,
            Self::Io(_) => Reason::InternalError,
            Self::TooLarge { .. } | Self::TooMany { .. } => Reason::OutputTooLarge,
            Self::Truncated { .. } => Reason::OutputTruncated,
            Self::Malformed { .. } | Self::Foreign { .. } => Reason::OutputUnparsable,
        }
    }
}

impl Classify for ResultsError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Io(_) => ExitClass::Unreachable,
            Self::Empty
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::Truncated { .. }
            | Self::Malformed { .. }
            | Self::Foreign { .. } => ExitClass::NotEvaluated,
        }
    }
}
