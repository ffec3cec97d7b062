//! What commands that list something share: the output format, tables for people.

use std::io::{BufWriter, ErrorKind, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::text::printable;
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;

/// How wide a table may be.
const WIDTH: usize = 100;
/// How narrow the last column may become before the others go on without regard for the width.
const NARROWEST: usize = 24;

/// In which form data goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Documented here and not for clap: a list of them on lines of their own would bury the rest of each command's help.
    Table,
    Json,
}

/// Columns with a header. All but the last are as wide as they need to be; the last is wrapped.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    title: &'static str,
    align: Align,
}

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

impl Table {
    /// A table without rows. A title that begins with `>` is that of a column of numbers, without the `>`.
    pub(crate) fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| match title.strip_prefix('>') {
            Some(title) => Column { title, align: Align::Right },
            None => Column { title, align: Align::Left },
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row. In the last cell a line break begins a new line; everything else that could steer a terminal is
    /// neutralised.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, each after so many spaces.
    pub(crate) fn render(&self, indent: usize) -> String {
        let last = self.columns.len() - 1;
        let rows: Vec<Vec<Vec<String>>> = self.rows.iter().map(|row| self.cells(row)).collect();
        let width = |at: usize| {
            let cells = rows.iter().flat_map(|row| row[at].iter()).map(|line| line.chars().count());
            cells.chain([self.columns[at].title.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..last).map(width).collect();
        let before = indent + widths.iter().map(|width| width + 2).sum::<usize>();
        let room = WIDTH.saturating_sub(before).max(NARROWEST);
        let mut text = String::new();
        let titles: Vec<Vec<String>> = self.columns.iter().map(|column| vec![column.title.to_owned()]).collect();
        for row in std::iter::once(&titles).chain(&rows) {
            let wrapped: Vec<String> = row[last].iter().flat_map(|line| wrap(line, room)).collect();
            for at in 0..wrapped.len().max(1) {
                let mut line = " ".repeat(indent);
                for (column, width) in widths.iter().enumerate() {
                    let cell = if at == 0 { row[column].first().map_or("", String::as_str) } else { "" };
                    let gap = " ".repeat(width - cell.chars().count().min(*width));
                    line += &match self.columns[column].align {
                        Align::Left => format!("{cell}{gap}  "),
                        Align::Right => format!("{gap}{cell}  "),
                    };
                }
                line += wrapped.get(at).map_or("", String::as_str);
                text += line.trim_end();
                text.push('\n');
            }
        }
        text
    }

    /// The cells of a row as clean lines; only the last may have several.
    fn cells(&self, row: &[String]) -> Vec<Vec<String>> {
        let last = self.columns.len() - 1;
        let clean = |at: usize| match row.get(at) {
            Some(cell) if at == last => cell.split('\n').map(|line| printable(line).into_owned()).collect(),
            Some(cell) => vec![printable(cell).into_owned()],
            None => vec![String::new()],
        };
        (0..self.columns.len()).map(clean).collect()
    }
}

/// The line in pieces of at most `room` characters, broken at spaces where there are any; what follows the first is set in
/// by two spaces.
fn wrap(line: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut current = String::new();
    let mut used = 0;
    // What is too long for a line of its own, as a reference, is broken after one of its parts where it has some.
    let parts = |word: &'_ str| match word.chars().count() > room {
        true => word.split_inclusive('/').map(str::to_owned).collect::<Vec<_>>(),
        false => vec![word.to_owned()],
    };
    for word in line.split_inclusive(' ').flat_map(parts) {
        let length = word.trim_end().chars().count();
        if used > 0 && used + length > room {
            pieces.push(std::mem::take(&mut current));
            current.push_str("  ");
            used = 2;
        }
        for character in word.chars() {
            if used >= room && character != ' ' {
                pieces.push(std::mem::take(&mut current));
                current.push_str("  ");
                used = 2;
            }
            current.push(character);
            used += 1;
        }
    }
    pieces.push(current);
    pieces.into_iter().map(|piece| piece.trim_end().to_owned()).collect()
}

/// Text as lines after so many spaces.
pub(crate) fn paragraph(indent: usize, text: &str) -> String {
    let lines = wrap(&printable(text), WIDTH - indent);
    lines.into_iter().map(|line| format!("{}{line}\n", " ".repeat(indent))).collect()
}

/// The titles of the cells that [`counts`] gives.
pub(crate) const COUNTS: [&str; 6] = [">SCORE", ">PASS", ">FAIL", ">NOT EVAL", ">WAIVED", ">N/A"];

/// Score and counts as cells.
pub(crate) fn counts(coverage: &Coverage) -> [String; 6] {
    let count = |status| coverage.count(status).to_string();
    [
        coverage.score().map_or("-".to_owned(), |score| format!("{score}%")),
        count(Status::Passed),
        count(Status::Failed),
        count(Status::NotEvaluated),
        count(Status::Waived),
        count(Status::NotApplicable),
    ]
}

/// `1 run`, `2 runs`.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number: u64 = number.try_into().unwrap_or(u64::MAX);
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A time for people: UTC, to the minute. The JSON has it in full.
pub(crate) fn when(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// Why nothing is shown of a target that was asked for by name. Success would look like a clean target.
pub(crate) fn no_result(target: &str) -> Failure {
    Failure::usage(format!("show results of `{}`: the ledger has none", printable(target)))
        .with_remedy("`gapscan results` lists the targets that have results")
}

/// Whether a target's key is the one that was asked for or lies below it: `pod/NS/NAME` has all its containers, and
/// `ns/NAME` all containers in that namespace.
pub(crate) fn lies_below(key: &str, asked: &str) -> bool {
    let asked = asked.trim_end_matches('/');
    let asked = match asked.strip_prefix("ns/") {
        Some(namespace) => format!("pod/{namespace}"),
        None => asked.to_owned(),
    };
    key.strip_prefix(&asked).is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && asked.starts_with("pod/")))
}

/// Writes data to stdout. A reader that has gone away is no failure.
pub(crate) fn emit(text: &str) -> Outcome<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitClass::Unreachable, format!("write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a value to stdout as JSON, piece by piece: it may be long.
pub(crate) fn emit_json(value: &impl Serialize) -> Outcome<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from);
    match written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        // What has no form in JSON.
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(Failure::new(ExitClass::Bug, format!("write the output as JSON: {error}")))
        }
        Err(error) => Err(Failure::new(ExitClass::Unreachable, format!("write the output: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_and_says_everything() {
        let mut table = Table::new(&[">N", "NAME", "TEXT"]);
        table.row(["1".to_owned(), "a\u{1b}[2J".to_owned(), format!("{}\nsecond", "word ".repeat(40))]);
        table.row(["12".to_owned(), "b".to_owned(), "x".repeat(300)]);
        let text = table.render(2);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("second"), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        let reference = "image/registry.example:5000/a/long/repository:with-a-tag";
        assert_eq!(wrap(reference, 40), ["image/registry.example:5000/a/long/", "  repository:with-a-tag"]);
        assert_eq!(text.matches('x').count(), 300);
        assert!(text.starts_with("   N  NAME"), "{text}");
    }

    #[test]
    fn a_target_is_found_by_its_key_and_what_it_lies_below() {
        for (key, asked) in [
            ("host", "host"),
            ("pod/shop/web/web", "pod/shop/web"),
            ("pod/shop/web/web", "pod/shop/web/web"),
            ("pod/shop/web/web", "ns/shop"),
            ("image/r/a:1", "image/r/a:1"),
        ] {
            assert!(lies_below(key, asked), "{key} {asked}");
        }
        for (key, asked) in [
            ("pod/shop/web-2/web", "pod/shop/web"),
            ("pod/shopping/web/web", "ns/shop"),
            ("image/r/a:1", "image/r"),
            ("host", "hos"),
            ("host", ""),
        ] {
            assert!(!lies_below(key, asked), "{key} {asked}");
        }
    }
}
