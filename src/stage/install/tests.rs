use super::*;
use crate::cluster::install::{Scope, permissions};

pub(super) fn request() -> InstallRequest {
    InstallRequest {
        namespace: "gapscan".to_owned(),
        bundle: BundleSource {
            name: "enclave".to_owned(),
            registry: "registry.example:5000/gapscan".to_owned(),
            root: PathBuf::from("trust/root.json"),
            state: None,
        },
        registry: RegistryAccess {
            ca_file: Some(PathBuf::from("some/ca.pem")),
            username: Some("kim".to_owned()),
            password_file: Some(PathBuf::from("some/password")),
            ..RegistryAccess::default()
        },
        cluster: ClusterAccess::default(),
        plan: None,
        storage: Storage { class: None, size: "10Gi".to_owned() },
        upload_port: None,
        falco_namespace: "falco".to_owned(),
    }
}

fn plan(text: &str) -> PlanDocument {
    document::parse(Path::new("plan.yaml"), text).expect("a plan")
}

#[test]
fn a_plan_is_fitted_to_the_runners_container() {
    let mut document = plan(PLAN);
    assert_eq!(fit(&mut document, &request(), "registry.example:5000"), Vec::<String>::new());
    let bundle = document.bundle.clone().expect("it has one");
    assert_eq!((bundle.name.as_str(), bundle.root), ("enclave", PathBuf::from("root.json")));
    let access = &document.registries["registry.example:5000"];
    assert_eq!(access.ca_file.as_deref(), Some(Path::new("ca.crt")));
    assert_eq!(access.password_file.as_deref(), Some(Path::new("/etc/gapscan-registry/password")));
    assert_eq!(access.username.as_deref(), Some("kim"));
    let written = document::to_yaml(&document).expect("YAML");
    assert_eq!(plan(&written), document);
}

#[test]
fn a_plan_may_ask_for_the_scanners_of_the_bundle_that_is_installed() {
    let mut document = plan(
        "apiVersion: gapscan/v1\nkind: Plan\nname: a\nscans: [{name: a, targets: ['image/r.example/a:1'], engines: [grype]}]\n",
    );
    let at = Path::new("plan.yaml");
    let error = Plan::validated(at, document.clone()).expect_err("it names no bundle");
    assert!(format!("{error:?}").contains("the plan names no bundle"), "{error:?}");
    assert_eq!(fit(&mut document, &request(), "registry.example:5000"), Vec::<String>::new());
    Plan::validated(at, document).expect("it is fitted");
}

#[test]
fn a_plan_for_another_place_is_refused_with_all_that_does_not_fit() {
    let mut document = plan(
        "apiVersion: gapscan/v1\nkind: Plan\nname: a\nledger: /data/ledger\n\
         bundle: {name: other, registry: 'registry.example:5000/gapscan', root: root.json}\n\
         cluster: {kubeconfig: k}\npolicy: {results: {transport: upload, address: 'a:1'}}\n\
         registries: {'elsewhere.example': {caFile: ca.pem}}\n\
         scans: [{name: a, targets: [cluster]}]\n",
    );
    let problems = fit(&mut document, &request(), "registry.example:5000").join("; ");
    for part in ["ledger", "cluster is reached", "`other`", "`elsewhere.example`", "--upload-port"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
}

#[test]
fn the_waivers_of_a_plan_go_with_it_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.yaml");
    let key = crate::trust::key::RoleKey::generate();
    let waivers = folder.path().join("w.yaml");
    std::fs::write(&waivers, "waivers\r\n").expect("write");
    std::fs::write(approval::signature_path(&waivers, &key), [0xff]).expect("write");
    std::fs::write(folder.path().join("a.pub"), "key").expect("write");
    let policy =
        || WaiverPolicy { files: vec!["w.yaml".into()], approvers: vec!["a.pub".into()], ..WaiverPolicy::default() };
    let mut fitted = policy();
    let given = given_waivers(&mut fitted, &path, &Limits::default()).expect("they are there");
    assert_eq!((fitted.files, fitted.approvers), (vec!["waivers-1.yaml".into()], vec!["approver-1.pub".into()]));
    let signature = format!("waivers-1.yaml.{}.sig", &key.id_hex()[..8]);
    let names: Vec<&str> = given.keys().map(String::as_str).collect();
    assert_eq!(names, ["approver-1.pub", "waivers-1.yaml", signature.as_str()]);
    assert_eq!(given["waivers-1.yaml"], b"waivers\r\n");
    std::fs::write(&waivers, vec![b'x'; WAIVER_BYTES + 1]).expect("write");
    assert!(given_waivers(&mut policy(), &path, &Limits::default()).is_err(), "too many bytes");
    std::fs::remove_file(&waivers).expect("remove");
    assert!(given_waivers(&mut policy(), &path, &Limits::default()).is_err(), "not there");
}

/// The rows of the tables in `docs/permissions.md`: where, group, resource, verbs.
fn documented() -> Vec<(Scope, String, String, Vec<String>)> {
    let page = include_str!("../../../docs/permissions.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [path, verbs, scope, why, ..] = cells[..] else { panic!("a row has four cells: {row}") };
        assert!(!why.is_empty(), "{row} says why");
        let (group, resource) = path.trim_matches('`').split_once(' ').expect("a group and a resource");
        let scope = match scope {
            "everywhere" => Scope::Cluster,
            "`default`" => Scope::Default,
            other => panic!("nowhere: {other}"),
        };
        let group = if group == "core" { "" } else { group };
        (scope, group.to_owned(), resource.to_owned(), verbs.split(", ").map(str::to_owned).collect())
    })
    .collect()
}

#[test]
fn the_page_about_permissions_says_what_is_granted() {
    let granted: BTreeSet<_> = permissions(&resources(&Content::shipped()))
        .into_iter()
        .map(|p| (p.scope, p.group, p.resource, p.verbs.into_iter().map(str::to_owned).collect::<Vec<_>>()))
        .collect();
    let rows = documented();
    assert_eq!(rows.len(), granted.len(), "each is there once");
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), granted);
}

#[tokio::test]
async fn an_address_needs_no_look_up_and_loopback_is_refused() {
    let host = look_up("192.0.2.9:5000").await.expect("an address");
    assert_eq!((host.name, host.port), (None, 5000));
    assert!(look_up("localhost:5000").await.is_err());
    assert!(look_up("127.0.0.1:5000").await.is_err());
}
