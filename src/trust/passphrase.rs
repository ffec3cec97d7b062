//! Where the passphrase of the role keys comes from.

use std::env::VarError;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::error::TrustError;
use crate::base::file;

/// The environment variable that may hold the passphrase.
pub const PASSPHRASE_VARIABLE: &str = "GAPSCAN_PASSPHRASE";

/// A passphrase, wiped from memory when it is dropped, and shown by nothing.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// This text as a passphrase.
    ///
    /// # Errors
    /// When it is empty.
    pub fn new(text: String) -> Result<Self, TrustError> {
        let text = Zeroizing::new(text);
        if text.is_empty() { Err(TrustError::PassphraseUnfit("it is empty")) } else { Ok(Self(text)) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Where to look for the passphrase, in this order: the file, the environment, the terminal.
#[derive(Clone, Debug, Default)]
pub struct PassphraseSource {
    /// A file whose first line is the passphrase.
    pub file: Option<PathBuf>,
}

/// Whether a passphrase is chosen or only repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For a new key: typed twice.
    Choose,
    /// For an existing key.
    Open,
}

impl PassphraseSource {
    /// The passphrase.
    ///
    /// # Errors
    /// When the file can't be read, there is no terminal to ask on, the two that were typed differ, or it is empty.
    pub fn get(&self, purpose: Purpose) -> Result<Passphrase, TrustError> {
        if let Some(path) = &self.file {
            let text = String::from_utf8(file::read_capped(path, 4096)?).map_err(|_| TrustError::Passphrase {
                place: format!("from `{}`", path.display()),
                source: io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8"),
            })?;
            let text = Zeroizing::new(text);
            return Passphrase::new(text.lines().next().unwrap_or_default().to_owned());
        }
        match std::env::var(PASSPHRASE_VARIABLE) {
            Ok(text) => return Passphrase::new(text),
            Err(VarError::NotPresent) => {}
            Err(VarError::NotUnicode(_)) => {
                return Err(TrustError::Passphrase {
                    place: format!("from the environment ({PASSPHRASE_VARIABLE})"),
                    source: io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8"),
                });
            }
        }
        let failed = |source| TrustError::Passphrase { place: "from the terminal".to_owned(), source };
        if !io::stdin().is_terminal() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "there is no terminal to ask on")));
        }
        let first = Passphrase::new(rpassword::prompt_password("Passphrase of the keys: ").map_err(failed)?)?;
        if purpose == Purpose::Choose {
            let again = Passphrase::new(rpassword::prompt_password("The same again: ").map_err(failed)?)?;
            if again.0 != first.0 {
                return Err(TrustError::PassphraseUnfit("the two that were typed differ"));
            }
        }
        Ok(first)
    }
}
