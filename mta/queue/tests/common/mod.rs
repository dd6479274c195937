//! A queue directory for tests of programs that only inject.

use std::os::unix::fs::chown;
use std::path::Path;

use e2e::kit::set_mode;
use mta_queue::layout::{DIRECTORIES, Queue, Shape};

/// Makes the directories of a queue that is not split in todo, all of them owned by one user.
pub(crate) fn make_queue(root: &Path, split: u32, uid: u32, gid: u32) -> Queue {
    let queue = Queue::new(root, Shape { split, bigtodo: false });
    for row in DIRECTORIES {
        let part = row.part.into_iter().filter(|p| p.is_split(queue.shape()));
        let below = part.flat_map(|p| queue.directories(p)).map(|(_, d)| d);
        for directory in std::iter::once(root.join(row.name)).chain(below) {
            std::fs::create_dir_all(&directory).unwrap();
            chown(&directory, Some(uid), Some(gid)).unwrap();
            set_mode(&directory, row.mode);
        }
    }
    queue
}
