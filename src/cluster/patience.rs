//! How long a pod's start is waited for.
//!
//! A pull that fails once is not the end of it. The kubelet asks the API server for a pull secret that is new to it, waits one
//! second for the answer and then pulls without credentials; the registry refuses that, and the next attempt, about ten seconds
//! later, succeeds (Kubernetes 1.36, `pkg/kubelet/util/manager/watch_based_manager.go`). A registry that is being restarted looks
//! alike. So what may pass is given the time of that next attempt; what an attempt more can't change ends the wait at once.

use std::time::{Duration, Instant};

use super::error::ClusterError;

/// How long a pull may go on failing: the kubelet's first back-off of ten seconds, the attempt after it, and room for a slow node.
const PULLS: Duration = Duration::from_secs(25);

/// Whether the pod names a secret with credentials for the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// It does.
    Given,
    /// The node has to have its own, or none are asked for.
    None,
}

/// How long one pod, or a few that are wanted together, are waited for.
#[derive(Debug)]
pub(crate) struct Patience {
    what: &'static str,
    limit: Duration,
    began: Instant,
    failing: Option<Instant>,
}

impl Patience {
    /// Waits for at most so long from now, for what messages call `what`.
    pub(crate) fn new(what: &'static str, limit: Duration) -> Self {
        Self { what, limit, began: Instant::now(), failing: None }
    }

    /// Gives the words for what is waited for, where this may still pass, and else the error.
    pub(crate) fn bear(&mut self, error: ClusterError, credentials: Credentials) -> Result<String, ClusterError> {
        self.bear_at(error, credentials, Instant::now())
    }

    fn bear_at(&mut self, error: ClusterError, credentials: Credentials, now: Instant) -> Result<String, ClusterError> {
        match &error {
            ClusterError::ImagePull { message, .. } if may_pass(message, credentials) => {
                let since = *self.failing.get_or_insert(now);
                if now.saturating_duration_since(since) >= PULLS { Err(error) } else { Ok(error.to_string()) }
            }
            _ => Err(error),
        }
    }

    /// Lets `pause` go by, unless the time is over: then the error says that it was still waiting for `why`.
    pub(crate) async fn wait(&self, why: &str, pause: Duration) -> Result<(), ClusterError> {
        if self.began.elapsed() >= self.limit {
            let message = format!("{} did not start within {} s: {why}", self.what, self.limit.as_secs());
            return Err(ClusterError::NotStarted { message });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether the kubelet's next attempt may succeed, by what it says of the last one.
fn may_pass(message: &str, credentials: Credentials) -> bool {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if !message.starts_with("ImagePullBackOff") || says(&[": not found", "manifest unknown"]) {
        return false;
    }
    let refused = says(&["denied", "unauthorized", "401 Unauthorized", "403 Forbidden"]);
    !refused || credentials == Credentials::Given
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &str = "ImagePullBackOff: Back-off pulling image \"r/a\": ErrImagePull: pull access denied";
    const REFUSED: &str =
        "ImagePullBackOff: Back-off pulling image \"r/a\": ErrImagePull: dial tcp: connection refused";

    fn pull(message: &str) -> ClusterError {
        ClusterError::ImagePull { image: "r/a".to_owned(), message: message.to_owned() }
    }

    #[test]
    fn a_denied_pull_may_pass_only_where_the_pod_brings_credentials() {
        assert!(may_pass(DENIED, Credentials::Given));
        assert!(!may_pass(DENIED, Credentials::None));
    }

    #[test]
    fn what_another_attempt_does_not_change_ends_the_wait_at_once() {
        for message in [
            "InvalidImageName: r/A",
            "ErrImageNeverPull: no",
            "SignatureValidationFailed: unsigned",
            "ImagePullBackOff: Back-off pulling image \"r/a\": ErrImagePull: r/a: not found",
        ] {
            assert!(Patience::new("it", PULLS).bear(pull(message), Credentials::Given).is_err(), "{message}");
        }
        let other = ClusterError::NotStarted { message: REFUSED.to_owned() };
        assert!(Patience::new("it", PULLS).bear(other, Credentials::Given).is_err());
    }

    #[test]
    fn a_pull_that_goes_on_failing_is_an_error_once_the_next_attempt_is_over() {
        let mut patience = Patience::new("it", Duration::from_secs(120));
        let first = Instant::now();
        for (message, credentials) in [(REFUSED, Credentials::None), (DENIED, Credentials::Given)] {
            let why = patience.bear_at(pull(message), credentials, first + PULLS / 2).expect("it may pass");
            assert!(why.contains(&message[20..]), "{why}");
        }
        let error = patience.bear_at(pull(REFUSED), Credentials::None, first + PULLS * 2).expect_err("it lasts");
        assert!(matches!(error, ClusterError::ImagePull { .. }));
    }

    #[tokio::test]
    async fn what_does_not_start_in_time_says_what_it_waited_for() {
        let error = Patience::new("the copy", Duration::ZERO).wait("`x`: PodInitializing", PULLS).await;
        let text = error.expect_err("its time is over").to_string();
        assert_eq!(text, "start a pod: the copy did not start within 0 s: `x`: PodInitializing");
    }
}
