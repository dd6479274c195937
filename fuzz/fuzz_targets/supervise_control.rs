//! Bytes in the control FIFO of a service whose supervise starts and stops it as told.
#![no_main]

use std::time::Duration;

use daemontools::status::Want;
use daemontools::supervise::machine::{Action, Death, Event, Gate, Limits, Machine};
use daemontools::supervise::policy::Backoff;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::new(Want::Up, unix::Signal::SIGTERM);
    let mut running = None;
    let mut now = Duration::ZERO;
    let mut pid = 1;
    for &byte in data {
        // The upper half of the bytes are not commands: time passes, or the service ends.
        let mut next = Some(match byte {
            0x80 => Event::ControlDrained,
            0x81 if running.is_some() => Event::Ended { death: Death::Unknown, permanent: false },
            0x82.. => Event::Tick,
            byte => Event::Control(byte),
        });
        if matches!(next, Some(Event::Ended { .. })) {
            running = None;
        }
        now += Duration::from_millis(u64::from(byte));
        while let Some(event) = next.take() {
            let mut actions = Vec::new();
            machine.handle(event, now, &mut actions);
            for action in actions {
                next = match action {
                    Action::CheckGate => Some(Event::Gate { gate: Gate::Open, backoff: Backoff::default() }),
                    Action::Start(_) => {
                        assert!(running.is_none());
                        pid += 1;
                        running = Some(pid);
                        Some(Event::Started { pid, limits: Limits::default() })
                    }
                    Action::RunScript(_) => Some(Event::ScriptAbsent),
                    Action::Signal(..) => {
                        assert!(running.is_some());
                        next
                    }
                    _ => next,
                };
            }
        }
        assert_eq!(machine.pid(), running);
    }
});
