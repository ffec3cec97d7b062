//! `gapscan trust init`

use std::path::PathBuf;

use jiff::Timestamp;
use tough::schema::RoleType;

use super::{print_fingerprint, role_number, role_span};
use crate::base::exit::{ExitClass, Outcome};
use crate::base::quantity::Span;
use crate::trust::passphrase::{PassphraseSource, Purpose};
use crate::trust::root::{self, RootPlan, role_name};

/// Make role keys and the first root
///
/// Writes DIR/keys/ROLE-N.pem (mode 0600, encrypted), DIR/1.root.json and DIR/root.json (the same bytes). Take root.json
/// into the enclave by a way that you trust and pin it there; keep the root keys offline: builds do not need them.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The folder to fill
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// How many signatures a role asks for, as root=2,targets=1 [default: 1]
    #[arg(long, value_name = "ROLE=N", value_delimiter = ',', value_parser = role_number)]
    threshold: Vec<(RoleType, u64)>,
    /// How many keys a role gets, as root=3 [default: as many as its threshold]
    #[arg(long, value_name = "ROLE=N", value_delimiter = ',', value_parser = role_number)]
    keys: Vec<(RoleType, u64)>,
    /// How long metadata of a role stays valid, as root=3650d,targets=90d
    #[arg(long, value_name = "ROLE=SPAN", value_delimiter = ',', value_parser = role_span)]
    expires: Vec<(RoleType, Span)>,
    /// The file whose first line is the passphrase of the keys [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE", conflicts_with = "unencrypted")]
    passphrase_file: Option<PathBuf>,
    /// Write the keys without encryption: whoever reads the files can sign
    #[arg(long)]
    unencrypted: bool,
}

impl InitArgs {
    pub(super) fn run(self, now: Timestamp) -> Outcome {
        let mut plan = RootPlan::default();
        let named = |role: RoleType| role_name(role).to_owned();
        for (role, threshold) in &self.threshold {
            plan.threshold.insert(named(*role), *threshold);
            plan.keys.insert(named(*role), *threshold);
        }
        plan.keys.extend(self.keys.into_iter().map(|(role, keys)| (named(role), keys)));
        plan.validity.extend(self.expires.into_iter().map(|(role, span)| (named(role), span)));
        let passphrase = if self.unencrypted {
            None
        } else {
            Some(PassphraseSource { file: self.passphrase_file }.get(Purpose::Choose)?)
        };
        let root = root::init(&self.folder, &plan, passphrase.as_ref(), now)?;
        if self.unencrypted {
            eprintln!("the keys are not encrypted: whoever can read the files can sign");
        }
        println!("root         {}", self.folder.join("root.json").display());
        print_fingerprint(&root);
        println!("keys         {}", self.folder.join(root::KEYS_FOLDER).display());
        Ok(ExitClass::Success)
    }
}
