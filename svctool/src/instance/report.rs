//! What is said about an instance that is ready: one JSON object, or what to try by hand.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::{Instance, Ports, State, TryAccount, proof, services, tree};

/// The JSON object of a running instance.
#[derive(Debug, Serialize)]
struct Report {
    dir: PathBuf,
    domain: String,
    accounts: Vec<TryAccount>,
    ports: Ports,
    sockets: Sockets,
    store: String,
    services: Vec<ServiceRow>,
    enter: Vec<String>,
    pid: u32,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Sockets {
    nssd: PathBuf,
    inlookup: PathBuf,
    queue: PathBuf,
}

#[derive(Debug, Serialize)]
struct ServiceRow {
    name: &'static str,
    directory: PathBuf,
    log: PathBuf,
}

/// Writes `DIR/enter`, which runs a command inside the instance.
///
/// # Errors
/// It cannot be written.
pub fn write_enter_script(instance: &Instance, enter: &[OsString]) -> Result<()> {
    let mut text =
        String::from("#!/bin/sh\n# Runs a command inside this private system while it is running.\nexec");
    for word in enter {
        // Instance directories hold no quotes.
        let _ = write!(text, " '{}'", word.display());
    }
    text.push_str(" \"$@\"\n");
    let path = instance.at("enter");
    std::fs::write(&path, text)?;
    tree::set_mode(&path, 0o755)
}

/// Prints the JSON object, or what to try by hand.
///
/// # Errors
/// The object cannot be made.
pub fn print(
    instance: &Instance,
    state: &State,
    enter: &[OsString],
    pid: u32,
    left_out: &[String],
    json: bool,
) -> Result<()> {
    if !json {
        let sees_accounts = !left_out.iter().any(|what| what.starts_with("getent"));
        println!("{}", by_hand(instance, state, sees_accounts));
        return Ok(());
    }
    let report = Report {
        dir: instance.dir().to_path_buf(),
        domain: state.domain.clone(),
        accounts: state.accounts.clone(),
        ports: state.ports,
        sockets: Sockets {
            nssd: instance.socket("nssd"),
            inlookup: instance.socket("inlookup"),
            queue: instance.socket("queue"),
        },
        store: state.store.clone(),
        services: services::NAMES
            .iter()
            .map(|name| ServiceRow {
                name,
                directory: services::directory(instance, name),
                log: services::log(instance, name),
            })
            .collect(),
        enter: enter.iter().map(|w| w.to_string_lossy().into_owned()).collect(),
        pid,
        left_out: left_out.to_vec(),
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn by_hand(instance: &Instance, state: &State, sees_accounts: bool) -> String {
    let dir = instance.dir().display();
    let mut text = String::from("\naccounts:\n");
    for account in &state.accounts {
        let _ = writeln!(text, "  {}  password {}", account.address, account.password);
    }
    let (smtp, submission) = (state.ports.smtp, state.ports.submission);
    let [alice, bob, ..] = state.accounts.as_slice() else { return text };
    text.push_str("\ntry by hand:\n");
    let mut say = |command: String| {
        let _ = writeln!(text, "  {command}");
    };
    if proof::is_installed("swaks") {
        say(format!("swaks --server 127.0.0.1:{smtp} --from {} --to {}", bob.address, alice.address));
        say(format!(
            "swaks --server 127.0.0.1:{submission} --tls --auth-user {} --auth-password {} --from {} --to {}",
            bob.address, bob.password, bob.address, alice.address
        ));
    } else {
        say(format!(
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{smtp}; printf \"%s\\r\\n\" \"HELO me\" \"MAIL FROM:<{}>\" \
             \"RCPT TO:<{}>\" DATA \"Subject: hi\" \"\" hi . QUIT >&3; cat <&3'",
            bob.address, alice.address
        ));
        say(format!("echo hi | {dir}/enter qmail-inject -f {} {}", bob.address, alice.address));
    }
    // Without a private view there are neither users nor logins to show.
    if sees_accounts {
        say(format!("{dir}/enter getent passwd {}", alice.address));
        let login = if proof::is_installed("pamtester") {
            format!("pamtester indimail-try {} authenticate acct_mgmt", alice.address)
        } else {
            format!(
                "setpriv --reuid=65534 --regid=65534 --clear-groups su -s /bin/sh {} -c id",
                alice.address
            )
        };
        say(format!("{dir}/enter {login}"));
    }
    say(format!("{dir}/enter qmail-qread"));
    say(format!("ls {}/new", alice.maildir.display()));
    text
}
