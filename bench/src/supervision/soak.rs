//! A long run: many services, killed at random together with their supervisors, then stopped. None may
//! be lost, none may run twice at the same time, and nobody may grow.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bed::Bed;
use super::peers::Peer;
use super::tree;

/// Kills a second; each service lives at least a second between two starts.
const KILLS: u64 = 40;

/// Random enough, and the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit.max(1)
    }
}

/// What runs below this process: the services by the directory they run in, and the supervisors.
struct Census {
    services: BTreeMap<String, Vec<i32>>,
    supervisors: Vec<i32>,
    /// Private memory of scanner and supervisors, KiB.
    memory: u64,
}

fn census(peer: &Peer, scanner: i32) -> Census {
    let mut census = Census { services: BTreeMap::new(), supervisors: Vec::new(), memory: 0 };
    for pid in tree::below(tree::me()) {
        let name = tree::name(pid);
        if name == peer.supervisor_name() || pid == scanner {
            census.memory += tree::private_dirty(pid);
            census.supervisors.extend((pid != scanner).then_some(pid));
        } else if name == "run" || name == "stamp" {
            // One that has just ended has no directory any more.
            if let Some(dir) = fs::read_link(format!("/proc/{pid}/cwd")).ok().filter(|_| tree::alive(pid)) {
                let service = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                census.services.entry(service).or_default().push(pid);
            }
        }
    }
    census
}

/// Services with more than one process now and a moment later: a pair seen once may be one that ends.
fn twins(peer: &Peer, scanner: i32, first: &Census) -> Vec<String> {
    let double: Vec<_> = first.services.iter().filter(|(_, pids)| pids.len() > 1).collect();
    if double.is_empty() {
        return Vec::new();
    }
    let again = census(peer, scanner);
    double
        .into_iter()
        .filter(|(name, pids)| {
            again.services.get(*name).is_some_and(|now| pids.iter().filter(|p| now.contains(p)).count() > 1)
        })
        .map(|(name, pids)| format!("{name} {pids:?}"))
        .collect()
}

/// Runs it for our own programs; an error names what went wrong.
pub(crate) fn run(peer: &Peer, base: &Path, services: usize, minutes: u64) -> anyhow::Result<String> {
    let bed = Bed::new(peer, base)?;
    bed.services(services, None)?;
    let scanner = bed.scan()?;
    let whole = |what: &str| {
        bed.until(what, || {
            let now = census(peer, scanner);
            (now.services.len() == services && now.supervisors.len() == services).then_some(now)
        })
    };
    let first = whole("first start of all services")?;
    println!("soak: {services} services, {} KiB", first.memory);
    let mut dice = Dice(1);
    let (mut killed, mut supervisors_killed, mut looks) = (0usize, 0usize, 0usize);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    while Instant::now() < end {
        let now = census(peer, scanner);
        let pairs = twins(peer, scanner, &now);
        ensure!(pairs.is_empty(), "services that run twice: {}", pairs.join(", "));
        looks += 1;
        let pids: Vec<i32> = now.services.values().flatten().copied().collect();
        for i in 0..KILLS {
            // One in ten is a supervisor.
            let from = if i % 10 == 9 { &now.supervisors } else { &pids };
            let Some(&victim) = from.get(dice.below(from.len())) else { continue };
            if kill(Pid::from_raw(victim), Signal::SIGKILL).is_ok() {
                killed += 1;
                supervisors_killed += usize::from(i % 10 == 9);
            }
            tree::reap();
            std::thread::sleep(Duration::from_millis(1000 / KILLS));
        }
    }
    let last = whole("services that all run again")?;
    println!(
        "soak: {killed} killed in {minutes} min, {supervisors_killed} of them supervisors; {looks} looks, no service twice; {} KiB",
        last.memory
    );
    // Every service once more, so that the stop finds each with a supervisor that started it.
    for pids in last.services.values() {
        for &pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let before: Vec<i32> = last.services.values().flatten().copied().collect();
    bed.until("services of their own supervisors", || {
        let now = census(peer, scanner);
        let fresh = now.services.values().flatten().all(|pid| !before.contains(pid));
        (now.services.len() == services && fresh).then_some(())
    })?;
    let begin = Instant::now();
    kill(Pid::from_raw(scanner), Signal::SIGTERM)?;
    bed.until("end of all", || tree::below(tree::me()).is_empty().then_some(()))?;
    let grown = last.memory.saturating_sub(first.memory) * 100 / first.memory.max(1);
    Ok(format!(
        "soak: {services} services, {killed} killed ({supervisors_killed} supervisors), none lost, none twice, \
         memory {} -> {} KiB (+{grown} %), stopped in {:.2} s with nothing left\n",
        first.memory,
        last.memory,
        begin.elapsed().as_secs_f64()
    ))
}
