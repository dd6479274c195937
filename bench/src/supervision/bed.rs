//! A scan directory in memory, services that stamp the time at which they run, one scanner or supervisor.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::time::{ClockId, clock_gettime};

use super::peers::Peer;
use super::tree;

/// One start of a service.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// Nanoseconds of the monotonic clock.
    pub(crate) at: i64,
    pub(crate) pid: i32,
}

/// The monotonic clock in nanoseconds.
pub(crate) fn now() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

/// Milliseconds between two readings.
pub(crate) fn millis(from: i64, to: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 in any run")]
    let nanos = (to - from) as f64;
    nanos / 1e6
}

/// See the module.
pub(crate) struct Bed<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) dir: PathBuf,
    stamp: PathBuf,
}

impl<'a> Bed<'a> {
    /// An empty one.
    pub(crate) fn new(peer: &'a Peer, base: &Path) -> anyhow::Result<Self> {
        let dir = base.join(peer.name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(dir.join("sv"))?;
        let me = std::env::current_exe()?;
        let stamp = me.parent().context("no directory of programs")?.join("bench-stamp");
        ensure!(stamp.exists(), "{} is missing; cargo build --release -p bench", stamp.display());
        // Where the checkout is may be slow to read; all services start the same copy.
        let copy = dir.join("stamp");
        fs::copy(&stamp, &copy)?;
        Ok(Self { peer, dir, stamp: copy })
    }

    /// A service below `parent`, which is `sv` for those that are scanned.
    pub(crate) fn service(&self, parent: &str, name: &str, logger: Option<&str>) -> anyhow::Result<PathBuf> {
        let service = self.dir.join(parent).join(name);
        fs::create_dir_all(&service)?;
        symlink(&self.stamp, service.join("run"))?;
        if let Some(script) = logger {
            fs::create_dir(service.join("log"))?;
            Self::script(&service.join("log/run"), script)?;
        }
        Ok(service)
    }

    /// Writes an executable script.
    pub(crate) fn script(path: &Path, text: &str) -> anyhow::Result<()> {
        fs::write(path, text)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// The services that were there when the scanner starts.
    pub(crate) fn services(&self, count: usize, logger: Option<&str>) -> anyhow::Result<()> {
        (0..count).try_for_each(|i| self.service("sv", &format!("s{i:04}"), logger).map(drop))
    }

    fn start(&self, mut command: Command) -> anyhow::Result<i32> {
        let child =
            command.env("STAMPFILE", self.dir.join("stamps")).current_dir(self.dir.join("sv")).spawn()?;
        Ok(i32::try_from(child.id())?)
    }

    /// Starts the scanner.
    pub(crate) fn scan(&self) -> anyhow::Result<i32> {
        self.start(self.peer.scanner(&self.dir.join("sv")))
    }

    /// Starts a supervisor for one service.
    pub(crate) fn supervise(&self, name: &str, variables: &[(&str, &str)]) -> anyhow::Result<i32> {
        let mut command = self.peer.supervisor();
        command.arg(name).envs(variables.iter().copied());
        self.start(command)
    }

    /// All starts so far.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let text = fs::read_to_string(self.dir.join("stamps")).unwrap_or_default();
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete
            .lines()
            .filter_map(|line| {
                let mut fields = line.rsplit(' ');
                Some(Stamp { pid: fields.next()?.parse().ok()?, at: fields.next()?.parse().ok()? })
            })
            .collect()
    }

    /// Waits for `count` starts; an error after a minute.
    pub(crate) fn started(&self, count: usize) -> anyhow::Result<Vec<Stamp>> {
        self.until(&format!("{count} starts"), || {
            let stamps = self.stamps();
            (stamps.len() >= count).then_some(stamps)
        })
    }

    /// Waits until something is so; an error after a minute.
    pub(crate) fn until<T>(&self, what: &str, mut test: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(value) = test() {
                return Ok(value);
            }
            tree::reap();
            ensure!(Instant::now() < end, "{}: no {what} within a minute", self.peer.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        tree::kill_all();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
