//! The tamper-evident record, in SQLite.
