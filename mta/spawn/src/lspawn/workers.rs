//! Processes that deliver for one user each and stay for the next message.
//!
//! | a worker | then |
//! |---|---|
//! | has not said hello when it ends | it has not begun anything: its deliveries go to programs |
//! | ends otherwise | what it has not answered for is deferred, as if qmail-local had ended so |
//! | is at a delivery for too long, or talks nonsense | it is killed |
//! | has no delivery for a minute, or is needed for another user | its connection is closed, and it ends |
//!
//! It runs as the recipient, who may do with it what he likes: stop it, kill it, or lie about his own mail.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs::File, io};

use mta_queue::worker_protocol::{Answer, MESSAGE_MAX, Request};
use nix::sys::signal::kill;
use program::Environment;
use unix::child::{Ending, Launch, wait_for, wait_until};
use unix::clock::Deadline;
use unix::passing;
use unix::wait::Interest;
use unix::{Gid, Pid, Signal, Uid};

/// How long a worker waits for the next message.
const IDLE: Duration = Duration::from_secs(60);
/// How long it gets new messages; what may have piled up in it goes with it.
const AGE: Duration = Duration::from_secs(3600);
/// Workers at a time; when all of them are at work, deliveries of further users go to programs.
const WORKERS_MAX: usize = 20;
/// How long nobody starts one after it could not be done.
const PAUSE: Duration = Duration::from_secs(5);
/// Answers taken from one worker at a time, so that it cannot keep us from the others.
const ANSWERS_MAX: usize = 64;
/// How long the last ones may take to end.
const END: Duration = Duration::from_secs(5);

/// What is known about a delivery now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// As if a qmail-local had ended like this and printed that.
    Ended(Ending, Vec<u8>),
    /// Nothing was delivered; a program can do it.
    NeedsProgram,
}

#[derive(Debug)]
struct Worker {
    user: (Uid, Gid),
    pid: Pid,
    /// `None`: it has been told to end.
    socket: Option<OwnedFd>,
    greeted: bool,
    killed: bool,
    /// Its deliveries, and when it is given up for them.
    open: BTreeMap<u16, Deadline>,
    idle: Deadline,
    old: Deadline,
}

impl Worker {
    fn takes(&self, user: (Uid, Gid)) -> bool {
        self.user == user && self.socket.is_some() && !self.killed && !self.old.passed()
    }

    fn kill(&mut self) {
        if !self.killed {
            self.killed = true;
            // It is our child and has not been waited for, so the number is its own.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Workers {
    program: PathBuf,
    environment: Environment,
    patience: Duration,
    all: Vec<Worker>,
    told: BTreeMap<u16, Told>,
    none_before: Option<Deadline>,
    buffer: Vec<u8>,
}

impl Workers {
    /// `program`, with this environment, may be at a delivery for that long.
    pub(super) fn new(program: PathBuf, environment: Environment, patience: Duration) -> Self {
        let (all, told, buffer) = (Vec::new(), BTreeMap::new(), vec![0; MESSAGE_MAX]);
        Self { program, environment, patience, all, told, none_before: None, buffer }
    }

    /// Gives a delivery to the worker of this user. False: there is none to be had now, or it has no room.
    pub(super) fn give(&mut self, user: (Uid, Gid), request: &Request, message: BorrowedFd<'_>) -> bool {
        let Some(bytes) = request.encode() else { return false };
        let known = self.all.iter().position(|w| w.takes(user));
        let Some(worker) = known.or_else(|| self.add(user)).and_then(|at| self.all.get_mut(at)) else {
            return false;
        };
        let Some(socket) = &worker.socket else { return false };
        if passing::send_now(socket, &bytes, Some(message)).is_err() {
            return false;
        }
        worker.open.insert(request.number, Deadline::after(self.patience));
        true
    }

    /// Starts a worker; its place.
    fn add(&mut self, user: (Uid, Gid)) -> Option<usize> {
        if self.none_before.is_some_and(|d| !d.passed()) {
            return None;
        }
        let connected = self.all.iter().filter(|w| w.socket.is_some());
        if self.all.len() >= WORKERS_MAX {
            // The one that has waited longest makes room; until it has ended, programs do the work.
            let longest = connected.filter(|w| w.open.is_empty()).min_by_key(|w| w.idle).map(|w| w.pid)?;
            self.all.iter_mut().filter(|w| w.pid == longest).for_each(|w| w.socket = None);
            return None;
        }
        match self.launch(user) {
            Ok((pid, socket)) => {
                let (idle, old) = (Deadline::after(IDLE), Deadline::after(AGE));
                let socket = Some(socket);
                let open = BTreeMap::new();
                self.all.push(Worker { user, pid, socket, greeted: false, killed: false, open, idle, old });
                Some(self.all.len() - 1)
            }
            Err(_) => {
                self.pause();
                None
            }
        }
    }

    fn launch(&self, (uid, gid): (Uid, Gid)) -> io::Result<(Pid, OwnedFd)> {
        let (ours, theirs) = passing::pair()?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let pid = Launch::new(&self.program)
            .env_exactly(self.environment.to_vec())
            .directory("/")
            .descriptor(theirs.as_fd(), 0)?
            .descriptor(null.as_fd(), 1)?
            .descriptor(null.as_fd(), 2)?
            .identity(uid, gid, Vec::new())
            .start()?;
        Ok((pid, ours))
    }

    fn pause(&mut self) {
        self.none_before = Some(Deadline::after(PAUSE));
    }

    /// Where answers come from.
    pub(super) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        let talking = self.all.iter().filter(|w| !w.killed);
        talking.filter_map(|w| Some((w.socket.as_ref()?.as_fd(), Interest::Read)))
    }

    /// When to look even if nothing came.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let due = |w: &Worker| w.open.values().min().copied().or(Some(w.idle)).filter(|_| w.socket.is_some());
        self.all.iter().filter(|w| !w.killed).filter_map(due).min()
    }

    /// Takes what has come; the deliveries that can go on.
    pub(super) fn look(&mut self) -> Vec<u16> {
        for worker in self.all.iter_mut().filter(|w| !w.killed) {
            hear(worker, &mut self.buffer, &mut self.told);
            if worker.open.values().any(|d| d.passed()) {
                worker.kill();
            } else if worker.open.is_empty() && (worker.idle.passed() || worker.old.passed()) {
                worker.socket = None;
            }
        }
        self.told.keys().copied().collect()
    }

    /// What became of a delivery that [`Workers::look`] named.
    pub(super) fn take(&mut self, number: u16) -> Option<Told> {
        self.told.remove(&number)
    }

    /// A child has ended; if it was a worker, its deliveries can go on.
    pub(super) fn gone(&mut self, pid: Pid, ending: Ending) {
        let Some(at) = self.all.iter().position(|w| w.pid == pid) else { return };
        let mut worker = self.all.remove(at);
        // What it answered before its end counts.
        while hear(&mut worker, &mut self.buffer, &mut self.told) {}
        if !worker.greeted {
            self.pause();
        }
        for number in worker.open.into_keys() {
            let told = match (worker.greeted, ending) {
                (false, _) => Told::NeedsProgram,
                (true, Ending::Killed(_)) => Told::Ended(ending, Vec::new()),
                // No worker leaves a delivery behind by itself; whatever this one thought, it is not the mail.
                (true, Ending::Exited(_)) => Told::Ended(
                    Ending::Exited(111),
                    b"qmail-lworker ended in the middle of the delivery (#4.3.0)\n".to_vec(),
                ),
            };
            self.told.insert(number, told);
        }
    }

    /// Ends all of them, and waits until they have ended.
    pub(super) fn finish(&mut self) {
        let end = Deadline::after(END);
        self.all.iter_mut().for_each(|w| w.socket = None);
        for mut worker in self.all.drain(..) {
            if !matches!(wait_until(worker.pid, end), Ok(Some(_))) {
                worker.kill();
                // The kernel owes us its end.
                let _ = wait_for(worker.pid);
            }
        }
    }
}

/// Takes answers; was there one? A worker that talks nonsense is killed.
fn hear(worker: &mut Worker, buffer: &mut [u8], told: &mut BTreeMap<u16, Told>) -> bool {
    let Some(socket) = &worker.socket else { return false };
    for taken in 0..ANSWERS_MAX {
        let received = match passing::receive(socket, buffer, false) {
            Ok(received) if received.length > 0 => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return taken > 0,
            // It has closed the connection. Without one it is of no use, and by its end we know its deliveries.
            Ok(_) | Err(_) => {
                worker.kill();
                return taken > 0;
            }
        };
        let answer = buffer.get(..received.length).filter(|_| !received.cut).and_then(Answer::decode);
        let (number, outcome) = match answer {
            Some(Answer::Hello) if !worker.greeted => {
                worker.greeted = true;
                continue;
            }
            Some(Answer::Ended { number, code, text }) => {
                (number, Told::Ended(Ending::Exited(i32::from(code)), text))
            }
            Some(Answer::NeedsProgram(number)) => (number, Told::NeedsProgram),
            Some(Answer::Hello) | None => {
                worker.kill();
                return false;
            }
        };
        if !worker.greeted || worker.open.remove(&number).is_none() {
            worker.kill();
            return false;
        }
        worker.idle = Deadline::after(IDLE);
        told.insert(number, outcome);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use mta_queue::worker_protocol::Role;

    /// Workers with one of root's own making: a process that does nothing, and the other end.
    fn workers() -> (Workers, OwnedFd, Pid) {
        let mut workers = Workers::new("/nonexistent".into(), Environment::default(), IDLE);
        let (ours, theirs) = passing::pair().unwrap();
        let pid = Launch::new("/bin/sleep").args(["1000"]).start().unwrap();
        let (idle, old) = (Deadline::after(IDLE), Deadline::after(AGE));
        let (socket, open) = (Some(ours), BTreeMap::new());
        workers.all.push(Worker { user: USER, pid, socket, greeted: false, killed: false, open, idle, old });
        (workers, theirs, pid)
    }

    const USER: (Uid, Gid) = (Uid::from_raw(4711), Gid::from_raw(4711));

    fn give(workers: &mut Workers, user: (Uid, Gid), number: u16) -> bool {
        let operands = vec![Vec::new(); 9];
        let request = Request { number, role: Role::Local, operands, variables: Vec::new() };
        let null = File::open("/dev/null").unwrap();
        workers.give(user, &request, null.as_fd())
    }

    fn say(worker: &OwnedFd, answer: &Answer) {
        passing::send_whole(worker, &answer.encode()).unwrap();
    }

    fn ended(number: u16) -> Answer {
        Answer::Ended { number, code: 0, text: b"did 1\n".to_vec() }
    }

    /// Kills it if nobody has; what became of its deliveries.
    fn end(workers: &mut Workers, pid: Pid) -> Ending {
        let _ = kill(pid, Signal::SIGKILL);
        let ending = wait_for(pid).unwrap();
        workers.gone(pid, ending);
        ending
    }

    #[test]
    fn answers_before_the_end_count_and_the_rest_is_deferred() {
        let (mut workers, theirs, pid) = workers();
        assert!((1..=3).all(|n| give(&mut workers, USER, n)));
        for answer in [Answer::Hello, ended(2), Answer::NeedsProgram(3)] {
            say(&theirs, &answer);
        }
        let ending = end(&mut workers, pid);
        assert_eq!(workers.look(), [1, 2, 3]);
        assert_eq!(workers.take(1), Some(Told::Ended(ending, Vec::new())));
        assert_eq!(workers.take(2), Some(Told::Ended(Ending::Exited(0), b"did 1\n".to_vec())));
        assert_eq!(workers.take(3), Some(Told::NeedsProgram));
        assert!(workers.look().is_empty() && workers.all.is_empty());
    }

    #[test]
    fn one_that_never_came_up_has_done_nothing() {
        let (mut workers, _theirs, pid) = workers();
        assert!(give(&mut workers, USER, 1));
        end(&mut workers, pid);
        assert_eq!(workers.take(1), Some(Told::NeedsProgram));
        // And none is started for a while.
        assert!(workers.none_before.is_some() && !give(&mut workers, USER, 2));
    }

    #[test]
    fn nonsense_and_lies_about_other_deliveries_are_the_end_of_it() {
        for answers in [
            vec![vec![7]],
            vec![Answer::Hello.encode(), Answer::Hello.encode()],
            vec![Answer::Hello.encode(), ended(2).encode()],
            vec![Answer::Hello.encode(), ended(1).encode(), ended(1).encode()],
            vec![ended(1).encode()],
        ] {
            let (mut workers, theirs, pid) = workers();
            assert!(give(&mut workers, USER, 1));
            for bytes in &answers {
                passing::send_whole(&theirs, bytes).unwrap();
            }
            workers.look();
            assert!(workers.all[0].killed && !give(&mut workers, USER, 3), "{answers:?}");
            assert_eq!(wait_for(pid).unwrap(), Ending::Killed(9));
            workers.gone(pid, Ending::Killed(9));
            assert_eq!(workers.look(), [1], "{answers:?}");
        }
    }

    #[test]
    fn a_worker_serves_one_user() {
        let (mut workers, _theirs, pid) = workers();
        for other in [(Uid::from_raw(4711), Gid::from_raw(1)), (Uid::from_raw(1), Gid::from_raw(4711))] {
            assert!(!give(&mut workers, other, 1));
        }
        end(&mut workers, pid);
    }

    #[test]
    fn the_one_that_has_waited_longest_makes_room() {
        let (mut workers, _theirs, pid) = workers();
        let first = workers.all.remove(0);
        let mut others = Vec::new();
        for n in 0..WORKERS_MAX {
            let (ours, theirs) = passing::pair().unwrap();
            others.push(theirs);
            let seconds = u32::try_from(n).unwrap();
            // Number 0 is at work; of the others, 1 has waited longest.
            let open = if n == 0 { BTreeMap::from([(0, Deadline::after(IDLE))]) } else { BTreeMap::new() };
            let (idle, old) = (Deadline::after(IDLE + Duration::from_secs(seconds.into())), first.old);
            let user = (Uid::from_raw(1000 + seconds), Gid::from_raw(1000));
            // Nobody's number: none of them is killed.
            let pid = Pid::from_raw(i32::MAX - i32::try_from(n).unwrap());
            workers.all.push(Worker {
                user,
                pid,
                socket: Some(ours),
                greeted: true,
                killed: false,
                open,
                idle,
                old,
            });
        }
        assert!(!give(&mut workers, USER, 1), "there is no room yet");
        let told_to_end: Vec<usize> = (0..WORKERS_MAX).filter(|&n| workers.all[n].socket.is_none()).collect();
        assert_eq!(told_to_end, [1]);
        let gone = workers.all[1].pid;
        workers.gone(gone, Ending::Exited(0));
        // All others are at work: nobody is sent away.
        let (ours, _theirs) = passing::pair().unwrap();
        workers.all.push(Worker { socket: Some(ours), ..first });
        for worker in &mut workers.all {
            worker.open.insert(9, Deadline::after(IDLE));
        }
        assert!(!give(&mut workers, (Uid::from_raw(7), Gid::from_raw(7)), 2));
        assert!(workers.all.iter().all(|w| w.socket.is_some()));
        end(&mut workers, pid);
    }

    #[test]
    fn one_that_is_late_is_killed_and_one_without_work_is_let_go() {
        let (mut workers, theirs, pid) = workers();
        workers.patience = Duration::ZERO;
        assert!(give(&mut workers, USER, 1));
        say(&theirs, &Answer::Hello);
        assert!(workers.look().is_empty() && workers.deadline().is_none());
        assert_eq!(wait_for(pid).unwrap(), Ending::Killed(9));
        workers.gone(pid, Ending::Killed(9));
        assert_eq!(workers.take(1), Some(Told::Ended(Ending::Killed(9), Vec::new())));

        let (mut workers, theirs, pid) = self::workers();
        say(&theirs, &Answer::Hello);
        workers.all[0].idle = Deadline::after(Duration::ZERO);
        workers.look();
        assert!(workers.all[0].socket.is_none() && !workers.all[0].killed);
        assert_eq!(passing::receive(&theirs, &mut [0; 9], true).unwrap().length, 0);
        end(&mut workers, pid);
    }
}
