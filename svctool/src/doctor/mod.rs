//! What is wrong with a system, and how to mend it.
//!
//! Each check is a function from the system's places to findings; none changes anything.

mod name_service;

use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use program::Layout;
use serde::Serialize;
use unix::ids;
use unix::mail_users::{GROUPS, USERS};

use crate::instance::{Instance, keeper};

/// Where the parts of the system to be checked are.
#[derive(Debug, Clone)]
pub struct Places {
    /// Control files.
    pub control: PathBuf,
    /// Assignments: which domains there are.
    pub assign: PathBuf,
    /// State: domains, the store's default place.
    pub state: PathBuf,
    /// The queue.
    pub queue: PathBuf,
    /// Certificates.
    pub certs: PathBuf,
    /// Socket of the name service daemon.
    pub nssd: PathBuf,
    /// Socket of the lookup daemon.
    pub inlookup: PathBuf,
    /// Where the NSS and PAM modules read about the daemons.
    pub lookup_conf: PathBuf,
    /// Which name services the machine asks.
    pub nsswitch: PathBuf,
}

impl Places {
    /// The places that these variables name, else those of an installed system.
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str, default: &str| {
            get(name).filter(|v| !v.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Self {
            control: path("CONTROLDIR", control::DEFAULT_DIRECTORY),
            assign: path("ASSIGNDIR", "/etc/indimail/users"),
            state: path("DOMAINDIR", "/var/indimail"),
            queue: path("QUEUEDIR", "/var/indimail/queue"),
            certs: path("CERTDIR", "/etc/indimail/certs"),
            nssd: path("NSSD_SOCKET", "/run/indimail/nssd.sock"),
            inlookup: path("INLOOKUP_SOCKET", "/run/indimail/inlookup.sock"),
            // No variable changes what other programs read.
            lookup_conf: PathBuf::from(lookup::conf::PATH),
            nsswitch: PathBuf::from("/etc/nsswitch.conf"),
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// Is it as it should be?
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// How to mend it; empty when it is well.
    pub fix: String,
}

impl Finding {
    fn well(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), ok: true, found: found.into(), fix: String::new() }
    }

    fn fault(check: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check: check.into(), ok: false, found: found.into(), fix: fix.into() }
    }
}

/// Checks the machine's system or, with `dir`, a private one (from inside its view).
///
/// Returns 0 when all is well, 1 when there are faults.
///
/// # Errors
/// The private system is not running.
pub fn run(dir: Option<&Path>, json: bool, places: &Places, layout: &Layout) -> Result<u8> {
    if let Some(dir) = dir {
        return inside(&Instance::existing(dir)?, json);
    }
    let findings = examine(places, layout);
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let mark = if finding.ok { "ok   " } else { "FAULT" };
            println!("{mark} {}: {}", finding.check, finding.found);
            if !finding.ok {
                println!("      fix: {}", finding.fix);
            }
        }
    }
    Ok(u8::from(findings.iter().any(|f| !f.ok)))
}

fn inside(instance: &Instance, json: bool) -> Result<u8> {
    let shown = instance.dir().display();
    let (pid, kind) = keeper::running(instance)
        .with_context(|| format!("{shown}: not running; start it with: svctool try --dir {shown}"))?;
    let enter = keeper::enter_prefix(instance, pid, kind);
    let mut command = std::process::Command::new(&enter[0]);
    command.args(&enter[1..]).arg(instance.program("svctool")).arg("doctor");
    if json {
        command.arg("--json");
    }
    let status = command.status().context("doctor inside the private view")?;
    Ok(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1))
}

/// All checks.
#[must_use]
pub fn examine(places: &Places, layout: &Layout) -> Vec<Finding> {
    let mut findings = check_users();
    findings.extend(check_control(&places.control));
    findings.push(check_domains(&places.assign));
    findings.push(check_store(places));
    findings.extend(check_queue(&places.queue));
    findings.push(check_queue_program(&layout.sbin("qmail-queue")));
    findings.push(check_certificate(&places.certs.join("servercert.pem")));
    findings.push(check_socket("nssd", &places.nssd));
    findings.push(check_socket("inlookup", &places.inlookup));
    findings.push(name_service::check_lookup_conf(places));
    // A private system of an ordinary user may have to do without the module.
    let installed = layout.sbin("nssd").exists() && !single_user();
    findings.extend(name_service::check_order(&places.nsswitch, installed));
    findings
}

fn single_user() -> bool {
    ids::Roles::for_this_process().is_single_user()
}

fn check_users() -> Vec<Finding> {
    if single_user() {
        return vec![Finding::well("users", "one user plays all roles (not root)")];
    }
    let groups = GROUPS.iter().map(|name| ("group", *name, ids::group(name).map(|g| g.is_some())));
    let users = USERS.iter().map(|u| ("user", u.name, ids::user(u.name).map(|u| u.is_some())));
    let faults: Vec<Finding> = groups
        .chain(users)
        .filter_map(|(kind, name, answer)| match answer {
            Ok(true) => None,
            Ok(false) => {
                Some(Finding::fault(format!("{kind} {name}"), "does not exist", "svctool config users"))
            }
            Err(e) => Some(Finding::fault(
                format!("{kind} {name}"),
                format!("the name service cannot tell: {e}"),
                "look at the services named in /etc/nsswitch.conf",
            )),
        })
        .collect();
    if faults.is_empty() { vec![Finding::well("users", "all exist")] } else { faults }
}

fn check_control(control: &Path) -> Vec<Finding> {
    let directory = control::Directory::new(control);
    let me = match directory.line("me") {
        Ok(Some(name)) if !name.is_empty() => {
            Finding::well("control file me", String::from_utf8_lossy(&name).into_owned())
        }
        Ok(_) => Finding::fault(
            "control file me",
            "missing or empty",
            format!("write this host's full name into {}", control.join("me").display()),
        ),
        Err(e) => Finding::fault("control file me", e.to_string(), "make it readable"),
    };
    let rcpthosts = match directory.list("rcpthosts") {
        Ok(Some(_)) => Finding::well("control file rcpthosts", "there"),
        Ok(None) => Finding::fault(
            "control file rcpthosts",
            "missing: qmail-smtpd defers all mail from outside",
            format!("list your domains in {}", control.join("rcpthosts").display()),
        ),
        Err(e) => Finding::fault("control file rcpthosts", e.to_string(), "make it readable"),
    };
    vec![me, rcpthosts]
}

fn check_domains(assign: &Path) -> Finding {
    let check = format!("domain table {}", assign.join("cdb").display());
    match accounts::Domains::new(assign).all() {
        Ok(domains) => Finding::well(check, format!("{} domains", domains.len())),
        Err(e) => Finding::fault(
            check,
            e.to_string(),
            format!(
                "qmail-newu compiles it from {}; domain directories must be there",
                assign.join("assign").display()
            ),
        ),
    }
}

fn check_store(places: &Places) -> Finding {
    let control = control::Directory::new(&places.control);
    let settings = match accounts::StoreSettings::load(&control, &places.state) {
        Ok(settings) => settings,
        Err(e) => {
            return Finding::fault("account store", e.to_string(), "mend accountstore or host.mysql");
        }
    };
    let check = format!("account store {}", settings.describe());
    match accounts::open_store(&settings).ping() {
        Ok(()) => Finding::well(check, "answers"),
        Err(e) => {
            let fix = match settings.kind {
                accounts::StoreKind::Sqlite(_) => {
                    "create it with the first domain: vadddomain; a damaged file comes back from a backup"
                }
                accounts::StoreKind::MySql(_) => "start the server, or mend host.mysql",
            };
            Finding::fault(check, e.to_string(), fix)
        }
    }
}

fn check_queue(queue: &Path) -> Vec<Finding> {
    let fix = format!("stop qmail-send (svc -d), then: queue-fix {}", queue.display());
    let mut faults = Vec::new();
    for row in mta_queue::layout::DIRECTORIES {
        let (mode, owner) = (row.mode, row.owner.user());
        let path = if row.name.is_empty() { queue.to_path_buf() } else { queue.join(row.name) };
        let check = format!("queue directory {}", path.display());
        match std::fs::metadata(&path) {
            Err(e) => faults.push(Finding::fault(check, e.to_string(), &fix)),
            Ok(meta) => {
                if meta.mode() & 0o7777 != mode {
                    let found = format!("mode {:o}, expected {mode:o}", meta.mode() & 0o7777);
                    faults.push(Finding::fault(check.clone(), found, &fix));
                }
                let wanted = if single_user() { Ok(None) } else { ids::user(owner) };
                if let Ok(Some(user)) = wanted
                    && meta.uid() != user.uid.as_raw()
                {
                    let found = format!("belongs to uid {}, expected {owner}", meta.uid());
                    faults.push(Finding::fault(check, found, &fix));
                }
            }
        }
    }
    faults.push(match std::fs::metadata(queue.join("lock/trigger")) {
        Ok(meta) if meta.file_type().is_fifo() => Finding::well("queue trigger", "there"),
        Ok(_) => Finding::fault("queue trigger", "not a fifo", &fix),
        Err(e) => Finding::fault("queue trigger", e.to_string(), &fix),
    });
    faults
}

fn check_queue_program(path: &Path) -> Finding {
    let check = format!("program {}", path.display());
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) => return Finding::fault(check, e.to_string(), "install the programs (make install)"),
    };
    if single_user() {
        return Finding::well(check, "there");
    }
    let owner = ids::user("qmailq").ok().flatten().map(|u| u.uid.as_raw());
    if owner == Some(meta.uid()) && meta.mode() & 0o6000 == 0o6000 {
        return Finding::well(check, "set-id, belongs to qmailq");
    }
    let shown = path.display();
    Finding::fault(
        check,
        format!("mode {:o}, owner uid {}: users cannot send mail", meta.mode() & 0o7777, meta.uid()),
        format!("chown qmailq:qmail {shown} && chmod 6551 {shown}"),
    )
}

fn check_certificate(path: &Path) -> Finding {
    let check = format!("certificate {}", path.display());
    let fix = "put key and certificate chain (PEM) there, mode 0640, root:qcerts";
    match (std::fs::metadata(path), std::fs::read_to_string(path)) {
        (Err(e), _) | (_, Err(e)) => Finding::fault(check, e.to_string(), fix),
        (Ok(meta), _) if meta.mode() & 0o007 != 0 => {
            Finding::fault(check, "everybody can read the key", format!("chmod 640 {}", path.display()))
        }
        (_, Ok(text)) if text.contains("PRIVATE KEY") && text.contains("BEGIN CERTIFICATE") => {
            Finding::well(check, "key and certificate")
        }
        _ => Finding::fault(check, "no key and certificate in it", fix),
    }
}

fn check_socket(name: &str, path: &Path) -> Finding {
    let check = format!("daemon {name}");
    match UnixStream::connect(path) {
        Ok(_) => Finding::well(check, format!("answers on {}", path.display())),
        Err(e) => Finding::fault(
            check,
            format!("{}: {e}", path.display()),
            format!("start the service {name} (svstat, svc -u; or systemctl start indimail-{name})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_an_empty_system_name_their_fix() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = Places {
            control: at("control"),
            assign: at("assign"),
            state: at("state"),
            queue: at("queue"),
            certs: at("certs"),
            nssd: at("nssd.sock"),
            inlookup: at("inlookup.sock"),
            lookup_conf: at("lookup.conf"),
            nsswitch: at("nsswitch.conf"),
        };
        std::fs::write(&places.lookup_conf, "shiny 1\n").unwrap();
        let findings = examine(&places, &Layout::at(dir.path()));
        let faults: Vec<_> = findings.iter().filter(|f| !f.ok).collect();
        assert!(faults.iter().all(|f| !f.fix.is_empty()), "{faults:?}");
        for check in ["control file me", "control file rcpthosts", "daemon nssd", "daemon inlookup"] {
            assert!(faults.iter().any(|f| f.check == check), "{check}: {faults:?}");
        }
        assert!(faults.iter().any(|f| f.found.contains("lookup.conf:1: unknown key shiny")), "{faults:?}");
    }

    #[test]
    fn a_key_that_everybody_can_read_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("servercert.pem");
        std::fs::write(&path, "PRIVATE KEY BEGIN CERTIFICATE").unwrap();
        for (mode, ok) in [(0o644, false), (0o640, true)] {
            crate::instance::tree::set_mode(&path, mode).unwrap();
            assert_eq!(check_certificate(&path).ok, ok);
        }
    }
}
