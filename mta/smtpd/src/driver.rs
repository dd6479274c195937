//! The loop between a session and the world: it does what it is told and decides nothing.

use program::Exit;
use smtp::server::{Action, Answer, Ending, Query, Session};
use zeroize::Zeroize as _;

use crate::channel::{Channel, Heard};
use crate::log::Log;
use crate::lookups::Lookups;
use crate::world::World;

/// Bytes read at a time.
const PIECE: usize = 32 * 1024;

/// Runs a session to its end.
pub(crate) fn serve(session: &mut Session, channel: &mut Channel, world: &mut World, log: &Log) -> Exit {
    let (mut buffer, mut lookups) = (vec![0; PIECE], Lookups::default());
    loop {
        match session.next_action() {
            Action::Send(bytes) => channel.send(&bytes),
            Action::Flush => {
                channel.flush();
            }
            Action::Read => match channel.read(&mut buffer) {
                Heard::Bytes(n) => {
                    let text = session.is_receiving();
                    session.feed(&buffer[..n]);
                    if !text {
                        // Passwords pass here.
                        buffer[..n].zeroize();
                    }
                }
                Heard::Gone => session.end_of_input(),
                Heard::TimedOut => session.timed_out(),
                Heard::Terminated => session.terminate(),
            },
            Action::Ask(Query::PrepareTls) => session.answer(match world.settings().tls() {
                Ok(_) => Answer::Yes,
                Err(e) => {
                    log.line(&format!("TLS: {e}"));
                    Answer::Unavailable
                }
            }),
            Action::Ask(query) => {
                let answer = world.answer(query, &mut lookups, log);
                session.answer(answer);
            }
            Action::StartTls => {
                let facts = world.settings().tls().and_then(|config| channel.start_tls(config));
                if let Err(e) = &facts {
                    log.line(&format!("TLS: {e}"));
                }
                session.answer(Answer::Tls(facts.ok()));
            }
            Action::Write(bytes) => world.write(&bytes),
            Action::Abandon => world.abandon(),
            Action::Delay(pause) => {
                if !channel.pause(pause) {
                    session.terminate();
                }
            }
            Action::Log(event) => log.event(&event),
            Action::Close(ending) => {
                channel.close(ending == Ending::Dropped);
                return if ending == Ending::Quit { Exit::OK } else { crate::FAILED };
            }
        }
    }
}
