//! The tamper-evident record, in SQLite.
//!
//! A ledger is four files side by side, here for a ledger at `LEDGER`:
//!
//! | file | what |
//! |---|---|
//! | `LEDGER` | the database (with `-wal` and `-shm` while it is open): entries, evidence, and tables made from them for queries |
//! | `LEDGER.head` | number and digest of the last entry, signed; replaced after each commit |
//! | `LEDGER.key` | the runner's private key (ECDSA P-256, PKCS#8 PEM, mode 0600), made with the ledger |
//! | `LEDGER.lock` | held by the one process that may write |
//!
//! # What is noticed
//! * An entry that was edited, removed, inserted or moved: entries are chained by SHA-256 ([`chain`]).
//! * A chain that was computed anew after an edit: the checkpoints in it, and the head file, are signed with the runner's
//!   key, whose public half is in the first entry ([`checkpoint`]).
//! * A tail that was removed, and a database that was replaced by an older copy, by another ledger, or by nothing: the
//!   head file says how far the ledger had come ([`head`]).
//! * Evidence that was edited or removed: it is kept by its digest, which the chained result names.
//! * A table for queries that no longer says what the entries say; a trigger that was dropped: [`LedgerReader::verify`]
//!   makes everything anew from the entries.
//!
//! # What is not noticed by these files alone
//! * Whoever has the private key and may write all four files can write another history. Whoever may write all four files
//!   can put back an older copy of all of them together. Both are noticed by whoever kept a newer [`Head`] elsewhere, as
//!   every evidence pack does.
//! * An entry that is appended by whoever can write the database but not read the key is chained like any other. It is
//!   named when the ledger is next opened, as the event `head-behind`, and by `verify` until then.

mod append;
pub mod chain;
pub mod checkpoint;
mod derive;
mod error;
mod evidence;
pub mod head;
mod lock;
mod probe;
mod query;
mod schema;
mod verify;
mod writer;

pub use error::LedgerError;
pub use head::Head;
pub use probe::{Writer, writer};
pub use query::{Change, LedgerReader, RunRecord, TaskSummary};
pub use verify::{Problem, VerifyReport};
pub use writer::Ledger;

#[cfg(test)]
mod tests;
