//! Signatures, SBOMs and attestations of an item: what upstream has about it, found once and pinned.
//!
//! What a registry may try, and where it stops: a list of things that are about something else (each manifest is read and
//! must name its subject), of other bytes than their digests (checked), without end, nested without end, or of any size (the
//! bounds here). What is listed and gone is said, not passed over.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lock::LockedCompanion;
use super::oci::{self, Descriptor, Manifest};
use super::platform::checked;
use super::source::{Referrer, Source, SourceError};
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::quantity::bytes_for_people;

/// Companions of one item. An image for ten platforms with a signature, an SBOM and an attestation for each has some 30.
const MOST: usize = 512;
/// How far companions may have companions: the signature of an SBOM is at 2.
const DEPTH: usize = 3;
/// Bytes of all companions of one item. An SBOM has up to some 50 MB.
const BYTES: u64 = 1 << 30;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Companions {
    /// All of them, by digest.
    pub(super) found: Vec<LockedCompanion>,
    /// What a person should hear.
    pub(super) notes: Vec<String>,
}

/// Everything that upstream has about an item, about the manifests that it reaches, and about those companions.
///
/// # Errors
/// When upstream can't be asked, or has more than a bundle carries.
pub(super) async fn find(
    item: &Descriptor,
    source: &Arc<dyn Source>,
    limits: &Limits,
) -> Result<Companions, SourceError> {
    let too_much = |what: String| {
        let error = format!("carry what is about {}: {what}", item.digest);
        SourceError::new(ExitClass::Usage, error).with_remedy("write `referrers: leave` for this item")
    };
    let mut result = Companions::default();
    let mut bytes = 0;
    let mut subjects = reached(item, source, limits, &mut bytes).await?;
    let mut known: BTreeSet<Digest> = subjects.iter().copied().collect();
    bytes = 0;
    for depth in 1.. {
        let mut next = Vec::new();
        for subject in &subjects {
            for Referrer { descriptor, tag } in source.referrers(subject, limits).await? {
                let digest = descriptor.digest;
                if known.contains(&digest) {
                    if let Some(twice) =
                        result.found.iter().find(|c| c.digest == digest && c.tag != tag && tag.is_some())
                    {
                        let one = twice.tag.as_deref().unwrap_or("no tag");
                        return Err(too_much(format!("{digest} is found by several ways, {one} among them")));
                    }
                    continue;
                }
                if oci::manifest_kind(&descriptor.media_type).is_none() {
                    result.notes.push(format!("{digest} about {subject} is left behind: it is no manifest"));
                    continue;
                }
                if depth > DEPTH {
                    return Err(too_much(format!("there is something about it at more than {DEPTH} removes")));
                }
                let reached = match reached(&descriptor, source, limits, &mut bytes).await {
                    Ok(reached) => reached,
                    Err(error) if error.class() == ExitClass::Unreachable && tag.is_none() => {
                        result.notes.push(format!("{digest} about {subject} is listed upstream and not there"));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let about = Manifest::parse(&descriptor.media_type, &read(&descriptor, source, limits).await?)
                    .map_err(|reason| SourceError::new(ExitClass::Refused, format!("use {digest}: {reason}")))?;
                let named = about.about().subject.as_ref().map(|subject| subject.digest);
                if tag.is_none() && named != Some(*subject) {
                    result.notes.push(format!("{digest} is listed upstream as about {subject} and is not"));
                    continue;
                }
                if bytes > BYTES {
                    return Err(too_much(format!("it is more than {}", bytes_for_people(BYTES))));
                }
                known.extend(&reached);
                next.extend(reached);
                result.found.push(LockedCompanion {
                    media_type: descriptor.media_type,
                    digest,
                    size: descriptor.size,
                    tag,
                });
                if result.found.len() > MOST {
                    return Err(too_much(format!("there are more than {MOST}")));
                }
            }
        }
        if next.is_empty() {
            break;
        }
        subjects = next;
    }
    result.found.sort_by_key(|companion| companion.digest);
    Ok(result)
}

async fn read(descriptor: &Descriptor, source: &Arc<dyn Source>, limits: &Limits) -> Result<bytes::Bytes, SourceError> {
    checked(descriptor, source.manifest(&descriptor.digest, limits.manifest_bytes).await?)
}

/// The manifest and all that it reaches; adds the bytes of their blobs.
async fn reached(
    descriptor: &Descriptor,
    source: &Arc<dyn Source>,
    limits: &Limits,
    bytes: &mut u64,
) -> Result<Vec<Digest>, SourceError> {
    let mut all = Vec::new();
    let mut todo = vec![(descriptor.clone(), 0)];
    while let Some((descriptor, depth)) = todo.pop() {
        let digest = descriptor.digest;
        let refuse = |reason: String| SourceError::new(ExitClass::Refused, format!("use {digest}: {reason}"));
        if all.contains(&digest) {
            continue;
        }
        if depth > limits.index_depth || all.len() >= limits.manifests {
            return Err(refuse("its indexes are nested too deep, or name too many manifests".to_owned()));
        }
        all.push(digest);
        match Manifest::parse(&descriptor.media_type, &read(&descriptor, source, limits).await?).map_err(refuse)? {
            Manifest::Index { manifests, .. } => todo.extend(manifests.into_iter().map(|child| (child, depth + 1))),
            Manifest::Image { config, layers, .. } => {
                *bytes = layers.iter().fold(bytes.saturating_add(config.size), |sum, l| sum.saturating_add(l.size));
            }
        }
    }
    Ok(all)
}
