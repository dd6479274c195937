//! A spawner as a service of its queue: descriptors 0 and 1, the queue's `mess` directory.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mta_queue::spawn_protocol::SPAWN_MAX;
use program::{Exit, Invocation};
use unix::Uid;
use unix::ids::RoleError;

use crate::pool::{self, Spawner};

/// Why a spawner cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The users of the mail system are not there.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The queue is not there.
    #[error("{}: {source}", path.display())]
    Queue {
        /// A path in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The requests make no sense or cannot be read.
    #[error("requests from qmail-send: {0}")]
    Requests(io::Error),
}

/// Loads, runs, complains.
pub(crate) fn main<T>(
    invocation: &Invocation,
    load: fn(&Invocation) -> Result<T, Exit>,
    run: fn(T) -> Result<(), Error>,
) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match run(settings) {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

/// Makes the `mess` directory of `queue` the current one.
pub(crate) fn enter(queue: &Path) -> Result<(), Error> {
    let mess = queue.join("mess");
    std::env::set_current_dir(&mess).map_err(|source| Error::Queue { path: mess, source })
}

/// Serves requests for the queue whose `mess` is the current directory until they end; `owner` is
/// who must own its messages.
pub(crate) fn serve(spawner: &mut impl Spawner, owner: Uid) -> Result<(), Error> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let place = pool::Place {
        requests: stdin.as_fd(),
        reports: stdout.as_fd(),
        mess: Path::new("."),
        owner,
        maximum: SPAWN_MAX,
    };
    pool::run(spawner, &place).map_err(Error::Requests)
}
