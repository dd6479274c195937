//! Benchmarks of supervisors and scanners: latencies, memory, idle cost, start, stop.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bed::{Bed, millis, now};
use super::peers::{Kind, Peer};
use super::tree;
use crate::stats::median;

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

fn signal(pid: i32, signal: Signal) -> anyhow::Result<()> {
    Ok(kill(Pid::from_raw(pid), signal)?)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
fn each(total: u64, count: usize) -> f64 {
    total as f64 / count as f64
}

/// Milliseconds from KILL of a service older than a second to its next start.
pub(crate) fn restart(peer: &Peer, base: &Path, kills: usize) -> anyhow::Result<f64> {
    let bed = Bed::new(peer, base)?;
    bed.service("sv", "a", None)?;
    bed.supervise("a", &[])?;
    let mut stamps = bed.started(1)?;
    let mut all = Vec::new();
    for _ in 0..kills {
        pause(1300);
        let Some(last) = stamps.last() else { break };
        let killed = now();
        signal(last.pid, Signal::SIGKILL)?;
        stamps = bed.started(stamps.len() + 1)?;
        all.extend(stamps.last().map(|s| millis(killed, s.at)));
    }
    Ok(median(all))
}

/// Milliseconds between the starts of a service that ends at once.
pub(crate) fn crash_loop(peer: &Peer, base: &Path, seconds: u64) -> anyhow::Result<f64> {
    let bed = Bed::new(peer, base)?;
    bed.service("sv", "a", None)?;
    bed.supervise("a", &[("STAMPEXIT", "1")])?;
    pause(seconds * 1000);
    let stamps = bed.stamps();
    Ok(median(stamps.iter().zip(stamps.iter().skip(1)).map(|(a, b)| millis(a.at, b.at)).collect()))
}

/// Milliseconds from the command `d`, given 50 ms after the start, to the end of the service.
pub(crate) fn down(peer: &Peer, base: &Path, rounds: usize) -> anyhow::Result<f64> {
    let mut all = Vec::new();
    for _ in 0..rounds {
        let bed = Bed::new(peer, base)?;
        let service = bed.service("sv", "a", None)?;
        bed.supervise("a", &[])?;
        let stamps = bed.started(1)?;
        let Some(first) = stamps.first() else { continue };
        pause(50);
        let mut control = OpenOptions::new().write(true).open(service.join("supervise/control"))?;
        let sent = now();
        control.write_all(b"d")?;
        bed.until("end of the service", || (!tree::alive(first.pid)).then_some(()))?;
        all.push(millis(sent, now()));
    }
    Ok(median(all))
}

/// Private memory in KiB for each service: of the supervisors, and of the loggers.
pub(crate) fn memory(peer: &Peer, base: &Path, services: usize, logged: bool) -> anyhow::Result<(f64, f64)> {
    let bed = Bed::new(peer, base)?;
    let script = peer.logger_script(true);
    bed.services(services, logged.then_some(script.as_str()))?;
    let scanner = bed.scan()?;
    bed.started(services)?;
    // The loggers have no stamp: all of them are there when no shell is left.
    bed.until("settled tree", || {
        let all = tree::below(scanner);
        let loggers = all.iter().filter(|&&p| tree::name(p) != peer.supervisor_name()).count();
        let shells = all
            .iter()
            .any(|&p| matches!(tree::name(p).as_str(), "run" | "sh" | "mkdir") && logged && is_shell(p));
        (!shells && loggers >= services * (1 + usize::from(logged))).then_some(())
    })?;
    pause(1000);
    let (mut supervisors, mut loggers) = (0, 0);
    for pid in tree::below(scanner) {
        let name = tree::name(pid);
        if name == peer.supervisor_name() {
            supervisors += tree::private_dirty(pid);
        } else if ["multilog", "svlogd", "s6-log"].contains(&name.as_str()) {
            loggers += tree::private_dirty(pid);
        }
    }
    Ok((each(supervisors, services), each(loggers, services)))
}

fn is_shell(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("dash") || exe.ends_with("mkdir"))
}

/// Seconds from the start of the scanner to the start of the last service.
pub(crate) fn start(peer: &Peer, base: &Path, services: usize) -> anyhow::Result<f64> {
    let bed = Bed::new(peer, base)?;
    bed.services(services, None)?;
    let begin = now();
    bed.scan()?;
    let stamps = bed.started(services)?;
    Ok(stamps.iter().map(|s| millis(begin, s.at)).fold(0.0, f64::max) / 1000.0)
}

/// Context switches of the scanner and of all supervisors while nothing happens.
pub(crate) fn idle(peer: &Peer, base: &Path, services: usize, seconds: u64) -> anyhow::Result<(u64, u64)> {
    let bed = Bed::new(peer, base)?;
    bed.services(services, None)?;
    let scanner = bed.scan()?;
    bed.started(services)?;
    pause(6000);
    let count = || {
        let supervisors =
            tree::below(scanner).into_iter().filter(|&p| tree::name(p) == peer.supervisor_name());
        (tree::switches(scanner), supervisors.map(tree::switches).sum::<u64>())
    };
    let before = count();
    pause(seconds * 1000);
    let after = count();
    Ok((after.0 - before.0, after.1.saturating_sub(before.1)))
}

/// Milliseconds from the rename of a directory into place to the start of its service.
pub(crate) fn detect(peer: &Peer, base: &Path, rounds: usize) -> anyhow::Result<f64> {
    let bed = Bed::new(peer, base)?;
    bed.service("sv", "a", None)?;
    bed.scan()?;
    let mut stamps = bed.started(1)?;
    pause(1000);
    let mut all = Vec::new();
    for i in 0..rounds {
        // Peers look at fixed intervals: come at another moment each time.
        pause(300 + 700 * u64::try_from(i % 4)?);
        let name = format!("n{i}");
        let made = bed.service("new", &name, None)?;
        let renamed = now();
        fs::rename(made, bed.dir.join("sv").join(&name))?;
        if peer.kind == Kind::S6 {
            // It looks only when told to.
            let status = peer.command("s6-svscanctl").arg("-a").arg(bed.dir.join("sv")).status()?;
            ensure!(status.success(), "s6-svscanctl failed");
        }
        stamps = bed.started(stamps.len() + 1)?;
        all.extend(stamps.last().map(|s| millis(renamed, s.at)));
    }
    Ok(median(all))
}

/// An orderly stop of logged services that say a last word: seconds until all is gone (none: it
/// never was), and how many last words are in the logs.
pub(crate) fn stop(peer: &Peer, base: &Path, services: usize) -> anyhow::Result<(Option<f64>, usize)> {
    const RUN: &str = "#!/bin/sh\ntrap 'echo BYE; exit 0' TERM\necho HELLO\necho x x 0 >> $STAMPFILE\n\
        while :; do sleep 0.2; done\n";
    let bed = Bed::new(peer, base)?;
    for i in 0..services {
        let service = bed.service("sv", &format!("s{i:03}"), Some(&peer.logger_script(false)))?;
        fs::remove_file(service.join("run"))?;
        Bed::script(&service.join("run"), RUN)?;
    }
    let stamps = bed.dir.join("stamps");
    let scanner = bed.scan()?;
    let lines = || fs::read_to_string(&stamps).unwrap_or_default().lines().count();
    bed.until("services", || (lines() >= services).then_some(()))?;
    pause(3000);
    let begin = Instant::now();
    signal(scanner, if peer.kind == Kind::Runit { Signal::SIGHUP } else { Signal::SIGTERM })?;
    let mut gone = None;
    while begin.elapsed() < Duration::from_secs(20) {
        tree::reap();
        if tree::below(tree::me()).into_iter().all(|pid| tree::name(pid) == "sleep") {
            gone = Some(begin.elapsed().as_secs_f64());
            break;
        }
        pause(5);
    }
    let words = (0..services)
        .filter(|i| {
            let log = bed.dir.join(format!("sv/s{i:03}/log/main/current"));
            fs::read_to_string(log).is_ok_and(|text| text.contains("BYE"))
        })
        .count();
    Ok((gone, words))
}

/// Milliseconds for the status of all services.
pub(crate) fn status(peer: &Peer, base: &Path, services: usize) -> anyhow::Result<f64> {
    let bed = Bed::new(peer, base)?;
    bed.services(services, None)?;
    bed.scan()?;
    bed.started(services)?;
    pause(1000);
    let dirs: Vec<_> = (0..services).map(|i| bed.dir.join(format!("sv/s{i:04}"))).collect();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begin = now();
        match peer.kind {
            Kind::Ours | Kind::Daemontools => {
                let _ = peer.command("svstat").args(&dirs).status()?;
            }
            Kind::Runit => {
                let _ = peer.command("sv").arg("status").args(&dirs).status()?;
            }
            // One service a call.
            Kind::S6 => {
                for dir in &dirs {
                    let _ = peer.command("s6-svstat").arg(dir).status()?;
                }
            }
        }
        best = best.min(millis(begin, now()));
    }
    Ok(best)
}
