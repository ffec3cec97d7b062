//! Collecting profiles: a folder's rules, or those of a benchmark in an image, resolved to their controls.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Work, locked_made};
use crate::base::exit::ExitClass;
use crate::base::text::{brief, printable};
use crate::bundle::definition::{From, ProfileEntry, RemoteContent};
use crate::bundle::image_file;
use crate::bundle::lock::LockedItem;
use crate::bundle::made::{self, Run};
use crate::bundle::profile::{Elsewhere, ProfileFolder};
use crate::bundle::source::SourceError;
use crate::bundle::writer::BuildError;
use crate::model::catalog::CatalogProfile;
use crate::model::scanner::ScannerDocument;

/// Bytes of an XCCDF data stream; the largest of the SCAP Security Guide have some 50 MB.
const BENCHMARK_BYTES: u64 = 512 << 20;

impl Work<'_> {
    pub(in super::super) async fn profile(
        &mut self,
        entry: &ProfileEntry,
        scanners: &[ScannerDocument],
    ) -> Result<CatalogProfile, BuildError> {
        let places = entry.content.iter().map(|content| match &content.from {
            From::File(path) | From::Folder(path) | From::Layout(path, _) => self.definition.path(path),
            From::Registry(name) => name.into(),
        });
        let places: Vec<PathBuf> = places.collect();
        let elsewhere: Vec<Elsewhere<'_>> = (entry.content.iter().zip(&places))
            .map(|(content, path)| Elsewhere { from: &content.from, path, at: &content.at })
            .collect();
        let folder = ProfileFolder::read_with(&self.definition.path(&entry.path), &elsewhere, self.helpers.limits)?;
        folder.fits(scanners)?;
        let name = folder.document.name.clone();
        let benchmark = match &folder.document.xccdf {
            Some(xccdf) => {
                let repository = format!("images/{}", xccdf.image);
                let at = self.items.iter().position(|item| item.repository == repository).ok_or_else(|| {
                    BuildError::Definition(format!(
                        "use profile `{name}`: its benchmark is in the image `{}`, which is not in the bundle",
                        brief(&xccdf.image)
                    ))
                })?;
                let (descriptor, source) = &self.sources[at];
                Some(image_file::read(descriptor, source, &xccdf.path, BENCHMARK_BYTES, self.helpers.limits).await?)
            }
            None => None,
        };
        let profile = folder.resolve(benchmark.as_deref(), self.helpers.profiles)?;
        if let Some(benchmark) = &benchmark {
            let remote = self.helpers.profiles.remote(&profile, benchmark)?;
            if !remote.is_empty() {
                self.judge_remote(&name, &remote, entry.remote_content)?;
            }
        }
        let repository = format!("profiles/{name}");
        let layer = folder.layer(&profile);
        let made = made::image(layer, None, &self.platforms().to_make(), &Run::default()).await?;
        let source = format!("profile {} {}", profile.name, profile.version);
        let item = LockedItem {
            controls: Some(profile.digest()),
            licences: entry.licences.clone(),
            ..locked_made(&repository, source, &made)
        };
        let item = self.note(item, made.descriptor, made.source);
        let targets: BTreeSet<_> = folder.document.targets.iter().copied().collect();
        Ok(CatalogProfile {
            item,
            version: profile.version.clone(),
            engine: folder.document.engine.clone(),
            targets: targets.into_iter().collect(),
            controls: profile.controls.len() as u64,
            profile: profile.digest(),
        })
    }

    fn judge_remote(&self, name: &str, remote: &[String], choice: RemoteContent) -> Result<(), SourceError> {
        let shown = remote.iter().take(10).map(|line| printable(line)).collect::<Vec<_>>().join("; ");
        match choice {
            RemoteContent::NotEvaluated => {
                self.say(format!("profile `{name}`: not evaluated will be {shown}"));
                Ok(())
            }
            RemoteContent::Refuse => Err(SourceError::new(
                ExitClass::Usage,
                format!("use profile `{name}`: it needs content that only the internet has: {shown}"),
            )
            .with_remedy(
                "take a data stream that has this content in it, or write `remoteContent: not-evaluated` for the profile: \
                 these rules are reported as not evaluated then",
            )),
        }
    }
}
