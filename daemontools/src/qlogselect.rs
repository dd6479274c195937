//! qlogselect: the lines of a delivery log that are about certain messages, or of a certain time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use tai::Label;
use unix::buffered::{Failure, Input, Output};

use crate::multilog::pattern::matches_glob;

/// The table of qlogselect.
pub static SPEC: Spec = Spec {
    name: "qlogselect",
    summary: "select lines of a delivery log",
    section: 8,
    place: Place::Bin,
    operands: Operands {
        synopsis: "[from pattern] [start time] [end time] [stripstatus] [addstatus]",
        min: 0,
        max: None,
    },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the whole input was read" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the input cannot be read or the output not be written" },
    ],
    description: "\
Copies lines of the log of qmail-send(8), with or without time labels, from its input to its output.

from pattern: only lines about messages whose sender matches the shell pattern. start time and end time: only lines from start on \
and before end; lines without a time are kept. A time is seconds since 1970, or year-month-day, which begins at midnight UTC. \
stripstatus: no status lines. addstatus: status lines for the deliveries that were selected, instead of those in the log.",
    ..Spec::EMPTY
};

/// qlogselect.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What is selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    from: Option<Vec<u8>>,
    start: Option<u64>,
    end: Option<u64>,
    strip_status: bool,
    add_status: bool,
}

impl Selection {
    /// Reads the words of the command line.
    ///
    /// # Errors
    /// An unknown word, one that is missing, or a time that cannot be read.
    pub fn parse(words: &[OsString]) -> Result<Self, String> {
        let mut selection = Self::default();
        let mut words = words.iter().map(|word| word.as_bytes());
        while let Some(word) = words.next() {
            let name = word.escape_ascii().to_string();
            let mut value = || words.next().ok_or_else(|| format!("{name}: expected a word behind it"));
            match word {
                b"from" => selection.from = Some(value()?.to_vec()),
                b"start" => selection.start = Some(time(value()?)?),
                b"end" => selection.end = Some(time(value()?)?),
                b"stripstatus" => selection.strip_status = true,
                b"addstatus" => selection.add_status = true,
                _ => return Err(format!("{name}: expected from, start, end, stripstatus or addstatus")),
            }
        }
        Ok(selection)
    }
}

fn time(text: &[u8]) -> Result<u64, String> {
    let read = || {
        let text = std::str::from_utf8(text).ok()?;
        if let Ok(seconds) = text.parse() {
            return Some(seconds);
        }
        let mut parts = text.splitn(3, '-').map(|part| part.parse::<u64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let valid = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        // Months from March on, so that the leap day is the last of a year.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
        // 719469: the same count for 1970-01-01.
        valid.then(|| (days - 719_469) * 86_400)
    };
    read().ok_or_else(|| format!("{}: expected seconds or year-month-day", text.escape_ascii()))
}

/// Message number and name of the queue, which may be empty.
type Message = (Vec<u8>, Vec<u8>);

/// A delivery under way.
#[derive(Debug)]
struct Delivery {
    queue: Vec<u8>,
    remote: bool,
    selected: bool,
}

/// Goes through a log.
#[derive(Debug)]
pub struct Selector {
    selection: Selection,
    /// `new msg` lines whose sender is not known yet.
    new: BTreeMap<Message, Vec<u8>>,
    selected: BTreeSet<Message>,
    /// Deliveries under way by number; several queues may count alike.
    deliveries: BTreeMap<Vec<u8>, Vec<Delivery>>,
    under_way: [u64; 2],
    limits: [Vec<u8>; 2],
}

impl Selector {
    /// At the start of a log.
    #[must_use]
    pub fn new(selection: Selection) -> Self {
        let limits = [b"10".to_vec(), b"20".to_vec()];
        let (new, selected, deliveries) = Default::default();
        Self { selection, new, selected, deliveries, under_way: [0; 2], limits }
    }

    /// Takes a line, its newline included, and appends what is selected to `out`.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let (stamp, text) = split_stamp(line);
        let in_time = seconds(stamp).is_none_or(|at| {
            self.selection.start.is_none_or(|start| start <= at)
                && self.selection.end.is_none_or(|end| at < end)
        });
        let words: Vec<&[u8]> = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        let number = |at: usize| words.get(at).map(|word| word.strip_suffix(b":").unwrap_or(word).to_vec());
        let mut changed = false;
        let keep = match (words.as_slice(), number(2)) {
            ([b"new", b"msg", ..], Some(id)) => {
                // Nothing is known of its sender; an earlier message of this number is gone.
                let message = (id, queue(&words, 3));
                self.selected.remove(&message);
                if self.selection.from.is_some() {
                    self.new.insert(message, if in_time { line.to_vec() } else { Vec::new() });
                    return;
                }
                self.selected.insert(message);
                true
            }
            ([b"info", b"msg", ..], Some(id)) => {
                let after_uid =
                    words.iter().position(|word| *word == b"uid").map_or(words.len(), |at| at + 2);
                let message = (id, queue(&words, after_uid));
                let line = self.new.remove(&message).unwrap_or_default();
                let selected = self.selection.from.as_ref().is_none_or(|p| matches_glob(p, sender(text)));
                if selected {
                    self.selected.insert(message);
                    out.extend_from_slice(&line);
                }
                selected
            }
            ([b"starting", b"delivery", _, b"msg", _, b"to", channel, _, ..], Some(delivery)) => {
                let message = (number(4).unwrap_or_default(), queue(&words, 8));
                let remote = *channel == b"remote";
                let selected = self.is_selected(&message);
                let started = Delivery { queue: message.1, remote, selected };
                self.deliveries.entry(delivery).or_default().push(started);
                self.under_way[usize::from(remote)] += u64::from(selected);
                changed = selected;
                selected
            }
            ([b"delivery", ..], _) => {
                changed = self.delivered(&number(1).unwrap_or_default(), words.last().copied());
                changed || self.selection.from.is_none()
            }
            ([b"bounce", b"msg", ..], Some(id)) => self.is_selected(&(id, queue(&words, 5))),
            ([b"end", b"msg", ..], Some(id)) => {
                let at = if words.get(3) == Some(&&b"qmail-send:"[..]) { 4 } else { 3 };
                let message = (id, queue(&words, at));
                let selected = self.is_selected(&message);
                self.selected.remove(&message);
                selected
            }
            ([b"status:", ..], _) => {
                for (place, name) in [(0, &b"local"[..]), (1, b"remote")] {
                    let at = words.iter().position(|word| *word == name).map(|at| at + 1);
                    let share = at.and_then(|at| words.get(at)?.splitn(2, |&b| b == b'/').nth(1));
                    if let Some(limit) = share {
                        self.limits[place] = limit.to_vec();
                    }
                }
                !self.selection.strip_status && !self.selection.add_status
            }
            _ => self.selection.from.is_none(),
        };
        if keep && in_time {
            out.extend_from_slice(line);
            if changed && self.selection.add_status {
                self.status(stamp, out);
            }
        }
    }

    /// Without a pattern, messages that began before the log did are selected too.
    fn is_selected(&self, message: &Message) -> bool {
        self.selection.from.is_none() || self.selected.contains(message)
    }

    /// A delivery has ended. Was it a selected one?
    fn delivered(&mut self, delivery: &[u8], last: Option<&[u8]>) -> bool {
        let Some(candidates) = self.deliveries.get_mut(delivery) else { return false };
        // The last word tells which queue it is of.
        let at = candidates.iter().position(|candidate| last == Some(candidate.queue.as_slice()));
        let Some(at) = at.or((candidates.len() == 1).then_some(0)) else { return false };
        let Delivery { remote, selected, .. } = candidates.swap_remove(at);
        if candidates.is_empty() {
            self.deliveries.remove(delivery);
        }
        self.under_way[usize::from(remote)] -= u64::from(selected);
        selected
    }

    fn status(&self, stamp: &[u8], out: &mut Vec<u8>) {
        let [local, remote] = self.under_way;
        let [locals, remotes] = &self.limits;
        out.extend_from_slice(stamp);
        out.extend_from_slice(format!("status: local {local}/").as_bytes());
        out.extend_from_slice(locals);
        out.extend_from_slice(format!(" remote {remote}/").as_bytes());
        out.extend_from_slice(remotes);
        out.push(b'\n');
    }
}

/// The stamp in front of a line, its blank included, and the rest.
fn split_stamp(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|&b| b == b' ').map_or(0, |at| at + 1);
    let (stamp, text) = line.split_at(end);
    if seconds(stamp).is_some() { (stamp, text) } else { (b"", line) }
}

/// The time of a stamp in seconds since 1970.
fn seconds(stamp: &[u8]) -> Option<u64> {
    let stamp = stamp.strip_suffix(b" ")?;
    if let Some((label, b"")) = Label::parse(stamp) {
        return u64::try_from(label.unix_seconds()?).ok();
    }
    let (whole, fraction) = std::str::from_utf8(stamp).ok()?.split_once('.')?;
    fraction.bytes().all(|b| b.is_ascii_digit()).then(|| whole.parse().ok())?
}

/// The name of the queue, which is word number `at` where the log has one.
fn queue(words: &[&[u8]], at: usize) -> Vec<u8> {
    words.get(at).map_or_else(Vec::new, |word| word.to_vec())
}

/// What stands in the angle brackets of an info line.
fn sender(text: &[u8]) -> &[u8] {
    let start = memchr::memmem::find(text, b"from <").map_or(text.len(), |at| at + 6);
    // An address may hold a >.
    let end = memchr::memmem::rfind(text, b"> qp ").unwrap_or(text.len());
    text.get(start..end).unwrap_or_default()
}

fn main(invocation: &Invocation) -> Exit {
    let words = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    let selection = match Selection::parse(&words) {
        Ok(selection) => selection,
        Err(message) => {
            invocation.complain("fatal", message);
            return Exit::PERMANENT;
        }
    };
    match copy(selection) {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

fn copy(selection: Selection) -> Result<(), Failure> {
    use std::io::Write;
    let (mut input, mut output) = (Input::stdin(), Output::stdout());
    let mut selector = Selector::new(selection);
    let (mut line, mut selected) = (Vec::new(), Vec::new());
    loop {
        if input.buffer().is_empty() {
            // Here, because an error of the output must not look like one of the input.
            output.flush().map_err(Failure::Write)?;
        }
        if !input.line(&mut [], &mut line).map_err(Failure::Read)? {
            return output.flush().map_err(Failure::Write);
        }
        selector.line(&line, &mut selected);
        output.write_all(&selected).map_err(Failure::Write)?;
        line.clear();
        selected.clear();
    }
}

#[cfg(test)]
mod tests;
