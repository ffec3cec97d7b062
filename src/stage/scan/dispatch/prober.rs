//! What a run asks by itself: whether the API server is there again, or a registry. A node, a workload or a target has no such
//! request: one of its own pieces of work is the probe.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::super::breaker::{Scope, Sign};
use super::super::unit::Context;
use crate::cluster::client::Cluster;
use crate::model::reason::Reason;

/// How long the API server or a registry is asked whether it is there again. It costs one small answer.
const PROBE: Duration = Duration::from_secs(10);

/// Finds out whether the API server or a registry is there.
pub(super) type Prober = Box<dyn Fn(&Scope) -> Pin<Box<dyn Future<Output = Sign> + Send>> + Send>;

/// Asks what a run has requests of its own for.
pub(super) fn prober(cluster: Option<Cluster>, context: Arc<Context>) -> Prober {
    Box::new(move |scope| {
        let (scope, cluster, context) = (scope.clone(), cluster.clone(), Arc::clone(&context));
        Box::pin(async move {
            match (scope, cluster) {
                (Scope::Cluster, Some(cluster)) => api_server(&cluster).await,
                (Scope::Registry(host), _) => registry(&host, &context).await,
                (Scope::Cluster | Scope::Node(_) | Scope::Workload(_) | Scope::Target(_), _) => Sign::Nothing,
            }
        })
    })
}

/// Asks the API server for something that it must read from its store.
async fn api_server(cluster: &Cluster) -> Sign {
    match cluster.impatient(PROBE).identity().await {
        Err(error) if error.is_silence() => Sign::Fails(Reason::ApiUnreachable),
        // Whatever it says, it says something.
        Ok(_) | Err(_) => Sign::Works,
    }
}

async fn registry(host: &str, context: &Context) -> Sign {
    let client = host.parse().ok().and_then(|authority| context.registries.client(&authority).ok());
    // It could not be used before, and can't be now: each target says so by itself.
    let Some(client) = client else { return Sign::Works };
    match tokio::time::timeout(PROBE, client.ping()).await {
        Err(_) => Sign::Fails(Reason::RegistryUnreachable),
        Ok(Err(error)) if error.is_transient() => Sign::Fails(Reason::RegistryUnreachable),
        Ok(_) => Sign::Works,
    }
}
