//! What the registry does by itself while it serves: renewing its certificate, forgetting uploads that nobody goes on with,
//! and removing what nobody needs.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use super::router::Registry;
use super::tls::{Certificate, Renewal};

/// How often files are looked at: a handful of `stat`.
const EVERY: Duration = Duration::from_secs(5);
/// How far the two clocks may drift apart between two looks before one counts as set.
const DRIFT: Duration = Duration::from_secs(60);

/// Whether the machine's clock was set. What is removed goes by the age of files: a clock that jumps ahead by a day must not
/// make all that was pushed a minute ago a day old.
#[derive(Debug)]
struct Clock {
    seen: (Instant, SystemTime),
    /// When the ages of files can be believed again.
    believable: Instant,
}

impl Clock {
    fn new(now: (Instant, SystemTime)) -> Self {
        Self { seen: now, believable: now.0 }
    }

    /// Whether ages are to be believed now. After the clock was set they are after `long`: then all that is younger than
    /// that has been stamped by the clock as it is.
    fn is_believable(&mut self, now: (Instant, SystemTime), long: Duration) -> bool {
        let passed = now.0.duration_since(self.seen.0);
        let set = match now.1.duration_since(self.seen.1) {
            Ok(walked) => walked.abs_diff(passed) > DRIFT,
            Err(_) => true,
        };
        self.seen = now;
        if set {
            tracing::warn!("the clock was set: nothing is removed until ages can be told again");
            self.believable = now.0 + long;
        }
        now.0 >= self.believable
    }
}

/// Runs until it is dropped.
pub(super) async fn keep_up(
    registry: Arc<Registry>,
    certificate: Option<Arc<Certificate>>,
    collect_every: Option<Duration>,
) {
    let mut clock = Clock::new((Instant::now(), SystemTime::now()));
    let mut collected = Instant::now();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(certificate) = &certificate {
            renew(&registry, certificate).await;
        }
        let _ = registry
            .blocking(|r| {
                r.uploads.remove_idle();
                Ok(())
            })
            .await;
        let policy = registry.collect;
        let longest = policy.grace.max(policy.untagged.unwrap_or_default());
        let believable = clock.is_believable((Instant::now(), SystemTime::now()), longest);
        if believable && collect_every.is_some_and(|every| collected.elapsed() >= every) {
            collected = Instant::now();
            match registry.collect(policy).await {
                Ok(done) => {
                    tracing::info!(done.manifests, done.blobs, done.contents, done.bytes, "removed what nobody needs")
                }
                // What failed is in the log already.
                Err(_) => tracing::warn!("what nobody needs could not be removed"),
            }
        }
    }
}

/// Takes a newer certificate into use, if there is one; whether the one that is there can be used.
pub(super) async fn renew(registry: &Arc<Registry>, certificate: &Arc<Certificate>) -> Renewal {
    let newer = certificate.clone();
    let renewal =
        tokio::task::spawn_blocking(move || newer.renew(Timestamp::now())).await.unwrap_or(Renewal::Unchanged);
    match &renewal {
        Renewal::Unchanged => {}
        Renewal::Used => {
            tracing::info!(end = %certificate.end(), "a newer certificate is in use");
            registry.metrics.reloaded(true);
            registry.metrics.certificate(certificate.end());
        }
        Renewal::Refused(error) => {
            tracing::error!(%error, "a newer certificate can't be used; the one before stays");
            registry.metrics.reloaded(false);
        }
    }
    renewal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_makes_nothing_old() {
        let day = Duration::from_secs(24 * 3600);
        let second = Duration::from_secs(1);
        let (mut now, mut wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 20_000 * day);
        let mut clock = Clock::new((now, wall));
        let mut at = |walked: Duration, passed: Duration| {
            now += passed;
            wall += walked;
            clock.is_believable((now, wall), day)
        };
        assert!(at(5 * second, 5 * second));
        assert!(!at(2 * day, 5 * second), "set ahead");
        assert!(!at(day / 2, day / 2));
        assert!(at(day / 2, day / 2), "a day after it was set");
        assert!(at(5 * second, 5 * second));
        let mut clock = Clock::new((Instant::now(), SystemTime::UNIX_EPOCH + day));
        assert!(!clock.is_believable((Instant::now(), SystemTime::UNIX_EPOCH), day), "set back");
    }
}
