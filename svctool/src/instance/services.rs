//! The service directories of an instance.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tree::{make_directory, set_mode};
use super::users::MailIds;
use super::{Instance, Ports, leftovers};

/// Names of the services, in the order they depend on each other.
pub const NAMES: [&str; 6] = ["nssd", "inlookup", "queue", "qmail-send", "qmail-smtpd", "submission"];

/// Address space for one connection or daemon, bytes.
const MEMORY: &str = "1500000000";

/// One service.
struct Service {
    name: &'static str,
    /// Who runs it; `None`: it starts as root and gives root up itself.
    user: Option<&'static str>,
    /// Extra groups.
    groups: &'static [&'static str],
    command: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

/// Writes all service directories, replacing what an earlier run wrote. `host` is this mail host's
/// name.
///
/// # Errors
/// A file cannot be written.
pub fn write_all(instance: &Instance, host: &str, ports: Ports, ids: &MailIds) -> Result<()> {
    for service in all(instance, host, ports) {
        write_one(instance, &service, ids).with_context(|| format!("service {}", service.name))?;
    }
    Ok(())
}

/// The directory of a service.
#[must_use]
pub fn directory(instance: &Instance, name: &str) -> PathBuf {
    instance.service().join(name)
}

/// The current log file of a service.
#[must_use]
pub fn log(instance: &Instance, name: &str) -> PathBuf {
    instance.at("var/log/svc").join(name).join("current")
}

fn all(instance: &Instance, host: &str, ports: Ports) -> Vec<Service> {
    let program = |name: &str| instance.program(name).display().to_string();
    // One process for all clients, who are all on this machine: no limit for each address.
    let listener = |port: u16| {
        let listen = format!("127.0.0.1:{port}");
        let words = ["--listen", &listen, "--connections", "500", "--verbose", host];
        std::iter::once(program("qmail-smtpd")).chain(words.map(str::to_owned)).collect::<Vec<_>>()
    };
    vec![
        Service {
            name: "nssd",
            user: Some("indimail"),
            groups: &["qmail"],
            command: vec![program("nssd")],
            variables: vec![],
        },
        Service {
            name: "inlookup",
            user: Some("indimail"),
            groups: &["qmail"],
            command: vec![program("inlookup")],
            variables: vec![],
        },
        Service {
            name: "queue",
            user: None,
            groups: &[],
            command: vec![program("qmail-queued")],
            variables: vec![],
        },
        Service {
            name: "qmail-send",
            user: None,
            groups: &[],
            command: vec![program("qmail-start"), "./Maildir/".into()],
            variables: vec![],
        },
        Service {
            name: "qmail-smtpd",
            user: Some("qmaild"),
            groups: &["qmail", "qcerts"],
            command: listener(ports.smtp),
            variables: vec![("CHECKRECIPIENT", "1".into()), ("STARTTLS", "1".into())],
        },
        Service {
            name: "submission",
            user: Some("qmaild"),
            groups: &["qmail", "qcerts"],
            command: listener(ports.submission),
            variables: ["CHECKRECIPIENT", "STARTTLS", "SUBMISSION", "REQUIREAUTH"]
                .map(|name| (name, "1".into()))
                .into(),
        },
    ]
}

fn write_one(instance: &Instance, service: &Service, ids: &MailIds) -> Result<()> {
    let dir = directory(instance, service.name);
    make_directory(&dir.join("log"))?;
    let variables = dir.join("variables");
    if variables.exists() {
        std::fs::remove_dir_all(&variables)?;
    }
    make_directory(&variables)?;
    for (name, value) in instance.variables() {
        std::fs::write(variables.join(name), line(value.as_encoded_bytes()))?;
    }
    for (name, value) in &service.variables {
        std::fs::write(variables.join(name), line(value.as_bytes()))?;
    }
    std::fs::write(variables.join("PATH"), line(instance.search_path().as_encoded_bytes()))?;
    std::fs::write(variables.join(leftovers::MARK), line(instance.dir().as_os_str().as_encoded_bytes()))?;
    script(&dir.join("run"), &run_script(instance, service, ids))?;
    let logs = instance.at("var/log/svc").join(service.name);
    make_directory(&logs)?;
    if let Some((uid, gid)) = ids.owner("qmaill", "nofiles") {
        std::os::unix::fs::chown(&logs, Some(uid.as_raw()), Some(gid.as_raw()))?;
    }
    let mut text = String::from("#!/bin/sh\nexec ");
    if !ids.is_single() {
        let _ = write!(text, "{} qmaill ", instance.program("setuidgid").display());
    }
    let _ = writeln!(text, "{} t {}", instance.program("multilog").display(), logs.display());
    script(&dir.join("log/run"), &text)
}

/// envdir, then the user, then the limits, then the program.
fn run_script(instance: &Instance, service: &Service, ids: &MailIds) -> String {
    let program = |name: &str| instance.program(name).display().to_string();
    let mut text = format!("#!/bin/sh\nexec 2>&1\nexec {} variables \\\n", program("envdir"));
    if let (Some(user), false) = (service.user, ids.is_single()) {
        let _ = write!(text, "  {} ", program("setuidgid"));
        if !service.groups.is_empty() {
            let _ = write!(text, "-g {} ", service.groups.join(","));
        }
        let _ = writeln!(text, "{user} \\");
    }
    let _ = writeln!(text, "  {} -a {MEMORY} -o 1024 \\", program("softlimit"));
    let _ = writeln!(text, "  {}", service.command.join(" "));
    text
}

fn line(value: &[u8]) -> Vec<u8> {
    [value, b"\n"].concat()
}

fn script(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    set_mode(path, 0o755)
}
