//! How the documents of a bundle hang together: which item needs which manifests and blobs.
//!
//! What hostile documents may try, and where it stops: a manifest that is also an index, another media type in the body
//! than in the descriptor ([`oci::Manifest::parse`]); a descriptor that lies about size or media type, names what is not
//! signed, or a signed blob that nothing needs ([`Graph::build`]); a cycle or deep nesting (the walk's depth is bounded; a
//! cycle would need a SHA-256 collision and would end at the depth); a million children (each must be a document of the
//! bundle, whose number is bounded); two items in one repository, a repository that is a path ([`Graph::build`]); a companion
//! that is about nothing in its repository, about itself, or about another companion that is about it, a tag that could move
//! another one (`Walk::companions`: only what hangs on an item is accepted, and only by the tag of what it is about).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::contents::{Contents, INDEX_JSON};
use super::error::BundleError;
use super::name::is_repository;
use super::oci::{self, BundleIndex, COMPANION_OF, COMPANION_TAG, Descriptor, Manifest, REF_NAME};
use crate::base::digest::Digest;
use crate::base::limits::Limits;

/// One image or artifact of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The repository that it is loaded into, below the prefix.
    pub repository: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The media type of its manifest or index.
    pub media_type: String,
    /// The length of its manifest or index in bytes.
    pub size: u64,
}

/// A manifest or index with its exact bytes, to be pushed by digest.
#[derive(Clone, Debug)]
pub struct PushManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// The repositories that need it, sorted.
    pub repositories: Vec<String>,
    /// What it is about, where it names a subject. The subject of a companion is in the bundle; that of an item need not be.
    /// Where the registry has no referrers API, whoever pushes it has to list it under the tag of its subject
    /// (distribution-spec 1.1, "Referrers Tag Schema").
    pub subject: Option<Digest>,
    /// What such a list says of it.
    pub artifact_type: Option<String>,
    /// Its annotations, which such a list repeats.
    pub annotations: BTreeMap<String, String>,
}

/// A signature, SBOM, attestation or the like: it is loaded into the repository of the item that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// The repository, below the prefix.
    pub repository: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The media type of its manifest or index.
    pub media_type: String,
    /// The length of its manifest or index in bytes.
    pub size: u64,
    /// The tag that it is found by, where it is not found by its subject.
    pub tag: Option<String>,
    /// Its kind, as `application/vnd.dev.cosign.simplesigning.v1+json`.
    pub artifact_type: Option<String>,
}

/// The documents of a bundle, checked and connected.
#[derive(Clone, Debug)]
pub struct Graph {
    index: BTreeMap<String, Descriptor>,
    companions: Vec<Companion>,
    manifests: Vec<PushManifest>,
    parsed: BTreeMap<Digest, Manifest>,
    blobs: BTreeMap<Digest, BTreeSet<String>>,
}

impl Graph {
    /// Connects the documents (digest to bytes, their digests already verified).
    ///
    /// # Errors
    /// When something is wrong with a document, or the documents and the signed list do not name each other.
    pub fn build(
        contents: &Contents,
        index: &[u8],
        documents: &BTreeMap<Digest, Bytes>,
        limits: &Limits,
    ) -> Result<Self, BundleError> {
        let refuse = |reason: String| BundleError::Layout { entry: INDEX_JSON, reason };
        let index: BundleIndex = serde_json::from_slice(index).map_err(|e| refuse(e.to_string()))?;
        if index.schema_version != 2 || index.media_type != oci::INDEX {
            return Err(refuse("it is no OCI image index".to_owned()));
        }
        let mut items: BTreeMap<String, Descriptor> = BTreeMap::new();
        let mut loose: Vec<(String, Descriptor)> = Vec::new();
        let mut before: Option<Place> = None;
        for descriptor in index.manifests {
            let place = place(&descriptor).map_err(refuse)?;
            let (repository, companion, _) = place.clone();
            if !companion && items.contains_key(&repository) {
                return Err(refuse(format!("two items are in the repository `{repository}`")));
            }
            if before.replace(place.clone()).is_some_and(|before| before >= place) {
                return Err(refuse(format!("{} of `{repository}` is not where it belongs", descriptor.digest)));
            }
            if companion {
                loose.push((repository, descriptor));
            } else {
                items.insert(repository, descriptor);
            }
        }

        let mut walk = Walk {
            contents,
            documents,
            limits,
            parsed: BTreeMap::new(),
            types: BTreeMap::new(),
            repositories: BTreeMap::new(),
            heights: BTreeMap::new(),
            order: Vec::new(),
            fresh: Vec::new(),
            blobs: BTreeMap::new(),
        };
        for (repository, descriptor) in &items {
            walk.visit(repository, descriptor, 0)?;
        }
        let companions = walk.companions(loose)?;
        walk.check_complete()?;
        let Walk { parsed, types, repositories, order, mut blobs, .. } = walk;
        // The catalog is held with the manifests and is a blob all the same.
        let manifests = order
            .into_iter()
            .map(|digest| {
                let about = parsed[&digest].about();
                PushManifest {
                    digest,
                    media_type: types[&digest].clone(),
                    bytes: documents[&digest].clone(),
                    repositories: repositories[&digest].iter().cloned().collect(),
                    subject: about.subject.as_ref().map(|subject| subject.digest),
                    artifact_type: about.artifact_type.clone(),
                    annotations: about.annotations.clone(),
                }
            })
            .collect();
        let blobs = std::mem::take(&mut blobs).into_iter().map(|(digest, (repositories, _))| (digest, repositories));
        Ok(Self { index: items, companions, manifests, parsed, blobs: blobs.collect() })
    }

    /// The items by repository.
    pub fn index(&self) -> &BTreeMap<String, Descriptor> {
        &self.index
    }

    /// What travels with the items, by repository.
    pub fn companions(&self) -> &[Companion] {
        &self.companions
    }

    /// The bytes that each repository needs: manifests, configurations and layers, those of companions among them.
    pub fn sizes(&self, contents: &Contents) -> BTreeMap<String, u64> {
        let mut sizes = BTreeMap::new();
        let mut add = |repository: &String, size: u64| *sizes.entry(repository.clone()).or_insert(0) += size;
        for manifest in &self.manifests {
            manifest.repositories.iter().for_each(|repository| add(repository, manifest.bytes.len() as u64));
        }
        let entries = contents.documents.iter().chain(&contents.blobs);
        for entry in entries.chain(contents.base_blobs.iter().map(|blob| &blob.entry)) {
            let repositories = self.blobs.get(&entry.digest).into_iter().flatten();
            repositories.for_each(|repository| add(repository, entry.size));
        }
        sizes
    }

    /// All manifests, children before the indexes that name them.
    pub fn manifests(&self) -> &[PushManifest] {
        &self.manifests
    }

    /// The repositories that need this blob, sorted; none for a digest that is no blob.
    pub fn blob_repositories(&self, blob: &Digest) -> Vec<String> {
        self.blobs.get(blob).map(|r| r.iter().cloned().collect()).unwrap_or_default()
    }

    /// A manifest of the bundle, parsed.
    pub fn manifest(&self, digest: &Digest) -> Option<&Manifest> {
        self.parsed.get(digest)
    }
}

/// Where a descriptor stands in `index.json`: repository, whether it is a companion, digest.
type Place = (String, bool, Digest);

fn place(descriptor: &Descriptor) -> Result<Place, String> {
    let annotations = &descriptor.annotations;
    let (repository, companion) = match (annotations.get(REF_NAME), annotations.get(COMPANION_OF)) {
        (Some(repository), None) if !annotations.contains_key(COMPANION_TAG) => (repository, false),
        (None, Some(repository)) => (repository, true),
        (None, None) => return Err(format!("{} is in no repository", descriptor.digest)),
        (Some(_), _) => return Err(format!("{} is an item and a companion at once", descriptor.digest)),
    };
    if !is_repository(repository) {
        return Err(format!("`{}` can't be a repository", crate::base::text::brief(repository)));
    }
    Ok((repository.clone(), companion, descriptor.digest))
}

/// The manifest that something with this tag is about: `sha256-HEX.sig`, `.att` or `.sbom`, as cosign writes them.
pub fn tag_subject(tag: &str) -> Option<Digest> {
    let (hex, kind) = tag.strip_prefix("sha256-")?.split_once('.')?;
    let known = matches!(kind, "sig" | "att" | "sbom");
    // The digest's own spelling is compared, so that only lower-case digits pass.
    let digest: Digest = format!("sha256:{hex}").parse().ok()?;
    (known && digest.hex() == hex).then_some(digest)
}

fn not_about(repository: &str, digest: Digest) -> BundleError {
    BundleError::Manifest {
        digest,
        reason: format!("it is said to be a companion and is about nothing in `{repository}`"),
    }
}

struct Walk<'a> {
    contents: &'a Contents,
    documents: &'a BTreeMap<Digest, Bytes>,
    limits: &'a Limits,
    parsed: BTreeMap<Digest, Manifest>,
    types: BTreeMap<Digest, String>,
    repositories: BTreeMap<Digest, BTreeSet<String>>,
    /// Steps from an index down to the last manifest below it.
    heights: BTreeMap<Digest, usize>,
    order: Vec<Digest>,
    /// Manifests that were found and whose companions were not looked for yet, with their repositories.
    fresh: Vec<(String, Digest)>,
    /// Which repositories need a blob, and the smallest of the media types that it is called.
    blobs: BTreeMap<Digest, (BTreeSet<String>, String)>,
}

impl Walk<'_> {
    fn visit(&mut self, repository: &str, descriptor: &Descriptor, depth: usize) -> Result<(), BundleError> {
        let digest = descriptor.digest;
        let refuse = |reason: String| BundleError::Manifest { digest, reason };
        // What was visited on a shorter way counts with all that is below it.
        if depth + self.heights.get(&digest).unwrap_or(&0) > self.limits.index_depth {
            return Err(refuse(format!("indexes are nested deeper than {}", self.limits.index_depth)));
        }
        if self.repositories.get(&digest).is_some_and(|r| r.contains(repository)) {
            return self.same_type(digest, &descriptor.media_type);
        }
        let bytes = self.documents.get(&digest).ok_or_else(|| refuse("it is not in the bundle".to_owned()))?;
        if bytes.len() as u64 != descriptor.size {
            return Err(refuse(format!("it has {} bytes and is said to have {}", bytes.len(), descriptor.size)));
        }
        let first = !self.parsed.contains_key(&digest);
        if first {
            let manifest = Manifest::parse(&descriptor.media_type, bytes).map_err(refuse)?;
            self.parsed.insert(digest, manifest);
            self.types.insert(digest, descriptor.media_type.clone());
        }
        self.same_type(digest, &descriptor.media_type)?;
        self.repositories.entry(digest).or_default().insert(repository.to_owned());
        self.fresh.push((repository.to_owned(), digest));
        match self.parsed[&digest].clone() {
            Manifest::Index { manifests, .. } => {
                let mut height = 0;
                for child in &manifests {
                    self.visit(repository, child, depth + 1)?;
                    height = height.max(1 + self.heights.get(&child.digest).unwrap_or(&0));
                }
                self.heights.insert(digest, height);
            }
            Manifest::Image { config, layers, .. } => {
                for blob in std::iter::once(&config).chain(&layers) {
                    self.blob(digest, repository, blob)?;
                }
            }
        }
        if first {
            self.order.push(digest);
        }
        Ok(())
    }

    /// Takes in the companions of what is there, and those of companions. What is left over is about nothing.
    fn companions(&mut self, loose: Vec<(String, Descriptor)>) -> Result<Vec<Companion>, BundleError> {
        let mut waiting: BTreeMap<(String, Digest), Vec<Descriptor>> = BTreeMap::new();
        for (repository, descriptor) in loose {
            let subject = self.subject(&repository, &descriptor)?;
            waiting.entry((repository, subject)).or_default().push(descriptor);
        }
        let mut accepted = Vec::new();
        while let Some((repository, subject)) = self.fresh.pop() {
            let Some(((repository, _), about_it)) = waiting.remove_entry(&(repository, subject)) else { continue };
            for descriptor in about_it {
                self.visit(&repository, &descriptor, 0)?;
                accepted.push(Companion {
                    repository: repository.clone(),
                    digest: descriptor.digest,
                    tag: descriptor.annotations.get(COMPANION_TAG).cloned(),
                    artifact_type: self.parsed[&descriptor.digest].about().artifact_type.clone(),
                    media_type: descriptor.media_type,
                    size: descriptor.size,
                });
            }
        }
        if let Some(((repository, _), left)) = waiting.first_key_value() {
            return Err(not_about(repository, left[0].digest));
        }
        accepted.sort_by(|a, b| (&a.repository, a.digest).cmp(&(&b.repository, b.digest)));
        Ok(accepted)
    }

    /// What a companion says that it is about: by its tag where it has one.
    fn subject(&self, repository: &str, descriptor: &Descriptor) -> Result<Digest, BundleError> {
        let digest = descriptor.digest;
        let refuse = |reason: String| BundleError::Manifest { digest, reason };
        if let Some(tag) = descriptor.annotations.get(COMPANION_TAG) {
            let tag_problem = || refuse(format!("`{}` is no tag of a companion", crate::base::text::brief(tag)));
            return tag_subject(tag).ok_or_else(tag_problem);
        }
        let bytes = self.documents.get(&digest).ok_or_else(|| refuse("it is not in the bundle".to_owned()))?;
        let manifest = Manifest::parse(&descriptor.media_type, bytes).map_err(refuse)?;
        let subject = manifest.about().subject.as_ref().map(|subject| subject.digest);
        subject.ok_or_else(|| not_about(repository, digest))
    }

    fn same_type(&self, digest: Digest, media_type: &str) -> Result<(), BundleError> {
        let known = &self.types[&digest];
        if known == media_type {
            return Ok(());
        }
        let reason = format!("it is called `{known}` and `{}`", crate::base::text::brief(media_type));
        Err(BundleError::Manifest { digest, reason })
    }

    fn blob(&mut self, manifest: Digest, repository: &str, blob: &Descriptor) -> Result<(), BundleError> {
        let refuse = |reason: String| BundleError::Manifest { digest: manifest, reason };
        if oci::manifest_kind(&blob.media_type).is_some() {
            return Err(refuse(format!("it uses the manifest {} as a layer", blob.digest)));
        }
        let entries = |list: &[super::contents::Entry]| {
            list.binary_search_by_key(&blob.digest, |entry| entry.digest).ok().map(|at| list[at].size)
        };
        let in_base = || {
            let list = &self.contents.base_blobs;
            list.binary_search_by_key(&blob.digest, |blob| blob.entry.digest).ok().map(|at| list[at].entry.size)
        };
        match entries(&self.contents.blobs).or_else(|| entries(&self.contents.documents)).or_else(in_base) {
            None => return Err(refuse(format!("it names {}, which is not in the bundle", blob.digest))),
            Some(size) if size != blob.size => {
                return Err(refuse(format!("it says that {} has {} bytes and it has {size}", blob.digest, blob.size)));
            }
            Some(_) => {}
        }
        let (repositories, media_type) =
            self.blobs.entry(blob.digest).or_insert_with(|| (BTreeSet::new(), blob.media_type.clone()));
        repositories.insert(repository.to_owned());
        if blob.media_type < *media_type {
            media_type.clone_from(&blob.media_type);
        }
        Ok(())
    }

    /// Everything that is signed is needed by some item, and is what the items call it.
    fn check_complete(&self) -> Result<(), BundleError> {
        let in_base = self.contents.base_blobs.iter().map(|blob| &blob.entry);
        for entry in self.contents.documents.iter().chain(&self.contents.blobs).chain(in_base) {
            let as_manifest = self.types.get(&entry.digest);
            let as_blob = self.blobs.get(&entry.digest).map(|(_, media_type)| media_type);
            let called = match (as_manifest, as_blob) {
                (Some(one), None) | (None, Some(one)) => one,
                (Some(_), Some(_)) => {
                    return Err(BundleError::Manifest {
                        digest: entry.digest,
                        reason: "it is used as a manifest and as a blob".to_owned(),
                    });
                }
                (None, None) => {
                    return Err(BundleError::Contents(format!("`{}` is signed and no item needs it", entry.name)));
                }
            };
            if *called != entry.media_type {
                return Err(BundleError::Contents(format!(
                    "`{}` is signed as `{}` and the items call it `{}`",
                    entry.name,
                    crate::base::text::brief(&entry.media_type),
                    crate::base::text::brief(called)
                )));
            }
        }
        Ok(())
    }
}
