//! What one container's facts cost by exec, beside one bare exec of `true` by the same client: run by `scripts/bench scan`,
//! which names the container. Prints JSON: milliseconds of each, in turns.

use std::time::{Duration, Instant};

use gapscan::base::limits::Limits;
use gapscan::cluster::access::exec::{Caps, exec};
use gapscan::cluster::client::Cluster;
use gapscan::cluster::identity::{Rights, ScanIdentity};
use gapscan::cluster::namespace::ScanNamespace;
use gapscan::cluster::targets::{Selector, resolve};
use gapscan::model::record::RunId;
use gapscan::model::target::Target;
use gapscan::native::facts::container::{Nonce, command, parse};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(target), Some(turns)) = (arguments.next(), arguments.next()) else {
        println!("needs a cluster: `scripts/bench scan` runs this as CONTAINER TURNS");
        return Ok(());
    };
    let limits = Limits::default();
    let cluster = Cluster::connect(None, None, &limits).await?;
    let found = resolve(&cluster, &[target.parse()?], &Selector::default(), &limits).await?;
    let target = &found.found.first().ok_or("there is no such container")?.target;
    let Target::Container { namespace, pod, .. } = target else { return Err("it is no container".into()) };
    let home = ScanNamespace::create(&cluster, RunId::new()).await?;
    let identity = ScanIdentity::create(&cluster, &home, 0, (namespace, pod), Rights::Exec).await?;
    let measured = measure(identity.cluster(), target, &limits, turns.parse()?).await;
    let mut cleanup = identity.remove(&cluster, &home).await;
    cleanup.remaining.extend(home.remove(&cluster).await.remaining);
    println!("{}", measured?);
    match cleanup.remaining.is_empty() {
        true => Ok(()),
        false => Err(format!("these are left: {}", cleanup.remaining.join(", ")).into()),
    }
}

async fn measure(
    cluster: &Cluster,
    target: &Target,
    limits: &Limits,
    turns: u32,
) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let caps = Caps { stdout: usize::try_from(limits.collector_bytes)?, stderr: 64 * 1024 };
    let (mut bare, mut facts) = (Vec::new(), Vec::new());
    // The first of each finds nothing in any cache.
    for turn in 0..=turns {
        let began = Instant::now();
        exec(cluster, target, &["true"], None, caps, DEADLINE).await?;
        let one = began.elapsed();
        let began = Instant::now();
        let nonce = Nonce::random();
        let argv = command(&nonce, limits);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let output = exec(cluster, target, &argv, None, caps, DEADLINE).await?;
        let collected = parse(&output.stdout, &nonce, limits);
        let other = began.elapsed();
        if collected.os.is_none() {
            return Err(format!("nothing was collected: {:?}", collected.missing).into());
        }
        if turn > 0 {
            bare.push(one.as_secs_f64() * 1000.0);
            facts.push(other.as_secs_f64() * 1000.0);
        }
    }
    Ok(serde_json::json!({ "true": bare, "facts": facts }))
}
