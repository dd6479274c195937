//! What the service says about itself: a newline on a pipe, or datagrams on a socket.

use std::io::Read;
use std::os::fd::AsFd;

use unix::fd::Raw;
use unix::notify::Origin;

use super::Driver;
use crate::supervise::machine::Event;
use crate::supervise::notice::Notice;

/// Longer datagrams are cut.
const MAX_NOTICE: usize = 4096;
/// Datagrams read in one turn.
const BATCH: usize = 32;

impl Driver<'_> {
    pub(super) fn take_announcement(&mut self) {
        let Some(pipe) = &self.announcement else { return };
        let mut bytes = [0; 64];
        match Raw(pipe.as_fd()).read(&mut bytes) {
            Ok(n) if bytes[..n].contains(&b'\n') => {
                self.announcement = None;
                self.feed(Event::Ready);
            }
            // It has closed its end and will never say it.
            Ok(0) => self.announcement = None,
            Ok(_) | Err(_) => {}
        }
    }

    pub(super) fn take_notices(&mut self) {
        let mut buffer = [0; MAX_NOTICE];
        for _ in 0..BATCH {
            let Some(notices) = &self.state.notices else { return };
            match notices.receive(&mut buffer) {
                Ok(Some((datagram, origin))) if self.may_speak(origin) => {
                    let notice = Notice::parse(datagram);
                    self.heed(&notice);
                }
                Ok(Some((_, origin))) => {
                    self.info(&format!("process {} is not of the service: not heard", origin.pid));
                }
                Ok(None) => return,
                Err(e) => {
                    self.warn(&format!("unable to read the notification socket: {e}"));
                    return;
                }
            }
        }
    }

    /// The service and its descendants. One that has ended already, as a helper of a script may have,
    /// is believed when it belonged to who we are.
    fn may_speak(&self, origin: Origin) -> bool {
        if self.service.pid().is_none() {
            return false;
        }
        let gone = origin.pid <= 0
            || !matches!(unix::process::start_time(unix::Pid::from_raw(origin.pid)), Ok(Some(_)));
        if gone {
            return origin.uid == nix::unistd::geteuid().as_raw();
        }
        self.is_of_service(origin.pid)
    }

    fn heed(&mut self, notice: &Notice<'_>) {
        if let Some(pid) = notice.main_pid {
            self.follow(pid);
        }
        if let Some(text) = notice.status
            && let Err(e) = self.state.keep_message(Some(text))
        {
            self.warn(&format!("unable to keep what the service says: {e}"));
        }
        if notice.ready {
            self.feed(Event::Ready);
        }
        if notice.stopping {
            self.feed(Event::Stopping);
        }
        if notice.alive {
            self.feed(Event::Alive);
        }
    }
}
