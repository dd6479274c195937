//! What a finished file goes through before it gets its name.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use unix::Pid;
use unix::child::{Ending, Launch, wait_for, wait_until};
use unix::clock::Deadline;

use super::{COMPLETE, Error, Fading, LogDir, chmod, remove};
use crate::multilog::script::Processor;

/// A processor at work.
#[derive(Debug)]
pub(super) struct Running {
    pid: Pid,
    output: File,
    new_state: File,
}

impl LogDir {
    /// Starts the command on `previous`.
    pub(super) fn process(&self, command: &OsStr) -> Result<Running, Error> {
        let open = |name: &'static str| File::open(self.path(name)).map_err(|e| self.error("open", name, e));
        let (input, state) = (open("previous")?, open("state")?);
        let (output, new_state) = (self.fresh("processed")?, self.fresh("newstate")?);
        let start = || -> io::Result<Pid> {
            Launch::new("/bin/sh")
                .args([OsStr::new("-c"), command])
                .env_exactly(self.options.environment.to_vec())
                .directory(&self.spec.path)
                .descriptor(input.as_fd(), 0)?
                .descriptor(output.as_fd(), 1)?
                .descriptor(state.as_fd(), 4)?
                .descriptor(new_state.as_fd(), 5)?
                .start()
        };
        let pid = start().map_err(|e| self.error("run the processor on", "previous", e))?;
        Ok(Running { pid, output, new_state })
    }

    /// What became of the command; with `wait`, in the end.
    pub(super) fn outcome(&self, running: Running, wait: bool) -> Result<Fading, Error> {
        let Running { pid, output, new_state } = running;
        let ending = if wait {
            wait_for(pid).map(Some)
        } else {
            wait_until(pid, Deadline::after(std::time::Duration::ZERO))
        };
        match ending.map_err(|e| self.error("wait for the processor of", "previous", e))? {
            None => return Ok(Fading::InProcess(Running { pid, output, new_state })),
            Some(Ending::Exited(0)) => {}
            Some(other) => {
                let failed = io::Error::other(format!("the processor failed: {other:?}"));
                return Err(self.error("process", "previous", failed));
            }
        }
        let sync =
            |file, name| self.options.durability.sync_file(file).map_err(|e| self.error("fsync", name, e));
        sync(&output, "processed")?;
        // From here on a crash keeps `processed`; the state may be lost then, as it always is.
        self.complete("processed")?;
        sync(&new_state, "newstate")?;
        Ok(Fading::Processed)
    }

    /// Compresses `previous`.
    pub(super) fn compress(&self) -> Result<Fading, Error> {
        let mut input = File::open(self.path("previous")).map_err(|e| self.error("open", "previous", e))?;
        let output = self.fresh("processed")?;
        let mut encoder = GzEncoder::new(output, Compression::default());
        let written = io::copy(&mut input, &mut encoder).and_then(|_| encoder.finish());
        let output = written.map_err(|e| self.error("write to", "processed", e))?;
        self.options.durability.sync_file(&output).map_err(|e| self.error("fsync", "processed", e))?;
        self.complete("processed")?;
        Ok(Fading::Processed)
    }

    /// What was processed takes the place of `previous`, and the new state that of the old.
    pub(super) fn replace_previous(&self) -> Result<(), Error> {
        remove(&self.path("previous")).map_err(|e| self.error("remove", "previous", e))?;
        if self.spec.processor == Some(Processor::Gzip) {
            return Ok(());
        }
        match fs::rename(self.path("newstate"), self.path("state")) {
            // Done by an earlier try.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| self.error("rename", "newstate", e)),
        }?;
        chmod(&self.path("state"), self.spec.mode).map_err(|e| self.error("chmod", "state", e))
    }

    fn complete(&self, name: &'static str) -> Result<(), Error> {
        chmod(&self.path(name), self.spec.mode | COMPLETE).map_err(|e| self.error("chmod", name, e))
    }

    /// An empty file that only the owner can read.
    fn fresh(&self, name: &'static str) -> Result<File, Error> {
        let path = self.path(name);
        // One that is left from an earlier try may have other permissions.
        remove(&path).map_err(|e| self.error("remove", name, e))?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| self.error("create", name, e))
    }
}
