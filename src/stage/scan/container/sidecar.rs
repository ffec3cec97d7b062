//! From a sidecar: gapscan's agent in the target's own pod where somebody injected it, or else beside a copy of the target.

use std::time::Duration;

use super::Ways;
use crate::base::digest::Digest;
use crate::base::text::brief;
use crate::cluster::access::collecting::Collecting;
use crate::cluster::access::exec::Caps;
use crate::cluster::access::sidecar::{Copy, Likeness, look_at_copy, look_at_injected};
use crate::cluster::identity::{Rights, ScanIdentity};
use crate::model::provenance::Approach;
use crate::model::reason::Reason;
use crate::model::target::Target;
use crate::native::facts::{Live, SystemFacts};
use crate::stage::scan::session::Session;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task, facts_evidence, judge_system};

/// How long collecting may take, the wait for a copy to come to rest included.
const COLLECT: Duration = Duration::from_secs(180);

/// Bytes of the agent's standard error that are kept.
const STDERR: usize = 64 * 1024;

/// What the record says first where a copy was judged.
pub(crate) const OF_A_COPY: &str = "a copy of the container was judged, and not the container that runs: it was started from the same image \
     with the same command, and what the container has become since is not seen";

pub(super) async fn reach(target: &Target, ways: &Ways, tasks: &[Task], context: &Context) -> Reached {
    let why = NotDone::new(Reason::InternalError, "not collected");
    let mut reached = Reached::nothing(target.clone(), Approach::Sidecar, why);
    let collected = match &ways.facts.injected {
        Some(Ok(injected)) => Box::pin(in_its_pod(&mut reached, ways, injected.digest, context)).await,
        other => {
            if let Some(Err(why)) = other {
                reached.notes.push(format!("the gapscan sidecar in its pod is not used: {why}"));
            }
            in_a_copy(&mut reached, ways, context).await
        }
    };
    match collected {
        Ok(facts) => {
            reached.evidence.push(facts_evidence(&facts));
            reached.verdict = Ok(judge_system(&facts, tasks, target, &context.limits));
        }
        Err(why) => reached.verdict = Err(why),
    }
    reached
}

fn own_image(ways: &Ways) -> Result<&str, NotDone> {
    let missing = || NotDone::new(Reason::TargetUnsupported, "a sidecar is gapscan's image, and no bundle was given");
    ways.own_image.as_deref().ok_or_else(missing)
}

fn request<'a>(target: &'a Target, image: &'a str, session: &Session, context: &Context) -> Collecting<'a> {
    let stdout = usize::try_from(context.limits.collector_bytes).unwrap_or(usize::MAX);
    Collecting {
        target,
        run: session.home.run(),
        scan: session.next_scan(),
        image,
        caps: Caps { stdout, stderr: STDERR },
        deadline: COLLECT,
    }
}

async fn in_its_pod(
    reached: &mut Reached,
    ways: &Ways,
    digest: Option<Digest>,
    context: &Context,
) -> Result<SystemFacts, NotDone> {
    let image = own_image(ways)?;
    believe(digest, image)?;
    let target = reached.target.clone();
    let Target::Container { namespace, pod, .. } = &target else {
        return Err(NotDone::new(Reason::TargetUnsupported, "only a container can be reached from a sidecar"));
    };
    let (session, network) = super::session(context)?;
    reached.network = Some(network);
    let request = request(&target, image, session, context);
    let made =
        ScanIdentity::create(&session.cluster, &session.home, request.scan, (namespace, pod), Rights::Exec).await;
    let identity = made.map_err(|error| NotDone::because(error.reason(), &error))?;
    reached.identity = Some(identity.username().to_owned());
    let looked = look_at_injected(identity.cluster(), &request).await;
    reached.cleanup = Some(identity.remove(&session.cluster, &session.home).await);
    reached.notes.push("looked at from the gapscan sidecar in its own pod".to_owned());
    let (facts, stderr) = looked.map_err(|error| NotDone::because(error.reason(), &error))?;
    reached.notes.extend(said(&stderr));
    read(&facts)
}

async fn in_a_copy(reached: &mut Reached, ways: &Ways, context: &Context) -> Result<SystemFacts, NotDone> {
    let image = own_image(ways)?;
    let (session, network) = super::session(context)?;
    reached.network = Some(network);
    let home = session.for_copies().await?;
    let target = reached.target.clone();
    let images = ways.facts.image.iter().map(String::as_str).chain([image]);
    let pull = context.pulling.secret(images, &context.registries, &context.limits).await?;
    let request = request(&target, image, session, context);
    let report = Box::pin(look_at_copy(&session.cluster, home, &request, pull.as_ref())).await;
    reached.identity = report.identity;
    reached.cleanup = Some(report.cleanup);
    reached.notes.push(OF_A_COPY.to_owned());
    reached.notes.extend(report.notes);
    let looked = report.outcome.map_err(|error| NotDone::because(error.reason(), &error))?;
    reached.notes.extend(said(&looked.stderr));
    let mut facts = read(&looked.facts)?;
    bound(&mut facts, &looked.copy, looked.same_node);
    Ok(facts)
}

/// Takes out of the facts what a copy can't know of the original: a rule that asks for it is not evaluated. Without it a copy
/// would pass where the container fails, since it is more restricted and has none of what is mounted there.
fn bound(facts: &mut SystemFacts, copy: &Copy, same_node: bool) {
    facts.withhold(
        Live::Sockets,
        "a copy has no network, and so need not listen where the container does; a look at the container itself can tell",
    );
    if copy.processes == Likeness::Different {
        facts.withhold(Live::Processes, "the copy runs with other rights or less configuration than the container");
    }
    if copy.mounts == Likeness::Different {
        facts.withhold(Live::Mounts, "the copy has not what is mounted in the container");
    }
    if copy.sysctls == Likeness::Different || !same_node {
        facts.withhold(
            Live::Sysctls,
            "the copy has other kernel parameters than the container, or may have: another node's",
        );
    }
    facts.put_out_of_reach(&copy.out_of_reach);
}

fn said(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    (!text.is_empty()).then(|| format!("the agent said: {}", brief(text)))
}

fn read(bytes: &[u8]) -> Result<SystemFacts, NotDone> {
    serde_json::from_slice(bytes).map_err(|error| NotDone::because(Reason::CollectorFailed, &error))
}

/// Whoever can change the pod can put anything under the agent's name: only what runs the bundle's own image is believed.
fn believe(runs: Option<Digest>, image: &str) -> Result<(), NotDone> {
    let expected = image.rsplit_once('@').and_then(|(_, digest)| digest.parse::<Digest>().ok());
    if expected.is_some() && runs == expected {
        return Ok(());
    }
    let runs = runs.map_or_else(|| "an image without a digest".to_owned(), |digest| digest.to_string());
    let detail = format!(
        "the gapscan sidecar in its pod runs {runs}, which is not the bundle's image of gapscan: have `gapscan inject` write the \
         manifest anew, and apply it"
    );
    Err(NotDone::new(Reason::TargetUnsupported, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::access::sidecar::written_out;

    #[test]
    fn nothing_that_a_copy_can_not_know_of_its_original_is_judged() {
        let pod = |context: serde_json::Value, mounts: serde_json::Value| {
            let image = format!("r:5000/app@sha256:{}", "a".repeat(64));
            let pod = serde_json::json!({
                "metadata": { "name": "p", "namespace": "n" },
                "spec": {
                    "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
                    "containers": [{ "name": "app", "image": "r/app", "securityContext": context, "volumeMounts": mounts }],
                    "volumes": [{ "name": "v", "secret": { "secretName": "s" } }],
                },
                "status": { "containerStatuses": [{
                    "name": "app", "image": "r/app", "imageID": image, "ready": true, "restartCount": 0,
                    "state": { "running": {} }, "user": { "linux": { "uid": 7, "gid": 8 } },
                }] },
            });
            let pod = serde_json::from_value(pod).expect("a pod");
            written_out(&pod, "app", "r/gapscan@sha256:1").expect("it can be copied").1
        };
        let restricted = serde_json::json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
        let mount = serde_json::json!([{ "name": "v", "mountPath": "/etc" }]);
        let left = |copy: &Copy, same_node: bool| {
            let mut facts = SystemFacts {
                processes: Some(Vec::new()),
                sockets: Some(Vec::new()),
                mounts: Some(Vec::new()),
                sysctls: Some(Default::default()),
                users: Some(Vec::new()),
                ..SystemFacts::default()
            };
            bound(&mut facts, copy, same_node);
            let there = serde_json::to_value(&facts).expect("JSON");
            let all = ["processes", "sockets", "mounts", "sysctls", "users"];
            all.into_iter().filter(|fact| there.get(fact).is_some()).collect::<Vec<_>>()
        };
        let none = serde_json::json!([]);
        let same = pod(restricted.clone(), none.clone());
        assert_eq!(left(&same, true), ["processes", "mounts", "sysctls", "users"]);
        assert_eq!(left(&same, false), ["processes", "mounts", "users"]);
        assert_eq!(
            left(&pod(serde_json::json!({}), none), true),
            ["sysctls", "users"],
            "it has rights that a copy has not"
        );
        assert_eq!(left(&pod(restricted, mount), true), ["sysctls"], "its accounts are those of a volume");
    }

    #[test]
    fn only_a_sidecar_of_the_bundles_own_image_is_believed() {
        let digest = |character: char| format!("sha256:{}", character.to_string().repeat(64));
        let parsed = |character| Some(digest(character).parse::<Digest>().expect("a digest"));
        let image = format!("r:5000/gapscan@{}", digest('a'));
        believe(parsed('a'), &image).expect("it is the bundle's");
        for (runs, image) in [(parsed('b'), image.as_str()), (None, &image), (None, "r:5000/gapscan:1")] {
            let why = believe(runs, image).expect_err("it is not");
            assert_eq!(why.reason, Reason::TargetUnsupported, "{}", why.detail);
        }
    }
}
