//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use program::Layout;

use crate::config;
use crate::doctor::{self, Places};
use crate::instance::session::{self, Request};
use crate::instance::store::Store;
use crate::instance::{self, Instance, keeper, live};

/// One command to configure, check and try the mail system.
#[derive(Debug, Parser)]
#[command(name = "svctool", version, arg_required_else_help = true, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to set up; the same as the command config
    #[arg(long, value_name = "WHAT")]
    config: Option<What>,
    #[command(subcommand)]
    command: Option<Action>,
}

/// What `config` can set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// The system users and groups
    Users,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a complete private mail system below one directory
    ///
    /// Everything it needs is made below that directory; the machine's own /etc stays untouched.
    /// Started again, it reuses what is there. As root it has users of its own; as an ordinary
    /// user it does what needs no root and says what it left out.
    Try(TryArgs),
    /// Say what is wrong with a system and how to mend it
    Doctor(DoctorArgs),
    /// Set up what an installation needs outside the installed tree
    Config {
        /// What to set up
        what: What,
    },
    /// The process that holds a private system (started by try)
    #[command(hide = true)]
    Keep {
        /// The instance's directory
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct TryArgs {
    /// Directory of the private system [default: /var/lib/indimail-try, for ordinary users
    /// ~/.local/state/indimail-try]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Return as soon as it is ready and leave it running
    #[arg(long)]
    detach: bool,
    /// Print one JSON object when it is ready; steps go to stderr
    #[arg(long)]
    json: bool,
    /// Where accounts are kept: sqlite, or
    /// mysql://USER[:PASSWORD-FILE]@HOST[:PORT]/DATABASE[?socket=PATH]
    #[arg(long, value_name = "STORE")]
    store: Option<Store>,
    /// Stop it; returns when nothing of it is left running
    #[arg(long, conflicts_with_all = ["detach", "store", "clean", "status"])]
    stop: bool,
    /// Stop it and remove its directory
    #[arg(long, conflicts_with_all = ["detach", "store", "status"])]
    clean: bool,
    /// Show services, queue and last deliveries once; exit code 1 when it is not running
    #[arg(long, conflicts_with_all = ["detach", "store"])]
    status: bool,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Check the private system in this directory instead of the machine's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Does what the command line asks for; returns the exit code (0 done, 1 refused or faults found).
///
/// # Errors
/// What failed and why.
pub fn run(cli: Cli, layout: &Layout, variable: impl Fn(&str) -> Option<OsString>) -> Result<u8> {
    match (cli.config, cli.command) {
        (Some(what), _) | (None, Some(Action::Config { what })) => configure(what, layout),
        (None, Some(Action::Try(args))) => {
            let dir = args.dir.clone().unwrap_or_else(|| {
                instance::default_directory(variable("HOME").map(PathBuf::from).as_deref())
            });
            try_command(args, dir, layout)
        }
        (None, Some(Action::Doctor(args))) => {
            doctor::run(args.dir.as_deref(), args.json, &Places::from_variables(variable), layout)
        }
        (None, Some(Action::Keep { dir })) => keeper::keep(&Instance::existing(&dir)?).map(|()| 0),
        (None, None) => Ok(2),
    }
}

fn configure(what: What, layout: &Layout) -> Result<u8> {
    match what {
        What::Users => {
            let created = config::create_users()?;
            created.iter().for_each(|name| println!("created {name}"));
            if created.is_empty() {
                println!("all users and groups exist");
            }
            let queue = layout.sbin("qmail-queue");
            if config::own_queue_program(&queue)? {
                println!("{}: set-id of qmailq and qmail", queue.display());
            }
        }
    }
    Ok(0)
}

fn try_command(args: TryArgs, dir: PathBuf, layout: &Layout) -> Result<u8> {
    if args.stop || args.clean {
        return stop(&args, &dir);
    }
    if args.status {
        return status(&Instance::existing(&dir)?);
    }
    session::run(&Request { dir, detach: args.detach, json: args.json, store: args.store }, layout)?;
    Ok(0)
}

fn stop(args: &TryArgs, dir: &std::path::Path) -> Result<u8> {
    if args.clean && !dir.exists() {
        println!("{}: nothing there", dir.display());
        return Ok(0);
    }
    let instance = Instance::existing(dir)?;
    let was_running = keeper::stop_running(&instance)?;
    let shown = instance.dir().display();
    if args.clean {
        std::fs::remove_dir_all(instance.dir()).with_context(|| shown.to_string())?;
        println!("{shown}: removed");
    } else if was_running {
        println!("{shown}: stopped, nothing is left running");
    } else {
        println!("{shown}: was not running");
    }
    Ok(0)
}

fn status(instance: &Instance) -> Result<u8> {
    let Some((pid, kind)) = keeper::running(instance) else {
        println!("{}: not running", instance.dir().display());
        return Ok(1);
    };
    println!("{}: running (process {pid})", instance.dir().display());
    for line in live::lines(instance, &keeper::enter_prefix(instance, pid, kind)) {
        println!("{line}");
    }
    Ok(0)
}
