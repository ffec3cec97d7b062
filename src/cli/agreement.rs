//! Results that answer one question, side by side, for `gapscan results`.

use super::table::{self, Table, count, when};
use crate::base::text::printable;
use crate::model::agreement::{Common, Comparison, Side};

/// How many controls of one comparison a table lists.
const LISTED: usize = 20;

/// Each comparison that says more than its results do by themselves: replicas that do not agree, and several ways to one
/// target.
pub(super) fn render(compared: &[Comparison]) -> String {
    compared.iter().filter(|one| says_more(one)).map(|one| format!("\n{}", render_one(one))).collect()
}

fn says_more(comparison: &Comparison) -> bool {
    match comparison.common {
        Common::Replicas { .. } => comparison.is_inconsistent(),
        Common::Approaches { .. } => true,
    }
}

fn render_one(comparison: &Comparison) -> String {
    let Comparison { common, profile, sides, compared, differences } = comparison;
    let verdict = match differences.len() {
        0 => format!("the {} that they have in common ended alike", count(*compared, "control")),
        many => format!("INCONSISTENT in {many} of {}", count(*compared, "control")),
    };
    let (what, side): (String, fn(&Side) -> String) = match common {
        Common::Replicas { workload, container } => {
            (format!("replicas of {workload}, container {container}"), |side| side.target.clone())
        }
        Common::Approaches { target } => {
            (target.clone(), |side| format!("{} by {}, {}", side.approach.word(), side.engine, when(side.finished)))
        }
    };
    let mut text = printable(&format!("{what}, {profile}: {verdict}")).into_owned() + "\n";
    if differences.is_empty() {
        for one in sides {
            text += &table::paragraph(2, &side(one));
        }
        return text;
    }
    let mut list = Table::new(&["CONTROL", "STATUS", "WHERE"]);
    for difference in differences.iter().take(LISTED) {
        // The sides that say the same together, in the order of the first of them.
        let mut told: Vec<(String, Vec<String>)> = Vec::new();
        for (one, ended) in sides.iter().zip(&difference.outcomes) {
            let word = ended.map_or("not in it".to_owned(), |status| status.to_string());
            match told.iter_mut().find(|(known, _)| *known == word) {
                Some((_, wheres)) => wheres.push(side(one)),
                None => told.push((word, vec![side(one)])),
            }
        }
        for (at, (word, wheres)) in told.into_iter().enumerate() {
            let control = if at == 0 { difference.control.clone() } else { String::new() };
            list.row([control, word, wheres.join("\n")]);
        }
    }
    text += &list.render(2);
    if differences.len() > LISTED {
        text += &format!("  and {} more; `-o json` has them all\n", differences.len() - LISTED);
    }
    text
}
