//! What a hostile bundle, courier, signer or registry may try, one test a case, named after it.
//!
//! Every attack begins with a real signed bundle and repairs all outer checks (checksums, digests, lengths, signatures), so
//! that the inner one is what refuses it. `docs/hostile-cases.md` lists the cases with their tests, and `table` holds that
//! list to be complete; `reader` gives the same attacks to a reader in another language, which must say the same.

mod archive;
mod attack;
mod bundle;
mod file;
mod metadata;
mod property;
mod reader;
mod state;
mod surroundings;
mod table;

use gapscan::{base, model, trust};
