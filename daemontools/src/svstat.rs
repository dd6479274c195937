//! svstat: what services are doing.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};
use serde_json::{Value, json};
use unix::child::Ending;
use unix::{Errno, Pid};

use crate::state_path::{DISABLE_RUN, Places, SUPERVISEDIR};
use crate::status::{Readiness, Record, Wait, Want};
use crate::supervise::dependency::Dependencies;
use crate::supervise::state_dir::{MESSAGE, TALLY};
use crate::supervise::tally;
use crate::{chain, client};

/// The table of svstat.
pub static SPEC: Spec = Spec {
    name: "svstat",
    summary: "print the status of services",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('o', "in the words of the original daemontools"),
        OptionSpec::flag('t', "the last deaths of each service instead, with their time labels"),
        OptionSpec { short: Some('j'), long: Some("json"), value: None, help: "one JSON object a line" },
    ],
    operands: Operands { synopsis: "service ...", min: 1, max: None },
    variables: &[DISABLE_RUN, SUPERVISEDIR],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the last service is up" },
        ExitCodeDoc { code: 1, meaning: "it is down" },
        ExitCodeDoc { code: 2, meaning: "supervise is not running" },
        ExitCodeDoc { code: 3, meaning: "it is paused" },
        ExitCodeDoc { code: 4, meaning: "it is down and wanted up" },
        ExitCodeDoc { code: 5, meaning: "it is up and wanted down" },
        ExitCodeDoc { code: 6, meaning: "it waits for another service or for what is left of itself" },
        ExitCodeDoc { code: 100, meaning: "the status record is damaged, or wrong usage" },
        ExitCodeDoc { code: 111, meaning: "cannot tell" },
    ],
    description: "\
Prints one line for each service directory: up, down or wait, for how long, whether it is normally the \
other way, and the process id (?pid when there is no such process, spid for that of supervise). With a file \
backoff or permafail in the directory it also tells how often the service was started again by itself.",
    ..Spec::EMPTY
};

/// svstat.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What is known about a service.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Supervised {
        record: Record,
        normally_up: bool,
        alive: bool,
        /// Is the number of restarts told?
        counted: bool,
    },
    NotRunning,
    Damaged(String),
    CannotTell(String),
}

fn look(dir: &Path, state: &Path) -> Answer {
    let cannot = |what: &str, e: &io::Error| Answer::CannotTell(format!("{what}: {}", chain::phrase(e)));
    match client::is_running(state) {
        Ok(true) => {}
        Ok(false) => {
            return match std::fs::metadata(dir) {
                Ok(_) => Answer::NotRunning,
                Err(e) => cannot("unable to chdir", &e),
            };
        }
        Err(e) => return cannot("unable to open supervise/ok", &e),
    }
    let normally_up = match std::fs::metadata(dir.join("down")) {
        Ok(_) => false,
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return cannot("unable to stat down", &e),
    };
    match client::record(state) {
        Ok(record) => Answer::Supervised {
            record,
            normally_up,
            alive: record.pid.is_some_and(is_alive),
            // Only where restarts have rules of their own: others keep the line that scripts know.
            counted: record.restarts > 0 && ["backoff", "permafail"].iter().any(|f| dir.join(f).exists()),
        },
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Answer::Damaged(format!("unable to read supervise/status: {e}"))
        }
        Err(e) => cannot("unable to open supervise/status", &e),
    }
}

fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

fn exit(answer: &Answer) -> Exit {
    Exit(match answer {
        Answer::NotRunning => 2,
        Answer::Damaged(_) => 100,
        Answer::CannotTell(_) => 111,
        Answer::Supervised { record, .. } => match (record.pid, record.want) {
            (Some(_), _) if record.paused => 3,
            (Some(_), Want::Down) => 5,
            (Some(_), _) => 0,
            (None, _) if record.wait != Wait::None => 6,
            (None, Want::Up) => 4,
            (None, _) => 1,
        },
    })
}

/// How long ago the state changed; nothing when the clock was set back.
fn age(record: &Record, now: Duration) -> Duration {
    now.saturating_sub(record.since.to_unix().unwrap_or_default())
}

/// The remarks after the time, the same in both wordings.
fn remarks(record: &Record, normally_up: bool) -> String {
    let up = record.pid.is_some();
    let all = [
        (up && !normally_up, ", normally down"),
        (!up && normally_up, ", normally up"),
        (up && record.paused, ", paused"),
        (!up && record.want == Want::Up, ", want up"),
        (up && record.want == Want::Down, ", want down"),
    ];
    join(&all)
}

/// Remarks about what only our supervise knows.
fn more_remarks(record: &Record) -> String {
    join(&[
        (record.pid.is_some() && !record.is_ready(), ", not ready"),
        (record.stopping, ", stopping"),
        (record.failed, ", failed"),
    ])
}

fn join(all: &[(bool, &str)]) -> String {
    all.iter().filter(|(holds, _)| *holds).map(|(_, text)| *text).collect()
}

fn line(answer: &Answer, now: Duration) -> String {
    let (record, normally_up, alive, counted) = match answer {
        Answer::Supervised { record, normally_up, alive, counted } => {
            (record, *normally_up, *alive, *counted)
        }
        Answer::NotRunning => return "supervise not running".to_owned(),
        Answer::Damaged(why) | Answer::CannotTell(why) => return why.clone(),
    };
    let state = match (record.pid, record.wait) {
        (Some(_), _) => "up",
        (None, Wait::None) => "down",
        (None, _) => "wait",
    };
    let age = age(record, now);
    let mut out = format!("{state} {}.{:09} seconds", age.as_secs(), age.subsec_nanos());
    out.push_str(&remarks(record, normally_up));
    out.push_str(&more_remarks(record));
    if counted {
        let _ = write!(out, ", restarts {}", record.restarts);
    }
    let _ = match (record.pid, record.supervise) {
        (Some(pid), _) if alive => write!(out, " pid {pid}"),
        (Some(pid), _) => write!(out, " ?pid {pid}"),
        (None, Some(supervise)) => write!(out, " spid {supervise}"),
        (None, None) => Ok(()),
    };
    if let Wait::Seconds(left) = record.wait {
        let _ = write!(out, " remaining {left} seconds");
    }
    out
}

fn original_line(answer: &Answer, now: Duration) -> String {
    let Answer::Supervised { record, normally_up, .. } = answer else { return line(answer, now) };
    let state = record.pid.map_or_else(|| "down".to_owned(), |pid| format!("up (pid {pid})"));
    format!("{state} {} seconds{}", age(record, now).as_secs(), remarks(record, *normally_up))
}

fn json(dir: &Path, state: &Path, answer: &Answer, now: Duration) -> Value {
    let name = dir.to_string_lossy();
    let (record, normally_up) = match answer {
        Answer::Supervised { record, normally_up, .. } => (record, *normally_up),
        Answer::NotRunning => return json!({ "name": name, "state": "unsupervised" }),
        Answer::Damaged(why) | Answer::CannotTell(why) => {
            return json!({ "name": name, "state": "unknown", "error": why });
        }
    };
    let seconds = |label: tai::Label| label.to_unix().map(|s| s.as_secs());
    let (last_exit, last_signal) = match record.last {
        None => (None, None),
        Some(Ending::Exited(code)) => (Some(code), None),
        Some(Ending::Killed(signal)) => (None, Some(signal)),
    };
    json!({
        "name": name,
        "state": match (record.pid, record.wait) {
            (Some(_), _) if record.paused => "paused",
            (Some(_), _) => "up",
            (None, Wait::None) if record.failed => "failed",
            (None, Wait::None) => "down",
            (None, _) => "wait",
        },
        "pid": record.pid,
        "spid": record.supervise,
        "since": seconds(record.since),
        "seconds": age(record, now).as_secs_f64(),
        "ready": record.is_ready(),
        "ready_since": match record.readiness {
            Readiness::Since(label) => seconds(label),
            Readiness::Silent | Readiness::Awaited => None,
        },
        "want": match record.want {
            Want::Up => "up",
            Want::Down => "down",
            Want::Once => "once",
        },
        "normally": if normally_up { "up" } else { "down" },
        "paused": record.paused,
        "stopping": record.stopping,
        "wait_for": waited_for(dir, record),
        "remaining": match record.wait {
            Wait::Seconds(left) => Some(left),
            _ => None,
        },
        "restarts": record.restarts,
        "last_exit": last_exit,
        "last_signal": last_signal,
        "status": std::fs::read(state.join(MESSAGE)).ok().map(|t| String::from_utf8_lossy(&t).into_owned()),
    })
}

/// What it waits for, by name.
fn waited_for(dir: &Path, record: &Record) -> Vec<String> {
    match record.wait {
        Wait::None => Vec::new(),
        Wait::ForLock => vec!["service-lock".to_owned()],
        Wait::ForService | Wait::Seconds(_) => Dependencies::of(dir)
            .map(|d| d.services.iter().map(|s| s.to_string_lossy().into_owned()).collect())
            .unwrap_or_default(),
    }
}

fn deaths(state: &Path) -> Vec<tally::Death> {
    std::fs::read(state.join(TALLY)).map(|bytes| tally::decode(&bytes)).unwrap_or_default()
}

fn how(ending: Ending) -> String {
    match ending {
        Ending::Exited(code) => format!("exited {code}"),
        Ending::Killed(signal) => format!("signal {signal}"),
    }
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let places = Places::new(&invocation.environment);
    let now = unix::clock::since_epoch();
    let mut text = String::new();
    let mut last = Exit::OK;
    for dir in parsed.operands.iter().map(Path::new) {
        let state = places.of_client(dir);
        let answer = look(dir, &state);
        last = exit(&answer);
        let name = dir.display();
        if parsed.flag("j") {
            let mut value = json(dir, &state, &answer, now);
            let log = dir.join("log");
            if log.is_dir() {
                let state = places.of_client(&log);
                value["log"] = json(&log, &state, &look(&log, &state), now);
            }
            if parsed.flag("t") {
                let row = |d: &tally::Death| json!([d.when.to_unix().map(|t| t.as_secs()), how(d.ending)]);
                value["deaths"] = deaths(&state).iter().map(row).collect();
            }
            let _ = writeln!(text, "{value}");
        } else if parsed.flag("t") {
            for death in deaths(&state) {
                // As a line of a log, so that tai64nlocal can read it.
                let label = String::from_utf8_lossy(&death.when.text()).into_owned();
                let _ = writeln!(text, "{label} {name}: {}", how(death.ending));
            }
        } else if parsed.flag("o") {
            let _ = writeln!(text, "{name}: {}", original_line(&answer, now));
        } else {
            let _ = writeln!(text, "{name}: {}", line(&answer, now));
        }
    }
    if let Err(e) = io::stdout().write_all(text.as_bytes()) {
        invocation.complain("fatal", format_args!("unable to write: {e}"));
        return Exit::TEMPORARY;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use tai::Label;

    fn answer(pid: Option<u32>, want: Want, paused: bool, normally_up: bool) -> Answer {
        let since = Label::from_unix(Duration::from_secs(1000));
        let record = Record { pid, paused, supervise: Some(7), ..Record::down(since, want) };
        Answer::Supervised { record, normally_up, alive: pid != Some(9), counted: false }
    }

    #[test]
    fn lines_and_codes() {
        let now = Duration::new(1001, 5);
        let rows = [
            (
                answer(Some(5), Want::Up, false, true),
                "up 1.000000005 seconds pid 5",
                "up (pid 5) 1 seconds",
                0,
            ),
            (
                answer(Some(9), Want::Once, false, false),
                "up 1.000000005 seconds, normally down ?pid 9",
                "up (pid 9) 1 seconds, normally down",
                0,
            ),
            (
                answer(Some(5), Want::Down, true, true),
                "up 1.000000005 seconds, paused, want down pid 5",
                "up (pid 5) 1 seconds, paused, want down",
                3,
            ),
            (
                answer(Some(5), Want::Down, false, true),
                "up 1.000000005 seconds, want down pid 5",
                "up (pid 5) 1 seconds, want down",
                5,
            ),
            (
                answer(None, Want::Down, false, true),
                "down 1.000000005 seconds, normally up spid 7",
                "down 1 seconds, normally up",
                1,
            ),
            (
                answer(None, Want::Up, false, false),
                "down 1.000000005 seconds, want up spid 7",
                "down 1 seconds, want up",
                4,
            ),
            (Answer::NotRunning, "supervise not running", "supervise not running", 2),
        ];
        for (answer, ours, original, code) in rows {
            assert_eq!(line(&answer, now), ours);
            assert_eq!(original_line(&answer, now), original);
            assert_eq!(exit(&answer), Exit(code));
        }
    }

    fn down(change: impl Fn(&mut Record)) -> Answer {
        let mut record = Record::down(Label::from_unix(Duration::from_secs(1000)), Want::Up);
        record.supervise = Some(7);
        change(&mut record);
        Answer::Supervised { record, normally_up: true, alive: true, counted: record.restarts > 0 }
    }

    #[test]
    fn what_only_our_supervise_says() {
        let rows = [
            (down(|r| r.wait = Wait::ForService), "wait 1.000000005 seconds, normally up, want up spid 7", 6),
            (down(|r| r.wait = Wait::ForLock), "wait 1.000000005 seconds, normally up, want up spid 7", 6),
            (
                down(|r| r.wait = Wait::Seconds(9)),
                "wait 1.000000005 seconds, normally up, want up spid 7 remaining 9 seconds",
                6,
            ),
            (
                down(|r| (r.failed, r.want) = (true, Want::Down)),
                "down 1.000000005 seconds, normally up, failed spid 7",
                1,
            ),
            (
                down(|r| (r.pid, r.readiness, r.restarts) = (Some(5), Readiness::Awaited, 3)),
                "up 1.000000005 seconds, not ready, restarts 3 pid 5",
                0,
            ),
            (down(|r| (r.pid, r.stopping) = (Some(5), true)), "up 1.000000005 seconds, stopping pid 5", 0),
        ];
        for (answer, text, code) in rows {
            assert_eq!(line(&answer, Duration::new(1001, 5)), text);
            assert_eq!(exit(&answer), Exit(code), "{text}");
        }
    }

    #[test]
    fn all_fields_of_the_object() {
        let now = Duration::from_secs(1009);
        let nowhere = Path::new("/nonexistent");
        let object = json(nowhere, nowhere, &down(|_| ()), now);
        for field in [
            "name",
            "state",
            "pid",
            "spid",
            "since",
            "ready_since",
            "want",
            "paused",
            "wait_for",
            "remaining",
            "restarts",
            "last_exit",
            "last_signal",
        ] {
            assert!(object.get(field).is_some(), "{field}");
        }
        let ready = Readiness::Since(Label::from_unix(Duration::from_secs(1002)));
        let object = json(
            nowhere,
            nowhere,
            &down(|r| {
                (r.pid, r.readiness, r.restarts, r.last) = (Some(5), ready, 3, Some(Ending::Killed(9)))
            }),
            now,
        );
        assert_eq!((&object["state"], &object["ready_since"]), (&json!("up"), &json!(1002)));
        assert_eq!((&object["restarts"], &object["last_signal"]), (&json!(3), &json!(9)));
        assert_eq!((&object["last_exit"], &object["remaining"]), (&Value::Null, &Value::Null));
        let object = json(nowhere, nowhere, &down(|r| r.wait = Wait::Seconds(4)), now);
        assert_eq!((&object["state"], &object["remaining"]), (&json!("wait"), &json!(4)));
    }

    #[test]
    fn a_clock_set_back_is_no_time() {
        let line = line(&answer(Some(5), Want::Up, false, true), Duration::from_secs(1));
        assert_eq!(line, "up 0.000000000 seconds pid 5");
    }
}
