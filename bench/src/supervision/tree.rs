//! Processes below this one: it is made their reaper, so that whatever a benchmark starts stays a
//! descendant and can be measured and ended without touching anything else.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Makes this process the one that orphans below it fall to.
pub(crate) fn become_reaper() -> anyhow::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .filter_map(Result::ok)
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// All processes below `pid`, parents before their children.
pub(crate) fn below(pid: i32) -> Vec<i32> {
    children(pid).into_iter().flat_map(|child| std::iter::once(child).chain(below(child))).collect()
}

/// This process.
pub(crate) fn me() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// The name of a program as the kernel has it.
pub(crate) fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// True until the process has ended, collected or not.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn field(file: &str, name: &str) -> u64 {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.ends_with(name))
        .filter_map(|(_, value)| value.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Memory that belongs to this process alone and was written to, in KiB.
pub(crate) fn private_dirty(pid: i32) -> u64 {
    field(&format!("/proc/{pid}/smaps_rollup"), "Private_Dirty")
}

/// How often the process was put aside, by itself or not.
pub(crate) fn switches(pid: i32) -> u64 {
    field(&format!("/proc/{pid}/status"), "ctxt_switches")
}

/// Collects what has ended.
pub(crate) fn reap() {
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
}

/// Kills everything below this process, supervisors before services, until nothing is left.
pub(crate) fn kill_all() {
    loop {
        let all = below(me());
        for &pid in &all {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        reap();
        if all.is_empty() && waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
