//! Why a result can't be used.

use crate::base::exit::{Classify, ExitClass};
use crate::model::reason::Reason;
use crate::model::scanner::ResultFormat;

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
    /// Nothing in it shows which format it has.
    #[error("recognise the format of the result: {detail}")]
    Unrecognised {
        /// What it is instead.
        detail: String,
    },
    /// It has more findings than a result may have.
    #[error("read the result: it has more than {limit} findings")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// What it says of controls does not fit into memory.
    #[error("read the result: what it says of controls takes more than {limit} bytes")]
    TooMuch {
        /// The bound in bytes.
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
            Self::TooLarge { .. } | Self::TooMany { .. } | Self::TooMuch { .. } => Reason::OutputTooLarge,
            Self::Truncated { .. } => Reason::OutputTruncated,
            Self::Unrecognised { .. } | Self::Malformed { .. } | Self::Foreign { .. } => Reason::OutputUnparsable,
        }
    }
}

impl Classify for ResultsError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Io(_) => ExitClass::Unreachable,
            Self::Empty
            | Self::TooLarge { .. }
            | Self::Unrecognised { .. }
            | Self::TooMany { .. }
            | Self::TooMuch { .. }
            | Self::Truncated { .. }
            | Self::Malformed { .. }
            | Self::Foreign { .. } => ExitClass::NotEvaluated,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Io(_) => return None,
            Self::Empty => "run the scanner again: it left nothing, which says nothing about its target".to_owned(),
            Self::TooLarge { .. } | Self::TooMany { .. } | Self::TooMuch { .. } => {
                "let the scanner report less at once, as one target or one kind of finding".to_owned()
            }
            Self::Truncated { .. } => {
                "copy it again, or run the scanner again: a part of a result is no result".to_owned()
            }
            Self::Unrecognised { .. } => {
                let names: Vec<&str> = ResultFormat::ALL.iter().map(|format| format.name()).collect();
                format!("the formats that are read are {}; `--format` names one", names.join(", "))
            }
            Self::Malformed { .. } | Self::Foreign { .. } => {
                "see that the file is the scanner's own output, whole and unchanged, in this format".to_owned()
            }
        })
    }
}
