//! A blob in several requests, each from where the one before it ended, and one that completes it.

use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;

use super::UnderWay;
use super::feed::Feed;
use super::session::Acknowledged;
use crate::registry::error::RegistryError;

impl<F: Feed> UnderWay<'_, F> {
    /// Sends what is left in requests of at most so many bytes, and completes it with another: a request that would both go on
    /// and complete could complete what is not what it seems to be.
    pub(super) async fn send_chunks(&mut self, most: u64) -> Result<Acknowledged, RegistryError> {
        let size = self.target.blob.size;
        while self.cursor.at() < size {
            let (from, left) = (self.cursor.at(), size - self.cursor.at());
            let length = left.min(most);
            let request = self.target.client.inner.http.patch(self.session.address.clone());
            // A registry that is elsewhere than here refuses it for its range.
            let request = request.header(CONTENT_RANGE, format!("{from}-{}", from + length - 1));
            let response = self.target.send_body(request, &mut self.cursor, length).await?;
            if response.status() != StatusCode::ACCEPTED {
                return Err(self.target.client.refusal(response, &self.target.action).await);
            }
            if self.cursor.at() != from + length {
                return Err(self.target.protocol("the registry acknowledged a part of it before that was sent"));
            }
            self.session.address = self.target.location(&response)?;
            self.remember();
        }
        // Nothing is left to send, and still nothing is completed that did not verify here.
        self.cursor.verdict().await.map_err(|source| self.target.unreadable(source))?;
        self.target.complete(&self.session).await
    }
}
