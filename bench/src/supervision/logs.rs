//! Benchmarks of loggers: throughput, and lines lost when the logger is ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::peers::{LogJob, Peer};
use crate::stats::{children_cpu, median};

/// Lines as a mail system writes them, `bytes` of them.
pub(crate) fn mail_log(bytes: usize) -> Vec<u8> {
    let mut log = Vec::with_capacity(bytes + 200);
    let mut i = 0u32;
    while log.len() < bytes {
        let small = i % 250;
        let line = match i % 7 {
            0 => format!("new msg {i}\n"),
            1 => format!("info msg {i}: bytes 2311 from <user{small}@bench.test> qp 4711 uid 555\n"),
            2 => format!("starting delivery {i}: msg 1182 to remote someone{small}@bench.test\n"),
            3 => format!("status: local 0/10 remote {small}/20 queue1\n"),
            4 => format!(
                "delivery {i}: success: 192.0.2.7_accepted_message./Remote_host_said:_250_2.0.0_Ok:_{small}/\n"
            ),
            5 => format!("end msg {i}\n"),
            _ => format!("tcpserver: pid {i} from 198.51.100.{small}\n"),
        };
        log.extend_from_slice(line.as_bytes());
        i += 1;
    }
    log
}

/// What one run of a filter or logger took.
pub(crate) struct Took {
    /// Seconds on the wall clock.
    pub(crate) wall: f64,
    /// Seconds of user and system time.
    pub(crate) cpu: f64,
}

/// Feeds `input` to a command through a pipe.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> anyhow::Result<Took> {
    let before = children_cpu()?;
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    for chunk in input.chunks(65536) {
        pipe.write_all(chunk)?;
    }
    drop(pipe);
    let status = child.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    let wall = begin.elapsed().as_secs_f64();
    Ok(Took { wall, cpu: children_cpu()?.saturating_sub(before).as_secs_f64() })
}

fn fresh(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn megabytes(input: &[u8]) -> f64 {
    input.len() as f64 / 1e6
}

/// Megabytes per second of CPU and of wall time, the best of `rounds`.
pub(crate) fn throughput(
    peer: &Peer,
    dir: &Path,
    job: &LogJob,
    input: &[u8],
    rounds: usize,
) -> anyhow::Result<(f64, f64)> {
    let mut best = (0.0f64, 0.0f64);
    for _ in 0..rounds {
        let dir = dir.join("log");
        fresh(&dir)?;
        let took = feed(peer.logger(job, &dir.join("main"))?, input)?;
        best = (best.0.max(megabytes(input) / took.cpu), best.1.max(megabytes(input) / took.wall));
        fs::remove_dir_all(&dir)?;
    }
    Ok(best)
}

/// Seconds of wall time of a filter, the best of `rounds`.
pub(crate) fn filter(peer: &Peer, program: &str, input: &[u8], rounds: usize) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        best = best.min(feed(peer.command(program), input)?.wall);
    }
    Ok(best)
}

/// How a logger is ended, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Kill,
    Term,
    /// Not ended at all: told to rotate.
    Alarm,
}

/// What became of the numbered lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) ends: usize,
    pub(crate) missing: usize,
    pub(crate) twice: usize,
    pub(crate) torn: usize,
}

/// Sends numbered lines to a logger that is ended and started again on the same pipe.
pub(crate) fn loss(peer: &Peer, base: &Path, end: End, size: u32, lines: usize) -> anyhow::Result<Lines> {
    let dir = base.join("loss");
    fresh(&dir)?;
    let main = dir.join("main");
    let job = LogJob { stamp: true, patterns: false, size, keep: 0 };
    let me = std::env::current_exe()?;
    let writer = me.parent().context("no directory of programs")?.join("bench-lines");
    let (read, write) = std::io::pipe()?;
    let mut producer = Command::new(writer).args([&lines.to_string(), "20000"]).stdout(write).spawn()?;
    let start = || -> anyhow::Result<_> { Ok(peer.logger(&job, &main)?.stdin(read.try_clone()?).spawn()?) };
    let mut logger = start()?;
    let mut result = Lines::default();
    let mut pauses = [43u64, 71, 57, 112, 64, 98, 85].into_iter().cycle();
    while producer.try_wait()?.is_none() && result.ends < 60 {
        std::thread::sleep(Duration::from_millis(pauses.next().unwrap_or(50)));
        let signal = match end {
            End::Kill => Signal::SIGKILL,
            End::Term => Signal::SIGTERM,
            End::Alarm => Signal::SIGALRM,
        };
        kill(Pid::from_raw(i32::try_from(logger.id())?), signal)?;
        result.ends += 1;
        if end != End::Alarm {
            logger.wait()?;
            logger = start()?;
        }
    }
    producer.wait()?;
    drop(read);
    // Only the logger holds the pipe now, but it was handed a copy; end of file comes by itself.
    let _ = logger.wait()?;
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for entry in fs::read_dir(&main)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "current" && !name.starts_with('@') {
            continue;
        }
        for line in fs::read(&path)?.split_inclusive(|&b| b == b'\n') {
            match number(line) {
                Some(i) => *seen.entry(i).or_default() += 1,
                None => result.torn += 1,
            }
        }
    }
    result.missing = lines - seen.len();
    result.twice = seen.values().map(|n| n - 1).sum();
    fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// The number of a complete line `@label Lnumber aaa...`.
fn number(line: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (label, rest) = line.split_once(' ')?;
    let (number, letters) = rest.strip_prefix('L')?.split_once(' ')?;
    let whole =
        label.len() == 25 && number.len() == 10 && letters.len() == 68 && letters.bytes().all(|b| b == b'a');
    if whole { number.parse().ok() } else { None }
}

/// Lines that `tai64n` makes of a log.
pub(crate) fn stamped(peer: &Peer, input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut command = peer.command("tai64n");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(input));
        Ok(child.wait_with_output()?.stdout)
    })
}

/// Seconds for `count` starts of `true` under the variables of a directory, from a shell.
pub(crate) fn chain(peer: &Peer, base: &Path, count: usize) -> anyhow::Result<f64> {
    let dir = base.join("variables");
    fresh(&dir)?;
    for name in ["ALPHA", "BETA", "GAMMA"] {
        fs::write(dir.join(name), "value\n")?;
    }
    let (program, options) = peer.environment();
    let program = peer.find(program);
    let words = [program.as_os_str()].into_iter().chain(options.iter().map(std::ffi::OsStr::new));
    let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let script = format!(
        "i=0; while [ $i -lt {count} ]; do {} {} /bin/true; i=$((i+1)); done",
        words.join(" "),
        dir.display()
    );
    let mut all = Vec::new();
    for _ in 0..3 {
        let begin = Instant::now();
        ensure!(Command::new("sh").args(["-c", &script]).status()?.success(), "{program:?} failed");
        all.push(begin.elapsed().as_secs_f64());
    }
    Ok(median(all))
}
