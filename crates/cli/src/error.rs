//! What a command fails with, and how anything is said to the user.

use std::io::Write;
use std::path::Path;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Cudrift(#[from] cudrift::Error),
    /// Anything that the command line alone knows about; one sentence that says what to do.
    #[error("{0}")]
    Message(String),
    /// A command that lacks what it cannot do without.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    pub(crate) fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub(crate) fn io(op: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Cudrift(cudrift::Error::io(op, path, source))
    }

    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Cudrift(cudrift::Error::format(path, problem))
    }

    /// The process's exit status.
    pub(crate) fn status(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }
}

/// Text in one line of bounded length, without what would steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut printable: String =
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(LONGEST).collect();
    if line.chars().nth(LONGEST).is_some() {
        printable.push('…');
    }
    printable
}

/// A line on standard output. A reader that has gone away has seen enough; any other failure is an error.
pub(crate) fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", Path::new("standard output"), error))
        }
        _ => Ok(()),
    }
}

/// A line on standard error. Where nobody listens, that is no reason to fail.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
