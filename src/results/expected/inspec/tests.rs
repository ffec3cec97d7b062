use super::*;

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

fn listing(ids: &[&str]) -> String {
    let controls: Vec<_> =
        ids.iter().map(|id| serde_json::json!({"id": id, "impact": 0.7, "tags": {}, "code": ""})).collect();
    serde_json::json!({"name": "top", "version": "1.0.0", "controls": controls, "groups": [], "supports": [], "sha256": "x"})
        .to_string()
}

fn list(list: &[(&str, &str)], json: &str) -> Result<Vec<Control>, ContentError> {
    let mut files = files(list);
    files.insert("list.json".to_owned(), json.as_bytes().to_vec());
    controls(&files, &InspecSource { path: "in".to_owned(), json: "list.json".to_owned() })
}

fn ids(controls: &[Control]) -> Vec<&str> {
    controls.iter().map(|control| control.id.as_str()).collect()
}

const YML: (&str, &str) = ("in/inspec.yml", "name: top\nversion: 1.0.0\n");
const TWO: (&str, &str) = ("in/controls/a.rb", "# control 'no'\ncontrol 'a' do\nend\ncontrol 'b' do\nend\n");

#[test]
fn what_inspec_listed_of_this_profile_is_expected() {
    let json = serde_json::json!({
        "name": "top", "version": "1.0.0", "status": "loaded", "groups": [],
        "controls": [{
            "id": "a", "title": "Set\n it", "desc": " Why. ", "impact": 0.9, "code": "",
            "descriptions": {"default": "Why.", "check": "Look.", "fix": "Do.", "rationale": "So."},
            "refs": [{"url": "https://x.example/a"}, {"ref": "a book"}, {"ref": [{"ref": "x"}]}],
            "tags": {"nist": ["AC-6 (5)", "Rev_4"], "cci": ["CCI-000366"], "gid": "V-1", "stig_id": "X-01", "severity": "high", "gtitle": "SRG-1", "check_id": "C-1"},
        }, {"id": "b", "title": null, "desc": null, "impact": 0.0, "tags": {"fix": "F."}, "code": "", "descriptions": [{"label": "check", "data": "C."}]}],
    });
    let found = list(&[YML, TWO], &json.to_string()).expect("controls");
    assert_eq!(ids(&found), ["a", "b"]);
    let [a, b] = &found[..] else { panic!("two") };
    assert_eq!((a.title.as_str(), a.description.as_str(), a.severity), ("Set it", "Why.\n\nSo.", Severity::Critical));
    assert_eq!((a.check.as_str(), a.fix.as_str()), ("Look.", "Do."));
    let names: Vec<String> = a.references.iter().map(|r| format!("{}:{}", r.scheme, r.id)).collect();
    assert_eq!(
        names,
        ["cci:CCI-000366", "stig:V-1", "srg:SRG-1", "nist:AC-6 (5)", "stig:X-01", "url:https://x.example/a"]
    );
    assert_eq!((b.title.as_str(), b.check.as_str(), b.fix.as_str(), b.severity), ("b", "C.", "F.", Severity::None));
}

#[test]
fn a_list_that_is_not_of_this_profile_is_refused_and_says_which_controls_differ() {
    let good = listing(&["a", "b"]);
    for (json, words) in [
        (good.replace("\"top\"", "\"other\""), "its name is `other`, that of the profile is `top`"),
        (good.replace("1.0.0", "1.0.1"), "its version is `1.0.1`"),
        (listing(&["a"]), "`controls/a.rb`, line 4 names control `b`, which `list.json` lacks"),
        (listing(&["a", "b", "c"]), "it has control `c`, which no file"),
        (listing(&["a", "b", "no"]), "it has control `no`"),
        (listing(&["a", "b", "b"]), "twice"),
        (listing(&["a", "b", "(generated from a.rb:7 8f)"]), "no name of its own"),
        (
            good.replace("\"groups\"", "\"status\":\"skipped\",\"status_message\":\"no os\",\"groups\""),
            "(skipped): no os",
        ),
        (listing(&[]), "it has no control"),
        ("[]".to_owned(), "no list of controls"),
    ] {
        let error = list(&[YML, TWO], &json).err().unwrap_or_else(|| panic!("{words}: accepted"));
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(error.remedy.is_some_and(|remedy| remedy.contains("--legacy-export")));
    }
    let open = ("in/controls/b.rb", "control 'x do\n");
    let error = list(&[YML, TWO, open], &good).expect_err("no end").to_string();
    assert!(error.contains("`controls/b.rb`, line 1: what begins there has no end"), "{error}");
}

#[test]
fn names_that_are_put_together_may_be_any_that_fits() {
    let dynamic = ("in/controls/b.rb", "(1..3).each do |n|\n  control \"c-#{n}\" do\n  end\nend\n");
    let found = list(&[YML, TWO, dynamic], &listing(&["a", "b", "c-1", "c-2"])).expect("controls");
    assert_eq!(ids(&found).len(), 4);
    assert!(list(&[YML, TWO, dynamic], &listing(&["a", "b", "d-1"])).is_err());
}

const LOCK: &str = "lockfile_version: 1\ndepends:\n- name: base\n  resolved_source:\n    url: https://x.example/b.tar.gz\n    \
                    sha256: abc1\n  dependencies:\n  - name: deep\n    resolved_source: {git: 'https://x.example/d.git', ref: def2}\n";

fn packed(list: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (path, text) in list {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).expect("an entry");
    }
    tar.into_inner().expect("a tar").finish().expect("gzip")
}

#[test]
fn controls_of_included_profiles_are_expected_as_inspec_would_run_them() {
    let base = [
        ("base-1/inspec.yml", "name: base\nversion: 2.0.0\ndepends:\n- {name: deep, git: 'https://x.example/d.git'}\n"),
        ("base-1/controls/x.rb", "control 'base-1' do\nend\ncontrol 'base-2' do\nend\ninclude_controls 'deep'\n"),
    ];
    let yml = "name: top\nversion: 1.0.0\ndepends:\n- {name: base, url: 'https://x.example/b.tar.gz'}\n- {name: local, path: ./libs/local}\n";
    let own = "include_controls 'base' do\n  skip_control 'base-2'\n  control 'base-1' do\n    impact 0.1\n  end\nend\n\
               require_controls 'local' do\n  control 'local-1'\nend\n";
    let mut all = files(&[
        ("in/inspec.yml", yml),
        ("in/inspec.lock", LOCK),
        ("in/controls/a.rb", own),
        ("in/libs/local/inspec.yml", "name: local\nversion: 1.0.0\n"),
        ("in/libs/local/controls/l.rb", "control 'local-1' do\nend\ncontrol 'local-2' do\nend\n"),
        ("in/vendor/def2/inspec.yml", "name: deep\nversion: 1.0.0\n"),
        ("in/vendor/def2/controls/d.rb", "control 'deep-1' do\nend\n"),
    ]);
    all.insert("in/vendor/abc1.tar.gz".to_owned(), packed(&base));
    let source = InspecSource { path: "in".to_owned(), json: "list.json".to_owned() };
    let mut expect = |listed: &[&str]| {
        all.insert("list.json".to_owned(), listing(listed).into_bytes());
        controls(&all, &source).map(|found| ids(&found).iter().map(|id| (*id).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(expect(&["base-1", "deep-1", "local-1"]).expect("controls"), ["base-1", "deep-1", "local-1"]);
    // As a list is without --legacy-export.
    let error = expect(&["base-1", "local-1"]).expect_err("deep is left out").to_string();
    assert!(error.contains("`base: deep: controls/d.rb`, line 1 names control `deep-1`"), "{error}");
    // Of a profile of which some are required, no others are run.
    assert!(expect(&["base-1", "deep-1", "local-1", "local-2"]).is_err());
}

#[test]
fn what_would_need_the_network_is_refused() {
    let depends = |text: &str| format!("name: top\nversion: 1.0.0\ndepends:\n- {{name: base{text}}}\n");
    let vendored = ("in/vendor/abc1/inspec.yml", "name: base\nversion: 1.0.0\n");
    let deep = ("in/vendor/def2/inspec.yml", "name: deep\nversion: 1.0.0\n");
    let lock = ("in/inspec.lock", LOCK);
    for (yml, more, words) in [
        (depends(", url: 'https://x.example/b'"), vec![], "inspec.lock does not pin `base`"),
        (depends(", url: 'https://x.example/b'"), vec![lock], "vendor/ does not have"),
        (depends(""), vec![lock, vendored, deep], "comes from a Supermarket"),
        (depends(", supermarket: a/base"), vec![lock, vendored, deep], "comes from a Supermarket"),
        (depends(", path: ../base"), vec![], "no profile"),
    ] {
        let all: Vec<(&str, &str)> = [("in/inspec.yml", yml.as_str()), TWO].into_iter().chain(more).collect();
        let error = list(&all, &listing(&["a", "b"])).err().unwrap_or_else(|| panic!("{words}: accepted")).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let fine = depends(", url: 'https://x.example/b'");
    list(&[("in/inspec.yml", &fine), TWO, lock, vendored, deep], &listing(&["a", "b"])).expect("all is there");
    let other = ("in/controls/b.rb", "include_controls 'nowhere'\n");
    let error = list(&[YML, TWO, other], &listing(&["a", "b"])).expect_err("not named").to_string();
    assert!(error.contains("it includes `nowhere`, which inspec.yml does not name"), "{error}");
}
