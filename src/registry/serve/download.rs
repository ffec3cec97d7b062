//! Blobs on their way out: whole, or one range of bytes.

use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures::TryStreamExt;
use http::StatusCode;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::content::ContentDigest;
use super::error::Refusal;
use super::metrics::Metrics;
use super::store::Store;
use crate::registry::reference::Repository;

/// Bytes read from the file at a time.
const PIECE: usize = 256 << 10;

/// The first and the last byte that a `Range` header asks for (RFC 9110, 14.2); `None` for the whole. Several ranges, and
/// other units, may be ignored, and are.
fn range(header: Option<&str>, length: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let Some((first, last)) = header.and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return Ok(None);
    };
    let outside = || Refusal::outside(length);
    let (first, last) = (first.trim(), last.trim());
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.min(length.saturating_sub(1))),
        (Some(_), Some(_)) => return Err(outside()),
        (Some(first), None) if last.is_empty() => (first, length.saturating_sub(1)),
        (None, Some(suffix)) if first.is_empty() && suffix > 0 => {
            (length.saturating_sub(suffix), length.saturating_sub(1))
        }
        _ => return Ok(None),
    };
    if range.0 >= length { Err(outside()) } else { Ok(Some(range)) }
}

/// A number as ranges have it: digits and no sign.
pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The repository's blob, as an answer to GET; hyper leaves the body out for HEAD.
pub(super) fn get(
    store: &Store,
    metrics: Arc<Metrics>,
    repository: &Repository,
    digest: &ContentDigest,
    wanted: Option<&str>,
) -> Result<Response, Refusal> {
    let (mut file, length) = store.blob(repository, digest)?.ok_or_else(Refusal::blob_unknown)?;
    let mut response = Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(ACCEPT_RANGES, "bytes")
        .header("docker-content-digest", digest.to_string());
    let (first, count) = match range(wanted, length)? {
        None => (0, length),
        Some((first, last)) => {
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, format!("bytes {first}-{last}/{length}"));
            (first, last - first + 1)
        }
    };
    file.seek(SeekFrom::Start(first))?;
    let content = tokio::fs::File::from_std(file).take(count);
    Ok(response
        .header(CONTENT_LENGTH, count)
        .body(Body::from_stream(ReaderStream::with_capacity(content, PIECE).inspect_ok(move |piece| {
            metrics.sent(piece.len() as u64);
        })))
        .expect("digests and numbers are header values"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_rfc() {
        for (header, expected) in [
            ("bytes=0-", Some((0, 9))),
            ("bytes=3-5", Some((3, 5))),
            ("bytes=3-99", Some((3, 9))),
            ("bytes=-4", Some((6, 9))),
            ("bytes=-99", Some((0, 9))),
            ("bytes=-", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=+3-5", None),
            ("bytes=0-99999999999999999999", None),
        ] {
            assert_eq!(range(Some(header), 10).expect(header), expected, "{header}");
        }
        assert!(range(Some("bytes=10-"), 10).is_err());
        assert!(range(Some("bytes=5-3"), 10).is_err());
        assert!(range(Some("bytes=0-"), 0).is_err());
    }
}
