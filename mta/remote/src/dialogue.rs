//! From a job to a report: address after address until one gives an answer.

use std::io;

use smtp::client::{Action, Class, Outcome, Report, Session, Tls, Verdict};
use smtp::dot::Encoder;

use crate::channel::Channel;
use crate::message::Message;
use crate::plan::{self, Target};
use crate::report;
use crate::route::RouteError;
use crate::settings::{Job, Settings};
use crate::tcpto::{Hosts, Limits};
use crate::tls::{self, Policy};

/// Port of SMTP under TLS from the first byte.
const SMTPS: u16 = 465;

/// What came of one address.
enum Attempt {
    /// An answer.
    Report(Report),
    /// None: try the next one.
    Next(Vec<u8>),
}

/// Delivers a message and returns the report.
pub(crate) fn deliver(settings: &Settings, job: &Job, message: &Message) -> Vec<u8> {
    let route = match settings.routes.find(&job.host, &job.sender) {
        Ok(route) => route,
        // The contract names this one a failure. For all other mistakes in a file of ours mail waits.
        Err(e @ RouteError::Penalty(_)) => return report::trouble(b'D', &format!("{e} (#5.3.5)")),
        Err(e) => return report::trouble(b'Z', &format!("{e} (#4.3.5)")),
    };
    let targets = match plan::targets(&settings.network, &job.host, route.as_ref()) {
        Ok(targets) => targets,
        Err(e) => return report::trouble(if e.is_temporary() { b'Z' } else { b'D' }, &e.to_string()),
    };
    let route = route.as_ref();
    let limits = Limits {
        min_penalty: route.and_then(|r| r.min_penalty).unwrap_or(settings.limits.min_penalty),
        max_tolerance: route.and_then(|r| r.max_tolerance).unwrap_or(settings.limits.max_tolerance),
    };
    let hosts = Hosts::new(&settings.tcpto, limits);
    let mut last = b"the hosts did not answer lately".to_vec();
    for target in targets.iter().filter(|t| !hosts.is_passed_over(t.ip)) {
        match attempt(settings, job, message, target) {
            Attempt::Report(found) => {
                hosts.success(target.ip);
                return report::of(job, &target.ip.to_string(), &found);
            }
            Attempt::Next(why) => {
                hosts.error(target.ip);
                last = why;
            }
        }
    }
    let why = String::from_utf8_lossy(&last).into_owned();
    report::trouble(b'Z', &format!("sorry, I wasn't able to establish an SMTP connection: {why} (#4.4.1)"))
}

/// Talks to one address, a second time in clear when the handshake of a wished-for TLS fails.
fn attempt(settings: &Settings, job: &Job, message: &Message, target: &Target) -> Attempt {
    let mut policy = match tls::policy(&settings.certificates, &settings.without_tls, &target.name) {
        Ok(policy) => policy,
        Err(e) => return temporary(&format!("cannot set up TLS: {e} (#4.3.5)")),
    };
    loop {
        match once(settings, job, message, target, &policy) {
            Ok(Outcome::Report(found)) => return Attempt::Report(found),
            Ok(Outcome::NextHost(why)) => {
                return Attempt::Next([target.ip.to_string().as_bytes(), b": ", &why[..]].concat());
            }
            Ok(Outcome::RetryInClear) => policy = Policy::Never,
            Err(e) => return Attempt::Next(format!("{}: {e}", target.ip).into_bytes()),
        }
    }
}

fn temporary(text: &str) -> Attempt {
    let message = Verdict { class: Class::Temporary, text: text.as_bytes().to_vec() };
    Attempt::Report(Report { recipients: Vec::new(), message })
}

/// One connection. An error means that there was none.
fn once(
    settings: &Settings,
    job: &Job,
    message: &Message,
    target: &Target,
    policy: &Policy,
) -> io::Result<Outcome> {
    let mut channel = Channel::connect(target, settings.connect_timeout, settings.timeout)?;
    let (mut wish, config) = match policy {
        Policy::Never => (Tls::Never, None),
        Policy::Opportunistic(config) => (Tls::IfOffered, Some(config)),
        Policy::Verified(config) => (Tls::Required, Some(config)),
    };
    if target.port == SMTPS {
        let Some(config) = config else {
            return Err(io::Error::other("port 465 is TLS, and this host is in notlshosts"));
        };
        channel.start_tls(config.clone(), target)?;
        wish = Tls::Never;
    }
    let mut session = Session::new(smtp::client::Job {
        helo: settings.helo.clone(),
        sender: job.sender.clone(),
        recipients: job.recipients.clone(),
        size: message.size(),
        body: message.body(),
        tls: wish,
    });
    let mut buffer = [0; 8192];
    loop {
        match session.next_action() {
            Action::Send(bytes) => {
                if channel.send(&bytes).is_err() {
                    session.lost();
                }
            }
            Action::Read => match channel.read(&mut buffer) {
                Ok(n) if n > 0 => session.feed(&buffer[..n]),
                _ => session.lost(),
            },
            Action::StartTls => {
                let done = config.is_some_and(|c| channel.start_tls(c.clone(), target).is_ok());
                session.tls(done);
            }
            Action::SendMessage => match send_message(&mut channel, message) {
                Ok(()) => session.message_sent(),
                Err(_) => session.lost(),
            },
            Action::Done(outcome) => {
                channel.close();
                return Ok(outcome);
            }
        }
    }
}

fn send_message(channel: &mut Channel, message: &Message) -> io::Result<()> {
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    message.pieces(|piece| {
        out.clear();
        encoder.encode(piece, &mut out);
        channel.send(&out)
    })?;
    if !encoder.at_line_start() {
        // The file was changed while it was sent: without the final dot it is not accepted.
        return Err(io::Error::other("the message has changed"));
    }
    channel.send(b".\r\n")
}
