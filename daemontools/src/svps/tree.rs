//! The processes below an svscan.

use std::collections::BTreeMap;
use std::fs;

use super::find;

/// A process, as far as the tree needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) command: String,
}

/// All processes that can be looked at.
pub(super) fn processes() -> Vec<Process> {
    find::all_processes().into_iter().filter_map(|pid| look(pid.as_raw())).collect()
}

fn look(pid: i32) -> Option<Process> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
    let (name, parent) = name_and_parent(&read("stat")?)?;
    let arguments = read("cmdline").unwrap_or_default();
    let mut words: Vec<_> = arguments.split(|&b| b == 0).map(|w| w.escape_ascii().to_string()).collect();
    while words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    let command = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
    Some(Process { pid, parent, command })
}

/// From a line of /proc/PID/stat; the name may hold blanks and parentheses.
fn name_and_parent(stat: &[u8]) -> Option<(String, i32)> {
    let open = stat.iter().position(|&b| b == b'(')?;
    let close = stat.iter().rposition(|&b| b == b')')?;
    let name = stat.get(open + 1..close)?.escape_ascii().to_string();
    let mut fields = stat.get(close + 1..)?.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty());
    let parent = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
    Some((name, parent))
}

/// The process and all below it, each one line, children indented below their parents.
pub(super) fn draw(processes: &[Process], root: i32, width: Option<usize>) -> String {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in processes.iter().filter(|p| p.pid != root) {
        children.entry(process.parent).or_default().push(process);
    }
    let mut out = String::new();
    let mut open: Vec<(usize, &Process)> =
        processes.iter().filter(|p| p.pid == root).map(|p| (1, p)).collect();
    while let Some((depth, process)) = open.pop() {
        let line = format!("{:indent$}{} {}", "", process.pid, process.command, indent = 2 * depth);
        let width = width.unwrap_or(usize::MAX);
        out.extend(line.chars().take(width).chain(['\n']));
        // Taken out: a loop, which a change during the look may feign, ends here.
        let below = children.remove(&process.pid).unwrap_or_default();
        open.extend(below.into_iter().rev().map(|child| (depth + 1, child)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, command: format!("c{pid}") }
    }

    #[test]
    fn children_stand_below_their_parents() {
        let all = [process(1, 0), process(5, 1), process(6, 5), process(7, 6), process(8, 5), process(9, 1)];
        assert_eq!(draw(&all, 5, None), "  5 c5\n    6 c6\n      7 c7\n    8 c8\n");
        assert_eq!(draw(&all, 5, Some(5)), "  5 c\n    6\n     \n    8\n");
        assert_eq!(draw(&all, 77, None), "");
    }

    #[test]
    fn lines_of_proc() {
        assert_eq!(name_and_parent(b"7 (a) (b c) S 3 7 7"), Some(("a) (b c".to_owned(), 3)));
        assert_eq!(name_and_parent(b"7 a S 3"), None);
        assert_eq!(name_and_parent(b") ("), None);
        assert!(processes().iter().any(|p| p.pid.unsigned_abs() == std::process::id()));
    }

    proptest! {
        #[test]
        fn every_process_stands_there_once_at_most(links in proptest::collection::vec((0..20i32, 0..20i32), 0..40)) {
            let all: Vec<_> = links.iter().map(|&(pid, parent)| process(pid, parent)).collect();
            prop_assert!(draw(&all, 1, None).lines().count() <= all.len());
        }

        #[test]
        fn nothing_panics(stat: Vec<u8>) {
            let _ = name_and_parent(&stat);
        }
    }
}
