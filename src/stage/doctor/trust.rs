//! The pinned root, the bundle that was loaded, what was seen before, and how old its databases are.

use jiff::Timestamp;

use super::check::{Check, chain};
use super::expiry::{self, Clock};
use crate::base::exit::Classify as _;
use crate::base::limits::Limits;
use crate::registry::Prefix;
use crate::stage::load;
use crate::stage::plan::{BundleSource, Policy};
use crate::stage::registries::Registries;
use crate::stage::scan::content::Content;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// The pinned root by itself.
pub(super) fn judge_root(source: &BundleSource, clock: Clock) -> Check {
    const NAME: &str = "trust-root";
    let subject = source.root.display().to_string();
    match TrustRoot::read(&source.root) {
        Ok(root) => {
            let renew = "a bundle of a newer root brings that along; `gapscan trust rotate` makes one";
            let mut check = expiry::judge(NAME, &subject, (None, root.root().expires), clock, renew);
            check.detail = format!("version {}, {}; {}", root.version(), root.fingerprint(), check.detail);
            check
        }
        Err(error) => Check::failed(NAME, subject, &error),
    }
}

/// The loaded bundle, verified as before a scan, and what of it there is to scan with.
pub(super) async fn look(
    source: &BundleSource,
    remembered: &Remembered,
    registries: &Registries,
    policy: &Policy,
    limits: &Limits,
    clock: Clock,
) -> (Vec<Check>, Option<Content>) {
    const NAME: &str = "bundle";
    let subject = format!("{} in {}", source.name, source.registry);
    let content = match Content::of_bundle(source, remembered, registries, limits, clock.now).await {
        Ok(content) => content,
        Err(error) => return (vec![Check::failed(NAME, subject, &error)], None),
    };
    let mut checks = Vec::new();
    let version = content.bundle.as_ref().map(|bundle| bundle.version).unwrap_or_default();
    let shown = format!(
        "version {version} verifies, and is none older than one that was seen: {} profiles of scanners, {} builtin",
        content.external.len(),
        content.builtin.len()
    );
    // What would be said of it then: whatever ends first, its metadata or the root of its chain.
    let then = clock.now.checked_add(clock.near).unwrap_or(Timestamp::MAX);
    checks.push(match later(source, remembered, registries, limits, then).await {
        None => Check::ok(NAME, &subject, shown),
        Some(why) => {
            Check::warn(NAME, &subject, format!("{shown}; in {} it will be refused: {why}", expiry::words(clock.near)))
                .with_remedy("load a newer bundle before")
        }
    });
    if content.own_image.is_none() {
        let detail =
            "it has no image of gapscan, so that no network can be proven to be closed and nothing runs in pods";
        checks.push(Check::bad(NAME, &subject, detail).with_remedy("build it with a gapscan image"));
    }
    for external in &content.external {
        let subject = format!("databases of {}", external.scanner.name);
        if external.mounts.is_empty() {
            continue;
        }
        checks.push(match external.check_age(None, policy, clock.now) {
            Ok(notes) if notes.is_empty() => Check::ok(NAME, subject, "each has a date and is recent enough"),
            Ok(notes) => Check::warn(NAME, subject, notes.join("; ")).with_remedy("load a bundle with newer ones"),
            Err(why) => Check::bad(NAME, subject, why.detail)
                .with_remedy("load a bundle with newer ones: scans would not be evaluated"),
        });
    }
    (checks, Some(content))
}

/// Why the bundle would be refused at that time.
async fn later(
    source: &BundleSource,
    remembered: &Remembered,
    registries: &Registries,
    limits: &Limits,
    then: Timestamp,
) -> Option<String> {
    let prefix: Prefix = source.registry.parse().ok()?;
    let root = TrustRoot::read(&source.root).ok()?;
    let client = registries.client(&prefix.registry).ok()?;
    let read = load::read_catalog(&client, &prefix, &source.name, &root, remembered, limits, then).await;
    read.err().map(|error| {
        tracing::debug!(class = ?error.class(), "the bundle would be refused later");
        chain(&error)
    })
}
