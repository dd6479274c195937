use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const LIMITS: Limits =
    Limits { slots: 50, kill_services: Duration::from_secs(90), stop_loggers: Duration::from_secs(10) };

/// Children and pipes around the machine. It panics when the machine asks for something impossible.
struct World {
    machine: Machine,
    now: Duration,
    pids: i32,
    children: BTreeMap<i32, (SlotId, Role)>,
    pipes: BTreeMap<SlotId, (Vec<u8>, bool)>,
    signals: Vec<(i32, Signal)>,
    commands: Vec<(SlotId, Role, u8)>,
    order: Vec<String>,
    exited: bool,
    foreign: Vec<(SlotId, Role)>,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            machine: Machine::new(limits),
            now: Duration::from_secs(1),
            pids: 100,
            children: BTreeMap::new(),
            pipes: BTreeMap::new(),
            signals: vec![],
            commands: vec![],
            order: vec![],
            exited: false,
            foreign: vec![],
        }
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let mut out = vec![];
            for event in events.drain(..) {
                self.machine.handle(event, self.now, &mut out);
            }
            for action in out {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        assert!(!self.exited);
        match action {
            Action::Open { slot, name, has_log } => {
                assert!(self.pipes.insert(slot, (name, has_log)).is_none());
            }
            Action::Start(slot, role) => {
                assert!(!self.children.values().any(|c| *c == (slot, role)), "never two for one");
                assert!(self.pipes.contains_key(&slot));
                if self.foreign.contains(&(slot, role)) {
                    return Some(Event::Foreign(slot, role));
                }
                self.pids += 1;
                self.children.insert(self.pids, (slot, role));
                return Some(Event::Started(slot, role, Pid::from_raw(self.pids)));
            }
            Action::Look(slot, role) => {
                let there = self.foreign.contains(&(slot, role));
                return Some(if there { Event::Foreign(slot, role) } else { Event::Gone(slot, role) });
            }
            Action::Signal(pid, signal) => {
                let (slot, role) = self.children[&pid.as_raw()];
                self.order.push(format!("{signal} {role:?} {}", slot.0));
                self.signals.push((pid.as_raw(), signal));
            }
            Action::Command(slot, role, byte) => {
                self.order.push(format!("{} {role:?} {}", char::from(byte), slot.0));
                self.commands.push((slot, role, byte));
            }
            Action::ClosePipe(slot) => {
                assert!(
                    !self.children.values().any(|c| *c == (slot, Role::Main)),
                    "the service may still write"
                );
                self.order.push(format!("close {}", slot.0));
                assert!(self.pipes[&slot].1);
            }
            Action::Close(slot) => {
                assert!(self.pipes.remove(&slot).is_some());
                assert!(!self.children.values().any(|c| c.0 == slot));
            }
            Action::TooMany(_) => self.order.push("too many".into()),
            Action::Exit => self.exited = true,
        }
        None
    }

    fn end(&mut self, pid: i32) {
        if self.children.remove(&pid).is_some() {
            self.feed(Event::Ended(Pid::from_raw(pid)));
        }
    }

    fn pid(&self, slot: u64, role: Role) -> i32 {
        *self.children.iter().find(|(_, c)| **c == (SlotId(slot), role)).unwrap().0
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.feed(Event::Tick);
    }
}

fn entry(name: &str, inode: u64, has_log: bool) -> Entry {
    Entry { name: name.into(), id: (1, inode), has_log, complete: true, down: false }
}

#[test]
fn one_supervise_for_a_service_and_one_for_its_logger() {
    let mut w = World::new(LIMITS);
    let entries = vec![entry("a", 1, true), entry("b", 2, false)];
    w.feed(Event::Scanned(entries.clone()));
    assert_eq!(w.children.len(), 3);
    w.feed(Event::Scanned(entries));
    assert_eq!(w.children.len(), 3, "a second scan changes nothing");
    assert_eq!(w.machine.deadline(), None, "and there is nothing to wake up for");
}

#[test]
fn a_dead_supervise_is_replaced_but_not_more_than_once_a_second() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, false)]));
    w.end(w.pid(0, Role::Main));
    assert!(w.children.is_empty());
    assert_eq!(w.machine.deadline(), Some(w.now + START_FLOOR));
    w.pass(START_FLOOR);
    assert_eq!(w.children.len(), 1);
    w.pass(Duration::from_secs(60));
    w.end(w.pid(0, Role::Main));
    assert_eq!(w.children.len(), 1, "at once when it had lived longer");
}

#[test]
fn a_service_that_is_gone_is_not_started_again() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, true), entry("b", 2, false)]));
    w.feed(Event::Scanned(vec![entry("b", 2, false)]));
    assert_eq!(w.children.len(), 3, "it runs until somebody stops it");
    w.pass(Duration::from_secs(5));
    w.end(w.pid(0, Role::Main));
    w.end(w.pid(0, Role::Log));
    assert_eq!((w.children.len(), w.pipes.len()), (1, 1));
    // Another directory under the same name is another service.
    w.feed(Event::Scanned(vec![entry("a", 9, false), entry("b", 2, false)]));
    assert_eq!(w.children.len(), 2);
}

#[test]
fn incomplete_directories_wait() {
    let mut w = World::new(LIMITS);
    let partial = Entry { complete: false, ..entry("a", 1, false) };
    w.feed(Event::Scanned(vec![partial.clone()]));
    assert!(w.children.is_empty());
    w.feed(Event::Scanned(vec![entry("a", 1, false)]));
    assert_eq!(w.children.len(), 1);
    // Once started, a run that is being replaced does no harm.
    w.feed(Event::Scanned(vec![partial]));
    w.pass(Duration::from_secs(5));
    w.end(w.pid(0, Role::Main));
    assert_eq!(w.children.len(), 1);
}

#[test]
fn down_files_are_commands() {
    let mut w = World::new(LIMITS);
    let down = Entry { down: true, ..entry("a", 1, false) };
    w.feed(Event::Scanned(vec![down.clone()]));
    assert!(w.commands.is_empty(), "supervise looks itself at its start");
    w.feed(Event::Scanned(vec![entry("a", 1, false)]));
    w.feed(Event::Scanned(vec![down]));
    assert_eq!(w.commands, [(SlotId(0), Role::Main, b'u'), (SlotId(0), Role::Main, b'd')]);
}

#[test]
fn too_many_services() {
    let mut w = World::new(Limits { slots: 1, ..LIMITS });
    w.feed(Event::Scanned(vec![entry("a", 1, false), entry("b", 2, false)]));
    assert_eq!((w.children.len(), w.order.as_slice()), (1, &["too many".to_owned()][..]));
}

#[test]
fn services_stop_before_their_loggers() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, true), entry("b", 2, true)]));
    w.feed(Event::Terminate);
    assert_eq!(w.order, ["SIGTERM Main 0", "SIGTERM Main 1"], "all services at once, no logger");
    w.order.clear();
    w.end(w.pid(1, Role::Main));
    assert_eq!(w.order, ["x Log 1", "close 1"], "the logger of the one that is gone reads to the end");
    w.end(w.pid(1, Role::Log));
    w.end(w.pid(0, Role::Main));
    assert!(!w.exited);
    w.end(w.pid(0, Role::Log));
    assert!(w.exited && w.pipes.is_empty());
}

#[test]
fn what_does_not_stop_is_killed_the_service_first() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, true)]));
    w.feed(Event::Terminate);
    w.pass(LIMITS.kill_services);
    w.pass(LAST_WORD);
    assert_eq!(w.order, ["SIGTERM Main 0", "k Main 0", "k Main 0", "SIGKILL Main 0"]);
    w.order.clear();
    w.end(w.pid(0, Role::Main));
    w.pass(LIMITS.stop_loggers);
    w.pass(LIMITS.stop_loggers);
    assert_eq!(w.order, ["x Log 0", "close 0", "SIGTERM Log 0", "k Log 0", "SIGKILL Log 0"]);
    w.end(w.pid(0, Role::Log));
    assert!(w.exited);
}

#[test]
fn loggers_may_be_given_all_the_time_they_need() {
    let mut w = World::new(Limits { stop_loggers: Duration::ZERO, ..LIMITS });
    w.feed(Event::Scanned(vec![entry("a", 1, true)]));
    w.feed(Event::Terminate);
    w.end(w.pid(0, Role::Main));
    assert_eq!(w.machine.deadline(), None);
}

#[test]
fn what_a_killed_svscan_has_left_is_not_started_twice_and_is_stopped_too() {
    let mut w = World::new(LIMITS);
    w.foreign = vec![(SlotId(0), Role::Main), (SlotId(0), Role::Log)];
    w.feed(Event::Scanned(vec![entry("a", 1, true)]));
    assert!(w.children.is_empty());
    w.pass(START_FLOOR);
    assert!(w.children.is_empty() && w.machine.deadline() == Some(w.now + START_FLOOR));
    // When the logger's ends, ours takes its place.
    w.foreign.pop();
    w.pass(START_FLOOR);
    assert_eq!(w.children.values().collect::<Vec<_>>(), [&(SlotId(0), Role::Log)]);
    w.feed(Event::Terminate);
    assert_eq!(w.order, ["d Main 0", "x Main 0"]);
    w.pass(START_FLOOR);
    assert_eq!(w.order.len(), 2, "told once");
    w.foreign.clear();
    w.pass(START_FLOOR);
    assert_eq!(w.order[2..], ["x Log 0", "close 0"]);
    w.end(w.pid(0, Role::Log));
    assert!(w.exited);
}

#[derive(Debug, Clone)]
enum Step {
    Scan(Vec<(u8, bool, bool)>),
    End(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec((0u8..5, any::<bool>(), any::<bool>()), 0..5).prop_map(Step::Scan),
        (0usize..8).prop_map(Step::End),
        (0u64..2000).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn everything_that_was_started_is_stopped(steps in proptest::collection::vec(step(), 0..40)) {
        let mut w = World::new(LIMITS);
        for step in steps {
            match step {
                Step::Scan(names) => {
                    let mut seen = BTreeMap::new();
                    for (name, complete, down) in names {
                        // Whether there is a logger is part of what a directory is.
                        let has_log = name % 2 == 0;
                        let e = entry(&name.to_string(), u64::from(name), has_log);
                        seen.insert(name, Entry { complete, down, ..e });
                    }
                    w.feed(Event::Scanned(seen.into_values().collect()));
                }
                Step::End(at) => {
                    if let Some(&pid) = w.children.keys().nth(at) {
                        w.end(pid);
                    }
                }
                Step::Pass(ms) => w.pass(Duration::from_millis(ms)),
            }
        }
        w.feed(Event::Terminate);
        // Each child does what it is told, one at a time, services first.
        while !w.exited {
            let next = w.children.iter().find(|(_, c)| c.1 == Role::Main).or_else(|| w.children.iter().next());
            let (&pid, &(slot, role)) = next.unwrap();
            let told = match role {
                Role::Main => w.signals.contains(&(pid, Signal::SIGTERM)),
                Role::Log => w.commands.contains(&(slot, Role::Log, b'x')),
            };
            prop_assert!(told, "{pid} {role:?} was not told to stop");
            w.end(pid);
        }
        prop_assert!(w.children.is_empty() && w.pipes.is_empty());
    }
}

#[test]
fn what_ends_while_something_else_stops_the_services_stays_down() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, true), entry("b", 2, false)]));
    w.feed(Event::Drain);
    assert!(w.order.is_empty(), "nobody is told anything");
    w.end(w.pid(0, Role::Main));
    assert_eq!(w.order, ["x Log 0", "close 0"]);
    w.pass(Duration::from_secs(5));
    w.feed(Event::Scanned(vec![entry("c", 3, false)]));
    assert_eq!(w.children.len(), 2, "the logger of a, and b");
    w.end(w.pid(0, Role::Log));
    w.end(w.pid(1, Role::Main));
    assert!(!w.exited, "that is for the script to say");
    w.feed(Event::Terminate);
    assert!(w.exited);
}

#[test]
fn children_are_known() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, true)]));
    let pid = Pid::from_raw(w.pid(0, Role::Log));
    assert!(w.machine.knows(pid) && !w.machine.knows(Pid::from_raw(1)));
    w.end(pid.as_raw());
    assert!(!w.machine.knows(pid));
}

#[test]
fn the_logger_of_a_removed_service_reads_to_the_end() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, true)]));
    w.feed(Event::Scanned(vec![]));
    assert!(w.order.is_empty(), "the service runs until somebody stops it");
    w.end(w.pid(0, Role::Main));
    assert_eq!(w.order, ["x Log 0", "close 0"]);
    // Back again before the logger has ended: a new pipe, and one logger at a time.
    w.foreign.push((SlotId(1), Role::Log));
    w.feed(Event::Scanned(vec![entry("a", 1, true)]));
    assert_eq!(w.children.values().collect::<Vec<_>>(), [&(SlotId(0), Role::Log), &(SlotId(1), Role::Main)]);
    w.end(w.pid(0, Role::Log));
    w.foreign.clear();
    w.pass(START_FLOOR);
    assert_eq!(w.pipes.len(), 1);
    assert_eq!(w.children.len(), 2);
}

#[test]
fn a_logger_that_is_not_listening_yet_is_told_again() {
    let mut w = World::new(LIMITS);
    w.feed(Event::Scanned(vec![entry("a", 1, true)]));
    w.feed(Event::Terminate);
    w.end(w.pid(0, Role::Main));
    assert_eq!(w.order, ["SIGTERM Main 0", "x Log 0", "close 0"]);
    w.feed(Event::Unheard(SlotId(0), Role::Log));
    assert_eq!(w.machine.deadline(), Some(w.now + TELL_AGAIN));
    w.pass(TELL_AGAIN);
    assert_eq!(w.order[3..], ["x Log 0"]);
    assert_eq!(w.machine.deadline(), Some(w.now - TELL_AGAIN + LIMITS.stop_loggers));
    w.feed(Event::Unheard(SlotId(0), Role::Log));
    w.end(w.pid(0, Role::Log));
    assert!(w.exited);
}
