//! What a command fails with.

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
}

impl Error {
    pub(crate) fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }

    pub(crate) fn io(op: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Cudrift(cudrift::Error::io(op, path, source))
    }

    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Cudrift(cudrift::Error::format(path, problem))
    }
}

/// Text with its line breaks taken out.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line on standard output. A closed pipe is an error like any other, not a panic.
pub(crate) fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(|source| Error::io("write", Path::new("standard output"), source))
}
