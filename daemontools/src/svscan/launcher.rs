//! Starting the supervises, and asking those that run.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use program::Environment;
use unix::Pid;
use unix::child::Launch;

use super::limits::OpenFiles;
use super::machine::Role;
use crate::state_path::Places;
use crate::{client, envdir, fifo};

/// What a slot holds.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: Vec<u8>,
    /// Reading and writing end, between the service and its logger.
    pub(super) pipe: Option<(OwnedFd, OwnedFd)>,
}

/// How supervises are started.
#[derive(Debug)]
pub(super) struct Launcher {
    supervise: PathBuf,
    environment: Environment,
    places: Places,
    limits: OpenFiles,
}

impl Launcher {
    /// With the environment that all of them get.
    pub(super) fn new(environment: Environment, places: Places, limits: OpenFiles) -> Self {
        Self { supervise: supervise_program(), environment, places, limits }
    }

    pub(super) fn start(&self, service: &Service, role: Role) -> io::Result<Pid> {
        let name = OsString::from_vec(service.name.clone());
        let dir = directory(&service.name, role);
        let mut environment = self.environment.clone();
        environment.set(if role == Role::Main { "MAIN_SV" } else { "SV_PWD" }, name.as_os_str());
        let svars = dir.join(".svars");
        if svars.is_dir() {
            envdir::read(&svars, envdir::OnUnreadable::Fail)
                .map_err(io::Error::other)?
                .apply(&mut environment);
        }
        let launch = Launch::new(&self.supervise).arg0("supervise").env_exactly(environment.to_vec());
        let launch = match (role, &service.pipe) {
            (Role::Main, None) => launch.args([name]),
            (Role::Main, Some((_, write))) => launch.args([name]).descriptor(write.as_fd(), 1)?,
            (Role::Log, pipe) => {
                let launch = launch.directory(Path::new(&name)).args([OsStr::new("log"), name.as_os_str()]);
                match pipe {
                    Some((read, _)) => launch.descriptor(read.as_fd(), 0)?,
                    None => launch,
                }
            }
        };
        self.limits.as_inherited(|| launch.start_unwatched())
    }

    /// Does a supervise run there, whoever started it? Cannot tell counts as no: supervise itself will
    /// find out.
    pub(super) fn is_supervised(&self, service: &Service, role: Role) -> bool {
        let state = self.places.of_client(&directory(&service.name, role));
        client::is_running(&state).unwrap_or(false)
    }

    /// Writes a command to the control of a supervise; false when nobody reads there. That of a service that has been disabled meanwhile is
    /// found under its new name.
    pub(super) fn command(&self, service: &Service, role: Role, byte: u8) -> io::Result<bool> {
        let disabled = [b".", service.name.as_slice()].concat();
        for name in [&service.name, &disabled] {
            let control = self.places.of_client(&directory(name, role)).join("control");
            if let Some(mut control) = fifo::writer(&control)? {
                return control.write_all(&[byte]).map(|()| true);
            }
        }
        Ok(false)
    }

    /// Any other program of the scan directory.
    pub(super) fn start_program(&self, launch: Launch) -> io::Result<Pid> {
        let launch = launch.env_exactly(self.environment.to_vec());
        self.limits.as_inherited(|| launch.start())
    }
}

fn directory(name: &[u8], role: Role) -> PathBuf {
    let dir = PathBuf::from(OsStr::from_bytes(name));
    match role {
        Role::Main => dir,
        Role::Log => dir.join("log"),
    }
}

pub(super) fn described(service: &Service, role: Role) -> String {
    format!("{}{}", service.name.escape_ascii(), if role == Role::Log { "/log" } else { "" })
}

/// The supervise beside this executable, else the one in PATH.
fn supervise_program() -> PathBuf {
    let beside = unix::host::executable().ok().map(|exe| exe.with_file_name("supervise"));
    beside.filter(|p| p.exists()).unwrap_or_else(|| PathBuf::from("supervise"))
}
