//! Rules in a table of MySQL or MariaDB, for option -m of tcpserver.
//!
//! ```text
//! table ──(this program, every two seconds, and at HUP)──► rules database ──► tcpserver, as with -x
//! ```
//!
//! The connection to the server of the table belongs to a process of its own, so that neither its client
//! library nor a table that does not answer is in the way of a connection: while there is no answer, the last
//! rules stay in force.

mod follow;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};

pub use table::{Server, rule_of_row};

/// The table of tcprules-sql.
pub static SPEC: Spec = Spec {
    name: "tcprules-sql",
    summary: "make a rules database from a table of MySQL",
    section: 8,
    place: Place::Libexec,
    options: &[OptionSpec::long_value(
        "follow",
        "seconds",
        "go on: look so often whether the rules are others, and at HUP, until the input ends; then remove rules.cdb, and its directory when that is empty",
    )],
    operands: Operands { synopsis: "db.conf port rules.cdb", min: 3, max: Some(3) },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "made; with --follow: the input has ended" },
        ExitCodeDoc { code: 100, meaning: "wrong usage, or db.conf is malformed" },
        ExitCodeDoc { code: 111, meaning: "the table cannot be read or the database not be written" },
    ],
    description: "\
Started by tcpserver(1) for its option -m. db.conf holds one line, server:user:password:database:table; a server that begins with / is the path of its socket. \
The table has the columns port, timestamp, iprule, decision and env. Its rows for the port become rules: iprule is the address of a rule of tcprules(1), decision is allow or deny, \
env is a list of NAME=value (or !NAME, which removes a variable) separated by commas; \\, stands for a comma in a value. Of two rows for one address the newer counts. \
A row that is no rule is complained about, and denies its address where that can be read.

A table is made with: CREATE TABLE name (port INT NOT NULL, timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, \
iprule VARCHAR(255) NOT NULL, decision CHAR(5) NOT NULL, env TEXT, PRIMARY KEY (port, iprule)).",
    ..Spec::EMPTY
};

/// tcprules-sql.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What is to be done.
struct Task {
    server: Server,
    port: String,
    database: PathBuf,
    follow: Option<Duration>,
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let wrong = |message: String| {
        invocation.complain("fatal", message);
        Exit::PERMANENT
    };
    let file = parsed.operands[0].to_string_lossy();
    let line = match invocation.environment.control_directory().line(&file) {
        Ok(Some(line)) => line,
        Ok(None) => {
            return wrong(format!("{file}: does not exist: expected server:user:password:database:table"));
        }
        Err(e) => {
            invocation.complain("fatal", e);
            return Exit::TEMPORARY;
        }
    };
    let server = match Server::parse(&line) {
        Ok(server) => server,
        Err(e) => return wrong(format!("{file}: {e}")),
    };
    let follow = match parsed.value("follow").map(|s| s.to_str().and_then(|s| s.parse::<u32>().ok())) {
        None => None,
        Some(Some(seconds @ 1..)) => Some(Duration::from_secs(seconds.into())),
        Some(_) => return wrong("option --follow: expected seconds".into()),
    };
    let port = parsed.operands[1].to_string_lossy().into_owned();
    follow::run(invocation, &Task { server, port, database: PathBuf::from(&parsed.operands[2]), follow })
}
