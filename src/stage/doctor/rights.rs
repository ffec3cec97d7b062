//! What this identity may do, beside what each approach needs: the table that `gapscan install` grants by.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{Check, chain};
use crate::cluster::error::ClusterError;
use crate::cluster::inspect::rights::{Identity, Right};
use crate::cluster::install::{Permission, Scope, permissions};
use crate::cluster::objects::ResourceKey;

/// What every run in a cluster needs.
const EVERY_RUN: &str = "every run";
/// What scanners in pods of their own need: external ones of images and of nodes.
const PODS: &str = "scanner pods";
const EXEC: &str = "exec";
const DEBUG: &str = "debug";
const NODE: &str = "node";
const CLUSTER: &str = "cluster";
/// What pulling from a registry with a password needs.
const PULLING: &str = "pull secrets";

/// What is much more than any scan needs, in group, resource and verb.
const BEYOND: [(&str, &str, &str); 10] = [
    ("*", "*", "*"),
    ("", "secrets", "get"),
    ("", "secrets", "list"),
    ("", "nodes/proxy", "get"),
    ("", "users", "impersonate"),
    ("rbac.authorization.k8s.io", "clusterroles", "escalate"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
    ("rbac.authorization.k8s.io", "roles", "escalate"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "delete"),
    ("apps", "daemonsets", "create"),
];

/// What needs each right. What nothing else names is needed by every run.
fn needed_for(permission: &Permission, verb: &str) -> &'static [&'static str] {
    let own = permissions(&BTreeSet::new());
    let is_own = own.iter().any(|one| {
        one.scope == permission.scope
            && one.group == permission.group
            && one.resource == permission.resource
            && one.verbs.contains(&verb)
    });
    match (permission.resource.as_str(), verb) {
        // It is only there because a profile reads it.
        _ if !is_own => &[CLUSTER],
        ("pods/exec", _) => &[EXEC, DEBUG, PODS],
        ("pods/ephemeralcontainers", _) => &[DEBUG],
        ("jobs", _) => &[PODS, NODE],
        // Beside rules on nodes: which nodes there are, and how much CPU they have for the pods of scans.
        ("nodes", "list") => &[CLUSTER, NODE, PODS],
        ("nodes", _) => &[NODE],
        ("secrets", _) => &[PULLING],
        ("clusterroles" | "clusterrolebindings", "create" | "delete") => &[CLUSTER],
        _ => &[EVERY_RUN],
    }
}

/// The rights to ask for, each with what needs it.
pub(super) fn needed(resources: &BTreeSet<ResourceKey>) -> Vec<(Right, &'static [&'static str])> {
    let mut all = Vec::new();
    for permission in permissions(resources) {
        for verb in &permission.verbs {
            let right = Right {
                group: permission.group.clone(),
                resource: permission.resource.clone(),
                verb: (*verb).to_owned(),
                namespace: match permission.scope {
                    Scope::Cluster => None,
                    Scope::Default => Some("default".to_owned()),
                },
            };
            all.push((right, needed_for(&permission, verb)));
        }
    }
    all
}

/// The rights that nobody should have who scans.
pub(super) fn beyond() -> Vec<Right> {
    let right = |(group, resource, verb): (&str, &str, &str)| Right {
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: verb.to_owned(),
        namespace: None,
    };
    BEYOND.into_iter().map(right).collect()
}

/// One check for each that needs rights.
pub(super) fn judge(
    identity: &Identity,
    needed: &[(Right, &'static [&'static str])],
    answers: &[Result<bool, ClusterError>],
) -> Vec<Check> {
    const NAME: &str = "rights";
    let mut by_need: BTreeMap<&str, (Vec<String>, Vec<String>, usize)> = BTreeMap::new();
    for (at, (right, whom)) in needed.iter().enumerate() {
        for whom in *whom {
            let (missing, unknown, count) = by_need.entry(whom).or_default();
            *count += 1;
            match answers.get(at) {
                Some(Ok(true)) => {}
                Some(Ok(false)) => missing.push(right.to_string()),
                Some(Err(error)) => unknown.push(format!("{right}: {}", chain(error))),
                None => unknown.push(format!("{right}: there was no answer")),
            }
        }
    }
    let check = |(whom, (missing, unknown, count)): (&str, (Vec<String>, Vec<String>, usize))| {
        if !missing.is_empty() {
            let detail = format!("`{}` may not {}", identity.username, missing.join(", "));
            let remedy =
                "`gapscan install --dry-run` prints the roles to grant; docs/permissions.md says what each is for";
            return Check::bad(NAME, whom, detail).with_remedy(remedy);
        }
        match unknown.is_empty() {
            true => Check::ok(NAME, whom, format!("`{}` has all {count} of its rights", identity.username)),
            false => Check::unknown(NAME, whom, unknown.join("; ")),
        }
    };
    by_need.into_iter().map(check).collect()
}

/// What this identity has that scans do not need.
pub(super) fn judge_beyond(identity: &Identity, asked: &[Right], answers: &[Result<bool, ClusterError>]) -> Check {
    const NAME: &str = "rights-beyond";
    let subject = identity.username.as_str();
    let granted: Vec<&Right> =
        asked.iter().zip(answers).filter(|(_, answer)| matches!(answer, Ok(true))).map(|(right, _)| right).collect();
    let unknown = asked.len() - answers.iter().filter(|answer| answer.is_ok()).count();
    let remedy = "scan as an account with the rights of docs/permissions.md, which `gapscan install` makes";
    if granted.iter().any(|right| (right.group.as_str(), right.verb.as_str()) == ("*", "*")) {
        return Check::warn(NAME, subject, "it may do everything (cluster-admin)").with_remedy(remedy);
    }
    if !granted.is_empty() {
        let shown: Vec<String> = granted.iter().map(ToString::to_string).collect();
        let detail = format!("it may {}, which no scan needs", shown.join(", "));
        return Check::warn(NAME, subject, detail).with_remedy(remedy);
    }
    match unknown {
        0 => Check::ok(NAME, subject, format!("none of {} rights that no scan needs", asked.len())),
        unknown => Check::unknown(NAME, subject, format!("of {unknown} rights it could not be found out")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    fn answered(no: &[&str]) -> Vec<(String, State)> {
        let resources =
            BTreeSet::from(["apps/v1/deployments".parse().expect("a key"), "v1/nodes".parse().expect("a key")]);
        let needed = needed(&resources);
        let answers: Vec<Result<bool, ClusterError>> =
            needed.iter().map(|(right, _)| Ok(!no.contains(&right.to_string().as_str()))).collect();
        let identity = Identity { username: "u".to_owned(), groups: Vec::new() };
        let checks = judge(&identity, &needed, &answers);
        checks.into_iter().map(|check| (check.subject, check.state)).collect()
    }

    fn bad(no: &[&str]) -> Vec<String> {
        answered(no).into_iter().filter(|(_, state)| *state == State::Bad).map(|(subject, _)| subject).collect()
    }

    #[test]
    fn what_is_missing_is_told_for_each_that_needs_it_and_for_no_other() {
        let all: Vec<String> = answered(&[]).into_iter().map(|(subject, _)| subject).collect();
        assert_eq!(all, [CLUSTER, DEBUG, EVERY_RUN, EXEC, NODE, PULLING, PODS]);
        assert_eq!(bad(&[]), Vec::<String>::new());
        assert_eq!(bad(&["create pods/exec"]), [DEBUG, EXEC, PODS]);
        assert_eq!(bad(&["patch pods/ephemeralcontainers"]), [DEBUG]);
        assert_eq!(bad(&["list deployments.apps"]), [CLUSTER]);
        assert_eq!(bad(&["list nodes"]), [CLUSTER, NODE, PODS]);
        assert_eq!(bad(&["get nodes"]), [NODE]);
        assert_eq!(bad(&["create namespaces"]), [EVERY_RUN]);
        assert_eq!(bad(&["create jobs.batch"]), [NODE, PODS]);
        assert_eq!(bad(&["list endpointslices.discovery.k8s.io in default"]), [EVERY_RUN]);
        assert_eq!(bad(&["create secrets"]), [PULLING]);
    }

    #[test]
    fn a_question_without_an_answer_is_no_yes() {
        let needed = needed(&BTreeSet::new());
        let identity = Identity::default();
        let checks = judge(&identity, &needed, &[]);
        assert!(checks.iter().all(|check| check.state == State::Unknown), "{checks:?}");
        let silent = || Err(ClusterError::Missing { what: "x".to_owned() });
        let asked = beyond();
        let none: Vec<_> = asked.iter().map(|_| silent()).collect();
        assert_eq!(judge_beyond(&identity, &asked, &none).state, State::Unknown);
        let no: Vec<_> = asked.iter().map(|_| Ok(false)).collect();
        assert_eq!(judge_beyond(&identity, &asked, &no).state, State::Ok);
        let admin: Vec<_> = asked.iter().map(|_| Ok(true)).collect();
        let check = judge_beyond(&identity, &asked, &admin);
        assert!(check.state == State::Warn && check.detail.contains("cluster-admin"), "{check:?}");
        let mut reader: Vec<_> = asked.iter().map(|_| Ok(false)).collect();
        reader[1] = Ok(true);
        assert!(judge_beyond(&identity, &asked, &reader).detail.contains("get secrets"));
    }
}
