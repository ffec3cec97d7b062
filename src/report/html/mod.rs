//! One HTML file that a person likes to read: no script, nothing from the network, light and dark, made to be printed.
//!
//! What a hostile target may try through its texts, and where it is stopped:
//! * markup and attributes: every expression in the templates is escaped by askama, and no template says `safe`;
//! * scripts, should one get through: the page's own Content-Security-Policy lets nothing run and nothing load;
//! * terminal escapes, reordering of text, invisible characters: `Shown` is the only text that a view can hold, and it
//!   neutralises what it is made from;
//! * endless texts and lists: `Shown` cuts, and says how much it cut; lists are capped by `MAX_DETAILS`, and say how many are left;
//! * links that run something: only `http:` and `https:` become links;
//! * style sheets: the one text in them, the marking on printed pages, is written in hexadecimal escapes only.

mod agreement;
mod finding;
mod page;
mod shown;
mod task;

use askama::Template;

use super::contents::Report;

/// How many details of one finding are shown at once; the others are behind one click, and are printed.
const FIRST_DETAILS: usize = 5;
/// How many details of one finding are shown at all; the ledger has the others.
const MAX_DETAILS: usize = 200;

/// The whole page.
pub fn render(report: &Report) -> String {
    page::Page::of(report).render().expect("the templates only format texts and numbers into memory, which can't fail")
}

#[cfg(test)]
mod tests;
