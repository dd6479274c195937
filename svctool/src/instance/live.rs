//! What is going on in an instance, until a signal arrives.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Result;
use unix::clock::Deadline;
use unix::signals::Signals;
use unix::wait::{Interest, ready};

use super::keeper::Keeper;
use super::{Instance, proof, services};

/// How often the view is renewed.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many deliveries are shown.
const DELIVERIES: usize = 8;
/// How much of a log is looked at.
const LOG_END: u64 = 64 * 1024;

/// Shows the view until a signal arrives (`Ok(true)`) or the instance ends by itself (`Ok(false)`).
///
/// # Errors
/// The state of the keeper cannot be had.
pub fn watch(instance: &Instance, keeper: &mut Keeper, signals: &mut Signals) -> Result<bool> {
    let mut out = std::io::stdout();
    let terminal = out.is_terminal();
    let mut shown: Vec<String> = Vec::new();
    loop {
        let lines = lines(instance, keeper.enter());
        let text = if terminal { screen(&lines, shown.len()) } else { changes(&shown, &lines) };
        // A reader that went away must not stop the mail.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        shown = lines;
        if let Some(end) = pause(keeper, signals)? {
            return Ok(end);
        }
    }
}

/// As [`watch`], showing nothing.
///
/// # Errors
/// As [`watch`].
pub fn wait(keeper: &mut Keeper, signals: &mut Signals) -> Result<bool> {
    loop {
        if let Some(end) = pause(keeper, signals)? {
            return Ok(end);
        }
    }
}

/// Waits for one interval; says how it ended if it is time to end.
fn pause(keeper: &mut Keeper, signals: &mut Signals) -> Result<Option<bool>> {
    let next = Deadline::after(INTERVAL);
    while !next.passed() {
        ready(&[(signals.as_fd(), Interest::Read)], Some(next))?;
        if signals.take().is_some() {
            return Ok(Some(true));
        }
    }
    Ok(keeper.has_ended()?.then_some(false))
}

/// The whole view: services, queue, last deliveries.
#[must_use]
pub fn lines(instance: &Instance, enter: &[OsString]) -> Vec<String> {
    let mut lines = service_lines(instance, enter);
    let queue = proof::run(enter, &["qmail-qstat"], "");
    lines.push(format!("queue: {}", queue.unwrap_or_default().trim().replace('\n', ", ")));
    lines.extend(last_deliveries(instance));
    lines
}

/// One line for each service, as svstat says it, without the seconds that change all the time.
fn service_lines(instance: &Instance, enter: &[OsString]) -> Vec<String> {
    let directories: Vec<String> =
        services::NAMES.iter().map(|n| services::directory(instance, n).display().to_string()).collect();
    let argv: Vec<&str> = ["svstat"].into_iter().chain(directories.iter().map(String::as_str)).collect();
    let prefix = format!("{}/", instance.service().display());
    match proof::run(enter, &argv, "") {
        Ok(text) => text.lines().map(|l| l.trim_start_matches(&prefix).to_owned()).collect(),
        Err(e) => vec![format!("services: {e}")],
    }
}

fn last_deliveries(instance: &Instance) -> Vec<String> {
    let Ok(mut file) = std::fs::File::open(services::log(instance, "qmail-send")) else {
        return Vec::new();
    };
    let length = file.metadata().map_or(0, |m| m.len());
    let mut bytes = Vec::new();
    let start = SeekFrom::Start(length.saturating_sub(LOG_END));
    if file.seek(start).is_err() || file.take(LOG_END).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut found: Vec<String> = text
        .lines()
        .filter(|l| l.contains("delivery ") || l.contains("bounce msg"))
        // The time label is for tai64nlocal.
        .map(|l| l.split_once(' ').map_or(l, |(first, rest)| if first.starts_with('@') { rest } else { l }))
        .map(str::to_owned)
        .collect();
    found.drain(..found.len().saturating_sub(DELIVERIES));
    found
}

/// Draws the view over the one of `before` lines, below everything printed earlier.
fn screen(lines: &[String], before: usize) -> String {
    // Long lines are cut at the edge, so that each takes one row.
    let mut text = String::from("\x1b[?7l");
    if before > 0 {
        let _ = write!(text, "\x1b[{}A\r", before + 1);
    }
    for line in lines {
        let _ = write!(text, "{line}\x1b[K\r\n");
    }
    text.push_str("(Ctrl-C stops everything)\x1b[K\r\n\x1b[J\x1b[?7h");
    text
}

/// Lines that were not there before, apart from running times.
fn changes(before: &[String], now: &[String]) -> String {
    let old: Vec<String> = before.iter().map(|l| without_seconds(l)).collect();
    now.iter().filter(|l| !old.contains(&without_seconds(l))).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    })
}

fn without_seconds(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut kept = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let counted = words.get(at + 1).is_some_and(|next| next.starts_with("seconds"));
        if !counted {
            kept.push(*word);
        }
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_is_drawn_over_itself() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert!(!screen(&lines, 0).contains("\x1b[3A"));
        // Two lines and the hint below them.
        assert!(screen(&lines, 2).contains("\x1b[3A"));
    }

    #[test]
    fn only_changes_are_printed() {
        let before = vec!["nssd: up (pid 7) 5 seconds".to_owned(), "queue: 0".to_owned()];
        let same = vec!["nssd: up (pid 7) 6 seconds".to_owned(), "queue: 0".to_owned()];
        assert_eq!(changes(&before, &same), "");
        let other = vec!["nssd: up (pid 8) 0 seconds".to_owned(), "queue: 0".to_owned()];
        assert_eq!(changes(&before, &other), "nssd: up (pid 8) 0 seconds\n");
    }
}
