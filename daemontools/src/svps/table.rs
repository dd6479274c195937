//! The report as text, for a terminal or a file, and as JSON. Nothing here looks at the system.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::find::{Kind, Row, Scan, State};

/// How the report is to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Columns of the terminal, if there is one.
    pub(super) width: Option<usize>,
    pub(super) colour: bool,
    pub(super) days: bool,
}

/// Names are not made wider than this for the sake of one.
const WIDEST_NAME: usize = 40;

/// Down, waiting, up; and by name.
pub(super) fn sort(rows: &mut [Row]) {
    rows.sort_by(|a, b| (a.state, &a.name).cmp(&(b.state, &b.name)));
}

/// The line that begins the report on one svscan.
pub(super) fn heading(scan: &Scan, now: Duration, style: Style) -> String {
    let up = scan.since.map_or_else(|| "?".to_owned(), |since| age(since, now, style));
    line(&format!("svscan {} pid {} up {up}", scan.dir.display(), scan.pid), "1", style)
}

/// The services or the loggers.
pub(super) fn group(kind: Kind, rows: &[Row], now: Duration, style: Style) -> String {
    let title = match kind {
        Kind::Main => "services",
        Kind::Log => "loggers",
    };
    let mut out = line(&format!("  {title}: {}", rows.len()), "", style);
    let widest = |of: &dyn Fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let name = widest(&|row| row.name.chars().count()).min(WIDEST_NAME);
    let time = widest(&|row| since(row, now, style).len());
    for row in rows {
        let (word, colour) = match row.state {
            State::Unreadable => ("?", ""),
            State::Unsupervised => ("none", "31"),
            State::Down => ("down", "31"),
            State::Waiting => ("wait", "33"),
            State::Paused => ("paused", "33"),
            State::Up => ("up", "32"),
        };
        let pid = match (row.pid, row.supervise) {
            (Some(pid), _) => format!("pid {pid}"),
            (None, Some(supervise)) => format!("spid {supervise}"),
            (None, None) => String::new(),
        };
        let text = format!(
            "    {:name$}  {word:6}  {:>time$}  {pid:12}  {}",
            row.name,
            since(row, now, style),
            row.remark
        );
        out.push_str(&line(text.trim_end(), colour, style));
    }
    out
}

/// One object, on a line of its own.
pub(super) fn json(scan: &Scan, groups: &[(Kind, Vec<Row>)], now: Duration) -> String {
    let seconds = |since: Option<Duration>| since.map(|since| now.saturating_sub(since).as_secs_f64());
    let rows = groups.iter().flat_map(|(kind, rows)| rows.iter().map(move |row| (*kind, row)));
    let services: Vec<_> = rows
        .map(|(kind, row)| {
            json!({
                "name": row.name,
                "kind": match kind { Kind::Main => "main", Kind::Log => "log" },
                "state": match row.state {
                    State::Unreadable => "unreadable",
                    State::Unsupervised => "unsupervised",
                    State::Down => "down",
                    State::Waiting => "wait",
                    State::Paused => "paused",
                    State::Up => "up",
                },
                "pid": row.pid,
                "spid": row.supervise,
                "since": row.since.map(|since| since.as_secs()),
                "seconds": seconds(row.since),
                "remark": row.remark,
            })
        })
        .collect();
    let object = json!({
        "dir": scan.dir.to_string_lossy(),
        "pid": scan.pid.as_raw(),
        "since": scan.since.map(|since| since.as_secs()),
        "seconds": seconds(scan.since),
        "services": services,
    });
    format!("{object}\n")
}

fn since(row: &Row, now: Duration, style: Style) -> String {
    row.since.map(|since| age(since, now, style)).unwrap_or_default()
}

fn age(since: Duration, now: Duration, style: Style) -> String {
    let seconds = now.saturating_sub(since).as_secs();
    if !style.days {
        return format!("{seconds} secs");
    }
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let mut out = String::new();
    for (count, unit) in [(days, "days"), (hours, "hrs"), (minutes, "mins")] {
        if count > 0 || !out.is_empty() {
            let _ = write!(out, "{count} {unit} ");
        }
    }
    out + &format!("{} secs", seconds % 60)
}

/// A line that fits the terminal, in a colour if there is one.
pub(super) fn line(text: &str, colour: &str, style: Style) -> String {
    let cut: String = match style.width {
        Some(width) => text.chars().take(width).collect(),
        None => text.to_owned(),
    };
    if style.colour && !colour.is_empty() {
        format!("\x1b[{colour}m{cut}\x1b[0m\n")
    } else {
        format!("{cut}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unix::Pid;

    const PLAIN: Style = Style { width: None, colour: false, days: false };

    fn row(name: &str, state: State) -> Row {
        let pid = matches!(state, State::Up | State::Paused).then_some(7);
        Row {
            name: name.to_owned(),
            state,
            pid,
            supervise: Some(6),
            since: Some(Duration::from_secs(100)),
            remark: "",
        }
    }

    #[test]
    fn what_needs_attention_comes_first() {
        let mut rows =
            vec![row("b", State::Up), row("a", State::Up), row("c", State::Waiting), row("d", State::Down)];
        sort(&mut rows);
        let text = group(Kind::Main, &rows, Duration::from_secs(150), PLAIN);
        assert_eq!(
            text,
            "  services: 4\n    d  down    50 secs  spid 6\n    c  wait    50 secs  spid 6\n    \
             a  up      50 secs  pid 7\n    b  up      50 secs  pid 7\n"
        );
    }

    #[test]
    fn times() {
        let age = |seconds: u64, days| {
            age(Duration::from_secs(100), Duration::from_secs(100 + seconds), Style { days, ..PLAIN })
        };
        assert_eq!(age(100_000, false), "100000 secs");
        assert_eq!(age(100_000, true), "1 days 3 hrs 46 mins 40 secs");
        assert_eq!(age(3600, true), "1 hrs 0 mins 0 secs");
        assert_eq!(age(7, true), "7 secs");
    }

    #[test]
    fn as_json() {
        let scan = Scan { dir: "/s".into(), pid: Pid::from_raw(5), since: None };
        let text = json(&scan, &[(Kind::Log, vec![row("a/log", State::Up)])], Duration::from_secs(101));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["dir"].as_str(), value["pid"].as_i64()), (Some("/s"), Some(5)));
        let service = &value["services"][0];
        assert_eq!((service["kind"].as_str(), service["state"].as_str()), (Some("log"), Some("up")));
        assert_eq!((service["pid"].as_i64(), service["seconds"].as_f64()), (Some(7), Some(1.0)));
    }

    proptest! {
        #[test]
        fn lines_fit_the_terminal(name in "\\PC{0,60}", width in 1usize..100) {
            let style = Style { width: Some(width), colour: false, days: true };
            let scan = Scan { dir: name.clone().into(), pid: Pid::from_raw(5), since: None };
            let text = heading(&scan, Duration::ZERO, style)
                + &group(Kind::Main, &[row(&name, State::Up)], Duration::from_secs(1_000_000), style);
            for line in text.lines() {
                prop_assert!(line.chars().count() <= width, "{line:?}");
            }
        }
    }
}
