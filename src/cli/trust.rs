//! `gapscan trust`: role keys and the root.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;

use super::table::{self, Format};
use crate::base::exit::{ExitClass, Outcome};
use crate::base::quantity::Span;
use crate::trust::passphrase::{PassphraseSource, Purpose};
use crate::trust::root::{self, ROLES, RootPlan, TrustRoot, role_name};

/// Make and show role keys and the root that enclaves pin
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(InitArgs),
    Show(ShowArgs),
}

/// Make role keys and the first root
///
/// Writes DIR/keys/ROLE-N.pem (mode 0600, encrypted), DIR/1.root.json and DIR/root.json (the same bytes). Take root.json
/// into the enclave by a way that you trust and pin it there; keep the root keys offline: builds do not need them.
#[derive(Debug, clap::Args)]
struct InitArgs {
    /// The folder to fill
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// How many signatures a role asks for, as root=2,targets=1 [default: 1]
    #[arg(long, value_name = "ROLE=N", value_delimiter = ',', value_parser = role_number)]
    threshold: Vec<(String, u64)>,
    /// How many keys a role gets, as root=3 [default: as many as its threshold]
    #[arg(long, value_name = "ROLE=N", value_delimiter = ',', value_parser = role_number)]
    keys: Vec<(String, u64)>,
    /// How long metadata of a role stays valid, as root=3650d,targets=90d
    #[arg(long, value_name = "ROLE=SPAN", value_delimiter = ',', value_parser = role_span)]
    expires: Vec<(String, Span)>,
    /// The file whose first line is the passphrase of the keys [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE", conflicts_with = "unencrypted")]
    passphrase_file: Option<PathBuf>,
    /// Write the keys without encryption: whoever reads the files can sign
    #[arg(long)]
    unencrypted: bool,
}

/// Show a root: roles, keys, thresholds, expiry, fingerprint
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// root.json, or the folder with it
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

fn role_of(text: &str) -> Result<(String, &str), String> {
    let (role, value) = text.split_once('=').ok_or("write it as ROLE=VALUE")?;
    if !ROLES.iter().any(|r| role_name(*r) == role) {
        return Err("the roles are root, targets, snapshot and timestamp".to_owned());
    }
    Ok((role.to_owned(), value))
}

fn role_number(text: &str) -> Result<(String, u64), String> {
    let (role, value) = role_of(text)?;
    Ok((role, value.parse().map_err(|_| format!("`{value}` is no number"))?))
}

fn role_span(text: &str) -> Result<(String, Span), String> {
    let (role, value) = role_of(text)?;
    Ok((role, value.parse::<Span>().map_err(|e| e.to_string())?))
}

impl Args {
    pub(super) fn run(self, now: Timestamp) -> Outcome {
        match self.command {
            Command::Init(args) => args.run(now),
            Command::Show(args) => args.run(),
        }
    }
}

impl InitArgs {
    fn run(self, now: Timestamp) -> Outcome {
        let mut plan = RootPlan::default();
        for (role, threshold) in &self.threshold {
            plan.threshold.insert(role.clone(), *threshold);
            plan.keys.insert(role.clone(), *threshold);
        }
        plan.keys.extend(self.keys);
        plan.validity.extend(self.expires);
        let passphrase = if self.unencrypted {
            None
        } else {
            Some(PassphraseSource { file: self.passphrase_file }.get(Purpose::Choose)?)
        };
        let root = root::init(&self.folder, &plan, passphrase.as_ref(), now)?;
        if self.unencrypted {
            eprintln!("the keys are not encrypted: whoever can read the files can sign");
        }
        println!("root {} with the fingerprint {}", self.folder.join("root.json").display(), root.fingerprint());
        println!("keys {}", self.folder.join(root::KEYS_FOLDER).display());
        Ok(ExitClass::Success)
    }
}

impl ShowArgs {
    fn run(self) -> Outcome {
        let path = if self.path.is_dir() { self.path.join("root.json") } else { self.path };
        let root = TrustRoot::read(&path)?;
        let signed = root.root();
        let policy = root.policy()?;
        let keys = |role| {
            signed.roles.get(&role).map_or(Vec::new(), |keys| {
                keys.keyids.iter().map(|id| id.iter().map(|b| format!("{b:02x}")).collect::<String>()).collect()
            })
        };
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
                    "version": root.version(),
                    "expires": signed.expires,
                    "validity": policy.validity,
                    "roles": roles,
                });
                table::emit_json(&value)?;
            }
            Format::Table => {
                println!("fingerprint  {}", root.fingerprint());
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
