//! `--scanner-egress`: what scanners may talk to, as policy has it.

use crate::base::exit::Failure;
use crate::model::scanner::EgressGrant;
use crate::stage::plan::ScannerEgress;

/// All that is granted.
///
/// # Errors
/// When one name is to be two services.
pub(super) fn granted(grants: &[EgressGrant]) -> Result<ScannerEgress, Failure> {
    let mut all = ScannerEgress::new();
    for EgressGrant { scanner, name, service } in grants {
        let other = all.entry(scanner.clone()).or_default().insert(name.clone(), service.clone());
        if let Some(other) = other.filter(|other| other != service) {
            let both = format!("use `{service}` as `{name}` of scanner `{scanner}`: it is `{other}` already");
            return Err(Failure::usage(both));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_service() {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect::<Vec<EgressGrant>>();
        let fine = granted(&read(&["a/x=n/s:1", "a/y=n/s:2", "b/x=n/t:1", "a/x=n/s:1"])).expect("they fit together");
        assert_eq!((fine.len(), fine["a"].len(), fine["a"]["x"].to_string().as_str()), (2, 2, "n/s:1"));
        let failure = granted(&read(&["a/x=n/s:1", "a/x=n/s:2"])).expect_err("two services");
        assert!(failure.to_string().contains("it is `n/s:1` already"), "{failure}");
    }
}
