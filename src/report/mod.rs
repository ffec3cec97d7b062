//! Renderings of what the ledger says; one file a format.
