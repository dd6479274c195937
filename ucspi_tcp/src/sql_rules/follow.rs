//! Asking the table, once or again and again.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Row, Value};
use program::{Exit, Invocation};
use unix::Signal;
use unix::clock::Deadline;
use unix::signals::Signals;
use unix::wait::{Interest, ready};

use super::Task;
use super::table::{Server, rule_of_row};

/// For each step of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known.
struct Follower<'a> {
    invocation: &'a Invocation,
    task: &'a Task,
    connection: Option<Conn>,
    written: Option<Vec<u8>>,
    /// What was complained about last: once is enough.
    complaint: Option<String>,
}

pub(super) fn run(invocation: &Invocation, task: &Task) -> Exit {
    let mut follower = Follower { invocation, task, connection: None, written: None, complaint: None };
    let Some(pause) = task.follow else {
        return match follower.step() {
            Ok(()) => Exit::OK,
            Err(e) => {
                invocation.complain("fatal", e);
                Exit::TEMPORARY
            }
        };
    };
    match follower.follow(pause) {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to wait: {e}"));
            Exit::TEMPORARY
        }
    }
}

impl Follower<'_> {
    /// Until the input ends. A line on the output says that the first answer, good or bad, is there.
    fn follow(&mut self, pause: Duration) -> io::Result<()> {
        let signals = Signals::listen(&[Signal::SIGHUP, Signal::SIGTERM])?;
        let stdin = io::stdin();
        let mut told = false;
        loop {
            if let Err(e) = self.step() {
                self.complain(e);
            }
            if !told {
                told = true;
                // Nobody has to listen.
                let _ = io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush());
            }
            let next = Deadline::after(pause);
            while !next.passed() {
                let watched = [(stdin.as_fd(), Interest::Read), (signals.as_fd(), Interest::Read)];
                let got = ready(&watched, Some(next))?;
                if got[0].read {
                    self.clean_up();
                    return Ok(());
                }
                match signals.take() {
                    Some(Signal::SIGTERM) => return Ok(()),
                    Some(_) => break,
                    None => {}
                }
            }
        }
    }

    /// Whoever wanted the database is gone, perhaps without a chance to remove it.
    fn clean_up(&self) {
        let _ = std::fs::remove_file(&self.task.database);
        if let Some(directory) = self.task.database.parent() {
            // One that holds anything else stays.
            let _ = std::fs::remove_dir(directory);
        }
    }

    fn complain(&mut self, what: String) {
        if self.complaint.as_ref() != Some(&what) {
            let kept = if self.written.is_some() { "; the last rules stay in force" } else { "" };
            self.invocation.complain("warning", format_args!("{what}{kept}"));
            self.complaint = Some(what);
        }
    }

    /// Asks, and writes the database when it is another one.
    fn step(&mut self) -> Result<(), String> {
        let rows = match self.ask() {
            Ok(rows) => rows,
            Err(e) => {
                // Whatever state the connection is in: the next one is new.
                self.connection = None;
                return Err(format!("unable to read table {}: {}", self.task.server.table, explain(&e)));
            }
        };
        let mut builder = cdb::Builder::new();
        let mut wrong = Vec::new();
        for [iprule, decision, env] in &rows {
            let (keys, verdict, problem) = rule_of_row(iprule, decision, env);
            let value = verdict.encode();
            wrong.extend(problem);
            keys.iter().try_for_each(|key| builder.add(key, &value)).map_err(|e| e.to_string())?;
        }
        let bytes = builder.finish().map_err(|e| e.to_string())?;
        if self.written.as_ref() != Some(&bytes) {
            let path = &self.task.database;
            unix::durable::replace(path, &bytes, 0o644, None)
                .map_err(|e| format!("unable to write {}: {e}", path.display()))?;
            self.written = Some(bytes);
        }
        match wrong.is_empty() {
            true => self.complaint = None,
            false => {
                let all = wrong.join("; ");
                if self.complaint.as_ref() != Some(&all) {
                    self.invocation.complain("warning", &all);
                    self.complaint = Some(all);
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<Vec<[Vec<u8>; 3]>, mysql::Error> {
        let Server { table, .. } = &self.task.server;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Conn::new(options(&self.task.server))?),
        };
        // The name holds no character that means something between these quotes.
        let sql =
            format!("SELECT iprule, decision, env FROM `{table}` WHERE port = ? ORDER BY timestamp DESC");
        let rows: Vec<Row> = connection.exec(sql, (&self.task.port,))?;
        let bytes = |value: Option<Value>| match value {
            Some(Value::Bytes(bytes)) => bytes,
            _ => Vec::new(),
        };
        Ok(rows.into_iter().map(|mut row| [0, 1, 2].map(|at| bytes(row.take(at)))).collect())
    }
}

fn options(server: &Server) -> OptsBuilder {
    let socket = server.host.starts_with('/').then(|| server.host.clone());
    let host = if socket.is_some() { "localhost" } else { &server.host };
    OptsBuilder::new()
        .ip_or_hostname(Some(host))
        .prefer_socket(socket.is_some())
        .socket(socket)
        .user(Some(&server.user))
        .pass(Some(&server.password).filter(|p| !p.is_empty()))
        .db_name(Some(&server.database))
        .tcp_connect_timeout(Some(PATIENCE))
        .read_timeout(Some(PATIENCE))
        .write_timeout(Some(PATIENCE))
}

fn explain(error: &mysql::Error) -> String {
    match error {
        mysql::Error::MySqlError(e) if e.code == 1146 => {
            "it does not exist; the manual page of tcprules-sql says how to make it".to_owned()
        }
        mysql::Error::MySqlError(e) => format!("error {}: {}", e.code, e.message),
        mysql::Error::IoError(e) => e.to_string(),
        other => other.to_string(),
    }
}
