use super::*;
use crate::cluster::agent::probe::Probe;

const SERVER: &str = "10.0.0.1:6443";
const OPEN: &str = "10.1.0.2:8080";
const CLOSED: &str = "10.1.0.3:8080";

fn probe(address: &str, expected: Expected, seen: Seen, streak: u32) -> Probe {
    Probe { address: address.parse().expect("an address"), expected, seen, streak }
}

fn reports(change: impl Fn(&mut Vec<Probe>, &mut Vec<Probe>)) -> Verdict {
    let mut prober = vec![
        probe(OPEN, Expected::Open, Seen::Open, 3),
        probe(CLOSED, Expected::Blocked, Seen::Silent, 3),
        probe(SERVER, Expected::Blocked, Seen::Silent, 3),
    ];
    let mut stranger =
        vec![probe(OPEN, Expected::Blocked, Seen::Silent, 3), probe(SERVER, Expected::Blocked, Seen::Refused, 3)];
    change(&mut prober, &mut stranger);
    let servers = BTreeSet::from([SERVER.parse().expect("an address")]);
    judge(&ProbeReport { probes: prober }, &ProbeReport { probes: stranger }, &servers)
}

#[test]
fn all_four_must_hold() {
    let verdict = reports(|_, _| {});
    assert!(verdict.enforced, "{}", verdict.detail);
    for (what, index) in [("ingress", 1), ("server", 2)] {
        let verdict = reports(|prober, _| (prober[index].seen, prober[index].streak) = (Seen::Open, 0));
        assert!(!verdict.enforced && verdict.detail.starts_with("not enforced: an allowed pod"), "{what}: {verdict:?}");
    }
    for index in [0, 1] {
        let verdict = reports(|_, stranger| (stranger[index].seen, stranger[index].streak) = (Seen::Open, 0));
        assert!(!verdict.enforced && verdict.detail.starts_with("not enforced: a pod without"), "{verdict:?}");
    }
}

#[test]
fn blocked_means_nothing_without_the_positive_control() {
    let verdict = reports(|prober, _| (prober[0].seen, prober[0].streak) = (Seen::Silent, 0));
    assert!(!verdict.enforced && verdict.detail.starts_with("could not be decided"), "{verdict:?}");
    let verdict = reports(|prober, _| prober.truncate(0));
    assert!(!verdict.enforced, "{verdict:?}");
    let verdict = reports(|_, stranger| stranger.clear());
    assert!(!verdict.enforced, "{verdict:?}");
}

#[test]
fn what_flickers_or_fails_is_undecided() {
    for (seen, streak) in [(Seen::Silent, 1), (Seen::Failed, 0)] {
        let verdict = reports(|_, stranger| (stranger[0].seen, stranger[0].streak) = (seen, streak));
        assert!(!verdict.enforced && verdict.detail.starts_with("could not be decided"), "{verdict:?}");
    }
}

#[test]
fn the_pods_are_what_kubernetes_knows_and_ask_for_nothing() {
    let wanted = [(SERVER.parse().expect("an address"), Expected::Blocked)];
    let image = Image { name: "r/g@sha256:0", pull: None };
    for specification in [listener(&image), prober_pod(&image, &wanted)] {
        let read: k8s_openapi::api::core::v1::PodSpec =
            serde_json::from_value(specification.clone()).expect("a specification");
        assert_eq!(serde_json::to_value(&read).expect("the same"), specification);
        assert_eq!((read.automount_service_account_token, read.host_network), (Some(false), None));
    }
}
