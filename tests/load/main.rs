//! `gapscan load` as a process: from parts and pipes, killed, with its receipt, beside a ledger, into registries that ask for
//! a certificate or have no room; and what other programs make of what it loaded.

mod doors;
mod enclave;
mod flow;
mod killed;
mod ledger;
mod mapping;
