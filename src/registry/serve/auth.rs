//! Who may ask: nobody is asked, or everybody for the one user's password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap};
use zeroize::Zeroizing;

use crate::base::digest::Digest;
use crate::registry::Credentials;

/// Keeps the digest of user and password, not the password.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gate {
    Open,
    Basic(Digest),
}

impl Gate {
    pub(super) fn new(credentials: Option<&Credentials>) -> Self {
        credentials.map_or(Self::Open, |credentials| Self::Basic(Digest::of(credentials.pair().as_bytes())))
    }

    /// Whether the request may pass. The comparison takes the same time whatever is wrong.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Self::Basic(expected) = self else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| {
            let (scheme, pair) = text.split_once(' ')?;
            let decoded = STANDARD.decode(pair.trim()).ok()?;
            scheme.eq_ignore_ascii_case("Basic").then(|| Zeroizing::new(decoded))
        });
        let given = Digest::of(given.as_ref().map_or(&[][..], |pair| pair.as_slice()));
        aws_lc_rs::constant_time::verify_slices_are_equal(given.bytes(), expected.bytes()).is_ok()
    }
}
