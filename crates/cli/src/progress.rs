//! A bar on a terminal, a line now and then elsewhere.

use crate::error::note;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many steps, of which the first are done; `template` is indicatif's.
    pub(crate) fn new(steps: u64, first: u64, template: &str) -> Self {
        let bar = ProgressBar::new(steps).with_position(first);
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.reset_eta();
        Self(bar)
    }

    /// A message beside the bar, or where there is none the line that `line` makes of it, if any.
    pub(crate) fn show(&self, message: String, line: impl FnOnce(&str) -> Option<String>) {
        if !self.0.is_hidden() {
            self.0.set_message(message);
        } else if let Some(line) = line(&message) {
            note(&line);
        }
    }

    /// A line that stays, above the bar.
    pub(crate) fn note(&self, line: &str) {
        self.0.suspend(|| note(line));
    }

    pub(crate) fn step(&self, done: u64) {
        self.0.set_position(done);
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
