//! The `cudrift` command: what a user types first.
#![forbid(unsafe_code)]

mod arrays;
mod commands;
mod error;
mod plot;

use clap::Parser;
use clap::error::ErrorKind;
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
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error::one_line(&error.to_string()));
            ExitCode::from(1)
        }
    }
}

/// Help and version as clap prints them; everything else in one line, status 2.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // A closed pipe (`cudrift --help | head -1`) is no failure of ours.
        let _ = error.print();
        let asked = error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        return ExitCode::from(if asked { 0 } else { 2 });
    }
    let text = error.to_string();
    let body = text.split("\n\nUsage:").next().unwrap_or(&text);
    let body = body.split("\n\nFor more information").next().unwrap_or(body);
    eprintln!("{}; see --help", error::one_line(body));
    ExitCode::from(2)
}
