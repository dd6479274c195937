//! Making a service again as it was made: by the command line in its `.options`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use program::{Invocation, Parsed};
use unix::child::{Ending, Launch};

use super::command::{at, with_variables};
use super::{SPEC, Surroundings, words};
use crate::chain;

/// A service with this file is left alone.
const LEAVE_ALONE: &str = ".norefreshsvc";

/// Lets `--refreshsvc` touch the service, or not.
pub(super) fn switch(service: &Path, on: bool) -> Result<(), String> {
    let file = service.join(LEAVE_ALONE);
    let done = if on {
        match fs::remove_file(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::metadata(service).map(|_| ()),
            other => other,
        }
    } else {
        fs::write(&file, "")
    };
    done.map_err(|e| at(&file, &e))
}

pub(super) fn run(
    invocation: &Invocation,
    around: &Surroundings,
    service: Option<&Path>,
    force: bool,
) -> Result<(), String> {
    if let Some(service) = service {
        if service.join(LEAVE_ALONE).exists() && !force {
            return Err(format!("{}: it has a file {LEAVE_ALONE}; give --force", service.display()));
        }
        return one(invocation, service);
    }
    let mut failed = 0;
    for service in with_variables(around)? {
        if !service.join("variables/.options").exists() || service.join(LEAVE_ALONE).exists() && !force {
            continue;
        }
        if let Err(why) = one(invocation, &service) {
            invocation.complain("warning", why);
            failed += 1;
        }
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} services were not refreshed")) }
}

fn one(invocation: &Invocation, service: &Path) -> Result<(), String> {
    let file = service.join("variables/.options");
    let line = fs::read(&file).map_err(|e| at(&file, &e))?;
    let words =
        words::split(&line).ok_or_else(|| format!("{}: not a command line of ours", file.display()))?;
    let mut words = words.into_iter().map(OsString::from_vec);
    let name = words.next().unwrap_or_default();
    if name != SPEC.name {
        let by = name.display();
        return Err(format!("{}: made by {by}: refresh it with {by}", file.display()));
    }
    let arguments: Vec<_> = words.collect();
    // Only what makes something, so that no refresh can lead to another.
    if !Parsed::read(&SPEC, &arguments).is_ok_and(|parsed| parsed.flag("svscanlog")) {
        return Err(format!("{}: not a command that makes a service", file.display()));
    }
    let program = chain::sibling(&invocation.layout.sbin(SPEC.name));
    let launch =
        Launch::new(program).arg0(SPEC.name).args(arguments).env_exactly(invocation.environment.to_vec());
    let ending =
        launch.start().and_then(unix::child::wait_for).map_err(|e| format!("unable to run minisvc: {e}"))?;
    match ending {
        Ending::Exited(0) => Ok(()),
        _ => Err(format!("{}: its command failed", file.display())),
    }
}
