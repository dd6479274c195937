//! The systems that are compared, and how each is told to do the same thing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::ensure;

/// One of the systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Daemontools,
    Runit,
    S6,
}

/// What a logger has to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogJob {
    pub(crate) stamp: bool,
    pub(crate) patterns: bool,
    /// Size of a file in bytes.
    pub(crate) size: u32,
    /// How many files are kept; 0: all.
    pub(crate) keep: u32,
}

/// Greater than any run makes.
const ALL: u32 = 1_000_000;

/// A system and where its programs are.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    programs: Vec<PathBuf>,
}

impl Peer {
    /// Ours first, then the peers.
    pub(crate) fn all(stage: &Path) -> anyhow::Result<Vec<Self>> {
        let system = || vec![PathBuf::from("/usr/bin")];
        let all = vec![
            Self::ours(stage)?,
            Self { kind: Kind::Daemontools, name: "daemontools", programs: system() },
            Self { kind: Kind::Runit, name: "runit", programs: system() },
            Self { kind: Kind::S6, name: "s6", programs: system() },
        ];
        for peer in &all {
            ensure!(
                peer.find(peer.scanner_name()).exists(),
                "{} is not installed; apt-get install {0}",
                peer.name
            );
        }
        Ok(all)
    }

    /// Ours alone.
    pub(crate) fn ours(stage: &Path) -> anyhow::Result<Self> {
        let programs = vec![stage.join("usr/bin"), stage.join("usr/sbin")];
        let ours = Self { kind: Kind::Ours, name: "ours", programs };
        ensure!(ours.find("svscan").exists(), "no svscan below {}; make stage", stage.display());
        Ok(ours)
    }

    fn scanner_name(&self) -> &'static str {
        match self.kind {
            Kind::Ours | Kind::Daemontools => "svscan",
            Kind::Runit => "runsvdir",
            Kind::S6 => "s6-svscan",
        }
    }

    /// Where a program of this system is.
    pub(crate) fn find(&self, program: &str) -> PathBuf {
        let mut places = self.programs.iter().map(|dir| dir.join(program));
        places.clone().find(|p| p.exists()).or_else(|| places.next()).unwrap_or_default()
    }

    /// The search path that finds this system's programs first.
    pub(crate) fn path(&self) -> OsString {
        let mut path = OsString::new();
        for dir in &self.programs {
            path.push(dir);
            path.push(":");
        }
        path.push("/usr/bin:/bin");
        path
    }

    /// A command in an environment of its own, silent.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.find(program));
        command.env_clear().env("PATH", self.path());
        if self.kind == Kind::Ours {
            // What runs on this machine stays unknown to these scanners.
            command.env("DISABLE_RUN", "").env("TERMINATE_SESSION", "").env("SILENT", "");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Watches a directory of services.
    pub(crate) fn scanner(&self, dir: &Path) -> Command {
        let mut command = self.command(self.scanner_name());
        match self.kind {
            Kind::Ours => command.args(["-n", "2100"]),
            Kind::Daemontools | Kind::Runit => &mut command,
            Kind::S6 => command.args(["-c", "2100", "-t0"]),
        };
        command.arg(dir);
        command
    }

    /// Keeps one service running.
    pub(crate) fn supervisor(&self) -> Command {
        self.command(self.supervisor_name())
    }

    /// The name of that program.
    pub(crate) fn supervisor_name(&self) -> &'static str {
        match self.kind {
            Kind::Ours | Kind::Daemontools => "supervise",
            Kind::Runit => "runsv",
            Kind::S6 => "s6-supervise",
        }
    }

    /// The run script of a logger that writes to `main` in its directory.
    pub(crate) fn logger_script(&self, stamp: bool) -> String {
        let t = if stamp { "t " } else { "" };
        match self.kind {
            Kind::Ours | Kind::Daemontools => format!("#!/bin/sh\nexec multilog {t}./main\n"),
            Kind::Runit if stamp => "#!/bin/sh\nmkdir -p main; exec svlogd -t ./main\n".to_owned(),
            Kind::Runit => "#!/bin/sh\nmkdir -p main; exec svlogd ./main\n".to_owned(),
            Kind::S6 => format!("#!/bin/sh\nexec s6-log {t}./main\n"),
        }
    }

    /// A logger that reads descriptor 0 and writes below `dir`.
    pub(crate) fn logger(&self, job: &LogJob, dir: &Path) -> anyhow::Result<Command> {
        let keep = if job.keep == 0 { ALL } else { job.keep };
        let (size, keep) = (format!("s{}", job.size), format!("n{keep}"));
        match self.kind {
            Kind::Ours | Kind::Daemontools => {
                let mut command = self.command("multilog");
                command.args(job.stamp.then_some("t"));
                if job.patterns {
                    command.args(["-*", "+* status: *", "+* delivery *", "+* starting *", "-* end *"]);
                }
                command.args([size, keep]).arg(dir);
                Ok(command)
            }
            Kind::Runit => {
                let keep = if job.keep == 0 { "n0" } else { &keep };
                let patterns =
                    if job.patterns { "-*\n+status: *\n+delivery *\n+starting *\n-end *\n" } else { "" };
                std::fs::create_dir_all(dir)?;
                std::fs::write(dir.join("config"), format!("{size}\n{keep}\n{patterns}"))?;
                let mut command = self.command("svlogd");
                command.args(job.stamp.then_some("-t")).arg(dir);
                Ok(command)
            }
            Kind::S6 => {
                let mut command = self.command("s6-log");
                command.arg("--");
                if job.patterns {
                    command.args(["-.*", "+^status: ", "+^delivery ", "+^starting ", "-^end "]);
                }
                command.args([size, keep]).args(job.stamp.then_some("t")).arg(dir);
                Ok(command)
            }
        }
    }

    /// Starts another program under the variables of a directory.
    pub(crate) fn environment(&self) -> (&'static str, &'static [&'static str]) {
        match self.kind {
            Kind::Ours | Kind::Daemontools => ("envdir", &[]),
            Kind::Runit => ("chpst", &["-e"]),
            Kind::S6 => ("s6-envdir", &[]),
        }
    }
}
