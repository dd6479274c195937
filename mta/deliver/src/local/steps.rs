//! Doing what the interpreter says.

use std::fmt::Display;

use maildir::Error as MaildirError;
use program::Environment;
use program::env_directory::{OnUnreadable, read as read_variables};

use super::environment::Facts;
use super::{Settings, path};
use crate::dotqmail::{Action, Instruction, Interpreter};
use crate::forward::{self, Forward};
use crate::message_file::Message;
use crate::shell::{self, Meaning};
use crate::{End, disk, mbox, say};

/// One delivery at work.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    settings: &'a Settings,
    message: &'a Message,
    facts: &'a Facts,
    environment: Environment,
    files: usize,
    programs: usize,
}

impl<'a> Steps<'a> {
    pub(super) fn new(settings: &'a Settings, message: &'a Message, facts: &'a Facts) -> Self {
        let environment = facts.environment.clone();
        Self { settings, message, facts, environment, files: 0, programs: 0 }
    }

    /// Runs the lines; the text of success is `did F+W+P`.
    pub(super) fn run(
        mut self,
        name: &str,
        lines: &[Instruction],
        forwards_only: bool,
    ) -> Result<String, End> {
        let mut interpreter = Interpreter::new(lines, forwards_only);
        loop {
            let action = interpreter.next_action();
            if self.settings.dry_run {
                if action == Action::Finish {
                    break;
                }
                // Which way a program would decide cannot be known: the lines behind it are shown.
                interpreter.program_ended(Meaning::GoOn);
                say(&described(&action));
                continue;
            }
            match action {
                Action::Finish => break,
                Action::Refuse(what) => return Err(End::Temporary(format!("{name}: {what} (#4.2.1)"))),
                Action::Mbox(file) => self.mbox(file)?,
                Action::Maildir(directory) => self.maildir(directory)?,
                Action::Variables(directory) => self.variables(directory)?,
                Action::Program(line) => interpreter.program_ended(self.program(line)?),
            }
        }
        self.forwards(&interpreter.forwards)?;
        Ok(format!("did {}+{}+{}", self.files, interpreter.forwards.len(), self.programs))
    }

    fn mbox(&mut self, file: &[u8]) -> Result<(), End> {
        let heading = [&self.facts.mbox_from[..], &self.heading()].concat();
        self.files += 1;
        let done = mbox::append(path(file), &heading, self.message, self.settings.durability);
        done.map_err(|e| match e.raw_os_error() {
            Some(libc::EDQUOT) => End::Permanent(format!("{}: {e} (#5.2.2)", file.escape_ascii())),
            _ => End::Temporary(format!("{}: {e} (#4.2.1)", file.escape_ascii())),
        })
    }

    fn maildir(&mut self, directory: &[u8]) -> Result<(), End> {
        let heading = self.heading();
        self.files += 1;
        let done = maildir::deliver_on(
            disk(self.settings.durability, &self.settings.resident),
            path(directory),
            |out| {
                out.write_all(&heading)?;
                self.message.copy_to(out)
            },
        );
        done.map(drop).map_err(|e| match e {
            MaildirError::DiskQuota(_) => End::Permanent(format!("{e} (#5.2.2)")),
            MaildirError::NoMaildir(_) => End::Temporary(format!("{e} (#4.2.1)")),
            MaildirError::Temporary { .. } => End::Temporary(format!("{e} (#4.3.0)")),
        })
    }

    fn variables(&mut self, directory: &[u8]) -> Result<(), End> {
        let changes = read_variables(path(directory), OnUnreadable::Fail)
            .map_err(|e| End::Temporary(format!("{e} (#4.2.1)")))?;
        changes.apply(&mut self.environment);
        Ok(())
    }

    fn program(&mut self, line: &[u8]) -> Result<Meaning, End> {
        self.programs += 1;
        let not_now = |e: &dyn Display| End::Temporary(format!("cannot run a program: {e} (#4.3.0)"));
        let descriptor = self.message.descriptor().map_err(|e| not_now(&e))?;
        let ending = shell::run(line, descriptor, &self.environment).map_err(|e| not_now(&e))?;
        // The program has printed its own reason.
        match Meaning::of(ending) {
            Meaning::Permanent => Err(End::Permanent(String::new())),
            Meaning::Temporary => Err(End::Temporary(shell::unsaid(ending))),
            meaning => Ok(meaning),
        }
    }

    fn forwards(&self, recipients: &[Vec<u8>]) -> Result<(), End> {
        if recipients.is_empty() {
            return Ok(());
        }
        if self.settings.dry_run {
            recipients.iter().for_each(|r| say(&format!("forward {}", r.escape_ascii())));
            return Ok(());
        }
        let prefix = [
            &self.facts.delivered_to[..],
            &forward::trace(recipients, &self.facts.recipient),
            &ended(&self.settings.extra_header),
        ]
        .concat();
        let forward = Forward {
            sender: &self.facts.new_sender,
            recipients,
            prefix: &prefix,
            layout: &self.settings.layout,
            environment: &forward::environment(&self.environment),
        };
        say(&forward.send(self.message)?);
        Ok(())
    }

    fn heading(&self) -> Vec<u8> {
        [&self.facts.return_path[..], &self.facts.delivered_to, &ended(&self.settings.extra_header)].concat()
    }
}

/// A header block with its final newline.
fn ended(block: &[u8]) -> Vec<u8> {
    let newline: &[u8] = if block.is_empty() || block.ends_with(b"\n") { b"" } else { b"\n" };
    [block, newline].concat()
}

fn described(action: &Action<'_>) -> String {
    match action {
        Action::Mbox(file) => format!("mbox {}", file.escape_ascii()),
        Action::Maildir(directory) => format!("maildir {}", directory.escape_ascii()),
        Action::Program(line) => format!("program {}", line.escape_ascii()),
        Action::Variables(directory) => format!("variables {}", directory.escape_ascii()),
        Action::Refuse(what) => format!("refuse: {what}"),
        Action::Finish => String::new(),
    }
}
