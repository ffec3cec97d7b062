//! The command of a scanner's pod whose program is the target's own: gapscan's agent, which runs that there.

use std::collections::BTreeMap;

use super::parameters::substitute;
use super::scanning::{Run, Scanning};
use crate::cluster::access::in_target::RESULT;
use crate::cluster::error::ClusterError;
use crate::model::scanner::{self as placeholder, InTarget};

/// The UID of the target's pod, among the values: no definition can name it.
pub(crate) const UID: &str = "target.uid";

/// What stands for the program in the agent's arguments. `access` are those by which it reaches the API server.
pub(super) fn command(
    scanning: &Scanning<'_>,
    run: Run<'_>,
    in_target: InTarget<'_>,
    access: &[&str],
    values: &mut BTreeMap<String, String>,
) -> Result<Vec<String>, ClusterError> {
    let program = &scanning.program;
    let mut words: Vec<String> = [run.agent, "agent", "in-target"].map(str::to_owned).into();
    words.extend(access.iter().map(|word| (*word).to_owned()));
    for (flag, name) in [("--pod", placeholder::POD), ("--container", placeholder::CONTAINER), ("--uid", UID)] {
        let missing = || ClusterError::Parameter { name: name.to_owned(), template: flag.to_owned() };
        words.extend([flag.to_owned(), values.get(name).ok_or_else(missing)?.clone()]);
    }
    words.extend(["--word".to_owned(), scanning.word()]);
    words.extend(["--limit".to_owned(), scanning.result_limit.to_string()]);
    words.extend(["--deadline".to_owned(), program.deadline.as_secs().to_string()]);
    if program.result != "stdout" {
        words.extend(["--result".to_owned(), format!("{}/{}", run.results, program.result)]);
    }
    if let Some(path) = in_target.delivers {
        let path = substitute(path, values)?;
        // The program runs in the folder in which the file is.
        let name = path.rsplit('/').next().unwrap_or_default();
        values.insert(placeholder::DELIVERED.to_owned(), format!("./{name}"));
        words.extend(["--delivers".to_owned(), path]);
    }
    values.insert(placeholder::RESULT.to_owned(), RESULT.to_owned());
    for (name, value) in program.approach.env {
        words.push(format!("--variable={name}={}", substitute(value, values)?));
    }
    words.push("--".to_owned());
    for word in program.approach.command {
        words.push(substitute(word, values)?);
    }
    Ok(words)
}
