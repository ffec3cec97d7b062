use super::*;
use crate::model::scanner::BUILTIN;
use crate::model::target::TargetKind;
use crate::stage::scan::unit::Work;

fn asked(targets: &[&str]) -> Selection {
    Selection { targets: targets.iter().map(|t| t.parse().expect(t)).collect(), ..Selection::default() }
}

fn profile_for(kind: TargetKind) -> String {
    let content = Content::shipped();
    let fits = content.builtin.iter().find(|p| p.document().targets.first() == Some(&kind));
    fits.expect("there is one for each kind").profile().name.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_of_one_cluster() {
    let cluster = |uid: &str| {
        let api = crate::cluster::client::testing::Api::default();
        api.put(
            "/version",
            serde_json::json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0",
            "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "" }),
        );
        api.put(
            "/api/v1/namespaces/kube-system",
            serde_json::json!({ "metadata": { "name": "kube-system", "uid": uid } }),
        );
        api
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger"), Timestamp::now()).expect("a ledger");
    for _ in 0..2 {
        let bound = of_this_ledger(cluster("one").cluster(), &mut ledger).await.expect("its own cluster");
        assert!(bound.is_ok());
    }
    let events = ledger.reader().events().expect("events");
    assert_eq!(events.iter().filter(|e| e.what == CLUSTER_EVENT).count(), 1);
    let other = of_this_ledger(cluster("two").cluster(), &mut ledger).await.expect_err("another cluster");
    assert!(other.to_string().contains("UID two") && other.to_string().contains("UID one"), "{other}");
    // A cluster whose identity can't be read may be any: nothing of it is evaluated.
    let hidden = cluster("one");
    hidden.deny("/api/v1/namespaces/kube-system");
    assert!(of_this_ledger(hidden.cluster(), &mut ledger).await.expect("no other cluster").is_err());
}

#[test]
fn a_target_that_no_chosen_profile_fits_is_not_passed_over() {
    let content = Content::shipped();
    let host = profile_for(TargetKind::Host);
    let only_host = |targets: &[&str]| Selection { profiles: vec![host.clone()], ..asked(targets) };
    check_parts(&only_host(&["host"]), &content).expect("it fits");
    for more in ["ns/shop", "pod/shop/web", "cluster", "image/registry.example/a:1"] {
        let error = check_parts(&only_host(&["host", more]), &content).expect_err(more).to_string();
        assert!(error.contains(more), "{error}");
    }
    let labelled = Selection { selector: Some("app=web".to_owned()), ..only_host(&["host"]) };
    assert!(check_parts(&labelled, &content).is_err());
}

#[test]
fn who_asks_for_no_engine_is_told_of_scanners_that_would_have_had_a_part() {
    let mut content = Content::shipped();
    let profile = content.builtin[0].profile().clone();
    content.external.push(Arc::new(crate::stage::scan::content::tests::external(&profile, &[])));
    let all = Selection { all: true, ..asked(&[]) };
    assert!(unasked(&all, &content).is_some_and(|said| said.ends_with("(-e all): grype")));
    for silent in [
        Selection { engines: vec!["all".to_owned()], ..all.clone() },
        Selection { engines: vec![BUILTIN.to_owned(), "grype".to_owned()], ..all.clone() },
        Selection { profiles: vec![profile_for(TargetKind::Image)], ..all.clone() },
        // Grype's profile is for images.
        asked(&["cluster", "ns/shop"]),
    ] {
        assert_eq!(unasked(&silent, &content), None, "{silent:?}");
    }
    assert_eq!(unasked(&all, &Content::shipped()), None);
}

#[test]
fn a_profile_that_fits_no_target_is_not_passed_over() {
    let content = Content::shipped();
    let profiles = vec![profile_for(TargetKind::Host), profile_for(TargetKind::Cluster)];
    let error = check_parts(&Selection { profiles: profiles.clone(), ..asked(&["host"]) }, &content);
    assert!(error.expect_err("nothing is judged by it").to_string().contains(&profiles[1]));
    check_parts(&Selection { profiles, ..asked(&["host", "cluster"]) }, &content).expect("both fit");
    let cluster = Selection { all: true, profiles: vec![profile_for(TargetKind::Cluster)], ..asked(&[]) };
    check_parts(&cluster, &content).expect("all of the cluster's kinds may be narrowed down");
}

#[test]
fn what_the_cluster_does_not_show_is_expected_all_the_same() {
    let content = Content::shipped();
    let selection = Selection { all: true, ..asked(&["host"]) };
    let why = NotDone::new(crate::model::reason::Reason::ApiUnreachable, "no answer");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let selected = runtime.block_on(select(&selection, Some(&Err(why)), &Limits::default()));
    let units = plan_units(selected, &selection, &content, &Policy::default()).expect("units");
    for kind in [TargetKind::Host, TargetKind::Cluster, TargetKind::Container, TargetKind::Image] {
        let unit = units.iter().find(|u| u.target.kind() == kind).expect("each kind is expected");
        assert_eq!(matches!(unit.work, Work::Impossible(_)), kind != TargetKind::Host, "{}", unit.target);
    }
}
