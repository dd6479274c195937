//! Proof that an instance works: a real message, a real lookup, a real login.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use unix::clock::Deadline;

use super::smtp::Client;
use super::{Instance, State, TryAccount, services};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A command inside the instance, not started yet.
#[must_use]
pub fn inside(enter: &[OsString], argv: &[&str]) -> Command {
    let mut command = Command::new(&enter[0]);
    command.args(&enter[1..]).args(argv);
    command
}

/// Runs a command inside the instance with `input` and returns what it printed.
///
/// # Errors
/// It cannot be started or does not end with 0; the error holds what it said.
pub fn run(enter: &[OsString], argv: &[&str], input: &str) -> Result<String> {
    let mut command = inside(enter, argv);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| enter[0].display().to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read is its own business.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", argv.join(" "), output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until every daemon answers.
///
/// # Errors
/// One does not within `patience`, or `given_up` says that waiting is in vain; the error names it
/// and holds the end of its log.
pub fn wait_until_ready(
    instance: &Instance,
    state: &State,
    patience: Duration,
    mut given_up: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Deadline::after(patience);
    let mut waiting: Vec<&str> = services::NAMES.to_vec();
    loop {
        waiting.retain(|name| !answers(instance, state, name));
        let Some(first) = waiting.first() else { return Ok(()) };
        if deadline.passed() || given_up()? {
            bail!("{first} does not answer; its log ends with:\n{}", log_end(instance, first));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Does this service answer now?
#[must_use]
pub fn answers(instance: &Instance, state: &State, name: &str) -> bool {
    match name {
        "nssd" | "inlookup" | "queue" => UnixStream::connect(instance.socket(name)).is_ok(),
        "qmail-smtpd" => Client::connect(state.ports.smtp, ANSWER).is_ok(),
        "submission" => Client::connect(state.ports.submission, ANSWER).is_ok(),
        // The scheduler reads its end of the trigger all the time.
        _ => trigger_has_reader(&instance.queue()),
    }
}

fn trigger_has_reader(queue: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    // Without a reader a FIFO cannot be opened for writing without blocking.
    std::fs::File::options()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(queue.join("lock/trigger"))
        .is_ok()
}

fn log_end(instance: &Instance, name: &str) -> String {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let text = read(services::log(instance, name)) + &read(instance.at("var/log/svscan"));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Sends a message by SMTP and waits until it is in the mailbox; returns the file.
///
/// # Errors
/// The server refuses it or it does not arrive in time.
pub fn message_arrives(state: &State, to: &TryAccount, patience: Duration) -> Result<PathBuf> {
    let from = state.accounts.last().map_or("", |a| a.address.as_str());
    let id = format!("<{}@{}>", super::session::random_text(16)?, state.domain);
    let message = format!(
        "From: {from}\nTo: {}\nSubject: hello\nMessage-ID: {id}\n\nThe first message of this system.\n",
        to.address
    );
    Client::connect(state.ports.smtp, ANSWER)?.send(from, &to.address, &message)?;
    let deadline = Deadline::after(patience);
    loop {
        if let Some(found) = find_message(&to.maildir, &id) {
            return Ok(found);
        }
        ensure!(!deadline.passed(), "message {id} did not arrive in {}", to.maildir.display());
        std::thread::sleep(INTERVAL);
    }
}

fn find_message(maildir: &Path, id: &str) -> Option<PathBuf> {
    std::fs::read_dir(maildir.join("new"))
        .ok()?
        .filter_map(Result::ok)
        .map(|e| e.path())
        .find(|p| std::fs::read(p).is_ok_and(|b| String::from_utf8_lossy(&b).contains(id)))
}

/// The account's entry, as every program of the machine would get it.
///
/// # Errors
/// getent does not find it.
pub fn passwd_entry(enter: &[OsString], account: &TryAccount) -> Result<String> {
    Ok(run(enter, &["getent", "passwd", &account.address], "")?.trim_end().to_owned())
}

/// Logs in with the account's password through PAM; returns what was done.
///
/// # Errors
/// PAM refuses.
pub fn login(enter: &[OsString], account: &TryAccount, as_root: bool) -> Result<String> {
    let password = format!("{}\n", account.password);
    let address = account.address.as_str();
    if is_installed("pamtester") {
        run(enter, &["pamtester", "indimail-try", address, "authenticate", "acct_mgmt"], &password)?;
        return Ok(format!("pamtester indimail-try {address} authenticate acct_mgmt: granted"));
    }
    ensure!(as_root, "needs pamtester, or root for a login by su");
    // As somebody else than root, so that su must ask for the password.
    let su = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "su", "-s", "/bin/sh"];
    let argv: Vec<&str> = su.into_iter().chain([address, "-c", "echo \"$LOGNAME\""]).collect();
    let name = run(enter, &argv, &password)?;
    ensure!(name.trim() == address, "su: logged in as {}", name.trim());
    Ok(format!("su {address} as uid 65534, with the password: granted"))
}

/// Is this program in one of the usual places?
#[must_use]
pub fn is_installed(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}
