//! The builtin engine: CEL rules in the form of ValidatingAdmissionPolicy documents, and facts judged by them.
//!
//! [`judge_system`] and [`judge_cluster`] give exactly one finding for each control of a profile. What an evaluation may
//! end as is in `judge`; how absent and partial facts are kept from passing is in `object`; how work is bounded is in
//! `budget`. profiles-mirror/README.md tells authors the same.

mod budget;
mod cluster;
mod expression;
mod judge;
mod object;
mod pattern;
mod policy;
mod rule;
mod scope;
mod tree;
mod value;

#[cfg(test)]
mod tests;

pub use cluster::judge_cluster;
pub use judge::judge_system;

pub(super) use rule::{Rule, Subject};

/// Reads and compiles all rules of a file, or tells all that is wrong with it; each problem names the file.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Rule>, Vec<String>> {
    expression::on_a_large_stack(|| read_here(file, text))
        .unwrap_or_else(|error| Err(vec![format!("`{file}`: compile it in a thread: {error}")]))
}

fn read_here(file: &str, text: &str) -> Result<Vec<Rule>, Vec<String>> {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for policy in policy::read(file, text) {
        match policy {
            Err(problem) => problems.push(problem),
            Ok((line, policy)) => {
                let name = crate::base::text::brief(&policy.metadata.name);
                match rule::compile(policy) {
                    Ok(rule) => rules.push(rule),
                    Err(found) => {
                        problems
                            .extend(found.into_iter().map(|p| format!("`{file}`, line {line}, rule `{name}`: {p}")));
                    }
                }
            }
        }
    }
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

/// The facts that a rule may name.
#[cfg(test)]
pub(super) fn fact_names() -> Vec<&'static str> {
    object::FACTS.to_vec()
}
