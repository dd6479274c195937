//! A whole SMTP session: the same bytes in one piece and byte by byte give the same replies.
#![no_main]

use std::sync::Arc;

use smtp::server::{Action, Additions, Answer, Login, Peer, Policy, Query, RecipientState, Session};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(replies(&[data]), replies(&bytes));
});

fn replies(pieces: &[&[u8]]) -> Vec<u8> {
    let mut session = Session::new(Arc::new(Policy::default()), Peer::default());
    let (mut pieces, mut out) = (pieces.iter(), Vec::new());
    loop {
        match session.next_action() {
            Action::Send(bytes) => out.extend(bytes),
            Action::Read => match pieces.next() {
                Some(piece) => session.feed(piece),
                None => session.end_of_input(),
            },
            Action::Ask(query) => session.answer(match query {
                Query::LocalDomain(_) => Answer::Yes,
                Query::Recipient(_) => Answer::Recipient(RecipientState::Exists),
                Query::Authenticate { .. } => Answer::Login(Login::Wrong),
                Query::Open(_) => Answer::Opened(Additions::default()),
                Query::Commit { .. } => Answer::Queued { time: 1, qp: 2 },
                _ => Answer::No,
            }),
            Action::StartTls => session.answer(Answer::Unavailable),
            Action::Close(_) => return out,
            _ => {}
        }
    }
}
