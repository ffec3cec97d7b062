//! Bytes that come in pieces and have to be UTF-8.

/// Checks bytes that come in pieces for UTF-8.
#[derive(Default)]
pub(super) struct Utf8 {
    /// The begin of a character whose rest did not come yet.
    begun: Vec<u8>,
}

impl Utf8 {
    pub(super) fn is_whole(&self) -> bool {
        self.begun.is_empty()
    }

    /// Whether all so far may be UTF-8.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !self.begun.is_empty() {
            let Some((first, rest)) = bytes.split_first() else { return true };
            self.begun.push(*first);
            bytes = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.begun.extend_from_slice(&bytes[error.valid_up_to()..]);
                true
            }
        }
    }
}
