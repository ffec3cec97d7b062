//! A blob in one request, which also completes it.

use super::UnderWay;
use super::feed::Feed;
use super::session::Acknowledged;
use crate::registry::error::RegistryError;

impl<F: Feed> UnderWay<'_, F> {
    /// Sends all of it and completes it.
    pub(super) async fn send_whole(&mut self) -> Result<Acknowledged, RegistryError> {
        let Self { target, cursor, session, .. } = self;
        if target.blob.size == 0 {
            // No piece waits for the verdict, so that it has to be heard before.
            cursor.verdict().await.map_err(|source| target.unreadable(source))?;
            return target.complete(session).await;
        }
        let request = target.client.inner.http.put(target.completion(&session.address));
        let response = target.send_body(request, cursor, target.blob.size).await?;
        let acknowledged = target.completed(response).await?;
        // A registry that has the blob may say so before it took all of it. What the content says at its end still counts.
        cursor.verdict().await.map_err(|source| target.unreadable(source))?;
        Ok(acknowledged)
    }
}
