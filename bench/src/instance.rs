//! Our side: a private instance made by `svctool try`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// What `svctool try --json` prints, as far as it is used here.
#[derive(Debug, Deserialize)]
pub(crate) struct Instance {
    pub(crate) domain: String,
    pub(crate) accounts: Vec<Account>,
    pub(crate) ports: BTreeMap<String, u16>,
    sockets: BTreeMap<String, PathBuf>,
    pub(crate) enter: Vec<String>,
    #[serde(skip)]
    svctool: PathBuf,
    #[serde(skip)]
    dir: PathBuf,
}

/// One account of the instance.
#[derive(Debug, Deserialize)]
pub(crate) struct Account {
    pub(crate) address: String,
    pub(crate) maildir: PathBuf,
}

impl Instance {
    /// Starts one under `dir` and waits until it is ready.
    pub(crate) fn start(stage: &Path, dir: &Path) -> anyhow::Result<Self> {
        let svctool = stage.join("usr/sbin/svctool");
        let output = Command::new(&svctool)
            .args(["try", "--detach", "--json", "--dir"])
            .arg(dir)
            .output()
            .with_context(|| format!("cannot start {}", svctool.display()))?;
        ensure!(output.status.success(), "svctool try failed: {}", String::from_utf8_lossy(&output.stderr));
        let mut instance: Self = serde_json::from_slice(&output.stdout)?;
        instance.svctool = svctool;
        instance.dir = dir.to_path_buf();
        Ok(instance)
    }

    /// A command that runs inside the instance's namespace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut argv = self.enter.iter();
        match argv.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(argv).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// Where a daemon of the instance listens.
    pub(crate) fn socket(&self, name: &str) -> anyhow::Result<&Path> {
        self.sockets.get(name).map(PathBuf::as_path).with_context(|| format!("no socket of {name}"))
    }

    /// The instance's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let stopped = Command::new(&self.svctool).args(["try", "--stop", "--dir"]).arg(&self.dir).status();
        if !stopped.is_ok_and(|s| s.success()) {
            eprintln!("bench: warning: cannot stop the instance in {}", self.dir.display());
        }
    }
}
