//! Side-by-side benchmarks against peers, on the same machine and disk, in one run, as ratios.
//!
//! Each benchmark brings up our private instance and the peer, gives both the same work in
//! alternating rounds, and prints a table with medians and the ratio ours : peer. Nothing here
//! asserts; absolute figures depend on the machine, ratios much less.
//!
//! `bench mail` needs Debian's postfix (also for its load generator smtp-source) and root;
//! `bench nss` needs libnss-extrausers and root; `bench supervision` needs daemontools, runit and s6;
//! `bench connections` needs ucspi-tcp.
#![forbid(unsafe_code)]

mod connections;
mod instance;
mod mail;
mod nss;
mod peer;
mod stats;
mod supervision;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Side-by-side benchmarks against peers.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Staged installation to measure (made by `make stage`).
    #[arg(long, default_value = "target/stage")]
    stage: PathBuf,
    /// Working directory; put it on the disk to be measured.
    #[arg(long, default_value = "/var/tmp/indimail-bench")]
    dir: PathBuf,
    /// A tenth of the work: shows that everything runs, figures are rough.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// SMTP in, delivered to a Maildir: ours and Postfix.
    Mail,
    /// getpwnam: ours, files and extrausers.
    Nss,
    /// Connections a second and memory of tcpserver: ours and Debian's.
    Connections,
    /// Supervision and logging: ours, daemontools, runit and s6.
    Supervision {
        /// Only these, by id (B1 ... B17), separated by commas.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Our services killed at random for a while: none lost, none twice, nobody grows.
    Soak {
        /// How many services.
        #[arg(long, default_value_t = 1000)]
        services: usize,
        /// For how long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Whose supervision: a peer shows that the check can fail.
        #[arg(long, default_value = "ours")]
        of: String,
    },
    /// Mail and nss, one after the other.
    All,
    /// Looks names up in a loop and prints nanoseconds per call; started by `nss`.
    #[command(hide = true)]
    NssLoop {
        /// First number of the names `PREFIXnumber SUFFIX`.
        prefix: String,
        /// What follows the number.
        suffix: String,
        /// How many names there are.
        names: u32,
        /// How many look-ups.
        count: u32,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { stage, dir, quick, what } = arguments;
    let run = |what: &dyn Fn() -> anyhow::Result<String>| -> anyhow::Result<()> {
        print!("{}", what()?);
        Ok(())
    };
    // The loop runs in another place and needs neither.
    if let What::NssLoop { prefix, suffix, names, count } = what {
        return nss::look_up(&prefix, &suffix, names, count);
    }
    let stage = stage
        .canonicalize()
        .with_context(|| format!("no staged installation at {}; run: make stage", stage.display()))?;
    std::fs::create_dir_all(&dir)?;
    match what {
        What::Mail => run(&|| mail::run(&stage, &dir, quick)),
        What::Nss => run(&|| nss::run(&stage, &dir, quick)),
        What::Connections => run(&|| connections::run(&stage, &dir, quick)),
        What::Supervision { only } => run(&|| supervision::run(&stage, &dir, quick, &only)),
        What::Soak { services, minutes, of } => run(&|| supervision::endure(&stage, &of, services, minutes)),
        What::All => {
            run(&|| mail::run(&stage, &dir, quick))?;
            run(&|| nss::run(&stage, &dir, quick))
        }
        What::NssLoop { .. } => Ok(()),
    }
}
