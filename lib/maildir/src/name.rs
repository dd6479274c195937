//! Names no two deliveries share.

use std::sync::atomic::{AtomicU32, Ordering};

/// Deliveries begun by this process; the clock alone could repeat itself.
static BEGUN: AtomicU32 = AtomicU32::new(0);

/// The host's name as part of a file name: `/` and `:` have meaning there and are spelled `\057`
/// and `\072`.
#[must_use]
pub fn host_part(host: &str) -> String {
    host.replace('/', "\\057").replace(':', "\\072")
}

/// What makes a delivery unique on this host: time, process and count.
#[derive(Debug, Clone)]
pub(crate) struct Unique {
    seconds: u64,
    tail: String,
}

impl Unique {
    /// The next one.
    pub(crate) fn next() -> Self {
        let now = unix::clock::since_epoch();
        let count = BEGUN.fetch_add(1, Ordering::Relaxed);
        let tail = format!(
            "M{}P{}Q{count}.{}",
            now.subsec_micros(),
            std::process::id(),
            host_part(&unix::host::name())
        );
        Self { seconds: now.as_secs(), tail }
    }

    /// The name in `tmp`.
    pub(crate) fn temporary(&self) -> String {
        format!("{}.{}", self.seconds, self.tail)
    }

    /// The name in `new`: inode and device make it unique on the file system, the size saves
    /// quota programs a stat.
    pub(crate) fn delivered(&self, inode: u64, device: u64, size: u64) -> String {
        format!("{}.I{inode:x}V{device:x}{},S={size}", self.seconds, self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_stay_in_their_directory() {
        let (a, b) = (Unique::next(), Unique::next());
        assert_ne!(a.temporary(), b.temporary());
        assert_eq!(host_part("a/b:c"), "a\\057b\\072c");
        let name = a.delivered(255, 16, 9);
        assert!(name.contains(".IffV10M") && name.ends_with(",S=9") && !name.contains(['/', ':']), "{name}");
    }
}
