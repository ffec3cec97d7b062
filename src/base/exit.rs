//! Exit codes, and the way from any module's error to one of them.

use std::error::Error;
use std::fmt;

/// What a process of gapscan ends as. The numbers are part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitClass {
    /// Everything expected was evaluated and the threshold is met.
    Success = 0,
    /// Evaluated, and the threshold is not met.
    ThresholdNotMet = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Not everything that was expected was evaluated.
    NotEvaluated = 3,
    /// Refused: signature, digest, rollback, expiry, malformed archive.
    Refused = 4,
    /// A registry, a cluster or a file can't be reached.
    Unreachable = 5,
    /// The ledger can't be written or is not intact.
    Ledger = 6,
    /// A bug in gapscan.
    Bug = 70,
}

impl ExitClass {
    /// The process exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// An error that knows how the process ends because of it. Each module's error enum implements this with one
/// exhaustive match, without `_`.
pub trait Classify: Error {
    /// How the process ends because of this.
    fn class(&self) -> ExitClass;

    /// What the reader can do about it, as a sentence without a period; `None` where the message says it all.
    fn remedy(&self) -> Option<String> {
        None
    }
}

/// Any classified error on its way to the edge, where its chain is printed once.
#[derive(Debug)]
pub struct Failure {
    class: ExitClass,
    remedy: Option<String>,
    during: Option<String>,
    error: Box<dyn Error + Send + Sync>,
}

/// The result of a command.
pub type Outcome<T = ExitClass> = Result<T, Failure>;

impl Failure {
    /// A failure of wrong usage or configuration, from a message that fits after "failed to".
    pub fn usage(message: impl Into<String>) -> Self {
        Self { class: ExitClass::Usage, remedy: None, during: None, error: message.into().into() }
    }

    /// A failure of this class, from a message that fits after "failed to".
    pub fn new(class: ExitClass, message: impl Into<String>) -> Self {
        Self { class, remedy: None, during: None, error: message.into().into() }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same with what was being done in front, as ``verify `x.tar` ``, where the error itself does not know it.
    #[must_use]
    pub fn during(mut self, what: impl Into<String>) -> Self {
        self.during = Some(what.into());
        self
    }

    /// How the process ends.
    pub fn class(&self) -> ExitClass {
        self.class
    }
}

impl<E: Classify + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { class: error.class(), remedy: error.remedy(), during: None, error: Box::new(error) }
    }
}

impl fmt::Display for Failure {
    /// The whole chain: `message: cause: cause`, and the remedy on a line of its own. Control characters, which a
    /// hostile name may carry, are neutralised.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = match &self.during {
            Some(during) => format!("{during}: {}", self.error),
            None => self.error.to_string(),
        };
        let mut source = self.error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some libraries print their source themselves; printing it again would only be noise.
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        f.write_str(&crate::base::text::printable_lines(&text))?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  {}", crate::base::text::printable(remedy)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read `x`")]
    struct Sample(#[source] std::io::Error);
    impl Classify for Sample {
        fn class(&self) -> ExitClass {
            ExitClass::Unreachable
        }
        fn remedy(&self) -> Option<String> {
            Some("look again".to_owned())
        }
    }

    #[test]
    fn the_chain_is_printed_once_and_clean() {
        let failure = Failure::from(Sample(std::io::Error::other("bad \u{1b}[2Jdisk")));
        assert_eq!(failure.to_string(), "read `x`: bad \\u{1b}[2Jdisk\n  look again");
        assert_eq!(failure.class().code(), 5);
        assert!(failure.during("look").to_string().starts_with("look: read `x`: bad"));
    }
}
