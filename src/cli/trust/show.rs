//! `gapscan trust show`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tough::schema::Root;

use super::print_fingerprint;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::file::{self, FileError};
use crate::cli::table::{self, Format};
use crate::trust::public;
use crate::trust::root::{ROLES, TrustRoot, role_name};

/// Show a root: roles, keys, thresholds, expiry, fingerprint
///
/// `spoken` is the fingerprint in forty digits, to compare two roots over a telephone. The digits protect from everybody but
/// the one who reads them out; compare the whole fingerprint where that is not enough.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// root.json, or the folder with it
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// Also write the public keys into this folder, each as KEY.pem by the first eight digits of its id
    #[arg(long, value_name = "DIR")]
    pem: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl ShowArgs {
    pub(super) fn run(self) -> Outcome {
        let path = if self.path.is_dir() { self.path.join("root.json") } else { self.path };
        let root = TrustRoot::read(&path)?;
        let signed = root.root();
        let policy = root.policy()?;
        let keys = |role| {
            signed.roles.get(&role).map_or(Vec::new(), |keys| {
                keys.keyids.iter().map(|id| id.iter().map(|b| format!("{b:02x}")).collect::<String>()).collect()
            })
        };
        if let Some(folder) = &self.pem {
            write_pem(folder, signed)?;
        }
        match self.output {
            Format::Json => {
                let roles: BTreeMap<&str, serde_json::Value> = ROLES
                    .into_iter()
                    .map(|role| {
                        let threshold = signed.roles.get(&role).map_or(0, |k| k.threshold.get());
                        (role_name(role), json!({ "keys": keys(role), "threshold": threshold }))
                    })
                    .collect();
                let value = json!({
                    "fingerprint": root.fingerprint(),
                    "spoken": crate::trust::spoken(&root.fingerprint()),
                    "version": root.version(),
                    "expires": signed.expires,
                    "validity": policy.validity,
                    "roles": roles,
                });
                table::emit_json(&value)?;
            }
            Format::Table => {
                print_fingerprint(&root);
                println!("version      {}", root.version());
                println!("expires      {}", signed.expires);
                for role in ROLES {
                    let keys: Vec<String> = keys(role);
                    let threshold = signed.roles.get(&role).map_or(0, |k| k.threshold.get());
                    let validity = policy.validity.get(role_name(role));
                    let validity = validity.map_or(String::new(), |span| format!(", valid for {span}"));
                    println!("{:<12} {threshold} of {}{validity}", role_name(role), table::count(keys.len(), "key"));
                    for key in keys {
                        println!("             {key}");
                    }
                }
            }
        }
        Ok(ExitClass::Success)
    }
}

/// Writes the public keys as openssl reads them.
fn write_pem(folder: &Path, root: &Root) -> Outcome<()> {
    fs::create_dir_all(folder).map_err(|source| FileError::Write { path: folder.to_owned(), source })?;
    for (id, key) in &root.keys {
        if let Some(pem) = public::to_pem(key) {
            file::write_atomic(&folder.join(format!("{}.pem", public::short_id(id))), pem.as_bytes(), 0o644)?;
        }
    }
    Ok(())
}
