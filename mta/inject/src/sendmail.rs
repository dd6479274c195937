//! sendmail: the options that programs know, translated.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use message::Address;
use program::{
    Environment, Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Parsed, Place, Program, Spec, Variable,
};
use unix::child::Launch;

static SPEC: Spec = Spec {
    name: "sendmail",
    summary: "queue a message, as programs written for Sendmail expect",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::flag('t', "take recipients from the header, too"),
        OptionSpec::value('f', "sender", "envelope sender, and address of a new From field"),
        OptionSpec::value('r', "sender", "as -f"),
        OptionSpec::value('F', "name", "full name of a new From field"),
        OptionSpec::value(
            'b',
            "mode",
            "m queue a message (the default), p show the queue, s speak SMTP on descriptors 0 and 1",
        ),
        OptionSpec::flag('i', "accepted; a line with a dot never ends a message"),
        OptionSpec::flag('m', "accepted; the sender is never left out"),
        OptionSpec::flag('v', "accepted"),
        OptionSpec::flag('n', "accepted; there are no aliases at this place"),
        OptionSpec::flag('h', "accepted"),
        OptionSpec::flag('x', "accepted"),
        OptionSpec::flag('U', "accepted"),
        OptionSpec::flag('L', "accepted"),
        OptionSpec::flag('E', "accepted"),
        OptionSpec::flag('J', "accepted"),
        OptionSpec::value('e', "mode", "accepted; errors are printed and bounced"),
        OptionSpec::value('o', "option", "accepted"),
        OptionSpec::value('O', "option", "accepted"),
        OptionSpec::value('p', "protocol", "accepted"),
        OptionSpec::value('A', "c|m", "accepted; there is one configuration"),
        OptionSpec::value('B', "type", "accepted; bodies stay as they are"),
        OptionSpec::value('N', "dsn", "accepted"),
        OptionSpec::value('R', "return", "accepted"),
        OptionSpec::value('V', "id", "accepted"),
    ],
    operands: Operands { synopsis: "[recipient ...]", min: 0, max: None },
    variables: &[Variable {
        name: "PROTO",
        help: "with -bs: when set, the variables of the connection are taken as they are",
    }],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the message is in the queue" },
        ExitCodeDoc { code: 100, meaning: "wrong usage or addresses, too large, refused" },
        ExitCodeDoc { code: 111, meaning: "not now" },
    ],
    description: "sendmail does what qmail-inject does, see there, with the options that programs use.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    if let Err(e) = std::env::set_current_dir("/") {
        invocation.complain("fatal", format_args!("/: {e}"));
        return Exit::TEMPORARY;
    }
    match parsed.value("b").map(OsStrExt::as_bytes) {
        None | Some(b"m") => {
            let (arguments, environment) = translated(&parsed, &invocation.environment);
            let inject =
                Invocation::new(&crate::inject::SPEC, arguments, environment, invocation.layout.clone());
            crate::inject::main(&inject)
        }
        Some(b"p") => become_program(
            invocation,
            "qmail-qread",
            invocation.layout.bin("qmail-qread"),
            &invocation.environment,
        ),
        Some(b"s") => {
            let environment = local_connection(&invocation.environment);
            become_program(invocation, "qmail-smtpd", invocation.layout.sbin("qmail-smtpd"), &environment)
        }
        Some(other) => {
            invocation
                .complain("fatal", format_args!("option -b: {}: expected m, p or s", other.escape_ascii()));
            Exit::PERMANENT
        }
    }
}

/// Arguments and environment for qmail-inject.
fn translated(parsed: &Parsed, environment: &Environment) -> (Vec<OsString>, Environment) {
    let mut environment = environment.clone();
    let mut arguments: Vec<OsString> = vec![if parsed.flag("t") { "-H" } else { "-a" }.into()];
    let sender =
        parsed.in_order().filter(|(name, _)| matches!(*name, "f" | "r")).filter_map(|(_, v)| v).last();
    if let Some(sender) = sender {
        arguments.extend([OsStr::new("-f").to_owned(), sender.to_owned()]);
        let address = Address::from_envelope(sender.as_bytes());
        if !address.local.is_empty() {
            environment.set("QMAILUSER", OsString::from_vec(address.local));
            match address.domain {
                Some(domain) => environment.set("QMAILHOST", OsString::from_vec(domain)),
                None => environment.remove("QMAILHOST"),
            }
            for name in ["QMAILNAME", "MAILNAME", "NAME"] {
                environment.remove(name);
            }
        }
    }
    if let Some(name) = parsed.value("F") {
        environment.remove("QMAILNAME");
        environment.set("MAILNAME", name);
    }
    // A recipient that begins with a dash is not an option.
    arguments.push("--".into());
    arguments.extend(parsed.operands.iter().cloned());
    (arguments, environment)
}

/// The variables of a connection from this host to itself, unless there is one already.
fn local_connection(environment: &Environment) -> Environment {
    let mut environment = environment.clone();
    if !environment.is_set("PROTO") {
        for (name, value) in [
            ("PROTO", "TCP"),
            ("RELAYCLIENT", ""),
            ("DATABYTES", "0"),
            ("TCPLOCALIP", "127.0.0.1"),
            ("TCPLOCALHOST", "localhost"),
            ("TCPREMOTEIP", "127.0.0.1"),
            ("TCPREMOTEHOST", "localhost"),
        ] {
            environment.set(name, value);
        }
    }
    environment
}

fn become_program(
    invocation: &Invocation,
    name: &str,
    path: std::path::PathBuf,
    environment: &Environment,
) -> Exit {
    let error = Launch::new(&path).arg0(name).env_exactly(environment.to_vec()).replace();
    invocation.complain("fatal", format_args!("cannot run {}: {error}", path.display()));
    Exit::TEMPORARY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(args: &[&str]) -> (Vec<String>, Environment) {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let parsed = Parsed::read(&SPEC, &args).unwrap();
        let environment = Environment::from_iter([("NAME", "Old"), ("QMAILHOST", "old")]);
        let (arguments, environment) = translated(&parsed, &environment);
        (arguments.into_iter().map(|a| a.into_string().unwrap()).collect(), environment)
    }

    #[test]
    fn usual_command_lines() {
        assert_eq!(translate(&["-t", "-i"]).0, ["-H", "--"]);
        assert_eq!(translate(&["-oi", "-oem", "-bm", "a@b"]).0, ["-a", "--", "a@b"]);
        let (arguments, environment) = translate(&["-tif", "joe@x.y", "-F", "Joe X", "--", "-z@b"]);
        assert_eq!(arguments, ["-H", "-f", "joe@x.y", "--", "-z@b"]);
        assert_eq!(environment.bytes("QMAILUSER"), Some(&b"joe"[..]));
        assert_eq!(environment.bytes("QMAILHOST"), Some(&b"x.y"[..]));
        assert_eq!(environment.bytes("MAILNAME"), Some(&b"Joe X"[..]));
        assert!(!environment.is_set("NAME"));
        assert_eq!(translate(&["-f", "", "a@b"]).0, ["-a", "-f", "", "--", "a@b"]);
    }

    #[test]
    fn fix_50_options_of_other_sendmails_are_taken() {
        let (arguments, _) = translate(&[
            "-Am",
            "-Ac",
            "-N",
            "never",
            "-O",
            "X=y",
            "-R",
            "hdrs",
            "-V",
            "id",
            "-B8BITMIME",
            "a@b",
        ]);
        assert_eq!(arguments, ["-a", "--", "a@b"]);
    }

    #[test]
    fn a_session_on_this_host_may_relay() {
        let env = local_connection(&Environment::default());
        assert_eq!(
            (env.bytes("RELAYCLIENT"), env.bytes("TCPREMOTEIP")),
            (Some(&b""[..]), Some(&b"127.0.0.1"[..]))
        );
        let given = Environment::from_iter([("PROTO", "TCP6")]);
        assert_eq!(local_connection(&given), given);
    }
}
