//! In which order lines act.

use super::Instruction;
use crate::shell::Meaning;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<'a> {
    /// Append to this mbox.
    Mbox(&'a [u8]),
    /// Deliver to this Maildir.
    Maildir(&'a [u8]),
    /// Run this command line; tell [`Interpreter::program_ended`].
    Program(&'a [u8]),
    /// Load variables for what follows.
    Variables(&'a [u8]),
    /// A line that is not allowed here: a deferral with this text.
    Refuse(&'static str),
    /// No line is left: send the forwards, together.
    Finish,
}

/// The state of one delivery by a dot-qmail file.
#[derive(Debug)]
pub struct Interpreter<'a> {
    lines: &'a [Instruction],
    at: usize,
    forwards_only: bool,
    deciding: Option<&'a [u8]>,
    /// Addresses collected so far.
    pub forwards: Vec<Vec<u8>>,
}

impl<'a> Interpreter<'a> {
    /// Begins. `forwards_only`: the file's execute bit says that program and mailbox lines are mistakes.
    #[must_use]
    pub fn new(lines: &'a [Instruction], forwards_only: bool) -> Self {
        Self { lines, at: 0, forwards_only, deciding: None, forwards: Vec::new() }
    }

    /// The next action. After a program say how it ended before asking again.
    pub fn next_action(&mut self) -> Action<'a> {
        while let Some(line) = self.lines.get(self.at) {
            self.at += 1;
            match line {
                Instruction::Label(_) => {}
                Instruction::ForwardsOnly => self.forwards_only = true,
                Instruction::Forward(address) => self.forwards.push(address.clone()),
                Instruction::Jump { label, command: None } => self.jump(label),
                Instruction::Variables(directory) => return Action::Variables(directory),
                _ if self.forwards_only => {
                    return Action::Refuse("only forward lines are allowed here");
                }
                Instruction::Jump { label, command: Some(command) } => {
                    self.deciding = Some(label);
                    return Action::Program(command);
                }
                Instruction::Mbox(path) => return Action::Mbox(path),
                Instruction::Maildir(path) => return Action::Maildir(path),
                Instruction::Program(command) => return Action::Program(command),
            }
        }
        Action::Finish
    }

    /// The program ended with 0 or 99. (Anything else ends the delivery; that is the caller's.)
    pub fn program_ended(&mut self, meaning: Meaning) {
        let label = self.deciding.take();
        if meaning == Meaning::Stop {
            match label {
                Some(label) => self.jump(label),
                None => self.at = self.lines.len(),
            }
        }
    }

    /// Skips forward, never back: a delivery always ends.
    fn jump(&mut self, label: &[u8]) {
        let rest = self.lines.get(self.at..).unwrap_or_default();
        let found = rest.iter().position(|l| matches!(l, Instruction::Label(name) if name == label));
        self.at = found.map_or(self.lines.len(), |offset| self.at + offset + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use proptest::prelude::*;

    /// Actions as words; every program ends with the meaning given for it.
    fn trace(text: &str, forwards_only: bool, end: fn(&str) -> Meaning) -> (Vec<String>, Vec<String>) {
        let lines = parse(text.as_bytes()).unwrap();
        let mut interpreter = Interpreter::new(&lines, forwards_only);
        let mut done = Vec::new();
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        loop {
            match interpreter.next_action() {
                Action::Mbox(p) | Action::Maildir(p) => done.push(text(p)),
                Action::Variables(p) => done.push(format!("%{}", text(p))),
                Action::Program(p) => {
                    done.push(format!("|{}", text(p)));
                    interpreter.program_ended(end(&text(p)));
                }
                Action::Refuse(_) => {
                    done.push("refuse".into());
                    break;
                }
                Action::Finish => break,
            }
        }
        (done, interpreter.forwards.iter().map(|f| text(f)).collect())
    }

    fn says(command: &str) -> Meaning {
        if command.ends_with("99") { Meaning::Stop } else { Meaning::GoOn }
    }

    #[test]
    fn forwards_come_last_and_stop_keeps_them() {
        let (done, forwards) = trace("&a@b\n./Mailbox\n|ok\n&c@d\n|x 99\n./never\n&never\n", false, says);
        assert_eq!(done, ["./Mailbox", "|ok", "|x 99"]);
        assert_eq!(forwards, ["a@b", "c@d"]);
    }

    #[test]
    fn jumps_go_forward_to_the_label_or_the_end() {
        assert_eq!(trace("?x\n./a\n:x\n./b\n", false, says).0, ["./b"]);
        assert_eq!(trace(":x\n?x\n./a\n", false, says).0, Vec::<String>::new());
        assert_eq!(trace("?x t 99\n./a\n:x\n./b\n", false, says).0, ["|t 99", "./b"]);
        assert_eq!(trace("?x t\n./a\n:x\n./b\n", false, says).0, ["|t", "./a", "./b"]);
    }

    #[test]
    fn forward_only_files_refuse_the_rest() {
        assert_eq!(trace("&a@b\n./Mailbox\n", true, says).0, ["refuse"]);
        assert_eq!(
            trace("./a\n+list\n&b\n|p\n", false, says),
            (vec!["./a".into(), "refuse".into()], vec!["b".into()])
        );
        assert_eq!(trace("&a@b\n#\n", true, says).1, ["a@b"]);
    }

    proptest! {
        #[test]
        fn every_file_ends(text in "([:?][ab]( x)?|&a|\\./m|\\|p|\\+list|\n){0,30}") {
            if let Ok(lines) = parse(text.as_bytes()) {
                let mut interpreter = Interpreter::new(&lines, false);
                let mut steps = 0;
                loop {
                    match interpreter.next_action() {
                        Action::Finish | Action::Refuse(_) => break,
                        Action::Program(_) => interpreter.program_ended(Meaning::Stop),
                        _ => {}
                    }
                    steps += 1;
                    prop_assert!(steps <= lines.len());
                }
            }
        }
    }
}
