//! Small programs for dot-qmail files. They read the message on descriptor 0 and answer with an exit
//! code: 0 next line, 99 no more lines, 100 bounce, 111 try again.

pub mod bouncesaying;
pub mod condredirect;
pub mod except;
pub mod forward;
pub mod preline;

use program::{Exit, ExitCodeDoc, Invocation, Parsed, Variable};
use unix::child::Ending;

use crate::message_file::Message;
use crate::say;

const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 0, meaning: "go on with the next line" },
    ExitCodeDoc { code: 99, meaning: "done, look at no further line" },
    ExitCodeDoc { code: 100, meaning: "bounce the message; wrong usage" },
    ExitCodeDoc { code: 111, meaning: "try again later" },
];

const NEWSENDER: Variable =
    Variable { name: "NEWSENDER", help: "envelope sender of what is sent on; must be set" };
const DTLINE: Variable =
    Variable { name: "DTLINE", help: "Delivered-To line to put before the message; must be set" };

/// What a condition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// The program exited 0.
    Holds,
    /// It exited with anything but 0, 100, 111.
    Fails,
    /// It exited 100.
    Permanent,
    /// It exited 111, crashed, or could not be run.
    Temporary,
}

/// Runs the program of a condition on the message.
fn condition(invocation: &Invocation, argv: &[std::ffi::OsString], message: &Message) -> Condition {
    let ended =
        message.descriptor().and_then(|fd| crate::shell::run_program(argv, fd, &invocation.environment));
    match ended {
        Ok(Ending::Exited(0)) => Condition::Holds,
        Ok(Ending::Exited(100)) => Condition::Permanent,
        Ok(Ending::Exited(111) | Ending::Killed(_)) => Condition::Temporary,
        Ok(Ending::Exited(_)) => Condition::Fails,
        Err(e) => {
            invocation.complain("fatal", format_args!("cannot run {}: {e}", argv[0].display()));
            Condition::Temporary
        }
    }
}

/// Reads the command line and runs the tool on the message.
fn run(invocation: &Invocation, tool: fn(&Invocation, &Parsed, &Message) -> Exit) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    match Message::of_stdin() {
        Ok(message) => tool(invocation, &parsed, &message),
        Err(e) => {
            invocation.complain("fatal", format_args!("cannot read the message: {e}"));
            Exit::TEMPORARY
        }
    }
}

/// Sends the message on to `recipients` with NEWSENDER and DTLINE.
fn send_on(invocation: &Invocation, message: &Message, recipients: &[Vec<u8>], done: Exit) -> Exit {
    let environment = &invocation.environment;
    let (Some(sender), Some(delivered_to)) = (environment.bytes("NEWSENDER"), environment.bytes("DTLINE"))
    else {
        invocation.complain("fatal", "NEWSENDER and DTLINE must be set; run it from a dot-qmail file");
        return Exit::PERMANENT;
    };
    let sent = crate::forward::Forward {
        sender,
        recipients,
        prefix: delivered_to,
        layout: &invocation.layout,
        environment: &crate::forward::environment(environment),
    }
    .send(message);
    match sent {
        Ok(text) => {
            say(&text);
            done
        }
        Err(end) => {
            say(end.text());
            end.exit()
        }
    }
}
