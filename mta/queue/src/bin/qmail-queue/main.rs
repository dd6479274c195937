//! qmail-queue: puts one message safely into one queue.
//!
//! Message on descriptor 0, envelope on descriptor 1, the answer is the exit code
//! (`mta_queue::exit`). This is the one set-id program: it reads a short list of variables
//! (`variables`), believes those that could redirect it only as far as `place` says, and links
//! nothing but the system-call and control-file libraries.

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

use mta_queue::exit::{Class, Code};
use mta_queue::inject::{Failure, Message};
use mta_queue::injector::features::Features;
use mta_queue::injector::origin;
use mta_queue::injector::place::{Caller, Place};
use mta_queue::injector::variables::Variables;
use mta_queue::layout::MessageId;
use unix::Signal;
use unix::durable::Disk;
use unix::fd::Raw;

fn main() -> ExitCode {
    // Descriptor 2 belongs to the client, who reads it as an answer.
    std::panic::set_hook(Box::new(|_| {}));
    let code = std::panic::catch_unwind(|| {
        if unix::fd::sanitize_standard().is_err() {
            return Code::DUP;
        }
        let variables = Variables::of_this_process();
        match run(&variables) {
            Ok(_) => Code::OK,
            Err(failure) => tell(&variables, &failure),
        }
    });
    ExitCode::from(code.unwrap_or(Code::BUG).0)
}

fn run(variables: &Variables) -> Result<MessageId, Failure> {
    unix::host::umask(0o033);
    prepare_signals()?;
    let caller = Caller::of_this_process();
    let place = Place::find(variables, &caller)?;
    nix::unistd::alarm::set(place.death);
    let now = unix::clock::unix_seconds();
    let pid = std::process::id();
    let head = origin::head(variables, &caller, pid, now)?;
    let features = Features::load(variables, &caller)?;

    let mut message = Message::create(&place.queue, Disk::new(place.durability), pid, now)?;
    message.write(&head)?;
    message.copy(&mut Raw(std::io::stdin().as_fd()))?;
    let mut envelope = message.envelope(caller.real_uid(), pid)?;
    features.copy(&mut envelope, &mut Raw(std::io::stdout().as_fd()))?;
    let id = envelope.prepare()?.commit()?;
    place.queue.pull_trigger();
    Ok(id)
}

/// The alarm and a crash end the process without cleaning up: what is left is garbage that
/// cannot be delivered, and qmail-clean collects it.
fn prepare_signals() -> Result<(), Failure> {
    use Signal::{
        SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGPIPE, SIGPROF, SIGQUIT, SIGSEGV, SIGSYS,
        SIGVTALRM, SIGXCPU, SIGXFSZ,
    };
    let failure = || Failure::of(Code::BUG, "cannot arrange signals");
    for signal in [SIGPIPE, SIGVTALRM, SIGPROF, SIGQUIT, SIGINT, SIGHUP, SIGXCPU, SIGXFSZ] {
        unix::signals::ignore(signal).map_err(failure())?;
    }
    for signal in [SIGILL, SIGABRT, SIGFPE, SIGBUS, SIGSEGV, SIGSYS] {
        unix::signals::exit_on(signal, i32::from(Code::BUG.0)).map_err(failure())?;
    }
    unix::signals::exit_on(SIGALRM, i32::from(Code::TIMEOUT.0)).map_err(failure())
}

/// The exit code of a failure; with QMAIL_QUEUE_CUSTOM_ERROR the failure in words as well, on ERROR_FD.
fn tell(variables: &Variables, failure: &Failure) -> Code {
    let Some(number) = variables.error_fd().filter(|_| variables.is_set("QMAIL_QUEUE_CUSTOM_ERROR")) else {
        return failure.code;
    };
    let Some(fd) = unix::fd::inherited(number) else {
        return failure.code;
    };
    let line = custom_line(failure);
    match Raw(fd.as_fd()).write_all(&line) {
        Ok(()) => Code::CUSTOM,
        Err(_) => Code::WRITE,
    }
}

/// Letter, program, what happened, what the kernel said, enhanced status.
fn custom_line(failure: &Failure) -> Vec<u8> {
    let letter = if failure.code.class() == Class::Permanent { 'D' } else { 'Z' };
    let status = failure.code.text().rsplit_once(" (").map_or("#4.3.0)", |(_, s)| s);
    let mut line = format!("{letter}qmail-queue: {}", failure.what).into_bytes();
    if let Some(error) = &failure.source {
        let text = error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |n| unix::Errno::from_raw(n).desc().to_owned());
        line.extend_from_slice(format!(": {text}").as_bytes());
    }
    line.iter_mut().filter(|b| b.is_ascii_control()).for_each(|b| *b = b'?');
    line.extend_from_slice(format!(" ({status}").as_bytes());
    line
}
