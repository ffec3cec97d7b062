//! What gapscan talks about: targets, controls, outcomes, findings, coverage, provenance. No I/O happens here.

pub mod access;
pub mod agreement;
pub mod catalog;
pub mod control;
pub mod coverage;
pub mod evidence;
pub mod finding;
pub mod notice;
pub mod outcome;
pub mod profile;
pub mod profile_document;
pub mod provenance;
pub mod reason;
pub mod receipt;
pub mod record;
pub mod scanner;
pub mod tally;
pub mod target;
pub mod waiver;
