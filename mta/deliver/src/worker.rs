//! qmail-lworker: deliveries of one user without a program for each.
//!
//! ```text
//! qmail-lspawn ─ request, message ─► threads, each with a current directory of its own ─► Maildir
//!              ◄─ code and text ────┘        └ their waits for the disk are shared (unix::gather)
//! ```
//!
//! The code is that of qmail-local and vdelivermail, up to where a program would be started: a delivery that
//! needs one is handed back before anything of it was done. A thread closes a message after it has answered
//! for it, so the open ones are those that may be in a Maildir without anybody knowing.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use mta_queue::worker_protocol::{Answer, MESSAGE_MAX, Request, Role};
use program::{Environment, Exit, ExitCodeDoc, Invocation, Layout, Place, Program, Spec};
use unix::gather::Gather;
use unix::passing::{self, Received};

use crate::message_file::Message;
use crate::{local, virtual_delivery};

/// Deliveries at the same time; further ones wait in the connection.
const THREADS_MAX: usize = 40;
/// The deepest part of a delivery keeps a few buffers of 8 KiB there.
const STACK: usize = 256 * 1024;

static SPEC: Spec = Spec {
    name: "qmail-lworker",
    summary: "deliver to the Maildirs of one user for qmail-lspawn",
    section: 8,
    place: Place::Libexec,
    exits: &[
        ExitCodeDoc { code: 0, meaning: "no more requests, all deliveries done" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "it was started as root, or not by qmail-lspawn" },
    ],
    description: "qmail-lworker is started by qmail-lspawn as a recipient, with a connection as descriptor 0, and does what \
        qmail-local and vdelivermail would do for each message, with their variables and control files. It ends when \
        qmail-lspawn closes the connection, which it does after a minute without mail for that user.\n\n\
        It starts no programs. A message that needs one (a command, a forward, an mbox file, an alias, a question to \
        inlookup) goes back untouched, and qmail-lspawn starts qmail-local for it. Messages for the same user \
        that are under way at the same time are forced out to the disk together.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Why it cannot work.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("not allowed to deliver mail as root; qmail-lspawn starts this program as the recipient")]
    Root,
    #[error("descriptor 0: {0}; it must be a connection to qmail-lspawn")]
    Connection(io::Error),
}

fn main(invocation: &Invocation) -> Exit {
    if let Err(exit) = invocation.parse_all() {
        return exit;
    }
    match run(invocation) {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

/// What the threads share.
struct Worker {
    socket: OwnedFd,
    environment: Environment,
    layout: Layout,
    gather: Arc<Gather>,
    /// Threads that wait for a request.
    free: AtomicUsize,
    running: AtomicUsize,
    most: usize,
    others: Mutex<Vec<JoinHandle<()>>>,
}

fn run(invocation: &Invocation) -> Result<(), Error> {
    if unix::Uid::effective().is_root() {
        return Err(Error::Root);
    }
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(Error::Connection)?;
    // Where threads cannot have directories of their own, one message follows the other. Where a sandbox kills
    // for asking, that must come before the promise to deliver.
    let most = if unix::process::own_directory().is_ok() { THREADS_MAX } else { 1 };
    passing::send_whole(&socket, &Answer::Hello.encode()).map_err(Error::Connection)?;
    let worker = Arc::new(Worker {
        socket,
        environment: invocation.environment.clone(),
        layout: invocation.layout.clone(),
        gather: Arc::default(),
        free: AtomicUsize::new(0),
        running: AtomicUsize::new(1),
        most,
        others: Mutex::default(),
    });
    serve(&worker);
    // A thread that is waited for has put those that it started into the list before.
    while let Some(thread) = worker.others().pop() {
        // It catches its own panics.
        let _ = thread.join();
    }
    Ok(())
}

impl Worker {
    fn others(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        // Nothing panics while it holds the lock.
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more thread, unless there are enough; without one the requests wait a little.
    fn reinforce(self: &Arc<Self>) {
        if self.running.fetch_add(1, Ordering::Relaxed) < self.most {
            let theirs = self.clone();
            let body = move || {
                if unix::process::own_directory().is_ok() {
                    serve(&theirs);
                }
                theirs.running.fetch_sub(1, Ordering::Relaxed);
            };
            if let Ok(thread) = std::thread::Builder::new().stack_size(STACK).spawn(body) {
                self.others().push(thread);
                return;
            }
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    fn deliver(&self, request: &Request, message: &Message) -> Answer {
        let mut environment = self.environment.clone();
        for (name, value) in &request.variables {
            environment.set(OsString::from_vec(name.clone()), OsString::from_vec(value.clone()));
        }
        let operands = request.operands.iter().cloned().map(OsString::from_vec);
        let arguments = std::iter::once("--".into()).chain(operands).collect();
        let resident = Some(self.gather.clone());
        let invocation = |spec| Invocation::new(spec, arguments, environment, self.layout.clone());
        let done = match request.role {
            Role::Local => local::deliver_here(&invocation(local::PROGRAM.spec), message, &resident),
            Role::Account => {
                let invocation = invocation(virtual_delivery::PROGRAM.spec);
                virtual_delivery::deliver_here(&invocation, message, &resident)
            }
        };
        let number = request.number;
        match done {
            Some((code, line)) => {
                let newline = if line.is_empty() { "" } else { "\n" };
                Answer::Ended { number, code: code.0, text: [line.as_bytes(), newline.as_bytes()].concat() }
            }
            None => Answer::NeedsProgram(number),
        }
    }
}

/// Takes requests until there are no more.
fn serve(worker: &Arc<Worker>) {
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        worker.free.fetch_add(1, Ordering::Relaxed);
        let received = passing::receive(&worker.socket, &mut buffer, true);
        let was_last = worker.free.fetch_sub(1, Ordering::Relaxed) == 1;
        let Ok(Received { length: length @ 1.., cut, descriptor }) = received else { return };
        if was_last {
            worker.reinforce();
        }
        // qmail-lspawn sends nothing that makes no sense; were there such a thing, it had no number.
        let Some(message) = descriptor.filter(|_| !cut) else { continue };
        let Some(request) = buffer.get(..length).and_then(Request::decode) else { continue };
        let message = Message::new(File::from(message));
        let at_work = worker.gather.begin();
        let answer = catch_unwind(AssertUnwindSafe(|| worker.deliver(&request, &message)));
        drop(at_work);
        let answer = answer.unwrap_or_else(|_| Answer::Ended {
            number: request.number,
            code: Exit::TEMPORARY.0,
            text: b"a mistake in qmail-lworker ended the delivery (#4.3.0)\n".to_vec(),
        });
        // Nobody there: qmail-send starts over with what is not reported.
        let _ = passing::send_whole(&worker.socket, &answer.encode());
        drop(message);
        // No home is kept busy.
        let _ = std::env::set_current_dir(Path::new("/"));
    }
}
