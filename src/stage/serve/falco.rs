//! Falco's alerts, taken by HTTPS while a plan is served, and recorded as results of what they are about.
//!
//! What is guaranteed: an alert that was answered with 200 is on this machine's disk (`journal`), and comes into the ledger once,
//! at the next turn of the schedule's loop (within a minute; after the scan that is going on), also if the process is killed in
//! between. What was not answered with 200 is counted, and an event `falco-refused` says how much it was.
//!
//! | accident or attack | where it ends |
//! |---|---|
//! | anybody sends | no client certificate: no handshake; a wrong token: 401, in constant time |
//! | connections without number, no or half a handshake, a head without end | `crate::base::listener` |
//! | a body without end, or one byte by byte | `receive`: 256 KiB, ten seconds |
//! | a flood | `receive`: a rate; `journal`: 32 MiB that wait |
//! | what is no alert: another's JSON, invalid UTF-8, deep nesting, two at once | `receive`: 400; the parser of results reads it |
//! | names of pods and hosts that are none | `record`: they name nobody |
//! | times to come | `record`: the time of the recording counts |
//! | terminal escapes, HTML, formulas | kept as they are, neutralised by whoever shows them |
//! | killed while one is written, while a batch is recorded | `journal`, `record`: gone on with, nothing twice |
//! | the disk is full | 507, counted; what was kept stays |

mod journal;
mod receive;
mod record;
mod rules;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use self::journal::Journal;
use self::receive::Desk;
use self::record::{Came, Measure};
pub use self::rules::rules;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{FileError, read_capped};
use crate::base::limits::Limits;
use crate::base::listener::{Listener, answer_one, greeted};
use crate::base::progress::Progress;
use crate::ledger::{Ledger, LedgerError};
use crate::model::profile::Profile;
use crate::model::record::{Event, RunId};
use crate::registry::serve::{ServeError as TlsError, ServedCertificate};
use crate::stage::import::ExpectedError;
use crate::stage::plan::FalcoIntake;

/// Connections at a time. Each Falco has one, and there is one Falco on a node.
const CONNECTIONS: usize = 256;
/// For a whole connection: a handshake, one alert and its answer.
const WHOLE: Duration = Duration::from_secs(60);
/// How long an alert waits at most for the loop to record it.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many don't wait.
const MANY: u64 = 1000;
/// Characters of a token.
const TOKEN: usize = 16;

/// Why alerts can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Nobody can listen there.
    #[error("take Falco's alerts at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate, or the CAs of clients, can't be used.
    #[error("take Falco's alerts")]
    Certificate(#[source] TlsError),
    /// A file can't be used.
    #[error("take Falco's alerts")]
    File(#[source] FileError),
    /// The token is none.
    #[error("take Falco's alerts: `{}` has no token of at least {TOKEN} characters in its first line", .0.display())]
    Token(PathBuf),
    /// The profile of rules can't be used.
    #[error("take Falco's alerts")]
    Profile(#[source] ExpectedError),
}

impl Classify for IntakeError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Listen { .. } => ExitClass::Unreachable,
            Self::Certificate(error) => error.class(),
            Self::File(error) => error.class(),
            Self::Token(_) => ExitClass::Usage,
            Self::Profile(error) => error.class(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Listen { .. } | Self::Token(_) => None,
            Self::Certificate(error) => error.remedy(),
            Self::File(error) => error.remedy(),
            Self::Profile(error) => error.remedy(),
        }
    }
}

/// A place where alerts are taken. Dropped, it takes no more; what it took stays on the disk.
pub struct Intake {
    listener: Listener,
    journal: Arc<Journal>,
    measure: Measure,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Intake {
    /// Takes alerts where the plan says, into files beside this ledger, which this process writes to, and measures them against
    /// this profile of [`rules`].
    ///
    /// # Errors
    /// When nobody can listen there, or a file that the plan names can't be used.
    pub async fn open(plan: &FalcoIntake, profile: Option<Profile>, ledger: &Ledger) -> Result<Self, IntakeError> {
        let limits = Limits::default();
        let token = plan.token_file.as_deref().map(token).transpose()?;
        let (chain, key) = (plan.certificate_file.clone(), plan.key_file.clone());
        let certificate =
            ServedCertificate::from_files(chain, key, Timestamp::now()).map_err(IntakeError::Certificate)?;
        let config = match &plan.client_ca_file {
            Some(cas) => certificate.config_for_clients(cas),
            None => certificate.config(),
        };
        let acceptor = TlsAcceptor::from(config.map_err(IntakeError::Certificate)?);
        let journal = Arc::new(Journal::open(&folder(ledger.reader().path())).map_err(IntakeError::File)?);
        let desk = Arc::new(Desk::new(Arc::clone(&journal), token, plan.rate.get(), limits.clone()));
        let failed = |source| IntakeError::Listen { address: plan.address, source };
        let listener = TcpListener::bind(plan.address).await.map_err(failed)?;
        let each = move |stream| {
            let (acceptor, certificate, desk) = (acceptor.clone(), certificate.clone(), Arc::clone(&desk));
            async move {
                let served = async {
                    if let Err(error) = certificate.renew(Timestamp::now()) {
                        tracing::warn!(%error, "the certificate stays");
                    }
                    let Some(stream) = greeted(stream, &acceptor).await else { return };
                    answer_one(stream, |request: Request<Incoming>| Arc::clone(&desk).answer(request)).await;
                };
                // Whoever takes longer gets no answer.
                let _ = tokio::time::timeout(WHOLE, served).await;
            }
        };
        let listener = Listener::begin(listener, CONNECTIONS, each).map_err(failed)?;
        let keep = SignedDuration::try_from(plan.keep.duration()).unwrap_or(SignedDuration::MAX);
        Ok(Self { listener, journal, measure: Measure { profile, keep, limits } })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Records what waited for long enough, or is a lot; and before all else what a process before this one left.
    pub(super) fn record_due(&self, ledger: &mut Ledger, progress: &Progress) -> Result<(), LedgerError> {
        let (alerts, waited) = self.journal.waiting();
        let due = alerts >= MANY || (alerts > 0 && waited >= PATIENCE);
        self.record(due, ledger, progress)
    }

    /// Records all that waits.
    pub(super) fn record_all(&self, ledger: &mut Ledger, progress: &Progress) -> Result<(), LedgerError> {
        self.record(self.journal.waiting().0 > 0, ledger, progress)
    }

    fn record(&self, due: bool, ledger: &mut Ledger, progress: &Progress) -> Result<(), LedgerError> {
        let now = Timestamp::now();
        let mut work = || -> Result<(), Trouble> {
            if due {
                self.journal.seal(RunId::new())?;
            }
            for mut run in self.journal.batches()? {
                let batch = self.journal.read(run)?;
                if record::record(run, &batch, &self.measure, ledger, now)? == Came::ByHalves {
                    let anew = RunId::new();
                    self.journal.rename(run, anew)?;
                    run = anew;
                    // Nobody else has this ledger.
                    let _ = record::record(run, &batch, &self.measure, ledger, now)?;
                }
                self.journal.remove(run)?;
                let alerts = batch.iter().filter(|byte| **byte == b'\n').count();
                progress.say(format!("recorded {alerts} alerts of Falco as run {run}"));
            }
            let refused = self.journal.refused();
            if refused.sum() > 0 {
                let (what, subject) = ("falco-refused".to_owned(), "falco".to_owned());
                ledger.event(&Event { at: now, what, subject, due: None, detail: refused.words() })?;
                self.journal.forget(refused);
            }
            Ok(())
        };
        match tokio::task::block_in_place(&mut work) {
            Ok(()) => Ok(()),
            Err(Trouble::Ledger(error)) => Err(error),
            // What was taken stays where it is, and is tried again at the next turn.
            Err(Trouble::File(error)) => {
                progress.say(format!("alerts of Falco wait to be recorded: {error}"));
                Ok(())
            }
        }
    }

    /// Takes no more, and records what it took.
    ///
    /// # Errors
    /// When the ledger can't be written; what was taken stays on the disk then.
    pub async fn close(self, ledger: &mut Ledger, progress: &Progress) -> Result<(), LedgerError> {
        self.listener.close().await;
        let recorded = self.record_all(ledger, progress);
        tokio::task::block_in_place(|| self.journal.settle());
        recorded
    }
}

enum Trouble {
    File(FileError),
    Ledger(LedgerError),
}

impl From<FileError> for Trouble {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// The folder beside the ledger.
fn folder(ledger: &Path) -> PathBuf {
    let mut name: OsString = ledger.as_os_str().to_owned();
    name.push(".falco");
    PathBuf::from(name)
}

/// That the files with which this plan takes alerts can be used.
///
/// # Errors
/// When the certificate, its key, the CAs of clients or the token can't.
pub fn check(plan: &FalcoIntake) -> Result<(), IntakeError> {
    plan.token_file.as_deref().map(token).transpose()?;
    let (chain, key) = (plan.certificate_file.clone(), plan.key_file.clone());
    let certificate = ServedCertificate::from_files(chain, key, Timestamp::now()).map_err(IntakeError::Certificate)?;
    if let Some(cas) = &plan.client_ca_file {
        certificate.config_for_clients(cas).map_err(IntakeError::Certificate)?;
    }
    Ok(())
}

/// The first line of this file.
fn token(path: &Path) -> Result<Zeroizing<String>, IntakeError> {
    let bytes = Zeroizing::new(read_capped(path, 64 << 10).map_err(IntakeError::File)?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let token = Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned());
    if token.len() < TOKEN { Err(IntakeError::Token(path.to_owned())) } else { Ok(token) }
}
