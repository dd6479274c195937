//! Letting the init of this host start svscan.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use program::Environment;
use unix::child::{Ending, Launch};

const UNIT: &str = "indimail-svscan.service";
/// Where Upstart has the job, and what overrides it.
const JOB: &str = "/etc/init/svscan.conf";
const OVERRIDE: &str = "/etc/init/svscan.override";

pub(super) fn switch(environment: &Environment, on: bool) -> Result<(), String> {
    if let Some(systemctl) = in_path(environment, "systemctl") {
        let verb = if on { "enable" } else { "disable" };
        let launch = Launch::new(&systemctl).args([verb, UNIT]).env_exactly(environment.to_vec());
        let ending = launch.start().and_then(unix::child::wait_for);
        return match ending.map_err(|e| format!("{}: {e}", systemctl.display()))? {
            Ending::Exited(0) => Ok(()),
            _ => Err(format!("systemctl {verb} {UNIT} failed")),
        };
    }
    if Path::new(JOB).exists() {
        let done = if on {
            match fs::remove_file(OVERRIDE) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        } else {
            unix::durable::replace(Path::new(OVERRIDE), b"manual\n", 0o644, None)
        };
        return done.map_err(|e| format!("{OVERRIDE}: {e}"));
    }
    Err(format!("no init is known here: neither systemctl in PATH nor {JOB}"))
}

fn in_path(environment: &Environment, name: &str) -> Option<PathBuf> {
    let path = environment.bytes("PATH").unwrap_or(b"/bin:/usr/bin");
    let dirs = path.split(|&b| b == b':').map(|dir| Path::new(std::ffi::OsStr::from_bytes(dir)));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_absolute() && file.is_file())
}
