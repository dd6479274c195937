//! How a connection goes on after an event. Only this decides what a connection waits for.

use std::time::{Duration, Instant};

use smtp::server::{Answer, Ending};
use zeroize::Zeroize as _;

use super::connection::{Connection, Shaking, Stage};
use super::core::{Core, Lane, Pause, Site};
use super::wire::Got;
use super::workers::{Task, Workers};

/// How long a client that is cut off may take to read the last reply.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what it still sends is read and dropped meanwhile.
const LINGER_BYTES: usize = 1 << 20;
/// Pieces that are read from one client before the others have their turn.
const PIECES: usize = 8;

/// What a connection needs of its server.
pub(crate) struct Context<'a> {
    pub(crate) key: usize,
    pub(crate) now: Instant,
    pub(crate) draining: bool,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) workers: &'a Workers,
}

impl Connection {
    fn wait(&mut self, stage: Stage, deadline: Option<Instant>) {
        self.stage = stage;
        self.deadline = deadline.map(|d| d.min(self.last));
    }

    /// The socket is ready.
    pub(crate) fn ready(&mut self, context: &mut Context<'_>) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Silence(newcomer) => match self.wire.read(context.buffer) {
                Got::Bytes(_) => {
                    newcomer.log.line("spoke before the greeting");
                    self.say_and_cut(b"554 you spoke before the greeting (#5.5.1)\r\n", context);
                }
                Got::Nothing => {
                    self.stage = Stage::Silence(newcomer);
                    self.wire.watch(true, false);
                }
                Got::End => {}
            },
            Stage::Shaking(whose) => self.shake(whose, context),
            Stage::Reading(core) => self.read(core, context),
            Stage::Writing(core, after) => self.go_on(core, after, context),
            Stage::Lingering(left) => match self.wire.drain(context.buffer) {
                Some(n) if n < left => {
                    self.stage = Stage::Lingering(left - n);
                    self.wire.watch(true, false);
                }
                _ => {}
            },
            other => self.stage = other,
        }
    }

    /// Its time is up.
    pub(crate) fn late(&mut self, context: &mut Context<'_>) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Silence(newcomer) => {
                let core = newcomer.begin(None, self.number);
                self.advance(core, context);
            }
            Stage::Shaking(whose) => self.not_shaken(whose, "no handshake in time", context),
            Stage::Reading(mut core) => {
                core.session.timed_out();
                self.advance(core, context);
            }
            // It does not read: it is gone.
            Stage::Writing(core, _) => self.gone(core, context),
            Stage::Pausing(core) => self.advance(core, context),
            stage @ (Stage::Away | Stage::ShakingAway(_)) => self.stage = stage,
            Stage::Proxy(_) | Stage::Lingering(_) | Stage::Over => {}
        }
    }

    /// The service ends: sessions between two messages are told, the others may finish theirs.
    pub(crate) fn told_to_stop(&mut self, at_once: bool, context: &mut Context<'_>) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Reading(mut core) | Stage::Pausing(mut core) if at_once || core.session.is_idle() => {
                core.session.terminate();
                self.advance(core, context);
            }
            Stage::Silence(_) | Stage::Proxy(_) => {}
            other => self.stage = other,
        }
    }

    fn read(&mut self, mut core: Box<Core>, context: &mut Context<'_>) {
        for _ in 0..PIECES {
            let got = self.wire.read(context.buffer);
            match got {
                Got::Nothing => return self.await_bytes(core, context),
                Got::End => return self.gone(core, context),
                Got::Bytes(n) => take(&mut core, &mut context.buffer[..n]),
            }
            match core.advance(Site::Loop) {
                Pause::Read if core.out.is_empty() => {}
                pause => return self.go_on(core, pause, context),
            }
        }
        // What TLS has decoded already must not wait for an event of the socket.
        self.go_on(core, Pause::Read, context);
    }

    /// Waits for the client's next bytes with as little memory as can be.
    fn await_bytes(&mut self, mut core: Box<Core>, context: &mut Context<'_>) {
        core.session.rest();
        core.out = Vec::new();
        self.wire.watch(true, false);
        let deadline = context.now + core.world.settings().timeout;
        self.wait(Stage::Reading(core), Some(deadline));
    }

    pub(crate) fn advance(&mut self, mut core: Box<Core>, context: &mut Context<'_>) {
        let pause = core.advance(Site::Loop);
        self.go_on(core, pause, context);
    }

    /// The client is gone.
    fn gone(&mut self, mut core: Box<Core>, context: &mut Context<'_>) {
        core.session.end_of_input();
        core.out.clear();
        self.advance(core, context);
    }

    /// Sends what there is, then does what the session waits for.
    pub(crate) fn go_on(&mut self, mut core: Box<Core>, mut pause: Pause, context: &mut Context<'_>) {
        loop {
            // A question may take a while: what was said before goes out with its answer, as under tcpserver.
            if !matches!(pause, Pause::Lane(_)) {
                self.wire.send(&mut core.out);
                if !self.wire.flush() {
                    self.wire.watch(false, true);
                    let deadline = context.now + core.world.settings().timeout;
                    return self.wait(Stage::Writing(core, pause), Some(deadline));
                }
            }
            match pause {
                Pause::Flush => pause = core.advance(Site::Loop),
                Pause::Read if self.wire.is_broken() => {
                    core.session.end_of_input();
                    pause = core.advance(Site::Loop);
                }
                Pause::Read => {
                    if context.draining && core.session.is_idle() {
                        core.session.terminate();
                    } else {
                        match self.wire.buffered(context.buffer) {
                            Got::Nothing => return self.await_bytes(core, context),
                            Got::End => core.session.end_of_input(),
                            Got::Bytes(n) => take(&mut core, &mut context.buffer[..n]),
                        }
                    }
                    pause = core.advance(Site::Loop);
                }
                Pause::Delay(time) => {
                    return self.wait(Stage::Pausing(core), Some(context.now + time));
                }
                Pause::StartTls => {
                    let started = core.world.settings().tls().and_then(|config| self.wire.start_tls(config));
                    if let Err(e) = started {
                        return self.not_shaken(Shaking::Session(core), &e.to_string(), context);
                    }
                    return self.await_handshake(Shaking::Session(core), context);
                }
                Pause::Close(ending) => {
                    self.status = u8::from(ending == Ending::Dropped);
                    return self.close(ending == Ending::Dropped, context);
                }
                Pause::Lane(lane) => {
                    self.wait(Stage::Away, None);
                    if let Err(e) = context.workers.submit(lane, context.key, Task::Session(core)) {
                        // The session went with the task.
                        eprint_line(&format!("cannot start a thread: {e}"));
                        self.say_and_cut(b"421 try again later (#4.3.2)\r\n", context);
                    }
                    return;
                }
            }
        }
    }

    /// Waits for the client's part of a handshake.
    pub(crate) fn await_handshake(&mut self, whose: Shaking, context: &mut Context<'_>) {
        self.wire.watch(true, false);
        let deadline = context.now + whose.timeout();
        self.wait(Stage::Shaking(whose), Some(deadline));
    }

    /// Bytes of a handshake are there, or may be.
    pub(crate) fn shake(&mut self, whose: Shaking, context: &mut Context<'_>) {
        match self.wire.read_handshake() {
            Got::Nothing => self.await_handshake(whose, context),
            Got::End => self.not_shaken(whose, "the client left during the handshake", context),
            Got::Bytes(_) => match self.wire.tls.take() {
                Some(tls) => {
                    self.wait(Stage::ShakingAway(whose), None);
                    if context.workers.submit(Lane::Handshake, context.key, Task::Handshake(tls)).is_err() {
                        self.stage = Stage::Over;
                    }
                }
                None => self.stage = Stage::Over,
            },
        }
    }

    /// A worker has looked at them.
    pub(crate) fn shaken(
        &mut self,
        tls: Box<rustls::ServerConnection>,
        result: Result<(), String>,
        context: &mut Context<'_>,
    ) {
        let Stage::ShakingAway(whose) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
        let facts = (!tls.is_handshaking()).then(|| crate::tls::facts(&tls));
        self.wire.tls = Some(tls);
        // A handshake fits into an empty socket's buffer, and what does not goes out before the next reply.
        self.wire.flush();
        match (result, facts) {
            (Err(why), _) => self.not_shaken(whose, &why, context),
            (Ok(()), None) if self.wire.early.is_empty() => self.await_handshake(whose, context),
            (Ok(()), None) => self.shake(whose, context),
            (Ok(()), Some(facts)) => match whose {
                Shaking::First(newcomer) => {
                    let core = newcomer.begin(Some(facts), self.number);
                    self.advance(core, context);
                }
                Shaking::Session(mut core) => {
                    core.session.answer(Answer::Tls(Some(facts)));
                    self.advance(core, context);
                }
            },
        }
    }

    fn not_shaken(&mut self, whose: Shaking, why: &str, context: &mut Context<'_>) {
        self.status = 1;
        match whose {
            Shaking::First(newcomer) => {
                newcomer.log.line(&format!("TLS: {why}"));
                self.close(true, context);
            }
            Shaking::Session(mut core) => {
                core.log.line(&format!("TLS: {why}"));
                core.session.answer(Answer::Tls(None));
                self.advance(core, context);
            }
        }
    }

    /// Last words to a client that has no session (any more).
    pub(crate) fn say_and_cut(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        self.status = 1;
        self.wire.send(&mut bytes.to_vec());
        self.close(true, context);
    }

    /// Ends the connection in order. A client that is cut off while it is still sending is read from for
    /// a moment, else the kernel would take the last reply back.
    fn close(&mut self, cut: bool, context: &mut Context<'_>) {
        self.wire.flush();
        self.wire.finish();
        if cut && !self.wire.is_broken() {
            self.wire.watch(true, false);
            self.wait(Stage::Lingering(LINGER_BYTES), Some(context.now + LINGER));
        } else {
            self.wait(Stage::Over, None);
        }
    }
}

impl Shaking {
    fn timeout(&self) -> Duration {
        match self {
            Self::First(newcomer) => newcomer.settings.timeout,
            Self::Session(core) => core.world.settings().timeout,
        }
    }
}

fn take(core: &mut Core, bytes: &mut [u8]) {
    let text = core.session.is_receiving();
    core.session.feed(bytes);
    if !text {
        // Passwords pass here.
        bytes.zeroize();
    }
}

/// One line of the log that is about no session.
pub(crate) fn eprint_line(text: &str) {
    eprint_lines(&[text]);
}

/// Lines in one write, since stderr has no buffer and each one wakes the logger.
pub(crate) fn eprint_lines(lines: &[&str]) {
    use std::io::Write as _;
    let text: String = lines.iter().map(|line| format!("qmail-smtpd: {line}\n")).collect();
    // A log that nobody reads must not end the service.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
