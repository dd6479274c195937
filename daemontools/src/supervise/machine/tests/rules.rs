//! Rules of waiting, back-off, readiness, hanging, and of services of several processes.

use super::*;
use crate::supervise::machine::{FORK_RETRY, HANG_KILL};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn waiting(gate: Gate) -> World {
    let mut w = World::new(Want::Up, false);
    w.gate = gate;
    w.feed(Event::Begin);
    w
}

#[test]
fn a_start_waits_for_others_and_commands_do_not_wait() {
    let mut w = waiting(Gate::Service);
    assert_eq!((w.machine.wait(), w.starts.len()), (Wait::ForService, 0));
    assert_eq!(w.machine.deadline(), Some(w.now + ms(1000)), "looked at once a second");
    w.control("u");
    w.control("u");
    assert!(w.starts.is_empty());
    w.control("d");
    assert_eq!((w.machine.wait(), w.machine.deadline()), (Wait::None, None), "d ends the wait");
    w.control("u");
    assert_eq!(w.machine.wait(), Wait::ForService);
    w.gate = Gate::Open;
    w.feed(Event::LookAgain);
    assert_eq!((w.starts.as_slice(), w.machine.wait()), (&[Why::ManualStartup][..], Wait::None));
    // Again before every start.
    w.gate = Gate::Service;
    w.pass(ms(5000));
    w.die(killed());
    assert_eq!((w.starts.len(), w.machine.wait()), (1, Wait::ForService));
    w.gate = Gate::Open;
    w.pass(ms(1000));
    assert_eq!(w.starts.last(), Some(&Why::AbnormalStartup));
}

#[test]
fn every_command_while_waiting() {
    let mut w = waiting(Gate::Service);
    w.control("x");
    assert!(w.exited && w.starts.is_empty());
    let mut w = waiting(Gate::Service);
    w.feed(Event::Terminate);
    assert!(w.exited, "TERM ends a supervise that waits");
    let mut w = waiting(Gate::Service);
    w.feed(Event::Abandon);
    assert!(w.exited);
    let mut w = waiting(Gate::Service);
    w.control("o");
    w.gate = Gate::Open;
    w.pass(ms(1000));
    assert_eq!(w.starts, [Why::OneTime]);
    w.die(killed());
    w.obey();
    assert_eq!(w.starts.len(), 1, "once is once");
    let mut w = waiting(Gate::Service);
    w.control("phtkG1P");
    assert!(w.signals.is_empty() && !w.machine.paused(), "there is nobody to signal");
    let mut w = waiting(Gate::Service);
    w.control("r");
    w.gate = Gate::Open;
    w.pass(ms(1000));
    assert_eq!(w.starts, [Why::ManualRestart]);
}

#[test]
fn time_to_settle_is_counted_down_by_the_monotonic_clock() {
    let mut w = waiting(Gate::Settling(ms(2500)));
    assert_eq!(w.machine.wait(), Wait::Seconds(3));
    // The wall clock is set back: the answer is longer than what is left.
    w.gate = Gate::Settling(ms(3_600_000));
    w.pass(ms(1000));
    assert_eq!(w.machine.wait(), Wait::Seconds(2));
    w.pass(ms(1000));
    assert_eq!(w.machine.wait(), Wait::Seconds(1));
    w.pass(ms(500));
    assert_eq!(w.starts.len(), 1);
    // It is set forward: less is left.
    let mut w = waiting(Gate::Settling(ms(2500)));
    w.gate = Gate::Open;
    w.pass(ms(1000));
    assert_eq!(w.starts.len(), 1);
    // The other goes down again and comes up again: it gets all of its time.
    let mut w = waiting(Gate::Settling(ms(2000)));
    w.gate = Gate::Service;
    w.pass(ms(1000));
    assert_eq!(w.machine.wait(), Wait::ForService);
    w.gate = Gate::Settling(ms(2000));
    w.pass(ms(1000));
    assert_eq!(w.machine.wait(), Wait::Seconds(2));
}

#[test]
fn what_is_left_of_an_earlier_instance_is_waited_for() {
    let mut w = waiting(Gate::Locked);
    assert_eq!((w.machine.wait(), w.starts.len()), (Wait::ForLock, 0));
    w.pass(ms(200));
    assert!(w.starts.is_empty());
    w.gate = Gate::Open;
    w.pass(ms(200));
    assert_eq!(w.starts.len(), 1);
}

fn backing_off(text: &str) -> World {
    let mut w = World::new(Want::Up, false);
    w.backoff = Backoff::parse(text.as_bytes()).unwrap();
    w.feed(Event::Begin);
    w
}

#[test]
fn starts_lie_further_apart_with_each_failure() {
    let mut w = backing_off("100 1000 2");
    let mut delays = vec![];
    for _ in 0..5 {
        w.die(killed());
        let due = w.machine.deadline().unwrap() - w.now;
        delays.push(due.as_millis());
        w.pass(due);
    }
    assert_eq!(delays, [100, 200, 400, 800, 1000]);
    assert_eq!(w.machine.restarts(), 5);
    // It has run for the maximum: as in the beginning.
    w.pass(ms(1000));
    w.die(killed());
    assert_eq!(w.starts.len(), 7, "at once");
    w.die(killed());
    assert_eq!(w.machine.deadline().unwrap() - w.now, ms(100));
}

#[test]
fn an_operator_does_not_wait_for_the_back_off() {
    let mut w = backing_off("1000 60000 10");
    for _ in 0..3 {
        w.die(killed());
        w.pass(w.machine.deadline().unwrap() - w.now);
    }
    w.pass(ms(2000));
    w.die(killed());
    assert!(w.machine.deadline().unwrap() - w.now > ms(10_000));
    let starts = w.starts.len();
    w.control("u");
    assert_eq!(w.starts.len(), starts + 1);
    assert_eq!(w.machine.restarts(), 3, "that was no automatic one");
    // Nor for the minute after a failed fork.
    w.fail = Some(Event::ForkFailed);
    w.pass(ms(2000));
    w.die(killed());
    w.pass(w.machine.deadline().unwrap() - w.now);
    assert!(w.service.is_none());
    assert_eq!(w.machine.deadline(), Some(w.now + FORK_RETRY));
    w.fail = None;
    w.pass(ms(5000));
    w.control("u");
    assert!(w.service.is_some());
}

#[test]
fn failed_starts_count_as_failures() {
    let mut w = World::new(Want::Up, false);
    w.backoff = Backoff::parse(b"100 1000 2").unwrap();
    w.fail = Some(Event::StartFailed);
    w.feed(Event::Begin);
    assert_eq!(w.machine.deadline().unwrap() - w.now, ms(100));
    w.pass(ms(100));
    assert_eq!(w.machine.deadline().unwrap() - w.now, ms(200));
    w.control("d");
    assert_eq!(w.machine.deadline(), None);
}

#[test]
fn a_service_may_ask_not_to_be_started_again() {
    let mut w = World::new(Want::Up, true);
    w.feed(Event::Begin);
    w.script_ends(true);
    w.permanent = true;
    w.die(Death::Known(Ending::Exited(100)));
    assert!(w.machine.failed());
    assert_eq!(w.machine.want(), Want::Down);
    assert!(matches!(w.scripts.last(), Some(Script::Alert { .. })), "somebody is told");
    w.script_ends(true);
    w.pass(ms(100_000));
    assert_eq!((w.starts.len(), w.machine.deadline()), (1, None));
    w.control("u");
    assert!(!w.machine.failed());
    assert_eq!(w.starts.len(), 2);
    // Told to stop, it may exit with any code.
    w.control("d");
    w.die(Death::Known(Ending::Exited(100)));
    assert!(!w.machine.failed());
}

fn with(limits: Limits) -> World {
    let mut w = World::new(Want::Up, false);
    w.limits = limits;
    w.feed(Event::Begin);
    w
}

#[test]
fn readiness_is_published_once_and_ends_with_the_instance() {
    let mut w = with(Limits { announces: true, ..Limits::default() });
    assert!(w.machine.announces() && !w.machine.ready());
    let mut out = vec![];
    w.machine.handle(Event::Ready, w.now, &mut out);
    assert_eq!(out, [Action::Publish(Since::ReadyNow)]);
    assert!(w.machine.ready());
    out.clear();
    w.machine.handle(Event::Ready, w.now, &mut out);
    assert_eq!(out, []);
    w.machine.handle(Event::Stopping, w.now, &mut out);
    assert!(w.machine.stopping());
    w.pass(ms(2000));
    w.die(killed());
    assert!(w.service.is_some() && !w.machine.ready() && !w.machine.stopping());
    w.control("d");
    w.die(killed());
    w.feed(Event::Ready);
    assert!(!w.machine.ready(), "what is down is not ready");
}

#[test]
fn a_service_that_does_not_show_that_it_is_alive_is_ended() {
    let watchdog = Some(ms(500));
    let mut w = with(Limits { watchdog, ..Limits::default() });
    for _ in 0..4 {
        w.pass(ms(400));
        w.feed(Event::Alive);
    }
    assert!(w.signals.is_empty());
    w.pass(ms(500));
    assert_eq!(w.signals, [(Target::Process, Signal::SIGABRT)]);
    w.feed(Event::Alive);
    w.pass(HANG_KILL);
    assert_eq!(w.signals.last(), Some(&(Target::Group, Signal::SIGKILL)), "too late");
    w.die(killed());
    assert_eq!(w.starts.last(), Some(&Why::AbnormalStartup));
    // With timeout-kill, and after the readiness that it announces.
    let mut w = with(Limits { watchdog, announces: true, kill_after: Some(ms(70)) });
    w.feed(Event::Alive);
    w.pass(ms(60_000));
    assert!(w.signals.is_empty());
    w.feed(Event::Ready);
    w.pass(ms(500));
    assert_eq!(w.signals, [(Target::Process, Signal::SIGABRT)]);
    w.pass(ms(70));
    assert_eq!(w.signals.last(), Some(&(Target::Group, Signal::SIGKILL)));
}

#[test]
fn a_paused_or_stopping_service_does_not_hang() {
    let mut w = with(Limits { watchdog: Some(ms(500)), ..Limits::default() });
    w.control("p");
    w.signals.clear();
    w.pass(ms(500));
    assert!(w.signals.is_empty(), "it cannot speak");
    w.control("c");
    w.control("d");
    w.signals.clear();
    w.feed(Event::Alive);
    w.pass(ms(5000));
    assert!(w.signals.is_empty());
}

#[test]
fn another_process_of_the_service_takes_its_place() {
    let mut w = with(Limits { kill_after: Some(ms(1000)), ..Limits::default() });
    w.replace();
    assert_eq!(w.published, w.service, "the status names one that lives");
    assert!(w.signals.is_empty());
    w.control("d");
    w.signals.clear();
    w.replace();
    assert_eq!(
        w.signals,
        [(Target::Process, Signal::SIGTERM), (Target::Process, Signal::SIGCONT)],
        "it has not got the signals yet"
    );
    w.pass(ms(1000));
    w.signals.clear();
    w.replace();
    assert_eq!(w.signals, [(Target::Group, Signal::SIGKILL)]);
    w.die(killed());
    assert_eq!(w.published, None);
}

#[test]
fn an_adopted_service_is_what_it_was() {
    let watchdog = Some(ms(500));
    for ready in [true, false] {
        let mut w = World::new(Want::Up, false);
        w.service = Some(77);
        let limits = Limits { announces: true, watchdog, kill_after: None };
        let mut out = vec![];
        w.machine.handle(Event::Adopted { pid: 77, limits, ready }, w.now, &mut out);
        w.machine.handle(Event::Begin, w.now, &mut out);
        assert_eq!(out, [Action::Publish(Since::Before); 2], "no new state has begun");
        assert_eq!(w.machine.ready(), ready);
        w.pass(ms(500));
        assert_eq!(!w.signals.is_empty(), ready, "the watchdog of one that is ready goes on");
    }
}

#[test]
fn restarts_are_counted_and_commands_are_not() {
    let mut w = World::begun(Want::Up);
    for _ in 0..3 {
        w.pass(ms(2000));
        w.die(killed());
    }
    assert_eq!(w.machine.restarts(), 3);
    w.pass(ms(2000));
    w.control("r");
    w.die(killed());
    assert_eq!((w.machine.restarts(), w.starts.len()), (3, 5));
}

#[test]
fn a_flood_of_bytes_is_obeyed_in_order() {
    let mut w = World::begun(Want::Up);
    w.feed(Event::Control(b'G'));
    w.feed(Event::ControlDrained);
    for _ in 0..65536 {
        w.feed(Event::Control(b'z'));
    }
    w.control("Gtt");
    assert_eq!(w.signals, [(Target::Group, Signal::SIGTERM), (Target::Process, Signal::SIGTERM)]);
}

proptest! {
    #[test]
    fn any_bytes_leave_a_service_that_obeys(bytes: Vec<u8>, up: bool) {
        let mut w = World::begun(if up { Want::Up } else { Want::Down });
        for byte in bytes.into_iter().filter(|&b| b != b'x') {
            w.feed(Event::Control(byte));
            prop_assert_eq!(w.machine.pid(), w.service);
        }
        w.control("dx");
        w.obey();
        prop_assert!(w.exited && w.service.is_none());
    }
}
