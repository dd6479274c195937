//! tcpserver: a listening socket and one program for each connection.

pub mod listener;
pub mod peers;
mod serve;
pub mod settings;
pub mod table;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec, Variable};

/// The table of tcpserver.
pub static SPEC: Spec = Spec {
    name: "tcpserver",
    summary: "start a program for each incoming connection",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('q', "print nothing but fatal errors"),
        OptionSpec::flag('Q', "print errors (the default)"),
        OptionSpec::flag('v', "print errors and a line for each step of a connection"),
        OptionSpec::value('c', "n", "at most n connections at a time, or a control file that holds the number and is read again at HUP (default 40)"),
        OptionSpec::value('C', "n", "at most n connections from one address or IPv6 network of 64 bits; 0: no limit (default 20)"),
        OptionSpec::value('b', "n", "about n connections may wait to be accepted (default 20)"),
        OptionSpec::value('x', "cdb", "follow the rules in this database, made by tcprules"),
        OptionSpec::flag('X', "with -x: allow connections when the database does not exist"),
        OptionSpec::value('B', "text", "write text to each connection at once"),
        OptionSpec::value('u', "user", "become this user (and its groups), or this number, when the socket is bound"),
        OptionSpec::value('g', "groups", "become this group; more, after commas, are supplementary"),
        OptionSpec::flag('U', "as -u and -g with the numbers in the variables UID and GID"),
        OptionSpec::flag('1', "print the port on stdout when it is bound"),
        OptionSpec::flag('4', "IPv4 only"),
        OptionSpec::flag('6', "describe IPv4 clients of an IPv6 socket by their IPv6 form"),
        OptionSpec::flag('o', "leave IP options as they are"),
        OptionSpec::flag('O', "clear IP options (the default)"),
        OptionSpec::flag('d', "delay small packets (the default)"),
        OptionSpec::flag('D', "never delay small packets"),
        OptionSpec::flag('h', "look up the client's name for TCPREMOTEHOST (the default)"),
        OptionSpec::flag('H', "do not look it up"),
        OptionSpec::flag('p', "paranoid: believe a name only when it leads back to the address"),
        OptionSpec::flag('P', "believe every name (the default)"),
        OptionSpec::value('l', "name", "the value of TCPLOCALHOST, instead of looking up the local address"),
        OptionSpec::flag('r', "ask the client's host for TCPREMOTEINFO (RFC 1413, the default)"),
        OptionSpec::flag('R', "do not ask"),
        OptionSpec::value('t', "seconds", "how long to wait for that answer (default 26)"),
        OptionSpec::value('e', "file", "write the process id to this file and refuse to run twice with it"),
    ],
    operands: Operands { synopsis: "host port program [arg ...] | /socket program [arg ...]", min: 2, max: None },
    variables: &[
        Variable { name: "MAXPERIP", help: "Limit for one client; a rule that sets it counts more, and both more than -C." },
        Variable { name: "NOTIFY_SOCKET", help: "Where to say that the socket is bound (set by systemd)." },
        Variable { name: "UID", help: "With -U: the user to become." },
        Variable { name: "GID", help: "With -U: the group to become." },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "stopped by TERM" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the socket, the user or the rules cannot be used" },
    ],
    description: "\
tcpserver waits for connections to host and port (a number, a name from /etc/services, or 0 for any free port) and starts program for each, with the connection on its descriptors 0 \
and 1. host 0, :: or nothing means all addresses, IPv6 and IPv4. A first operand that starts with / is the path of a Unix socket, which has \
no port.

The program gets PROTO (TCP, TCP6 or UNIX), TCPLOCALIP, TCPLOCALPORT, TCPLOCALHOST, TCPREMOTEIP, TCPREMOTEPORT, TCPREMOTEHOST and TCPREMOTEINFO; on an IPv6 socket \
the same with TCP6 as well; for a Unix socket UNIXLOCALPATH. With -p a name that is not confirmed becomes TCPPARANOID. \
All that has to be looked up is looked up by tcp-env(1), which then becomes the program, so that no other connection waits; rules go by address.

TERM closes the socket and ends tcpserver; running programs go on. HUP reads the file of -c and the database again. USR1 prints the connections. \
When the limit of -c is reached, clients wait until a program ends; a client above its own limit is sent away.",
    ..Spec::EMPTY
};

/// tcpserver.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    match settings::load(invocation) {
        Ok(settings) => serve::run(&settings),
        Err(exit) => exit,
    }
}
