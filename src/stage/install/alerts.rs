//! What an installed runner takes Falco's alerts with: files beside the plan, which go with it, and a profile of the bundle.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use zeroize::Zeroizing;

use super::{InstallError, InstallRequest};
use crate::base::file;
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::cluster::install::{ALERTS, ALERTS_FOLDER, Alerts};
use crate::stage::plan::{FalcoIntake, PlanDocument};
use crate::stage::scan::content::Content;
use crate::stage::serve::falco;

/// The port at which the runner answers whoever is in its own pod.
const ENDPOINT_PORT: u16 = 9464;

/// What the plan takes alerts with, by the names that the runner has it under, which the plan names then.
pub(super) fn given(
    intake: &mut Option<FalcoIntake>,
    plan: &Path,
    request: &InstallRequest,
    limits: &Limits,
) -> Result<Option<Alerts>, InstallError> {
    let Some(intake) = intake else { return Ok(None) };
    let here = intake.clone().below(plan.parent().unwrap_or(Path::new(".")));
    let problems = problems(&here, request.upload_port);
    let (Some(port), true) = (NonZeroU16::new(here.address.port()), problems.is_empty()) else {
        return Err(InstallError::Request(problems));
    };
    // What the runner would refuse to start with is refused here.
    falco::check(&here)?;
    let mut files = BTreeMap::new();
    let mut give = |name: &str, path: &Path| -> Result<PathBuf, InstallError> {
        files.insert(name.to_owned(), Zeroizing::new(file::read_capped(path, limits.document_bytes)?));
        Ok(Path::new(ALERTS_FOLDER).join(name))
    };
    intake.certificate_file = give("tls.crt", &here.certificate_file)?;
    intake.key_file = give("tls.key", &here.key_file)?;
    intake.client_ca_file = here.client_ca_file.as_deref().map(|path| give("client-ca.crt", path)).transpose()?;
    intake.token_file = here.token_file.as_deref().map(|path| give("token", path)).transpose()?;
    let name = format!("{ALERTS}.{}.svc", request.namespace);
    if !is_for(&files["tls.crt"], &name) {
        // Falco would tell its own log, and nobody here.
        return Err(InstallError::Request(vec![format!(
            "falco.certificateFile is not for `{name}`, the name of the service that Falco sends to, and Falco would send nothing"
        )]));
    }
    Ok(Some(Alerts { port, from: request.falco_namespace.clone(), files }))
}

/// Whether the first certificate of this chain (PEM) is for a name.
fn is_for(chain: &[u8], name: &str) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(chain) else { return false };
    let (Ok(certificate), Ok(name)) = (ParsedCertificate::try_from(&certificate), ServerName::try_from(name)) else {
        return false;
    };
    verify_server_name(&certificate, &name).is_ok()
}

/// All that can't be so in a pod.
fn problems(intake: &FalcoIntake, upload: Option<NonZeroU16>) -> Vec<String> {
    let mut problems = Vec::new();
    if !intake.address.ip().is_unspecified() {
        problems.push(
            "falco.address is one of this machine's; the runner's pod has its own: write 0.0.0.0:PORT".to_owned(),
        );
    }
    let port = intake.address.port();
    if port < 1024 {
        problems.push("the port of falco.address must be 1024 or more, which needs no privileges".to_owned());
    }
    if port == ENDPOINT_PORT || upload.is_some_and(|upload| upload.get() == port) {
        problems.push(format!("the port of falco.address, {port}, is taken by something else in the runner's pod"));
    }
    if let Some(folder) = intake.profile.as_deref().filter(|name| Path::new(name).is_dir()) {
        problems.push(format!(
            "falco.profile is the folder `{}`, which the runner does not have: put the profile into the bundle, and name it",
            brief(folder)
        ));
    }
    problems
}

/// That the bundle has the profile that alerts are measured against.
pub(super) fn known(document: &PlanDocument, content: &Content, bundle: &str) -> Result<(), InstallError> {
    let Some(name) = document.falco.as_ref().and_then(|intake| intake.profile.as_ref()) else { return Ok(()) };
    if content.external.iter().any(|external| external.profile.name == *name) {
        return Ok(());
    }
    let (name, bundle) = (brief(name), brief(bundle));
    Err(InstallError::Request(vec![format!("falco.profile is `{name}`, and bundle `{bundle}` has no such profile")]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::install::tests::request;

    fn intake(more: &str) -> Option<FalcoIntake> {
        let text = format!("certificateFile: a.crt\nkeyFile: a.key\ntokenFile: secret/token\n{more}");
        Some(crate::base::document::from_yaml(Path::new("plan.yaml"), "falco", &text).expect("an intake"))
    }

    #[test]
    fn what_alerts_are_taken_with_goes_with_the_plan() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["falco.gapscan.svc".to_owned()]).expect("parameters");
        write("a.crt", &params.self_signed(&key).expect("a certificate").pem());
        write("a.key", &key.serialize_pem());
        std::fs::create_dir(folder.path().join("secret")).expect("a folder");
        write("secret/token", "0123456789abcdef\n");
        let plan = folder.path().join("plan.yaml");
        let given = |intake: &mut Option<FalcoIntake>| super::given(intake, &plan, &request(), &Limits::default());

        let mut fitted = intake("address: 0.0.0.0:9466");
        let alerts = given(&mut fitted).expect("it fits").expect("alerts are taken");
        assert_eq!((alerts.port.get(), alerts.from.as_str()), (9466, "falco"));
        assert_eq!(alerts.files.keys().collect::<Vec<_>>(), ["tls.crt", "tls.key", "token"]);
        let fitted = fitted.expect("an intake");
        assert_eq!(fitted.key_file, Path::new("/etc/gapscan-falco/tls.key"));
        assert_eq!(fitted.token_file.as_deref(), Some(Path::new("/etc/gapscan-falco/token")));
        assert!(given(&mut None).expect("nothing is asked for").is_none());

        let elsewhere = InstallRequest { namespace: "security".to_owned(), ..request() };
        let refused = super::given(&mut intake("address: 0.0.0.0:9466"), &plan, &elsewhere, &Limits::default());
        let Err(InstallError::Request(problems)) = refused else { panic!("it is another service's certificate") };
        assert!(problems[0].contains("not for `falco.security.svc`"), "{problems:?}");
        write("secret/token", "short\n");
        assert!(given(&mut intake("address: 0.0.0.0:9466")).is_err(), "the runner would not start");
        std::fs::create_dir(folder.path().join("rules")).expect("a folder");
        for (more, word) in [
            ("address: 127.0.0.1:9466", "0.0.0.0:PORT"),
            ("address: 0.0.0.0:443", "1024"),
            ("address: 0.0.0.0:9464", "taken"),
            ("address: '[::]:9466'\nprofile: rules", "into the bundle"),
        ] {
            let Err(InstallError::Request(problems)) = given(&mut intake(more)) else { panic!("{more}") };
            assert!(problems.join("; ").contains(word), "{problems:?}");
        }
    }
}
