//! Asking at the terminal for parts.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use crate::base::progress::Progress;
use crate::bundle::media::{Ask, Media, NobodyToAsk};
use crate::bundle::parts::list;
use crate::stage::load::incomplete::Incomplete;

/// Somebody who can put in a medium.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    progress: Progress,
}

impl Terminal {
    /// `None` where nobody would see the question, or could answer it.
    pub(super) fn new(progress: &Progress) -> Option<Self> {
        let there = io::stdin().is_terminal() && io::stderr().is_terminal();
        there.then(|| Self { progress: progress.clone() })
    }

    /// Asks for other copies of what is damaged. `false` when there are none.
    pub(super) async fn bring(&self, trouble: &Incomplete, media: &mut Media) -> bool {
        // For one that is only missing somebody was asked already.
        let Some(parts) = trouble.parts.as_ref().filter(|parts| !parts.damaged.is_empty()) else { return false };
        let terminal = self.clone();
        let question = format!(
            "{parts}\nput in a good copy of part {}, and press Enter; or type the folder or file that it is in; q to give up:",
            list(parts.numbers())
        );
        let answer = tokio::task::spawn_blocking(move || terminal.answer(&question)).await;
        match answer {
            Ok(Some(place)) => {
                for file in parts.bad_files() {
                    // What is put in its place later has the same name, so only another place makes this one useless.
                    if place.is_some() {
                        media.refuse(file.clone());
                    }
                }
                place.into_iter().for_each(|place| media.add(place));
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// A place, or none for the old ones; `None` when there is no answer, or the answer is to give up.
    fn answer(&self, question: &str) -> Option<Option<PathBuf>> {
        for line in question.lines() {
            self.progress.say(line);
        }
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => match line.trim() {
                "q" => None,
                "" => Some(None),
                place => Some(Some(PathBuf::from(place))),
            },
        }
    }
}

impl Ask for Terminal {
    fn ask(&mut self, number: u32, why: &str) -> io::Result<Option<PathBuf>> {
        let question = format!(
            "part {number}: {why}\nput in its medium and press Enter; or type the folder or file that it is in; q to give up:"
        );
        self.answer(&question).map_or_else(|| NobodyToAsk.ask(number, why), Ok)
    }
}
