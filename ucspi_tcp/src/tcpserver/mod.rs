//! tcpserver: a listening socket and one program for each connection.

mod admit;
pub mod book;
mod copy;
mod from_table;
pub mod listener;
mod load;
pub mod log;
pub mod peers;
mod pending;
pub mod secure;
mod serve;
pub mod settings;
pub mod status;
pub mod table;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec, Variable};
use unix::child::Launch;

pub use load::load;
pub use serve::run;

/// The operands, with and without TLS.
pub const OPERANDS: Operands =
    Operands { synopsis: "host port program [arg ...] | /socket program [arg ...]", min: 2, max: None };

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
        OptionSpec::flag('V', "as -v, and which rule decided"),
        OptionSpec::value('c', "n", "at most n connections at a time, or a control file that holds the number and is read again at HUP (default 40)"),
        OptionSpec::value('C', "n", "at most n connections from one address or IPv6 network of 64 bits; 0: no limit (default 20)"),
        OptionSpec::long_value("per-network", "n[/bits[/bits]]", "at most n connections from one network, IPv4 of 24 bits or IPv6 of 48 unless others are given (default: no limit)"),
        OptionSpec::value('b', "n", "about n connections may wait to be accepted (default 20)"),
        OptionSpec::value('x', "cdb", "follow the rules in this database, made by tcprules"),
        OptionSpec::flag('X', "with -x or -m: allow connections when there is no database or table yet"),
        OptionSpec::value('m', "file", "follow the rules in the MySQL table that this control file names: server:user:password:database:table, see tcprules-sql(8)"),
        OptionSpec::value('B', "text", "write text to each connection at once (through TLS, with -s or -n)"),
        OptionSpec::value('u', "user", "become this user (and its groups), or this number, when the socket is bound"),
        OptionSpec::value('g', "groups", "become this group; more, after commas, are supplementary"),
        OptionSpec::flag('U', "as -u and -g with the numbers in the variables UID and GID"),
        OptionSpec::flag('1', "print the port on stdout when it is bound"),
        OptionSpec::flag('4', "IPv4 only"),
        OptionSpec::flag('6', "describe IPv4 clients of an IPv6 socket by their IPv6 form"),
        OptionSpec::value('I', "interface", "the interface of a link-local address to listen on"),
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
        OptionSpec::flag('s', "speak TLS with the default certificate: TLS_CERTFILE, or servercert.pem"),
        OptionSpec::value('n', "file", "speak TLS with the key and certificate chain in this file; nothing: as -s"),
        OptionSpec::value('i', "directory", "where such files are looked for, and in its sni those for other names: NAME.pem, or _.REST.pem for any one label (default CERTDIR, or /etc/indimail/certs)"),
        OptionSpec::value('a', "file", "require a certificate of the client by one of the authorities in this file"),
        OptionSpec::long_value("client-certificate", "required|optional", "with -a: serve clients without a certificate too (default required)"),
        OptionSpec::value('L', "file", "with -a: revocation lists of these authorities"),
        OptionSpec::value('f', "file", "the ciphers offered, a list in the first line of this file (default TLS_CIPHER_LIST and TLS_CIPHER_SUITE, or all)"),
        OptionSpec::value('M', "version", "TLSv1_2, TLSv1_3 or lowest:highest (default both)"),
        OptionSpec::flag('N', "let clients renegotiate: accepted for old command lines, nothing here renegotiates"),
        OptionSpec::flag('z', "set TLS_PROVIDER"),
        OptionSpec::value('S', "seconds", "how long a TLS handshake may take (default 60)"),
        OptionSpec::value('T', "seconds", "end a TLS connection when nothing has moved for so long (default 300)"),
        OptionSpec::long_value("proxy-from", "networks", "connections from these (separated by commas) begin with a PROXY header, version 1 or 2, that tells the client"),
        OptionSpec::long_value("proxy-timeout", "seconds", "how long that header may take (default 5)"),
        OptionSpec::long_value("drain", "seconds", "at TERM, wait so long for running programs before they are sent TERM too (default: leave them running and end)"),
        OptionSpec::long_value("status", "socket", "tell tcpstatus(1) about the connections at this Unix socket"),
    ],
    operands: OPERANDS,
    variables: &[
        Variable { name: "MAXPERIP", help: "Limit for one client; a rule that sets it counts more, and both more than -C." },
        Variable { name: "MAXPERNET", help: "Limit for one network, as --per-network; a rule that sets it counts more." },
        Variable { name: "CERTDIR", help: "Directory of certificates." },
        Variable { name: "TLS_CERTFILE", help: "Key and certificate chain, with -s." },
        Variable { name: "TLS_CIPHER_LIST", help: "Ciphers for TLS 1.2." },
        Variable { name: "TLS_CIPHER_SUITE", help: "Ciphers for TLS 1.3." },
        Variable { name: "LISTEN_FDS", help: "How many listening sockets the service manager passed (descriptors 3 and up); they are used instead of host and port." },
        Variable { name: "LISTEN_PID", help: "The process they were passed to." },
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
What has to be looked up is looked up in a process of its own, which then becomes the program, so that no other connection waits.

With -s or -n the client speaks TLS and the program reads and writes pipes: SSL_PROTOCOL, SSL_CIPHER, SSL_CIPHER_USEKEYSIZE, SSL_TLS_SNI (the name asked for), \
SSL_CLIENT_VERIFY (NONE or SUCCESS), SSL_CLIENT_S_DN and SSL_CLIENT_I_DN tell about it. Behind a proxy of --proxy-from the TCP variables are those of the client, \
TCPPROXYIP and TCPPROXYPORT those of the proxy.

A rule (see tcprules(1)) may set MAXPERIP=\"n\" and MAXPERNET=\"n/bits\" for its clients. The database is opened again when it was replaced. While it cannot be read, or does not exist (without -X), connections are dropped.

TERM closes the socket and ends tcpserver; running programs go on, unless --drain waits for them. HUP reads the file of -c, the certificates and the database again; connections are not touched. \
USR1 prints the connections. When the limit of -c is reached, clients wait until a program ends; a client above its own limit is sent away. \
A control file of -c that does not exist means the default, and is complained about.",
    ..Spec::EMPTY
};

/// tcpserver.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// The executable that speaks TLS, in the directory of this one.
pub const TLS_EXECUTABLE: &str = "tcpserver-tls";

fn main(invocation: &Invocation) -> Exit {
    match load(invocation) {
        Ok(settings) if settings.tls.is_some() => {
            // An executable of its own, so that nothing of TLS weighs on plain connections.
            let error = match unix::host::executable() {
                Ok(file) => Launch::new(file.with_file_name(TLS_EXECUTABLE))
                    .arg0(TLS_EXECUTABLE)
                    .args(&invocation.arguments)
                    .replace(),
                Err(e) => e,
            };
            invocation.complain("fatal", format_args!("unable to run {TLS_EXECUTABLE}: {error}"));
            Exit::TEMPORARY
        }
        Ok(settings) => run(&settings, None),
        Err(exit) => exit,
    }
}
