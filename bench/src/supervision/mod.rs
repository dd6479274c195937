//! Supervision side by side: ours, Debian's daemontools, runit and s6, the same work in turns.
//!
//! ```text
//! peers (what each is called and told) ──► bed (services, scanner) ──► services, logs ──► table
//!                                           tree (processes, memory) ◄──┘
//! ```
//!
//! Beds lie in memory (`/dev/shm`) except where the disk is what is measured.

mod bed;
mod logs;
mod peers;
mod services;
mod soak;
mod tree;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use logs::End;
use peers::{LogJob, Peer};

/// Greatest file size that all loggers take.
const BIG: u32 = 16_777_215;

struct Work<'a> {
    memory: &'a Path,
    disk: &'a Path,
    quick: bool,
    log: Vec<u8>,
    stamped: Vec<u8>,
}

type Measure = fn(&Peer, &Work<'_>) -> anyhow::Result<String>;

/// One line of the table.
struct Benchmark {
    id: &'static str,
    what: &'static str,
    bar: &'static str,
    measure: Measure,
}

fn count(work: &Work<'_>, whole: usize) -> usize {
    if work.quick { (whole / 10).max(2) } else { whole }
}

fn throughput(peer: &Peer, work: &Work<'_>, stamp: bool, patterns: bool) -> anyhow::Result<String> {
    let job = LogJob { stamp, patterns, size: BIG, keep: 3 };
    let (cpu, _) = logs::throughput(peer, work.memory, &job, &work.log, 3)?;
    Ok(format!("{cpu:.0}"))
}

fn loss(peer: &Peer, work: &Work<'_>, end: End) -> anyhow::Result<String> {
    let mut cells = Vec::new();
    for size in [BIG, 8192] {
        let lines = logs::loss(peer, work.memory, end, size, count(work, 150_000))?;
        cells.push(format!("{}+{}t+{}d/{}", lines.missing, lines.torn, lines.twice, lines.ends));
    }
    Ok(cells.join(", "))
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        id: "B1",
        what: "restart after KILL, service older than 1 s, ms",
        bar: "<= daemontools",
        measure: |peer, work| Ok(format!("{:.2}", services::restart(peer, work.memory, count(work, 15))?)),
    },
    Benchmark {
        id: "B2",
        what: "crash loop, interval, ms",
        bar: "1000-1030",
        measure: |peer, work| {
            Ok(format!("{:.1}", services::crash_loop(peer, work.memory, if work.quick { 4 } else { 10 })?))
        },
    },
    Benchmark {
        id: "B3",
        what: "command d 50 ms after the start, ms",
        bar: "<= 5",
        measure: |peer, work| Ok(format!("{:.2}", services::down(peer, work.memory, count(work, 10))?)),
    },
    Benchmark {
        id: "B4",
        what: "private memory of a supervisor, 200 services, KiB",
        bar: "<= 128",
        measure: |peer, work| {
            Ok(format!("{:.0}", services::memory(peer, work.memory, count(work, 200), false)?.0))
        },
    },
    Benchmark {
        id: "B5",
        what: "the same, logged: supervisors + logger, 100 services, KiB",
        bar: "<= 280",
        measure: |peer, work| {
            let (supervisors, logger) = services::memory(peer, work.memory, count(work, 100), true)?;
            Ok(format!("{supervisors:.0}+{logger:.0}"))
        },
    },
    Benchmark {
        id: "B6",
        what: "start of 1000 services, best of rounds, s",
        bar: "<= 0.9",
        measure: |peer, work| {
            let mut best = f64::INFINITY;
            for _ in 0..if work.quick { 1 } else { 3 } {
                best = best.min(services::start(peer, work.memory, count(work, 1000))?);
            }
            Ok(format!("{best:.2}"))
        },
    },
    Benchmark {
        id: "B7",
        what: "idle context switches, 100 services, 30 s, scanner+supervisors",
        bar: "0+0",
        measure: |peer, work| {
            let (scanner, supervisors) =
                services::idle(peer, work.memory, count(work, 100), if work.quick { 5 } else { 30 })?;
            Ok(format!("{scanner}+{supervisors}"))
        },
    },
    Benchmark {
        id: "B8",
        what: "new directory to running, ms (s6: told to look)",
        bar: "<= 50",
        measure: |peer, work| Ok(format!("{:.1}", services::detect(peer, work.memory, count(work, 8))?)),
    },
    Benchmark {
        id: "B9",
        what: "orderly stop of 100 logged services, s; last lines kept",
        bar: "<= 1.0; 100",
        measure: |peer, work| {
            let (seconds, words) = services::stop(peer, work.memory, count(work, 100))?;
            Ok(format!("{}; {words}", seconds.map_or("never".to_owned(), |s| format!("{s:.2}"))))
        },
    },
    Benchmark {
        id: "B10a",
        what: "logger, plain, MB per CPU second",
        bar: ">= 2x daemontools",
        measure: |peer, work| throughput(peer, work, false, false),
    },
    Benchmark {
        id: "B10b",
        what: "logger, labels, MB per CPU second",
        bar: ">= 1.7x daemontools",
        measure: |peer, work| throughput(peer, work, true, false),
    },
    Benchmark {
        id: "B10c",
        what: "logger, labels and 5 patterns, MB per CPU second",
        bar: ">= 1.6x daemontools",
        measure: |peer, work| throughput(peer, work, true, true),
    },
    Benchmark {
        id: "B11",
        what: "rotation at 99999 bytes on disk, MB/s",
        bar: ">= all",
        measure: |peer, work| {
            let job = LogJob { stamp: true, patterns: false, size: 99_999, keep: 10 };
            let input = work.log.get(..work.log.len() / if work.quick { 10 } else { 2 }).unwrap_or_default();
            Ok(format!("{:.1}", logs::throughput(peer, work.disk, &job, input, 1)?.1))
        },
    },
    Benchmark {
        id: "B12",
        what: "lines missing + torn + doubled / KILLs, big file, 8 KiB files",
        bar: "0 missing",
        measure: |peer, work| loss(peer, work, End::Kill),
    },
    Benchmark {
        id: "B13a",
        what: "the same for TERM",
        bar: "0 missing",
        measure: |peer, work| loss(peer, work, End::Term),
    },
    Benchmark {
        id: "B13b",
        what: "the same for ALRM",
        bar: "0 missing",
        measure: |peer, work| loss(peer, work, End::Alarm),
    },
    Benchmark {
        id: "B14",
        what: "status of 500 services, ms (s6: 500 calls)",
        bar: "<= 10",
        measure: |peer, work| Ok(format!("{:.1}", services::status(peer, work.memory, count(work, 500))?)),
    },
    Benchmark {
        id: "B15a",
        what: "tai64n, 50 MB, s",
        bar: "<= 0.6x daemontools",
        measure: |peer, work| match program_of(peer, "tai64n") {
            Some(program) => Ok(format!("{:.2}", logs::filter(peer, program, &work.log, 3)?)),
            None => Ok("-".to_owned()),
        },
    },
    Benchmark {
        id: "B15b",
        what: "tai64nlocal, the same with labels, s",
        bar: "<= 0.3x daemontools",
        measure: |peer, work| match program_of(peer, "tai64nlocal") {
            Some(program) => Ok(format!("{:.2}", logs::filter(peer, program, &work.stamped, 3)?)),
            None => Ok("-".to_owned()),
        },
    },
    Benchmark {
        id: "B17",
        what: "1000 x envdir d true, s",
        bar: "<= daemontools",
        measure: |peer, work| Ok(format!("{:.2}", logs::chain(peer, work.memory, count(work, 1000))?)),
    },
];

/// The peer's program for a filter; runit has none.
fn program_of(peer: &Peer, name: &'static str) -> Option<&'static str> {
    match (peer.kind, name) {
        (peers::Kind::Runit, _) => None,
        (peers::Kind::S6, "tai64n") => Some("s6-tai64n"),
        (peers::Kind::S6, _) => Some("s6-tai64nlocal"),
        (_, name) => Some(name),
    }
}

/// Exposure of our units as systemd sees it (B16): lower is better, Debian's daemontools-run has 9.6.
fn unit_security(stage: &Path) -> anyhow::Result<String> {
    let mut out = String::from("\nB16, systemd-analyze security (bars: nssd 0.5, smtpd 4.0, svscan 4.2)\n");
    for unit in ["nssd", "inlookup", "smtpd", "send", "svscan"] {
        let file = stage.join(format!("usr/lib/systemd/system/indimail-{unit}.service"));
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&file)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().rev().find(|l| l.contains("Overall exposure")).unwrap_or("no answer");
        writeln!(out, "- {unit}: {}", last.trim_start_matches(|c: char| !c.is_ascii_alphabetic()))?;
    }
    Ok(out)
}

/// Runs the benchmarks whose ids are in `only`, all when it is empty.
pub(crate) fn run(stage: &Path, disk: &Path, quick: bool, only: &[String]) -> anyhow::Result<String> {
    tree::become_reaper()?;
    let all = Peer::all(stage)?;
    let memory = PathBuf::from(format!("/dev/shm/indimail-bench.{}", std::process::id()));
    std::fs::create_dir_all(&memory)?;
    let log = logs::mail_log(if quick { 5_000_000 } else { 50_000_000 });
    let stamped = all.first().map(|ours| logs::stamped(ours, &log)).transpose()?.unwrap_or_default();
    let work = Work { memory: &memory, disk, quick, log, stamped };
    let names: Vec<_> = all.iter().map(|p| p.name).collect();
    println!("| id | what | {} | bar |\n|---|---|{}---|", names.join(" | "), "---|".repeat(all.len()));
    let wanted = |id: &str| {
        only.is_empty() || only.iter().any(|o| id == o || id.trim_end_matches(['a', 'b', 'c']) == o)
    };
    for benchmark in BENCHMARKS.iter().filter(|b| wanted(b.id)) {
        let cells = all.iter().map(|peer| {
            // One that cannot be measured does not take the others along.
            (benchmark.measure)(peer, &work).unwrap_or_else(|e| {
                eprintln!("bench: warning: {} {}: {e:#}", benchmark.id, peer.name);
                "failed".to_owned()
            })
        });
        let cells: Vec<_> = cells.collect();
        println!("| {} | {} | {} | {} |", benchmark.id, benchmark.what, cells.join(" | "), benchmark.bar);
    }
    std::fs::remove_dir_all(&memory)?;
    if wanted("B16") { unit_security(stage) } else { Ok(String::new()) }
}

/// Many services killed at random for some minutes; see [`soak`].
pub(crate) fn endure(stage: &Path, of: &str, services: usize, minutes: u64) -> anyhow::Result<String> {
    tree::become_reaper()?;
    let peer = if of == "ours" {
        Peer::ours(stage)?
    } else {
        let mut all = Peer::all(stage)?.into_iter();
        all.find(|p| p.name == of).with_context(|| format!("--of {of}: ours, daemontools, runit or s6"))?
    };
    let memory = PathBuf::from(format!("/dev/shm/indimail-soak.{}", std::process::id()));
    std::fs::create_dir_all(&memory)?;
    let result = soak::run(&peer, &memory, services, minutes);
    std::fs::remove_dir_all(&memory)?;
    result
}
