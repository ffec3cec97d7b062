use super::*;

const ITEMS: &str = r#"
  <Group id="g1">
    <Rule id="r1" selected="false" severity="high">
      <title>First
        rule</title>
      <description>Use <html:code xmlns:html="h">a</html:code>,<html:br xmlns:html="h"/>not <sub idref="v"/>.</description>
      <reference href="http://nvlpubs.nist.gov/nistpubs/SpecialPublications/NIST.SP.800-53r4.pdf">AC-6</reference>
      <reference href="https://public.cyber.mil/stigs/cci/">CCI-000366</reference>
      <rationale>Because.</rationale>
      <ident system="https://ncp.nist.gov/cce">CCE-1</ident>
      <fix system="urn:xccdf:fix:script:ansible">no</fix>
      <fix system="urn:xccdf:fix:script:sh">chmod x</fix>
      <check system="oval"><check-content-ref name="oval:1" href="o.xml"/></check>
    </Rule>
    <Group id="g2" selected="false">
      <Rule id="r2" severity="low"/>
      <Group id="g3"><Rule id="r3" cluster-id="c"/></Group>
    </Group>
    <Rule id="r4" abstract="true"/>
    <Rule id="r5"/>
  </Group>"#;

fn document(profiles: &str) -> String {
    format!("<Benchmark xmlns=\"{}\" id=\"b\">{profiles}{ITEMS}</Benchmark>", super::super::xml::XCCDF)
}

fn controls(text: &str, profile: &str) -> Result<Vec<Control>, BenchmarkError> {
    selected_controls(text.as_bytes(), profile, &Limits::default())
}

fn ids(profiles: &str, profile: &str) -> Vec<String> {
    controls(&document(profiles), profile).expect("controls").into_iter().map(|control| control.id).collect()
}

fn select(id: &str, selected: bool) -> String {
    format!("<select idref=\"{id}\" selected=\"{selected}\"/>")
}

#[test]
fn a_profile_selects_rules_in_selected_groups() {
    assert_eq!(ids("<Profile id=\"p\"/>", "p"), ["r5"]);
    let all = format!("<Profile id=\"p\">{}{}{}</Profile>", select("r1", true), select("g2", true), select("r4", true));
    assert_eq!(ids(&all, "p"), ["r1", "r2", "r3", "r5"]);
    let ungrouped = format!("<Profile id=\"p\">{}{}</Profile>", select("r2", true), select("r5", false));
    assert!(matches!(controls(&document(&ungrouped), "p"), Err(BenchmarkError::Empty { .. })));
    let cluster = format!("<Profile id=\"p\">{}{}</Profile>", select("g2", true), select("c", false));
    assert_eq!(ids(&cluster, "p"), ["r2", "r5"]);
    let outer = format!("<Profile id=\"p\">{}{}</Profile>", select("r1", true), select("g1", false));
    assert!(matches!(controls(&document(&outer), "p"), Err(BenchmarkError::Empty { .. })));
}

#[test]
fn a_profile_says_anew_what_the_one_that_it_extends_said() {
    let profiles = format!(
        "<Profile id=\"child\" extends=\"base\">{}<refine-rule idref=\"r5\" severity=\"low\"/></Profile>\
         <Profile id=\"base\">{}{}<refine-rule idref=\"r5\" severity=\"high\"/></Profile>",
        select("r1", false),
        select("r1", true),
        select("g2", true)
    );
    assert_eq!(ids(&profiles, "base"), ["r1", "r2", "r3", "r5"]);
    assert_eq!(ids(&profiles, "child"), ["r2", "r3", "r5"]);
    let severity = |profile| controls(&document(&profiles), profile).expect("controls").pop().map(|c| c.severity);
    assert_eq!((severity("base"), severity("child")), (Some(Severity::High), Some(Severity::Low)));
}

#[test]
fn a_rule_is_read_with_all_that_people_need() {
    let profiles = format!("<Profile id=\"p\">{}</Profile>", select("r1", true));
    let control = controls(&document(&profiles), "p").expect("controls").remove(0);
    assert_eq!(control.title, "First rule");
    assert_eq!(control.description, "Use a,\nnot [v].\n\nBecause.");
    assert_eq!(control.check, "oval:1 in o.xml");
    assert_eq!(control.fix, "chmod x");
    assert_eq!(control.severity, Severity::High);
    let references: Vec<(&str, &str)> = control.references.iter().map(|r| (&*r.scheme, &*r.id)).collect();
    assert_eq!(references, [("nist", "AC-6"), ("cci", "CCI-000366"), ("cce", "CCE-1")]);
}

#[test]
fn a_data_stream_collection_is_searched_for_the_profile() {
    let stream = |first: &str, second: &str| {
        format!(
            "<ds:data-stream-collection xmlns:ds=\"d\"><ds:data-stream/><ds:component>{}</ds:component><ds:component>{}\
             </ds:component></ds:data-stream-collection>",
            document(first),
            document(second)
        )
    };
    let found = controls(&stream("<Profile id=\"a\"/>", "<Profile id=\"p\"/>"), "p").expect("controls");
    assert_eq!(found.len(), 1);
    let twice = controls(&stream("<Profile id=\"p\"/>", "<Profile id=\"p\"/>"), "p");
    assert!(matches!(twice, Err(BenchmarkError::Ambiguous { count: 2, .. })));
    let none = controls(&stream("<Profile id=\"a\"/>", "<Profile id=\"b\"/>"), "p").expect_err("none");
    assert!(none.to_string().ends_with("the file has a, b"), "{none}");
}

#[test]
fn contradictions_and_other_files_are_refused() {
    let circle = "<Profile id=\"p\" extends=\"q\"/><Profile id=\"q\" extends=\"p\"/>";
    assert!(matches!(controls(&document(circle), "p"), Err(BenchmarkError::Contradiction { .. })));
    assert!(matches!(
        controls(&document("<Profile id=\"p\" extends=\"none\"/>"), "p"),
        Err(BenchmarkError::Contradiction { .. })
    ));
    let doubled = document("<Profile id=\"p\"/>").replace("id=\"r4\" abstract=\"true\"", "id=\"r5\"");
    assert!(matches!(controls(&doubled, "p"), Err(BenchmarkError::Contradiction { .. })));
    let odd = document("<Profile id=\"p\"/>").replace("id=\"r5\"", "id=\"r 5\"");
    assert!(matches!(controls(&odd, "p"), Err(BenchmarkError::Contradiction { .. })));
    let twice = document("<Profile id=\"p\"/><Profile id=\"p\"/>");
    assert!(matches!(controls(&twice, "p"), Err(BenchmarkError::Malformed { .. })));
    assert!(matches!(controls("<html/>", "p"), Err(BenchmarkError::NoProfile { .. })));
    assert!(matches!(controls("not XML", "p"), Err(BenchmarkError::Malformed { .. })));
    let limits = Limits { result_bytes: 100, ..Limits::default() };
    let large = selected_controls(document("<Profile id=\"p\"/>").as_bytes(), "p", &limits);
    assert!(matches!(large, Err(BenchmarkError::TooLarge { limit: 100 })));
}
