//! Whether content could be pushed, found out without pushing any.

use super::Blob;
use super::session::Target;
use crate::base::digest::Digest;
use crate::registry::client::Client;
use crate::registry::error::RegistryError;
use crate::registry::reference::Repository;

impl Client {
    /// Whether this client may push to the repository: an upload is opened and taken back, without a byte of content.
    ///
    /// # Errors
    /// When the registry can't be reached, or refuses.
    pub async fn may_push(&self, repository: &Repository) -> Result<(), RegistryError> {
        let nothing = Digest::of([]);
        let target = Target::new(self, Blob { repository, digest: &nothing, size: 0 });
        let session = target.open().await?;
        target.cancel(&session.address).await;
        Ok(())
    }
}
