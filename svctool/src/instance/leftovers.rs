//! Finding every process of an instance, whoever its parent is by now.
//!
//! With a private view the kernel knows: the processes of the instance are those in its mount
//! namespace. Without one, they are recognised by the variable [`MARK`] in the environment they
//! were started with.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use unix::Pid;
use unix::clock::Deadline;

use super::Instance;

/// The variable that every process of an instance has; its value is the instance's directory.
pub const MARK: &str = "INDIMAIL_TRY";

/// How long killed processes may take to go away.
const PATIENCE: Duration = Duration::from_secs(20);

/// Notes which mount namespace the instance lives in; called by the keeper once it is there.
///
/// # Errors
/// The note cannot be written.
pub fn note_namespace(instance: &Instance) -> Result<()> {
    let note = format!("{} {}", boot_id()?, own_namespace()?);
    std::fs::write(instance.at("namespace"), note).context("note of the namespace")
}

/// The keeper has ended in an orderly way: forget the namespace.
pub fn forget_namespace(instance: &Instance) {
    // When it cannot be removed, the boot id and the number keep it harmless.
    let _ = std::fs::remove_file(instance.at("namespace"));
}

/// Processes of the instance that are running now, except this one.
///
/// # Errors
/// /proc cannot be read.
pub fn find(instance: &Instance) -> Result<BTreeSet<Pid>> {
    let namespace = noted_namespace(instance)?;
    let mark = [MARK.as_bytes(), b"=", instance.dir().as_os_str().as_encoded_bytes()].concat();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").context("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()) else {
            continue;
        };
        let pid = Pid::from_raw(pid);
        if pid == nix::unistd::getpid() || is_dead(&path) {
            continue;
        }
        let inside = namespace.as_deref().is_some_and(|wanted| {
            std::fs::read_link(path.join("ns/mnt")).is_ok_and(|ns| ns.as_os_str() == wanted)
        });
        if inside || has_mark(&path, &mark) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// Kills every process of the instance and waits until none is left. Returns how many there were.
///
/// # Errors
/// Some do not die.
pub fn kill_all(instance: &Instance) -> Result<usize> {
    let deadline = Deadline::after(PATIENCE);
    let mut killed = BTreeSet::new();
    loop {
        // What they started in the meantime is found in the next round.
        let found = find(instance)?;
        if found.is_empty() {
            return Ok(killed.len());
        }
        ensure!(!deadline.passed(), "processes that do not die: {found:?}");
        for &pid in &found {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
            killed.insert(pid);
        }
        // Children of the keeper stay zombies until they are waited for.
        while unix::child::reap()?.is_some() {}
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A note from before the last boot, or one that names the namespace of this very process, means
/// nothing.
fn noted_namespace(instance: &Instance) -> Result<Option<String>> {
    let Ok(note) = std::fs::read_to_string(instance.at("namespace")) else {
        return Ok(None);
    };
    let Some((boot, namespace)) = note.split_once(' ') else { return Ok(None) };
    let init = std::fs::read_link("/proc/1/ns/mnt").ok();
    let foreign = init.is_none_or(|i| i.as_os_str() != namespace);
    Ok((boot == boot_id()? && foreign).then(|| namespace.to_owned()))
}

fn own_namespace() -> Result<String> {
    Ok(std::fs::read_link("/proc/self/ns/mnt").context("/proc/self/ns/mnt")?.to_string_lossy().into_owned())
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).context(path)?.trim().to_owned())
}

fn has_mark(process: &Path, mark: &[u8]) -> bool {
    std::fs::read(process.join("environ")).is_ok_and(|e| e.split(|&b| b == 0).any(|v| v == mark))
}

/// Zombies are only waiting for their parent.
fn is_dead(process: &Path) -> bool {
    std::fs::read(process.join("stat")).map_or(true, |stat| {
        let after = stat.iter().rposition(|&b| b == b')').map_or(0, |at| at + 2);
        matches!(stat.get(after), None | Some(b'Z' | b'X'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn marked_processes_are_found_and_killed_with_their_children() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::create(dir.path(), false).unwrap();
        assert!(find(&instance).unwrap().is_empty());
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & sleep 1000; :"])
            .env(MARK, instance.dir())
            .spawn()
            .unwrap();
        let deadline = Deadline::after(Duration::from_secs(20));
        while find(&instance).unwrap().len() < 3 {
            assert!(!deadline.passed());
            std::thread::yield_now();
        }
        assert!(kill_all(&instance).unwrap() >= 3);
        assert!(find(&instance).unwrap().is_empty());
        let _ = child.wait();
    }
}
