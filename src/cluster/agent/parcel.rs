//! Bytes on standard output, with their length and digest before them: what is cut, doubled or mixed with something else on
//! its way is noticed.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::cluster::error::ClusterError;

/// Bytes of the line before the content.
const LINE_BYTES: usize = 1024;

/// The line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Label {
    length: u64,
    digest: Digest,
}

/// Writes the content after its label.
///
/// # Errors
/// When nobody takes the bytes.
pub fn send(content: &[u8], out: &mut impl Write) -> io::Result<()> {
    let label = Label { length: content.len() as u64, digest: Digest::of(content) };
    let mut line = serde_json::to_vec(&label)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.write_all(content)?;
    out.flush()
}

/// The content, if it is exactly what its label says.
///
/// # Errors
/// [`ClusterError::OutputTruncated`] when it is not, or when there is no label.
pub fn open(received: &[u8]) -> Result<&[u8], ClusterError> {
    let refuse = |detail: String| Err(ClusterError::OutputTruncated { detail });
    let Some(end) = received.iter().take(LINE_BYTES).position(|b| *b == b'\n') else {
        return refuse(format!("it has {} bytes and no line that says what follows", received.len()));
    };
    let (line, content) = (&received[..end], &received[end + 1..]);
    let label: Label = match serde_json::from_slice(line) {
        Ok(label) => label,
        Err(error) => return refuse(format!("its first line is not gapscan's: {error}")),
    };
    if content.len() as u64 != label.length {
        return refuse(format!("{} bytes arrived of {}", content.len(), label.length));
    }
    if Digest::of(content) != label.digest {
        return refuse("it arrived with another digest than it was sent with".to_owned());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_what_was_sent_or_nothing() {
        for content in [&b""[..], b"facts", b"two\nlines\n"] {
            let mut sent = Vec::new();
            send(content, &mut sent).expect("it is written");
            assert_eq!(open(&sent).expect("it is whole"), content);
            for cut in 0..sent.len() {
                assert!(open(&sent[..cut]).is_err(), "cut at {cut}");
            }
            let doubled = [&sent[..], &sent].concat();
            assert!(open(&doubled).is_err());
            let noise = [b"warning: x\n", &sent[..]].concat();
            assert!(open(&noise).is_err());
            let mut other = sent.clone();
            if let Some(last) = other.last_mut().filter(|_| !content.is_empty()) {
                *last ^= 1;
                assert!(open(&other).is_err());
            }
        }
    }
}
