//! Control bytes.

use unix::Signal;

use super::events::plain_signal;
use super::{Action, Machine, Main, Since, Target, Why};
use crate::status::Want;

impl Machine {
    pub(super) fn control(&mut self, byte: u8, target: Target, out: &mut Vec<Action>) {
        match byte {
            b'u' => self.want_up(Want::Up, Why::ManualStartup, out),
            b'o' => self.want_up(Want::Once, Why::OneTime, out),
            b'd' => self.want_down(target, out),
            b'D' => {
                out.push(Action::CreateDownFile);
                self.want_down(target, out);
            }
            b'Q' => {
                out.push(Action::CreateDownFile);
                self.want_up(Want::Once, Why::OneTime, out);
            }
            b'r' if self.main == Main::Down => self.want_up(Want::Up, Why::ManualRestart, out),
            b'r' => {
                self.want = Want::Up;
                out.push(Action::Publish(Since::Before));
                self.begin_stop(target, true, out);
            }
            b'x' => self.exiting = true,
            b'G' => self.group_next = true,
            b'p' => self.pause(target, out),
            b'c' => self.resume(target, out),
            b'P' => self.pause(Target::Group, out),
            b'C' => self.resume(Target::Group, out),
            b'K' => self.signal(Target::Group, Signal::SIGKILL, out),
            _ => {
                if let Some(signal) = plain_signal(byte) {
                    self.signal(target, signal, out);
                }
            }
        }
    }

    fn want_up(&mut self, want: Want, why: Why, out: &mut Vec<Action>) {
        self.want = want;
        self.failed = false;
        out.push(Action::Publish(Since::Before));
        if self.main == Main::Down {
            self.pending = Some(why);
            self.start_soon();
        }
    }

    pub(super) fn want_down(&mut self, target: Target, out: &mut Vec<Action>) {
        self.want = Want::Down;
        self.pending = None;
        out.push(Action::Publish(Since::Before));
        self.begin_stop(target, false, out);
    }

    fn pause(&mut self, target: Target, out: &mut Vec<Action>) {
        self.signal(target, Signal::SIGSTOP, out);
        if self.pid().is_some() {
            self.paused = true;
            out.push(Action::Publish(Since::Before));
        }
    }

    fn resume(&mut self, target: Target, out: &mut Vec<Action>) {
        self.signal(target, Signal::SIGCONT, out);
        if self.pid().is_some() {
            self.paused = false;
            out.push(Action::Publish(Since::Before));
        }
    }

    pub(super) fn signal(&self, target: Target, signal: Signal, out: &mut Vec<Action>) {
        if self.pid().is_some() {
            out.push(Action::Signal(target, signal));
        }
    }
}
