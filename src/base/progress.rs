//! What a person sees while something takes long. Everything goes to stderr; stdout is for data.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where progress goes: a terminal gets bars that move, anything else gets one line per step, `quiet` gets nothing.
/// Clones share the same screen.
#[derive(Clone, Debug)]
pub struct Progress {
    mode: Mode,
}

#[derive(Clone, Debug)]
enum Mode {
    Quiet,
    Lines,
    Bars(Arc<MultiProgress>),
}

/// One step under way. Dropped without [`Step::done`], it leaves no claim that it was done.
#[derive(Debug)]
#[must_use = "a step is reported when it is done"]
pub struct Step {
    label: String,
    bar: Option<ProgressBar>,
    lines: bool,
}

impl Progress {
    /// Nothing is shown.
    pub fn quiet() -> Self {
        Self { mode: Mode::Quiet }
    }

    /// Bars when stderr is a terminal, lines otherwise.
    pub fn stderr() -> Self {
        let mode =
            if std::io::stderr().is_terminal() { Mode::Bars(Arc::new(MultiProgress::new())) } else { Mode::Lines };
        Self { mode }
    }

    /// One line for the reader, above whatever bars move.
    pub fn say(&self, message: impl AsRef<str>) {
        let message = super::text::printable(message.as_ref());
        match &self.mode {
            Mode::Quiet => {}
            Mode::Lines => eprintln!("{message}"),
            Mode::Bars(multi) => multi.suspend(|| eprintln!("{message}")),
        }
    }

    /// A step without a known size.
    pub fn step(&self, label: impl Into<String>) -> Step {
        self.start(label.into(), |multi| {
            let bar = multi.add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        })
    }

    /// A step that moves `total` bytes.
    pub fn bytes(&self, label: impl Into<String>, total: u64) -> Step {
        self.start(label.into(), |multi| {
            let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            multi.add(ProgressBar::new(total).with_style(style))
        })
    }

    fn start(&self, label: String, bar: impl FnOnce(&MultiProgress) -> ProgressBar) -> Step {
        let label = super::text::printable(&label).into_owned();
        let bar = match &self.mode {
            Mode::Bars(multi) => Some(bar(multi).with_message(label.clone())),
            Mode::Quiet | Mode::Lines => None,
        };
        Step { label, bar, lines: matches!(self.mode, Mode::Lines) }
    }
}

/// Counts for a [`Step`] from anywhere. Clones count for the same step.
#[derive(Clone, Debug)]
pub struct Counter(Option<ProgressBar>);

impl Counter {
    /// So many units more are done.
    pub fn advance(&self, units: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(units);
        }
    }
}

impl Step {
    /// Counts for this step, also from another thread.
    pub fn counter(&self) -> Counter {
        Counter(self.bar.clone())
    }

    /// So many units more are done.
    pub fn advance(&self, units: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(units);
        }
    }

    /// Done; `result` follows the label on its line.
    pub fn done(self, result: impl AsRef<str>) {
        let line = format!("{}: {}", self.label, super::text::printable(result.as_ref()));
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None if self.lines => eprintln!("{line}"),
            None => {}
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
