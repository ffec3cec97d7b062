//! Whatever the facts are, each control is accounted for.

use proptest::prelude::*;

use super::*;

fn json_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(|f| json!(f)),
        "[ -~]{0,12}".prop_map(Json::from),
        prop_oneof![Just("/etc/ssh/sshd_config"), Just("4755"), Just("no"), Just("/")].prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![
            Just("path"),
            Just("perm"),
            Just("uid"),
            Just("name"),
            Just("type"),
            Just("/etc/ssh/sshd_config"),
            Just("/etc/passwd"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::hash_map(key.prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

const SYSTEMS: [(&str, TargetKind); 3] = [
    ("container-baseline", TargetKind::Container),
    ("image-baseline", TargetKind::Image),
    ("host-baseline", TargetKind::Host),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Knowing less never makes a verdict that knowing more does not make: it only takes verdicts away.
    #[test]
    fn taking_facts_away_only_takes_verdicts_away(spoiled in any::<u64>(), kept in any::<u32>()) {
        for (name, kind) in SYSTEMS {
            let mut all = good_system();
            for (i, (_, pointer, value)) in bad_systems(kind.word()).into_iter().enumerate() {
                let into_list = pointer.rsplit('/').next().is_some_and(|last| last.parse::<usize>().is_ok());
                if spoiled & (1 << i) != 0 && (!into_list || all.pointer(pointer).is_some()) {
                    set(&mut all, pointer, value);
                }
            }
            let mut less = all.clone();
            let facts = less.as_object_mut().expect("an object");
            let mut bit = 0;
            facts.retain(|_, _| { bit += 1; kept & (1 << bit) != 0 });
            let judge = |facts: &Json| judge_system(profile(name), facts, kind, &Limits::default());
            for (more, less) in judge(&all).into_iter().zip(judge(&less)) {
                let same = more.outcome.status() == less.outcome.status();
                let unknown = matches!(less.outcome, Outcome::NotEvaluated { .. });
                prop_assert!(same || unknown, "{}: {:?} became {:?}", more.control, more.outcome, less.outcome);
            }
        }
    }

    /// Whatever the facts are, there is one finding for each control, and always the same.
    #[test]
    fn any_facts_give_one_finding_for_each_control(
        fields in prop::collection::hash_map(prop::sample::select(crate::native::rules::fact_names()), json_value(), 0..17)
    ) {
        let facts = Json::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        for (name, kind) in SYSTEMS {
            let findings = judge_system(profile(name), &facts, kind, &Limits::default());
            let ids: Vec<_> = findings.iter().map(|f| f.control.as_str()).collect();
            let wanted: Vec<_> = profile(name).profile().controls.iter().map(|c| c.id.as_str()).collect();
            prop_assert_eq!(ids, wanted);
            prop_assert_eq!(&findings, &judge_system(profile(name), &facts, kind, &Limits::default()));
        }
    }

    /// The same of a cluster, with objects in any form.
    #[test]
    fn any_objects_give_one_finding_for_each_control(objects in prop::collection::vec((0..7_usize, json_value()), 0..12)) {
        let profile = profile("cluster-baseline");
        let resources: Vec<_> = profile.resources().into_iter().collect();
        let mut facts = ClusterFacts::default();
        for (i, object) in objects {
            facts.add(&resources[i], [object]);
        }
        let findings = judge_cluster(profile, &facts, &Limits::default());
        prop_assert_eq!(findings.len(), profile.profile().controls.len());
        prop_assert_eq!(&findings, &judge_cluster(profile, &facts, &Limits::default()));
    }
}
