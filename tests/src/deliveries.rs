//! Which deliveries a kill can have repeated: the judge of the crash window.
//!
//! ```text
//! log of qmail-send ──► attempts (who started which delivery of what, and how it ended) ─┐
//! kills: victims, and what the queue held open at that moment ───────────────────────────┼─► ties ─► judge
//! copies of each message in the mailbox ─────────────────────────────────────────────────┘
//! ```
//!
//! An attempt makes at most one copy. A copy without a mark in the queue can only come from an attempt
//! that a kill cut short, so a message may be there once more than it has such attempts. What was cut
//! short is decided by order, never by time: lines of one qmail-send lie between its greeting and the
//! next one's, and a process is stopped, looked at and then killed.
//!
//! qmail-send marks before it logs a result and logs a start before it hands it on; a log that lacks
//! either line of an attempt therefore errs towards "cut short" only where the mark is missing too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

/// How an attempt ended, by the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nothing more was heard of it.
    Open,
    /// Delivered and marked.
    Success,
    /// Put off or given up: the text of the log.
    Other(String),
}

/// One delivery that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Process id of the qmail-send that started it.
    pub sender: u32,
    /// Its number in that process.
    pub number: String,
    /// Number of the message in the queue; used again for another message later.
    pub id: u64,
    /// The time label of its first line.
    pub started: String,
    /// How it ended.
    pub end: End,
}

/// A process that was killed, and what it was to the deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Victim {
    /// A qmail-send.
    Sender(u32),
    /// The local spawner of this qmail-send.
    Spawner(u32),
    /// A program that was delivering message `id` for this qmail-send.
    Delivery {
        /// The qmail-send.
        sender: u32,
        /// The message's number in the queue.
        id: u64,
    },
    /// Any other: its end repeats no delivery.
    Bystander,
}

/// A moment at which processes of one name were killed.
#[derive(Debug, Clone)]
pub struct Kill {
    /// When.
    pub at: SystemTime,
    /// The name.
    pub name: String,
    /// Who.
    pub victims: Vec<Victim>,
    /// What had a recipient without a mark at that moment: number in the queue, Message-ID.
    pub undone: BTreeMap<u64, String>,
}

/// An attempt that a kill cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tie {
    /// Message-ID.
    pub message: String,
    /// Place among the attempts.
    pub attempt: usize,
    /// Place among the kills.
    pub kill: usize,
}

/// The attempts in a log of qmail-send, lines with a time label in front.
///
/// # Errors
/// A line about a delivery that cannot be understood.
pub fn attempts(log: &str) -> Result<Vec<Attempt>, String> {
    let mut all: Vec<Attempt> = Vec::new();
    let (mut sender, mut first) = (0, 0);
    for line in log.lines() {
        let nonsense = || format!("cannot understand: {line}");
        let (label, text) = line.split_once(' ').unwrap_or((line, ""));
        // A sender that was killed while it wrote may have left half a line in front.
        if let Some((_, rest)) = text.split_once("info: qmail-send: pid ") {
            if let Some((pid, _)) = rest.split_once(": ") {
                (sender, first) = (pid.parse().map_err(|_| nonsense())?, all.len());
            }
        } else if let Some(rest) = text.strip_prefix("starting delivery ") {
            let (number, rest) = rest.split_once(": msg ").ok_or_else(nonsense)?;
            let (id, _) = rest.split_once(' ').ok_or_else(nonsense)?;
            all.push(Attempt {
                sender,
                number: number.to_owned(),
                id: id.parse().map_err(|_| nonsense())?,
                started: label.to_owned(),
                end: End::Open,
            });
        } else if let Some(rest) = text.strip_prefix("delivery ") {
            let (number, result) = rest.split_once(": ").ok_or_else(nonsense)?;
            let attempt = all[first..].iter_mut().find(|a| a.number == number).ok_or_else(nonsense)?;
            attempt.end = match result.strip_prefix("success") {
                Some(_) => End::Success,
                None => End::Other(result.to_owned()),
            };
        }
    }
    Ok(all)
}

/// The attempts that a kill cut short, each with one such kill.
#[must_use]
pub fn ties(attempts: &[Attempt], kills: &[Kill]) -> Vec<Tie> {
    let mut ties = Vec::new();
    for (number, attempt) in attempts.iter().enumerate().filter(|(_, a)| a.end == End::Open) {
        let fatal =
            |v: &Victim| *v == Victim::Sender(attempt.sender) || *v == Victim::Spawner(attempt.sender);
        let found = kills.iter().enumerate().find_map(|(k, kill)| {
            let message = kill.undone.get(&attempt.id).filter(|_| kill.victims.iter().any(fatal))?;
            Some(Tie { message: message.clone(), attempt: number, kill: k })
        });
        ties.extend(found);
    }
    // A killed delivery program was one attempt each, in the same order.
    let mut killed: BTreeMap<(u32, u64), Vec<usize>> = BTreeMap::new();
    for (k, kill) in kills.iter().enumerate() {
        for victim in &kill.victims {
            let Victim::Delivery { sender, id } = *victim else { continue };
            let list = killed.entry((sender, id)).or_default();
            if list.last() != Some(&k) {
                list.push(k);
            }
        }
    }
    for ((sender, id), list) in killed {
        let hit = attempts.iter().enumerate().filter(|(_, a)| a.sender == sender && a.id == id);
        let hit = hit.filter(|(_, a)| match &a.end {
            End::Open => true,
            End::Success => false,
            End::Other(text) => text.contains("killed_by_signal"),
        });
        for ((number, _), k) in hit.zip(list) {
            if let Some(message) = kills[k].undone.get(&id)
                && ties.iter().all(|t| t.attempt != number)
            {
                ties.push(Tie { message: message.clone(), attempt: number, kill: k });
            }
        }
    }
    ties
}

/// Every copy after the first needs an attempt that was cut short. The number of such copies, or the
/// stories of the messages that have more.
///
/// # Errors
/// The stories.
pub fn judge(
    copies: &BTreeMap<String, usize>,
    attempts: &[Attempt],
    kills: &[Kill],
) -> Result<usize, Vec<String>> {
    let ties = ties(attempts, kills);
    let (mut again, mut stories) = (0, Vec::new());
    for (message, &count) in copies {
        let excused = ties.iter().filter(|t| t.message == *message).count();
        again += count.saturating_sub(1);
        if count > excused + 1 {
            stories.push(story(message, count, &ties, attempts, kills));
        }
    }
    if stories.is_empty() { Ok(again) } else { Err(stories) }
}

/// All that is known about a message.
fn story(message: &str, count: usize, ties: &[Tie], attempts: &[Attempt], kills: &[Kill]) -> String {
    let mut text = format!("{message} is there {count} times\n");
    // Writing to a string cannot fail.
    let mut ids = Vec::new();
    for (k, kill) in kills.iter().enumerate() {
        for (id, _) in kill.undone.iter().filter(|(_, m)| *m == message) {
            let at = kill.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let label = tai::Label::from_unix(at).text();
            let label = String::from_utf8_lossy(&label);
            let _ =
                writeln!(text, "  {label} kill {k} of {}: {:?}; open as msg {id}", kill.name, kill.victims);
            ids.push(*id);
        }
    }
    if ids.is_empty() {
        text.push_str("  it was open at no kill that could repeat a delivery\n");
    }
    for (number, attempt) in attempts.iter().enumerate().filter(|(_, a)| ids.contains(&a.id)) {
        let tie = ties.iter().find(|t| t.attempt == number && t.message == message);
        let tie = tie.map_or_else(|| "not cut short".to_owned(), |t| format!("cut short by kill {}", t.kill));
        let Attempt { sender, number, id, started, end } = attempt;
        let _ =
            writeln!(text, "  {started} qmail-send {sender} delivery {number} of msg {id}: {end:?}, {tie}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
@1 info: qmail-send: pid 7: /q: ratelimit=OFF
@2 starting delivery 1: msg 40 to local a@x queue
@3 delivery 1: success: did_1 queue
@4 starting delivery 2: msg 40 to local a@x queue
@5 starting delivery 3: msg 41 to local a@x queue
@6 half a liinfo: qmail-send: pid 9: /q: ratelimit=OFF
@7 starting delivery 1: msg 40 to local a@x queue
@8 delivery 1: deferral: qmail-local_was_killed_by_signal_9_(#4.3.0)/ queue
@9 starting delivery 2: msg 40 to local a@x queue
@9 delivery 2: success: did_1 queue
@9 starting delivery 3: msg 41 to local a@x queue
@9 delivery 3: deferral: no_answer queue
@9 info: qmail-send: pid 9 queue exiting
";

    fn kill(victims: &[Victim], undone: &[(u64, &str)]) -> Kill {
        let undone = undone.iter().map(|(id, m)| (*id, (*m).to_owned())).collect();
        Kill { at: SystemTime::UNIX_EPOCH, name: "someone".to_owned(), victims: victims.to_vec(), undone }
    }

    fn judged(copies: &[(&str, usize)], kills: &[Kill]) -> Result<usize, usize> {
        let copies = copies.iter().map(|(m, n)| ((*m).to_owned(), *n)).collect();
        judge(&copies, &attempts(LOG).unwrap(), kills).map_err(|stories| stories.len())
    }

    #[test]
    fn the_log_becomes_attempts() {
        let all = attempts(LOG).unwrap();
        let short: Vec<_> = all.iter().map(|a| (a.sender, &a.number[..], a.id)).collect();
        assert_eq!(
            short,
            [(7, "1", 40), (7, "2", 40), (7, "3", 41), (9, "1", 40), (9, "2", 40), (9, "3", 41)]
        );
        assert_eq!((&all[0].end, &all[1].end, &all[2].end), (&End::Success, &End::Open, &End::Open));
        assert!(matches!(&all[3].end, End::Other(text) if text.contains("killed_by_signal")));
        assert!(attempts("@1 starting delivery x\n").is_err());
        assert!(attempts("@1 delivery 1: success: of a start that is not there\n").is_err());
    }

    #[test]
    fn a_killed_sender_excuses_what_it_had_open() {
        let kills = [kill(&[Victim::Sender(7)], &[(40, "<b>"), (41, "<c>")])];
        assert_eq!(judged(&[("<a>", 1), ("<b>", 2), ("<c>", 2)], &kills), Ok(2));
        // Once, and not what had been finished, nor a message that nobody has heard of.
        assert_eq!(judged(&[("<b>", 3)], &kills), Err(1));
        assert_eq!(judged(&[("<a>", 2), ("<d>", 2)], &kills), Err(2));
        // Not when the mark was there, and not by the death of another one or of a bystander.
        assert_eq!(judged(&[("<b>", 2)], &[kill(&[Victim::Sender(7)], &[(41, "<c>")])]), Err(1));
        for other in [Victim::Sender(8), Victim::Spawner(9), Victim::Bystander] {
            assert_eq!(judged(&[("<b>", 2)], &[kill(&[other], &[(40, "<b>")])]), Err(1));
        }
        assert_eq!(judged(&[("<b>", 2)], &[kill(&[Victim::Spawner(7)], &[(40, "<b>")])]), Ok(1));
    }

    #[test]
    fn a_killed_delivery_excuses_one_copy() {
        let hit = Victim::Delivery { sender: 9, id: 40 };
        let kills = [kill(&[hit.clone(), hit.clone()], &[(40, "<b>")])];
        assert_eq!(judged(&[("<b>", 2)], &kills), Ok(1));
        assert_eq!(judged(&[("<b>", 3)], &kills), Err(1));
        // A second kill, but no second attempt that died of it.
        let twice = [kill(std::slice::from_ref(&hit), &[(40, "<b>")]), kill(&[hit], &[(40, "<b>")])];
        assert_eq!(judged(&[("<b>", 3)], &twice), Err(1));
        // Deferred for another reason.
        let other = Victim::Delivery { sender: 9, id: 41 };
        assert_eq!(judged(&[("<c>", 2)], &[kill(&[other], &[(41, "<c>")])]), Err(1));
    }

    #[test]
    fn one_attempt_excuses_one_copy_however_often_it_was_hit() {
        let both = [
            kill(&[Victim::Delivery { sender: 7, id: 40 }], &[(40, "<b>")]),
            kill(&[Victim::Spawner(7)], &[(40, "<b>")]),
            kill(&[Victim::Sender(7)], &[(40, "<b>")]),
        ];
        assert_eq!(judged(&[("<b>", 2)], &both), Ok(1));
        assert_eq!(judged(&[("<b>", 3)], &both), Err(1));
    }

    #[test]
    fn a_story_tells_what_is_known() {
        let kills = [kill(&[Victim::Sender(7)], &[(40, "<b>")])];
        let copies = BTreeMap::from([("<b>".to_owned(), 3)]);
        let told = judge(&copies, &attempts(LOG).unwrap(), &kills).unwrap_err().remove(0);
        for part in ["<b> is there 3 times", "kill 0 of someone", "@4 qmail-send 7", "cut short by kill 0"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
