//! Which queue, and whether the caller may choose it.
//!
//! The caller is any local user, this program may be set-id. A caller outside the mail system may
//! point CONTROLDIR, QUEUEDIR and QUEUE_BASE only at directories that root or the owner of the
//! queue has set up and nobody else can write to.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::exit::Code;
use crate::inject::Failure;
use crate::layout::{Queue, Shape, exists};
use nix::fcntl::OFlag;
use unix::durable::Durability;
use unix::{Gid, Uid};

use super::variables::Variables;

/// Where queues are unless something says otherwise.
const QUEUE_BASE: &str = "/var/indimail/queue";
/// Queues that are looked for when QUEUE_COUNT does not say how many there are.
const QUEUE_COUNT: u32 = 10;
/// Longest life in seconds unless DEATH says otherwise; below the age at which cleaners take
/// what is left for garbage.
const DEATH: u32 = 86_400;

/// Who started this program.
#[derive(Debug)]
pub struct Caller {
    real: Uid,
    set_id: bool,
    known: Option<Arc<KnownUsers>>,
}

/// Users of the mail system by name, for a process that asks about them again and again.
#[derive(Debug, Default)]
pub struct KnownUsers(BTreeMap<&'static str, Uid>);

impl KnownUsers {
    /// Looks them up. A name that cannot be resolved is nobody.
    #[must_use]
    pub fn look_up() -> Self {
        let found = |name| Some((name, unix::ids::user(name).ok()??.uid));
        Self(["alias", "qmails"].into_iter().filter_map(found).collect())
    }
}

impl Caller {
    /// Whoever has started this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self { real: nix::unistd::getuid(), set_id: unix::host::is_set_id(), known: None }
    }

    /// Somebody at the other end of a socket. `known` are the users of the mail system, looked up before.
    #[must_use]
    pub fn of_peer(uid: Uid, known: Arc<KnownUsers>) -> Self {
        Self { real: uid, set_id: uid != nix::unistd::geteuid(), known: Some(known) }
    }

    /// The caller's user id, which the envelope records.
    pub fn real_uid(&self) -> u32 {
        self.real.as_raw()
    }

    /// Is the caller this user of the mail system? A name that cannot be resolved is nobody (FIX-13).
    ///
    /// Root is not, and where this program is not set-id one user plays all roles: nothing is looked up then.
    pub fn is(&self, name: &str) -> bool {
        self.set_id
            && !self.real.is_root()
            && match &self.known {
                Some(known) => known.0.get(name) == Some(&self.real),
                None => matches!(unix::ids::user(name), Ok(Some(account)) if account.uid == self.real),
            }
    }

    /// Does the caller belong to the mail system, or have no more rights here than of its own?
    fn is_trusted(&self) -> bool {
        let in_group = || {
            let qmail = nix::unistd::getegid();
            nix::unistd::getgid() == qmail
                || nix::unistd::getgroups().is_ok_and(|groups: Vec<Gid>| groups.contains(&qmail))
        };
        !self.set_id
            || self.real.is_root()
            || self.real == nix::unistd::geteuid()
            || ["qmaild", "qmails", "qmailr", "alias", "indimail"].iter().any(|n| self.is(n))
            || in_group()
    }
}

/// Was this directory set up by root or the owner of the queue, and can nobody else write to it?
fn is_ours(meta: &Metadata) -> bool {
    let owned = meta.uid() == 0 || meta.uid() == nix::unistd::geteuid().as_raw();
    let group_may = meta.mode() & 0o020 != 0 && meta.gid() != nix::unistd::getegid().as_raw();
    owned && meta.mode() & 0o002 == 0 && !group_may
}

/// The queue to use; the process is in its directory.
#[derive(Debug)]
pub struct Place {
    /// Its directories, relative to the current one.
    pub queue: Queue,
    /// What is forced to the disk.
    pub durability: Durability,
    /// Seconds that one message may take.
    pub death: u32,
}

impl Place {
    /// Chooses the queue, enters it, and becomes its owner when started by root without set-id.
    pub fn find(variables: &Variables, caller: &Caller) -> Result<Self, Failure> {
        let directory = choose(variables, caller)?;
        let what = || format!("cannot enter the queue directory {}", directory.display());
        let open = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
            .open(&directory)
            .and_then(|f| f.metadata().map(|m| (f, m)));
        let (handle, meta) = open.map_err(Failure::of(Code::CHDIR_QUEUE, what()))?;
        let chosen = ["QUEUEDIR", "QUEUE_BASE", "CONTROLDIR", "SYSCONFDIR"];
        if chosen.iter().any(|n| variables.is_set(n)) && !is_ours(&meta) && !caller.is_trusted() {
            let owner = meta.uid();
            let why = format!("{}: owned by user {owner} or writable by others", what());
            return Err(Failure::new(Code::CHDIR_QUEUE, why));
        }
        become_owner(caller, &meta)
            .and_then(|()| Ok(nix::unistd::fchdir(&handle)?))
            .map_err(Failure::of(Code::CHDIR_QUEUE, what()))?;
        explain_wrong_owner(&directory, &meta)?;
        let shape = shape(variables, caller).map_err(Failure::of(Code::CHDIR_QUEUE, what()))?;
        let death = variables.number("DEATH").filter(|&n| n > 0).unwrap_or(DEATH);
        let death = if death > DEATH && !caller.is_trusted() { DEATH } else { death };
        Ok(Self { queue: Queue::new("", shape), durability: variables.durability(), death })
    }
}

/// A set-id program can write only where its owner may; say so before the kernel says "permission denied".
fn explain_wrong_owner(directory: &Path, meta: &Metadata) -> Result<(), Failure> {
    let me = nix::unistd::geteuid().as_raw();
    if me == meta.uid() {
        return Ok(());
    }
    let (directory, owner) = (directory.display(), meta.uid());
    Err(Failure::new(
        Code::MISCONFIGURED,
        format!(
            "queue directory {directory} belongs to user {owner} but this program runs as user {me}: \
             make qmail-queue set-user-id to the owner of the queue, or run queue-fix {directory}"
        ),
    ))
}

fn become_owner(caller: &Caller, meta: &Metadata) -> std::io::Result<()> {
    if caller.set_id || !nix::unistd::geteuid().is_root() || meta.uid() == 0 {
        return Ok(());
    }
    unix::privilege::become_user(Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()), &[])
}

/// The shape on the disk; variables count only from those who know the installation.
fn shape(variables: &Variables, caller: &Caller) -> std::io::Result<Shape> {
    let (split, bigtodo) = (variables.value("CONFSPLIT"), variables.value("BIGTODO"));
    if (split.is_some() || bigtodo.is_some()) && caller.is_trusted() {
        return Shape::of(Path::new(""), split, bigtodo);
    }
    Shape::of(Path::new(""), None, None)
}

fn choose(variables: &Variables, caller: &Caller) -> Result<PathBuf, Failure> {
    let queues = candidates(variables, caller)?;
    if queues.len() == 1 {
        return queues.into_iter().next().ok_or_else(|| Failure::new(Code::BUG, "no queue"));
    }
    let random = unix::host::random().map_err(Failure::of(Code::CHDIR_QUEUE, "cannot choose a queue"))?;
    let index = usize::try_from(random % queues.len().max(1) as u64).unwrap_or(0);
    queues.into_iter().nth(index).ok_or_else(|| Failure::new(Code::BUG, "no queue"))
}

/// The queues that messages may go to, at least one: QUEUEDIR, or those of the collection.
///
/// # Errors
/// There is none, or it cannot be told.
pub fn candidates(variables: &Variables, caller: &Caller) -> Result<Vec<PathBuf>, Failure> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    if let Some(directory) = variables.value("QUEUEDIR") {
        return Ok(vec![path(directory)]);
    }
    let base = match variables.value("QUEUE_BASE") {
        Some(base) => path(base),
        None => controls(variables, caller)?
            .line("queue_base")
            .map_err(|e| Failure::new(Code::CONFIGURATION, e.to_string()))?
            .filter(|line| !line.is_empty())
            .map_or_else(|| PathBuf::from(QUEUE_BASE), |line| path(&line)),
    };
    let start = variables.number("QUEUE_START").unwrap_or(1);
    collection(&base, start, variables.number("QUEUE_COUNT").filter(|&n| n > 0))
}

/// As many as there are said to be; without a count those that exist, or `base` when it is a queue itself.
fn collection(base: &Path, start: u32, count: Option<u32>) -> Result<Vec<PathBuf>, Failure> {
    let what = || format!("cannot choose a queue in {}", base.display());
    let directory = |n: u32| base.join(format!("queue{}", u64::from(start) + u64::from(n)));
    if let Some(count) = count {
        return Ok((0..count).map(directory).collect());
    }
    let mut there = Vec::new();
    for n in 0..QUEUE_COUNT {
        if exists(&directory(n)).map_err(Failure::of(Code::CHDIR_QUEUE, what()))? {
            there.push(directory(n));
        }
    }
    // An installation of one queue has it in the place of the many.
    if there.is_empty() && exists(&base.join("mess")).map_err(Failure::of(Code::CHDIR_QUEUE, what()))? {
        there.push(base.to_path_buf());
    }
    if there.is_empty() {
        let why = format!("{}: there is none; create one with queue-fix", what());
        return Err(Failure::new(Code::CHDIR_QUEUE, why));
    }
    Ok(there)
}

/// The control directory, unless an outsider points it at a place of his own.
pub fn controls(variables: &Variables, caller: &Caller) -> Result<control::Directory, Failure> {
    let path = |name| variables.value(name).map(|v| Path::new(OsStr::from_bytes(v)));
    let (controldir, sysconfdir) = (path("CONTROLDIR"), path("SYSCONFDIR"));
    let directory = control::Directory::from_environment(controldir, sysconfdir);
    if controldir.is_none() && sysconfdir.is_none() {
        return Ok(directory);
    }
    let shown = directory.path().display().to_string();
    match File::open(directory.path()).and_then(|f| f.metadata()) {
        Ok(meta) if is_ours(&meta) || caller.is_trusted() => Ok(directory),
        Ok(_) => {
            let why =
                format!("control directory {shown}: only mail users may choose one that others can change");
            Err(Failure::new(Code::CONFIGURATION, why))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(directory),
        Err(e) => Err(Failure::of(Code::CONFIGURATION, format!("control directory {shown}"))(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(queues: &[u32]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for n in queues {
            std::fs::create_dir(dir.path().join(format!("queue{n}"))).unwrap();
        }
        dir
    }

    #[test]
    fn queuedir_wins_over_everything() {
        let variables = Variables::from(&[("QUEUEDIR", "/a"), ("QUEUE_BASE", "/b")]);
        assert_eq!(choose(&variables, &Caller::of_this_process()).unwrap(), Path::new("/a"));
    }

    #[test]
    fn messages_spread_evenly_over_a_collection() {
        let variables = Variables::from(&[("QUEUE_BASE", "/q"), ("QUEUE_START", "3"), ("QUEUE_COUNT", "4")]);
        let mut counts = [0u32; 4];
        for _ in 0..4000 {
            let queue = choose(&variables, &Caller::of_this_process()).unwrap();
            let name = queue.file_name().unwrap().to_str().unwrap().to_owned();
            counts[name.strip_prefix("queue").unwrap().parse::<usize>().unwrap() - 3] += 1;
        }
        // Chi-square with 3 degrees of freedom; 30 is passed once in a million runs.
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 30.0, "{counts:?}");
    }

    #[test]
    fn without_a_count_only_existing_queues_are_chosen() {
        let dir = base(&[2, 5]);
        let names = ["queue2", "queue5"].map(|n| dir.path().join(n));
        assert_eq!(collection(dir.path(), 1, None).unwrap(), names);
        let failure = collection(base(&[]).path(), 1, None).unwrap_err();
        assert_eq!(failure.code, Code::CHDIR_QUEUE);
        assert!(failure.to_string().contains("queue-fix"));
    }

    #[test]
    fn base_comes_from_the_control_file_when_no_variable_says_it() {
        let (control, queues) = (tempfile::tempdir().unwrap(), base(&[1]));
        std::fs::write(control.path().join("queue_base"), queues.path().as_os_str().as_bytes()).unwrap();
        let dir = control.path().to_str().unwrap();
        let chosen = choose(&Variables::from(&[("CONTROLDIR", dir)]), &Caller::of_this_process()).unwrap();
        assert_eq!(chosen, queues.path().join("queue1"));
    }
}
