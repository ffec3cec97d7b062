//! Whom a scanner talks to: what its definition asks for, held against what policy allows, and what the record says of it.

use std::collections::BTreeSet;

use super::unit::NotDone;
use crate::base::text::brief;
use crate::cluster::Cluster;
use crate::cluster::egress::{self, Destination};
use crate::model::reason::Reason;
use crate::model::scanner::{Offered, ScannerDocument, ServicePort};
use crate::stage::plan::Policy;

/// Whom the scanner may talk to by this approach, by what its definition calls them.
///
/// # Errors
/// When it needs somebody whom policy does not name.
pub(crate) fn allowed<'p>(
    scanner: &ScannerDocument,
    approach: &Offered<'_>,
    policy: &'p Policy,
) -> Result<Vec<(&'p str, &'p ServicePort)>, NotDone> {
    let granted = policy.scanner_egress.get(&scanner.name);
    let mut found = Vec::new();
    for name in approach.egress() {
        match granted.and_then(|granted| granted.get_key_value(name)) {
            Some((name, service)) => found.push((name.as_str(), service)),
            None => {
                let (scanner, name, why) = (brief(&scanner.name), brief(name), why(scanner, name));
                let detail = format!(
                    "scanner `{scanner}` has to talk to `{name}` ({why}), and policy names no service for that \
                     (policy.scannerEgress, or --scanner-egress {scanner}/{name}=NAMESPACE/SERVICE:PORT)"
                );
                return Err(NotDone::new(Reason::EgressRefused, detail));
            }
        }
    }
    Ok(found)
}

/// What policy allows and none of these scanners asks for, in words: a typing error, or a permission that outlived its reason.
pub(crate) fn idle<'s>(scanners: impl Iterator<Item = &'s ScannerDocument>, policy: &Policy) -> Option<String> {
    let asked: BTreeSet<(&str, &str)> =
        scanners.flat_map(|of| of.egress.iter().map(|need| (of.name.as_str(), need.name.as_str()))).collect();
    let granted = policy.scanner_egress.iter();
    let granted = granted.flat_map(|(scanner, names)| names.keys().map(move |name| (scanner.as_str(), name.as_str())));
    let idle: Vec<String> =
        granted.filter(|grant| !asked.contains(grant)).map(|(of, name)| brief(&format!("{of}/{name}"))).collect();
    (!idle.is_empty())
        .then(|| format!("policy lets scanners talk to whom none of the bundle's asks for: {}", idle.join(", ")))
}

/// Finds out where those are whom the scanner may talk to.
///
/// # Errors
/// As [`allowed`], and when a service is not there, or leads elsewhere than to pods of its namespace.
pub(crate) async fn resolve(
    scanner: &ScannerDocument,
    approach: &Offered<'_>,
    policy: &Policy,
    cluster: &Cluster,
) -> Result<Vec<Destination>, NotDone> {
    let mut destinations = Vec::new();
    for (name, service) in allowed(scanner, approach, policy)? {
        let found = egress::destination(cluster, name, service).await;
        destinations.push(found.map_err(|error| NotDone::because(error.reason(), &error))?);
    }
    Ok(destinations)
}

/// What the record says of somebody whom a scanner may have talked to.
pub(crate) fn note(scanner: &ScannerDocument, to: &Destination) -> String {
    let peers: Vec<String> = to.peers().map(|at| at.to_string()).collect();
    format!(
        "the scanner might talk to service `{}` ({}), as policy allows: {}. No bundle vouches for what it was told there, and what it \
         told there nobody saw",
        to.service,
        peers.join(", "),
        why(scanner, &to.name),
    )
}

fn why(scanner: &ScannerDocument, name: &str) -> String {
    let need = scanner.egress.iter().find(|need| need.name == name);
    need.map_or_else(|| "its definition does not say why".to_owned(), |need| brief(&need.why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::document;
    use crate::stage::plan::ScannerEgress;

    #[test]
    fn a_scanner_talks_to_nobody_whom_policy_does_not_name() {
        let shipped = include_str!("../../../bundle/scanners/generic.yaml");
        let mut scanner: ScannerDocument =
            document::parse(std::path::Path::new("generic.yaml"), shipped).expect("it ships");
        scanner.egress = serde_json::from_value(serde_json::json!([{ "name": "feed", "why": "it has advisories" }]))
            .expect("somebody");
        let image = scanner.approaches.image.as_mut().expect("it has images");
        image.command.push("--feed=${egress.feed}".to_owned());
        let grants = |scanner: &str, name: &str| {
            let service = ("security/feed:443".parse::<ServicePort>()).expect("a port");
            let names = std::iter::once((name.to_owned(), service)).collect();
            Policy { scanner_egress: ScannerEgress::from([(scanner.to_owned(), names)]), ..Policy::default() }
        };
        let approach = Offered::from(scanner.approaches.image.as_ref().expect("it has images"));
        let (own, other) = (scanner.name.as_str(), "other");
        for policy in [Policy::default(), grants(other, "feed"), grants(own, "food")] {
            let why = allowed(&scanner, &approach, &policy).expect_err("it is not named");
            assert_eq!(why.reason, Reason::EgressRefused);
            assert!(
                why.detail.contains(&format!("--scanner-egress {own}/feed=NAMESPACE/SERVICE:PORT")),
                "{}",
                why.detail
            );
        }
        let policy = grants(own, "feed");
        let found = allowed(&scanner, &approach, &policy).expect("it is named");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1.to_string().as_str()), ("feed", "security/feed:443"));
        assert_eq!(idle([&scanner].into_iter(), &policy), None);
        for policy in [grants(other, "feed"), grants(own, "food")] {
            let said = idle([&scanner].into_iter(), &policy).expect("nobody asks for that");
            assert!(said.ends_with("other/feed") || said.ends_with(&format!("{own}/food")), "{said}");
        }
        // What is allowed and not asked for leads nowhere.
        scanner.approaches.image.as_mut().expect("it has images").command.pop();
        let approach = Offered::from(scanner.approaches.image.as_ref().expect("it has images"));
        assert_eq!(allowed(&scanner, &approach, &policy).expect("nobody").len(), 0);
    }
}
