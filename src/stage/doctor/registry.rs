//! The registries: reached, asked, and what the cluster's nodes will need of them.

use std::time::Duration;

use super::check::Check;
use super::expiry::Clock;
use super::handshake::{Authorities, handshake};
use super::tls;
use crate::base::digest::Digest;
use crate::base::exit::Classify as _;
use crate::base::file;
use crate::base::limits::Limits;
use crate::registry::{Authority, Client, Prefix, RegistryError};
use crate::stage::plan::{BundleSource, ClusterAccess, RegistryAccess};
use crate::stage::registries::Registries;

/// How long a token for nodes is asked for.
const LASTS: Duration = Duration::from_secs(60);

/// The repository in which a push is tried, below the prefix.
const TRIED: &str = "gapscan-doctor";

/// Whether a push is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// An upload is opened and taken back.
    Try,
    /// Nothing is asked for that changes anything.
    Not,
}

const NAME: &str = "registry";

/// One registry, whatever is in it.
pub(super) async fn look(
    host: &str,
    access: &RegistryAccess,
    registries: &Registries,
    limits: &Limits,
    clock: Clock,
) -> Vec<Check> {
    let registry: Authority = match host.parse() {
        Ok(registry) => registry,
        Err(error) => return vec![Check::failed(NAME, host, &error)],
    };
    let mut checks = Vec::new();
    if access.plain_http {
        checks.push(Check::ok("tls-protocol", host, "no TLS, on a loopback address, as it was asked for"));
    } else {
        let authorities = match &access.ca_file {
            Some(path) => match file::read_capped(path, limits.document_bytes) {
                Ok(pem) => Authorities::Pem(pem),
                Err(error) => return vec![Check::failed(NAME, host, &error)],
            },
            None => Authorities::System,
        };
        let at = (registry.host(), registry.port().unwrap_or(443));
        let seen = handshake(at, registry.host(), &authorities, limits.connect).await;
        let refused = seen.failure.is_some();
        checks.extend(tls::judge(host, &seen, clock));
        if refused {
            return checks;
        }
    }
    let client = match registries.client(&registry) {
        Ok(client) => client,
        Err(error) => {
            checks.push(Check::failed(NAME, host, &error));
            return checks;
        }
    };
    checks.push(match client.ping().await {
        Ok(()) if client.has_credentials() => Check::ok(NAME, host, "it answers, and takes the credentials"),
        Ok(()) => Check::ok(NAME, host, "it answers, without credentials"),
        Err(error) => Check::failed(NAME, host, &error),
    });
    checks
}

/// The registry of a bundle: what can be done below its prefix, and what nodes pull with.
pub(super) async fn look_at_prefix(
    source: &BundleSource,
    cluster: &ClusterAccess,
    registries: &Registries,
    push: Push,
) -> Vec<Check> {
    let prefix: Prefix = match source.registry.parse() {
        Ok(prefix) => prefix,
        Err(error) => return vec![Check::failed(NAME, &source.registry, &error)],
    };
    // That it can't be used at all is told where the registry itself is looked at.
    let Ok(client) = registries.client(&prefix.registry) else { return Vec::new() };
    let mut checks = Vec::new();
    let subject = prefix.to_string();
    let catalog = match prefix.repository(crate::model::catalog::CATALOG_REPOSITORY) {
        Ok(catalog) => catalog,
        Err(error) => return vec![Check::failed(NAME, subject, &error)],
    };
    checks.push(match client.tags(&catalog).await {
        Ok(tags) => Check::ok(NAME, &subject, format!("its catalogs can be read: {} tags", tags.len())),
        Err(error) if error.is_not_found() => {
            let check = Check::bad(NAME, &subject, "nothing was loaded below this prefix");
            check.with_remedy("load a bundle: gapscan load FILE --registry HOST[:PORT][/PREFIX]")
        }
        Err(error) => Check::failed(NAME, &subject, &error),
    });
    checks.push(match client.lists_referrers(&catalog, &Digest::of([])).await {
        Ok(true) => Check::ok(NAME, &subject, "it lists referrers itself"),
        Ok(false) => {
            Check::ok(NAME, &subject, "it has no referrers API; tags by digest stand in for it, which a load keeps")
        }
        Err(error) => Check::unseen(NAME, &subject, &error),
    });
    checks.push(nodes(&client, &prefix, cluster).await);
    if push == Push::Try {
        checks.push(match prefix.repository(TRIED) {
            Ok(repository) => match client.may_push(&repository).await {
                Ok(()) => Check::ok(NAME, &subject, "content may be pushed: an upload was opened and taken back"),
                Err(error) => Check::failed(NAME, &subject, &error),
            },
            Err(error) => Check::failed(NAME, &subject, &error),
        });
    }
    checks
}

/// What the nodes pull with.
async fn nodes(client: &Client, prefix: &Prefix, cluster: &ClusterAccess) -> Check {
    let subject = format!("nodes at {}", prefix.registry);
    if let Some(path) = &cluster.pull_config_file {
        return Check::ok(NAME, subject, format!("they get its entry of `{}` for each scan", path.display()));
    }
    let catalog = match prefix.repository(crate::model::catalog::CATALOG_REPOSITORY) {
        Ok(catalog) => catalog,
        Err(error) => return Check::failed(NAME, subject, &error),
    };
    match client.pull_credentials(&[catalog], LASTS).await {
        Ok(Some(_)) => Check::ok(NAME, subject, "they get a token for each scan, which may read its images"),
        Ok(None) if client.has_credentials() => Check::warn(
            NAME,
            subject,
            "they get no credentials, and this client has some; whether they have their own can't be seen from here",
        )
        .with_remedy("name them with --pull-config, or in a plan with cluster.pullConfigFile"),
        Ok(None) => Check::ok(NAME, subject, "they pull without credentials, as this client does"),
        Err(error @ RegistryError::Unauthorized { .. }) => Check::failed(NAME, subject, &error),
        Err(error) => {
            tracing::debug!(class = ?error.class(), "no token for nodes");
            Check::unseen(NAME, subject, &error)
        }
    }
}

/// Every registry that is named, the bundle's among them.
pub(super) fn named(
    access: &std::collections::BTreeMap<String, RegistryAccess>,
    bundle: Option<&BundleSource>,
) -> std::collections::BTreeMap<String, RegistryAccess> {
    let mut all = access.clone();
    if let Some(prefix) = bundle.and_then(|source| source.registry.parse::<Prefix>().ok()) {
        all.entry(prefix.registry.to_string()).or_default();
    }
    all
}
