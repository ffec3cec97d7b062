//! Collecting dependencies: databases and other content, from upstream or packed here, with their dates.

use std::path::Path;

use super::{Fetched, Wish, Work, locked_made};
use crate::base::exit::ExitClass;
use crate::bundle::definition::{DependencyEntry, From};
use crate::bundle::layer::LayerPlan;
use crate::bundle::made::{self, Run};
use crate::bundle::source::SourceError;
use crate::bundle::writer::BuildError;
use crate::bundle::{database, inspec};
use crate::model::catalog::CatalogDependency;

impl Work<'_> {
    pub(in super::super) async fn dependency(
        &mut self,
        dependency: &DependencyEntry,
    ) -> Result<CatalogDependency, BuildError> {
        let wish = self.wish("dependencies", dependency.upstream());
        let (mut fetched, found) = match &dependency.from {
            From::Registry(_) | From::Layout(..) => {
                let fetched = self.fetch(&wish).await?;
                let found = match fetched.pinned {
                    true => Vec::new(),
                    false => database::of_artifact(&fetched.descriptor, &fetched.source, self.helpers.limits).await?,
                };
                (fetched, found)
            }
            From::File(path) | From::Folder(path) => {
                let path = self.definition.path(path);
                let fetched = self.pack(&wish, &path).await?;
                let found = match fetched.pinned {
                    true => Vec::new(),
                    false => {
                        inspec::check(&path)?;
                        database::on_disk(&path)?
                    }
                };
                (fetched, found)
            }
        };
        let repository = &wish.repository;
        // An age may have been given to it since it was locked.
        let dated = match self.locked(repository).filter(|_| fetched.pinned) {
            Some(pin) => pin.built,
            None => dependency.built,
        };
        fetched.item.built = database::date(&dependency.name, &found, dated, dependency.max_age.is_some())?;
        let Fetched { item, descriptor, source, .. } = fetched;
        let built = item.built;
        let item = self.note(item, descriptor, source);
        Ok(CatalogDependency { item, built, max_age: dependency.max_age, on_old: dependency.on_old })
    }

    /// Packs a file or a folder as an image. By the pins of a lock its files are not read yet: what the lock says of the layer
    /// is verified when it is written, so that large files are read once.
    async fn pack(&self, wish: &Wish<'_>, path: &Path) -> Result<Fetched, BuildError> {
        let mut layer = LayerPlan::default();
        if matches!(wish.from, From::Folder(_)) {
            layer.add_folder(path)?;
        } else {
            let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| {
                SourceError::new(ExitClass::Usage, format!("pack `{}`: it has no proper name", path.display()))
            })?;
            layer.add_file(name, 0o644, path)?;
        }
        let wanted = wish.digest();
        let pin = self.pin(&wish.repository, wanted);
        let known = pin.and_then(|pin| pin.layer.as_ref()).map(|layer| (layer.digest, layer.size));
        let made = made::image(layer, known, &wish.platforms.to_make(), &Run::default()).await?;
        let mut item = locked_made(&wish.repository, wish.from.to_string(), &made);
        item.licences = wish.licences.to_vec();
        item.wanted = pin.map_or(Some(wanted), |pin| pin.wanted);
        Ok(Fetched { item, descriptor: made.descriptor, source: made.source, pinned: pin.is_some() })
    }
}
