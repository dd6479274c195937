mod rules;

use super::*;
use crate::supervise::policy::Backoff;
use proptest::prelude::*;
use unix::child::Ending;

const START_FLOOR: Duration = Duration::from_secs(1);

/// A world around the machine: one service, one script, a clock. It panics when the machine asks for
/// something impossible.
struct World {
    machine: Machine,
    now: Duration,
    service: Option<u32>,
    script: Option<Script>,
    pids: u32,
    last_start: Option<Duration>,
    signals: Vec<(Target, Signal)>,
    starts: Vec<Why>,
    scripts: Vec<Script>,
    has_scripts: bool,
    fail: Option<Event>,
    permanent: bool,
    limits: Limits,
    gate: Gate,
    backoff: Backoff,
    exited: bool,
    published: Option<u32>,
}

impl World {
    fn new(want: Want, has_scripts: bool) -> Self {
        Self {
            machine: Machine::new(want, Signal::SIGTERM),
            now: Duration::from_secs(100),
            service: None,
            script: None,
            pids: 10,
            last_start: None,
            signals: vec![],
            starts: vec![],
            scripts: vec![],
            has_scripts,
            fail: None,
            permanent: false,
            limits: Limits::default(),
            gate: Gate::Open,
            backoff: Backoff::default(),
            exited: false,
            published: None,
        }
    }

    fn begun(want: Want) -> Self {
        let mut world = Self::new(want, false);
        world.feed(Event::Begin);
        world
    }

    fn feed(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let mut out = vec![];
            self.machine.handle(event, self.now, &mut out);
            for action in out {
                let answer = self.perform(action);
                assert!(answer.is_none() || next.is_none(), "one question at a time");
                next = answer.or(next);
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        assert!(!self.exited, "nothing after the exit: {action:?}");
        match action {
            Action::Start(why) => {
                assert_eq!(self.service, None, "never two services");
                if let Some(last) = self.last_start {
                    assert!(
                        self.now >= last + self.backoff.min(),
                        "never two starts too close to each other"
                    );
                }
                self.last_start = Some(self.now);
                self.starts.push(why);
                if let Some(failure) = self.fail {
                    return Some(failure);
                }
                self.pids += 1;
                self.service = Some(self.pids);
                Some(Event::Started { pid: self.pids, limits: self.limits })
            }
            Action::RunScript(script) => {
                assert_eq!(self.script, None, "never two scripts");
                self.scripts.push(script);
                if !self.has_scripts {
                    return Some(Event::ScriptAbsent);
                }
                self.script = Some(script);
                Some(Event::ScriptStarted { limit: Some(Duration::from_secs(5)) })
            }
            Action::KillScript => {
                assert!(self.script.is_some());
                None
            }
            Action::Signal(target, signal) => {
                assert!(self.service.is_some(), "signals go to living processes only");
                self.signals.push((target, signal));
                None
            }
            Action::Publish(_) => {
                self.published = self.machine.pid();
                None
            }
            Action::CheckGate => Some(Event::Gate { gate: self.gate, backoff: self.backoff }),
            Action::CreateDownFile | Action::ReportHang => None,
            Action::Exit => {
                self.exited = true;
                None
            }
        }
    }

    fn control(&mut self, bytes: &str) {
        bytes.bytes().for_each(|b| self.feed(Event::Control(b)));
        self.feed(Event::ControlDrained);
    }

    fn die(&mut self, death: Death) {
        if self.service.take().is_some() {
            self.feed(Event::Ended { death, permanent: self.permanent });
        }
    }

    /// Another process of the service follows the first one.
    fn replace(&mut self) {
        if self.service.is_some() {
            self.pids += 1;
            self.service = Some(self.pids);
            self.feed(Event::Replaced { pid: self.pids });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.feed(Event::Tick);
    }

    fn script_ends(&mut self, success: bool) {
        if self.script.take().is_some() {
            self.feed(Event::ScriptEnded { success });
        }
    }

    /// The service obeys signals and scripts end, until nothing is left to wait for.
    fn obey(&mut self) {
        for _ in 0..20 {
            self.script_ends(true);
            let stopped = self.signals.iter().any(|(_, s)| matches!(s, Signal::SIGTERM | Signal::SIGKILL));
            self.signals.clear();
            if stopped {
                self.die(Death::Known(Ending::Killed(15)));
            }
            self.gate = Gate::Open;
            match self.machine.deadline() {
                Some(at) => self.pass(at.saturating_sub(self.now)),
                None if self.script.is_none() && self.signals.is_empty() => return,
                None => {}
            }
        }
    }
}

fn killed() -> Death {
    Death::Known(Ending::Killed(9))
}

#[test]
fn starts_by_itself_and_again_after_a_second_at_most() {
    let mut w = World::begun(Want::Up);
    assert_eq!(w.starts, [Why::AutoStartup]);
    w.die(killed());
    assert_eq!(w.starts.len(), 1, "the floor holds");
    assert_eq!(w.machine.deadline(), Some(w.now + START_FLOOR));
    w.pass(START_FLOOR);
    assert_eq!(w.starts[1], Why::AbnormalStartup);
    w.pass(Duration::from_secs(5));
    w.die(killed());
    assert_eq!(w.starts.len(), 3, "one that ran longer is started at once");
}

#[test]
fn down_is_obeyed_at_once_also_right_after_a_start() {
    let mut w = World::begun(Want::Up);
    w.control("d");
    assert_eq!(w.signals, [(Target::Process, Signal::SIGTERM), (Target::Process, Signal::SIGCONT)]);
    w.die(killed());
    w.pass(Duration::from_secs(100));
    assert_eq!(w.starts.len(), 1);
    assert_eq!(w.machine.deadline(), None, "nothing to wake up for");
    w.control("u");
    assert_eq!(w.starts[1], Why::ManualStartup);
    w.control("u");
    assert_eq!(w.starts.len(), 2, "u twice is u");
}

#[test]
fn once_is_not_repeated_and_cancels_the_restart() {
    let mut w = World::begun(Want::Down);
    assert!(w.starts.is_empty());
    w.control("o");
    assert_eq!(w.starts, [Why::OneTime]);
    w.die(killed());
    w.obey();
    assert_eq!(w.starts.len(), 1);
    w.control("u");
    w.control("o");
    w.die(killed());
    w.obey();
    assert_eq!(w.starts.len(), 2);
    assert_eq!(w.machine.want(), Want::Once);
}

#[test]
fn restart_stops_and_starts() {
    let mut w = World::begun(Want::Up);
    w.pass(Duration::from_secs(2));
    w.control("r");
    assert_eq!(w.starts.len(), 1);
    w.die(killed());
    assert_eq!(w.starts[1], Why::ManualRestart);
    assert!(!w.scripts.iter().any(|s| matches!(s, Script::Alert { .. })), "that was no accident");
    w.control("d");
    w.die(killed());
    w.pass(Duration::from_secs(2));
    w.control("r");
    assert_eq!(w.starts.len(), 3, "r starts what is down");
}

#[test]
fn pause_is_published_and_ends_with_a_stop() {
    let mut w = World::begun(Want::Up);
    w.control("p");
    assert!(w.machine.paused());
    w.control("r");
    assert!(!w.machine.paused(), "CONT followed TERM");
    w.die(killed());
    w.control("d");
    w.control("p");
    assert!(!w.machine.paused(), "what is down cannot be paused");
}

#[test]
fn the_group_letter_holds_for_one_byte() {
    let mut w = World::begun(Want::Up);
    w.control("GtGhi");
    let targets: Vec<_> = w.signals.iter().map(|(t, _)| *t).collect();
    assert_eq!(targets, [Target::Group, Target::Group, Target::Process]);
    w.control("G");
    w.signals.clear();
    w.control("t");
    assert_eq!(w.signals[0].0, Target::Process, "another client's G is forgotten");
    w.signals.clear();
    w.control("Gut");
    assert_eq!(w.signals[0].0, Target::Process, "any byte ends it");
    w.control("PCK");
    assert!(w.signals[1..].iter().all(|(t, _)| *t == Target::Group));
}

#[test]
fn every_signal_letter() {
    use Signal::{
        SIGABRT, SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2,
        SIGWINCH,
    };
    let letters = [
        ("p", SIGSTOP),
        ("c", SIGCONT),
        ("h", SIGHUP),
        ("a", SIGALRM),
        ("i", SIGINT),
        ("t", SIGTERM),
        ("k", SIGKILL),
        ("q", SIGQUIT),
        ("1", SIGUSR1),
        ("U", SIGUSR1),
        ("2", SIGUSR2),
        ("b", SIGABRT),
        ("w", SIGWINCH),
    ];
    for (letter, signal) in letters {
        let mut w = World::begun(Want::Up);
        w.control(letter);
        assert_eq!(w.signals, [(Target::Process, signal)], "{letter}");
    }
    let mut w = World::begun(Want::Up);
    w.control("\u{1}zZ?");
    assert!(w.signals.is_empty(), "unknown bytes do nothing");
}

#[test]
fn exit_waits_for_the_service() {
    let mut w = World::begun(Want::Up);
    w.control("x");
    assert!(!w.exited, "x alone does not stop it");
    w.die(killed());
    assert!(w.exited);
    let mut w = World::begun(Want::Up);
    w.die(killed());
    w.control("x");
    assert!(w.exited, "waiting for the next start is down");
    let mut w = World::begun(Want::Up);
    w.feed(Event::Terminate);
    assert_eq!(w.signals[0].1, Signal::SIGTERM);
    assert!(!w.exited);
    w.die(killed());
    assert!(w.exited);
    let mut w = World::begun(Want::Up);
    w.feed(Event::Abandon);
    assert!(w.exited && w.signals.is_empty(), "QUIT leaves the service alone");
}

#[test]
fn the_shutdown_script_comes_first_and_commands_are_obeyed_meanwhile() {
    let mut w = World::new(Want::Up, true);
    w.feed(Event::Begin);
    w.script_ends(true);
    w.control("d");
    assert_eq!(w.scripts.last(), Some(&Script::Shutdown { pid: 11 }));
    assert!(w.signals.is_empty(), "the script first");
    w.control("h");
    assert_eq!(w.signals, [(Target::Process, Signal::SIGHUP)]);
    w.script_ends(false);
    assert_eq!(w.signals[1].1, Signal::SIGTERM, "signals follow whatever the script said");
    // A script that does not end is killed.
    let mut w = World::new(Want::Up, true);
    w.feed(Event::Begin);
    w.script_ends(true);
    w.control("d");
    assert_eq!(w.machine.deadline(), Some(w.now + Duration::from_secs(5)));
    w.pass(Duration::from_secs(5));
    w.script_ends(false);
    assert_eq!(w.signals[0].1, Signal::SIGTERM);
}

#[test]
fn a_service_that_the_shutdown_script_stopped_gets_no_signal() {
    let mut w = World::new(Want::Up, true);
    w.feed(Event::Begin);
    w.script_ends(true);
    w.control("d");
    w.die(Death::Known(Ending::Exited(0)));
    w.script_ends(true);
    assert!(w.signals.is_empty());
    assert_eq!(w.starts.len(), 1);
}

#[test]
fn an_alert_precedes_the_restart_but_does_not_hold_up_commands() {
    let mut w = World::new(Want::Up, true);
    w.feed(Event::Begin);
    w.script_ends(true);
    w.pass(Duration::from_secs(2));
    w.die(Death::Known(Ending::Exited(3)));
    assert_eq!(w.scripts.last(), Some(&Script::Alert { pid: 11, death: Death::Known(Ending::Exited(3)) }));
    assert_eq!(w.starts.len(), 1);
    w.control("d");
    w.script_ends(true);
    assert_eq!(w.starts.len(), 1, "d was obeyed during the alert");
    w.control("u");
    assert_eq!(w.starts.len(), 2);
}

#[test]
fn init_is_run_once_and_again_when_it_fails() {
    let mut w = World::new(Want::Up, true);
    w.feed(Event::Begin);
    assert_eq!((w.scripts.as_slice(), w.starts.len()), (&[Script::Init][..], 0));
    w.script_ends(false);
    assert_eq!(w.machine.deadline(), Some(w.now + INIT_RETRY));
    w.pass(INIT_RETRY);
    w.script_ends(true);
    assert_eq!(w.starts.len(), 1);
    w.pass(Duration::from_secs(2));
    w.die(killed());
    w.script_ends(true);
    assert_eq!(w.scripts.iter().filter(|s| **s == Script::Init).count(), 2);
    let mut w = World::new(Want::Up, true);
    w.feed(Event::Begin);
    w.feed(Event::Terminate);
    assert!(w.exited, "init does not hold up the end");
}

#[test]
fn failures_to_start_are_tried_again() {
    let mut w = World::new(Want::Up, false);
    w.fail = Some(Event::StartFailed);
    w.feed(Event::Begin);
    assert_eq!(w.machine.deadline(), Some(w.now + START_FLOOR));
    w.fail = Some(Event::ForkFailed);
    w.pass(START_FLOOR);
    assert_eq!(w.machine.deadline(), Some(w.now + FORK_RETRY));
    w.fail = None;
    w.pass(FORK_RETRY);
    assert_eq!(w.starts, [Why::AutoStartup, Why::AutoStartup, Why::SystemFailure]);
    assert!(w.service.is_some());
}

#[test]
fn kill_follows_when_the_service_does_not() {
    let mut w = World::new(Want::Up, false);
    w.limits.kill_after = Some(Duration::from_millis(1500));
    w.feed(Event::Begin);
    w.control("Gd");
    assert_eq!(w.machine.deadline(), Some(w.now + Duration::from_millis(1500)));
    w.pass(Duration::from_millis(1500));
    assert_eq!(w.signals.last(), Some(&(Target::Group, Signal::SIGKILL)));
    assert_eq!(w.machine.deadline(), None);
}

#[test]
fn an_adopted_service_is_like_any_other() {
    let mut w = World::new(Want::Up, false);
    w.service = Some(77);
    w.feed(Event::Adopted { pid: 77, limits: Limits::default(), ready: false });
    w.feed(Event::Begin);
    assert!(w.starts.is_empty(), "no twin");
    assert_eq!(w.published, Some(77));
    w.control("t");
    assert_eq!(w.signals.len(), 1);
    w.die(Death::Unknown);
    assert_eq!(w.starts, [Why::AbnormalStartup]);
}

#[derive(Debug, Clone)]
enum Step {
    Control(u8),
    Die,
    ScriptEnds(bool),
    Pass(u64),
    Fail(u8),
    Drained,
    Gate(Gate),
    Say(Event),
    Replace,
    Permanent(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::sample::select(b"udorxpchaitkqGU12bwPCKDQz".to_vec()).prop_filter("x ends it", |b| *b != b'x').prop_map(Step::Control),
        2 => Just(Step::Die),
        2 => any::<bool>().prop_map(Step::ScriptEnds),
        3 => (0u64..3000).prop_map(Step::Pass),
        1 => (0u8..3).prop_map(Step::Fail),
        1 => Just(Step::Drained),
        2 => prop_oneof![
            Just(Gate::Open),
            Just(Gate::Service),
            Just(Gate::Locked),
            (0u64..5000).prop_map(|ms| Gate::Settling(Duration::from_millis(ms))),
        ].prop_map(Step::Gate),
        1 => proptest::sample::select(vec![Event::Ready, Event::Alive, Event::Stopping, Event::LookAgain])
            .prop_map(Step::Say),
        1 => Just(Step::Replace),
        1 => any::<bool>().prop_map(Step::Permanent),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_commands_are_obeyed_in_the_end(
        up: bool,
        has_scripts: bool,
        kill_after in proptest::option::of(1u64..5000),
        announces: bool,
        watchdog in proptest::option::of(100u64..5000),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut w = World::new(if up { Want::Up } else { Want::Down }, has_scripts);
        w.limits.kill_after = kill_after.map(Duration::from_millis);
        w.limits.announces = announces;
        w.limits.watchdog = watchdog.map(Duration::from_millis);
        w.feed(Event::Begin);
        for step in steps {
            match step {
                Step::Control(byte) => w.feed(Event::Control(byte)),
                Step::Die => w.die(killed()),
                Step::ScriptEnds(success) => w.script_ends(success),
                Step::Pass(ms) => w.pass(Duration::from_millis(ms)),
                Step::Fail(which) => w.fail = [None, Some(Event::StartFailed), Some(Event::ForkFailed)][usize::from(which)],
                Step::Drained => w.feed(Event::ControlDrained),
                Step::Gate(gate) => w.gate = gate,
                Step::Say(event) => w.feed(event),
                Step::Replace => w.replace(),
                Step::Permanent(permanent) => w.permanent = permanent,
            }
            prop_assert_eq!(w.machine.pid(), w.service, "the machine knows whether the service runs");
            prop_assert_eq!(w.published, w.service, "and so does everybody else");
        }
        w.fail = None;
        w.permanent = false;
        w.limits = Limits::default();
        w.control("d");
        w.obey();
        prop_assert_eq!(w.service, None, "d stops it");
        let starts = w.starts.len();
        w.pass(Duration::from_secs(1000));
        prop_assert_eq!(w.starts.len(), starts, "and it stays down");
        w.control("u");
        w.obey();
        prop_assert!(w.service.is_some(), "u starts it");
        w.feed(Event::Terminate);
        w.obey();
        prop_assert!(w.exited && w.service.is_none(), "TERM ends both");
    }
}
