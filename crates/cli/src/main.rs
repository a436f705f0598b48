//! The `cudrift` command: what a user types first.
#![forbid(unsafe_code)]
// A closed pipe must not make a panic of a message: see `error::say` and `error::note`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arrays;
mod commands;
mod error;
mod plot;
mod progress;

use clap::Parser;
use clap::error::ErrorKind;
use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Drifting models: train one-step generators, compute drift fields, measure this machine.
#[derive(Parser)]
#[command(
    name = "cudrift",
    version,
    about,
    after_help = "Start with:  cudrift train --data swiss-roll --out runs/swiss-roll\n\
                  Threads:     RAYON_NUM_THREADS=N; results have the same bits for any N.\n\
                  Exit status: 0 on success, 2 for wrong usage, 1 otherwise."
)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match start_threads().and_then(|()| cli.command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error::note(&error::one_line(&format!("error: {error}")));
            ExitCode::from(error.status())
        }
    }
}

/// Starts rayon's threads here, where a failure can be reported.
fn start_threads() -> error::Result<()> {
    const MOST: usize = 1024;
    let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse::<usize>().ok());
    if let Some(n) = wanted.filter(|n| *n > MOST) {
        return Err(error::Error::message(format!("RAYON_NUM_THREADS is {n}, expected at most {MOST}")));
    }
    rayon::ThreadPoolBuilder::new()
        .build_global()
        .map_err(|error| error::Error::message(format!("cannot start threads ({error}); lower RAYON_NUM_THREADS")))
}

/// Help and version as clap prints them; everything else in one line, status 2.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // A closed pipe (`cudrift --help | head -1`) is no failure of ours.
        let _ = write!(std::io::stdout(), "{}", error.render());
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            error::note("error: name a command: train, encoder, drift, field, flow, diagnose, sample, doctor or bench");
            return ExitCode::from(2);
        }
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let body = text.split("\n\nUsage:").next().unwrap_or(&text);
    let body = body.split("\n\nFor more information").next().unwrap_or(body);
    error::note(&format!("{}; see --help", error::one_line(body)));
    ExitCode::from(2)
}
