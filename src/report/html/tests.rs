use super::*;
use crate::model::coverage::Coverage;
use crate::model::reason::Reason;
use crate::report::contents::{LedgerState, Report};
use crate::report::sample::{self, HOSTILE};

fn text(report: &Report) -> String {
    render(report)
}

/// The tags of a page, without what is between them. A `<` that is not escaped always opens one.
fn tags(page: &str) -> Vec<String> {
    page.split('<').skip(1).map(|rest| rest.split('>').next().expect("a first part").to_owned()).collect()
}

#[test]
fn hostile_texts_make_no_markup() {
    let benign: std::collections::HashSet<String> = tags(&text(&sample::report()))
        .iter()
        .map(|t| t.split([' ', '\n']).next().expect("a name").to_owned())
        .collect();
    let page = text(&sample::hostile());
    for tag in tags(&page) {
        let name = tag.split([' ', '\n']).next().expect("a name");
        assert!(benign.contains(name) || name == "br", "{tag}");
        assert!(!tag.contains("onerror") && !tag.contains("javascript:"), "{tag}");
    }
    assert!(page.contains("&#60;script&#62;alert(1)"), "the text itself is shown");
    assert!(!page.contains("<script"));
    // Nothing can close the style sheet from inside.
    assert_eq!(page.matches("</style>").count(), 1);
    assert!(page.contains("{{ 7*7 }}"), "a text is no template");
}

#[test]
fn hostile_texts_steer_nothing() {
    let page = text(&sample::hostile());
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!page.contains(['\u{202e}', '\u{2066}', '\u{2028}']));
    assert!(page.contains("\\u{202e}"));
}

#[test]
fn endless_texts_are_cut_and_say_so() {
    let page = text(&sample::hostile());
    assert!(page.contains("more characters)"));
    assert!(!page.contains(&"A".repeat(7_000)));
    let found = text(&sample::report());
    assert!(found.contains("And 140 more that are not shown here"), "340 found, 300 recorded, 200 shown");
}

#[test]
fn only_web_addresses_become_links() {
    for page in [text(&sample::report()), text(&sample::hostile())] {
        for tag in tags(&page) {
            if let Some(target) = tag.split("href=\"").nth(1) {
                assert!(target.starts_with('#') || target.starts_with("https://csrc.nist.gov/"), "{tag}");
            }
        }
    }
}

#[test]
fn the_page_loads_and_runs_nothing() {
    let page = text(&sample::report());
    assert!(page.contains("default-src 'none'"));
    for word in ["<script", "<link", "<img", "<iframe", "@import", "url(", " src="] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn every_check_of_the_ledger_is_on_the_page() {
    let report = sample::report();
    let page = text(&report);
    for (number, task) in report.tasks.iter().enumerate() {
        for position in 0..task.record().findings.len() {
            let anchor = format!("id=\"r{}c{}\"", number + 1, position + 1);
            assert_eq!(page.matches(&anchor).count(), 1, "{anchor}");
        }
    }
    let coverage: Coverage = report.coverage();
    assert!(page.contains(&format!("<dt>Expected</dt><dd>{}</dd>", coverage.expected())));
    for reason in [Reason::NoShell, Reason::AccessDenied, Reason::FactMissing] {
        assert!(
            page.contains(reason.code()) && page.contains(&reason.description().replace('\'', "&#39;")),
            "{reason}"
        );
    }
}

#[test]
fn every_link_in_the_page_leads_somewhere_and_no_id_is_twice() {
    let page = text(&sample::report());
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|r| r.split('"').next()).collect();
    let unique: std::collections::HashSet<&&str> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len());
    for link in page.split("href=\"#").skip(1).filter_map(|r| r.split('"').next()) {
        assert!(ids.contains(&link), "{link}");
    }
}

#[test]
fn what_is_wrong_with_the_ledger_comes_first() {
    let mut report = sample::report();
    report.ledger.state = LedgerState::NotIntact("entry 12 was changed".to_owned());
    let page = text(&report);
    assert!(page.contains("<h2 id=\"verdict\">The ledger is not intact</h2>"));
    assert!(page.contains("entry 12 was changed"));
    assert!(!page.contains("chain verified"));
    assert!(page.contains("no score: the counts can't be relied on"));
}

#[test]
fn nothing_is_no_pass() {
    let mut report = sample::report();
    report.tasks.clear();
    let page = text(&report);
    assert!(page.contains("Nothing was expected"));
    assert!(!page.contains("Everything passed"));
}

#[test]
fn the_marking_is_first_and_last_and_on_each_printed_page() {
    let page = text(&sample::report());
    assert_eq!(page.matches("</span>UNCLASSIFIED</p>").count(), 2);
    let body = page.split("<body>").nth(1).expect("a body");
    let first = body.find("class=\"marking").expect("a marking");
    assert!(first < body.find("<header").expect("a header"));
    assert!(page.contains("@top-center { content: \"\\000055"));
    let mut plain = sample::report();
    plain.classification = None;
    assert!(!text(&plain).contains("class=\"marking"));
}

#[test]
fn each_hostile_text_is_there_to_be_tried() {
    // The tests above prove nothing about a text that the sample does not hold.
    let report = sample::hostile();
    for text in HOSTILE {
        assert!(report.title.contains(text));
    }
}
