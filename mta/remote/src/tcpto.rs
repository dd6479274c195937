//! Hosts that did not answer lately: the table `lock/tcpto`, shared by all processes that send.
//!
//! 64 records of 32 bytes: address family (1 byte), count of errors in a row (byte 4, at most 10),
//! time of the last one (bytes 8 to 11, seconds since 1970, little-endian), address (from byte 16).
//! A host with two errors or more is passed over for a while, which differs from process to process
//! so that not all of them come back at once. A table that cannot be opened or locked counts as empty.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use unix::lock::Lock;

const RECORD: usize = 32;
const RECORDS: usize = 64;
const TABLE: usize = RECORD * RECORDS;
/// Errors beyond this number are not counted.
const MOST_ERRORS: u8 = 10;
/// One error may be an accident.
const ENOUGH_ERRORS: u8 = 2;
/// How long the lock may be held by others.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a host that does not answer is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Seconds; negative: exactly as many, without a random part; 0: never passed over.
    pub min_penalty: i64,
    /// Errors that follow one another within so many seconds count as one.
    pub max_tolerance: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_penalty: 3600, max_tolerance: 120 }
    }
}

impl Limits {
    /// Seconds that this process passes a host over.
    fn penalty(self, pid: u32) -> u64 {
        let spread = (60 + u64::from(pid & 31)) * 64 - 3600;
        let penalty = self.min_penalty.unsigned_abs();
        if self.min_penalty > 0 { penalty.saturating_add(spread) } else { penalty }
    }
}

/// The table's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table([u8; TABLE]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    errors: u8,
    when: u32,
}

impl Table {
    fn find(&self, ip: IpAddr) -> Option<usize> {
        let (family, address) = key(ip);
        (0..RECORDS).find(|&i| {
            let r = &self.0[i * RECORD..][..RECORD];
            r[0] == family && r[16..16 + address.len()] == address[..]
        })
    }

    fn record(&self, index: usize) -> Record {
        let r = &self.0[index * RECORD..][..RECORD];
        Record { errors: r[4], when: u32::from_le_bytes([r[8], r[9], r[10], r[11]]) }
    }

    fn set(&mut self, index: usize, ip: IpAddr, record: Record) {
        let (family, address) = key(ip);
        let r = &mut self.0[index * RECORD..][..RECORD];
        r.fill(0);
        r[0] = family;
        r[4] = record.errors;
        r[8..12].copy_from_slice(&record.when.to_le_bytes());
        r[16..16 + address.len()].copy_from_slice(&address);
    }

    fn is_passed_over(&self, ip: IpAddr, now: u32, limits: Limits, pid: u32) -> bool {
        let found = self.find(ip).map(|i| self.record(i));
        limits.min_penalty != 0
            && found.is_some_and(|r| {
                r.errors >= ENOUGH_ERRORS && u64::from(now.saturating_sub(r.when)) < limits.penalty(pid)
            })
    }

    /// Notes an error; the index of the record that changed.
    fn error(&mut self, ip: IpAddr, now: u32, limits: Limits) -> Option<usize> {
        if let Some(index) = self.find(ip) {
            let old = self.record(index);
            if old.errors > 0 && now < old.when.saturating_add(limits.max_tolerance) {
                return None;
            }
            let errors = old.errors.saturating_add(1).min(MOST_ERRORS);
            self.set(index, ip, Record { errors, when: now });
            return Some(index);
        }
        // A free record, else the one that is oldest, errors counted as a quarter of an hour each.
        let age = |&i: &usize| {
            let r = self.record(i);
            if r.errors == 0 { 0 } else { u64::from(r.when) + u64::from(r.errors) * 1024 }
        };
        let index = (0..RECORDS).min_by_key(age)?;
        self.set(index, ip, Record { errors: 1, when: now });
        Some(index)
    }

    /// Notes that the host answers; the index of the record that changed.
    fn success(&mut self, ip: IpAddr) -> Option<usize> {
        let index = self.find(ip).filter(|&i| self.record(i).errors > 0)?;
        let when = self.record(index).when;
        self.set(index, ip, Record { errors: 0, when });
        Some(index)
    }
}

fn key(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (2, ip.octets().to_vec()),
        IpAddr::V6(ip) => (10, ip.octets().to_vec()),
    }
}

/// The file, or nothing when it cannot be used.
#[derive(Debug)]
pub(crate) struct Hosts<'a> {
    file: &'a Path,
    limits: Limits,
}

impl<'a> Hosts<'a> {
    pub(crate) fn new(file: &'a Path, limits: Limits) -> Self {
        Self { file, limits }
    }

    /// Is this host to be passed over now?
    pub(crate) fn is_passed_over(&self, ip: IpAddr) -> bool {
        let read = || -> io::Result<bool> {
            let table = read(&File::open(self.file)?)?;
            Ok(table.is_passed_over(ip, now(), self.limits, std::process::id()))
        };
        read().unwrap_or(false)
    }

    /// The host did not answer.
    pub(crate) fn error(&self, ip: IpAddr) {
        self.change(|table| table.error(ip, now(), self.limits));
    }

    /// The host answers.
    pub(crate) fn success(&self, ip: IpAddr) {
        // Most hosts are not in the table: look before the lock is taken.
        let listed = || -> io::Result<bool> { Ok(read(&File::open(self.file)?)?.find(ip).is_some()) };
        if listed().unwrap_or(false) {
            self.change(|table| table.success(ip));
        }
    }

    /// A record is written in one go, so that readers need no lock.
    fn change(&self, change: impl FnOnce(&mut Table) -> Option<usize>) {
        let write = || -> io::Result<()> {
            let file = File::options().read(true).write(true).open(self.file)?;
            let Some(lock) = Lock::within(file, LOCK_PATIENCE)? else {
                return Ok(());
            };
            let mut table = read(lock.file())?;
            if let Some(index) = change(&mut table) {
                let at = u64::try_from(index * RECORD).map_err(io::Error::other)?;
                lock.file().write_all_at(&table.0[index * RECORD..][..RECORD], at)?;
            }
            Ok(())
        };
        // The table only saves time; without it every host is tried every time.
        let _ = write();
    }
}

/// A file that is too short is filled up with free records.
fn read(file: &File) -> io::Result<Table> {
    let mut table = Table([0; TABLE]);
    let mut at = 0;
    while at < TABLE {
        match file.read_at(&mut table.0[at..], u64::try_from(at).map_err(io::Error::other)?)? {
            0 => break,
            n => at += n,
        }
    }
    Ok(table)
}

fn now() -> u32 {
    u32::try_from(unix::clock::unix_seconds()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn two_errors_apart_pass_a_host_over_until_the_penalty_is_over() {
        let (mut table, limits) = (Table([0; TABLE]), Limits::default());
        let over = |t: &Table, now, pid| t.is_passed_over(ip(1), now, limits, pid);
        assert!(table.error(ip(1), 1000, limits).is_some());
        assert!(!over(&table, 1001, 0));
        // Within the tolerance it is the same trouble.
        assert_eq!(table.error(ip(1), 1119, limits), None);
        assert!(table.error(ip(1), 1120, limits).is_some());
        assert!(over(&table, 1121, 0) && !table.is_passed_over(ip(2), 1121, limits, 0));
        // 3600 seconds and 4 to 37 minutes more, by process id.
        assert!(over(&table, 1120 + 3600 + 239, 0) && !over(&table, 1120 + 3600 + 240, 0));
        assert!(over(&table, 1120 + 3600 + 2223, 31) && !over(&table, 1120 + 3600 + 2224, 31));
        assert!(table.success(ip(1)).is_some());
        assert!(!over(&table, 1121, 0));
        assert_eq!(table.success(ip(2)), None);
    }

    #[test]
    fn zero_means_never_and_negative_means_exactly() {
        let mut table = Table([0; TABLE]);
        let limits = |min_penalty| Limits { min_penalty, max_tolerance: 0 };
        table.error(ip(1), 10, limits(1));
        table.error(ip(1), 20, limits(1));
        assert!(!table.is_passed_over(ip(1), 21, limits(0), 9));
        assert!(table.is_passed_over(ip(1), 49, limits(-30), 9));
        assert!(!table.is_passed_over(ip(1), 50, limits(-30), 9));
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let (mut table, limits) = (Table([0; TABLE]), Limits::default());
        for n in 0..64 {
            table.error(ip(n), 1000 + u32::from(n), limits);
        }
        table.error("2001:db8::1".parse().unwrap(), 5000, limits);
        assert_eq!(table.find(ip(0)), None);
        assert!(table.find(ip(1)).is_some() && table.find("2001:db8::1".parse().unwrap()).is_some());
        let errors = (0..20).filter(|i| table.error(ip(1), 10_000 + i * 200, limits).is_some()).count();
        assert_eq!((errors, table.record(table.find(ip(1)).unwrap()).errors), (20, MOST_ERRORS));
    }

    #[test]
    fn the_file_has_the_original_layout() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tcpto");
        let hosts = Hosts::new(&path, Limits { min_penalty: 3600, max_tolerance: 0 });
        hosts.error(ip(7));
        assert!(!path.exists() && !hosts.is_passed_over(ip(7)));
        std::fs::write(&path, vec![0; TABLE]).unwrap();
        hosts.error(ip(7));
        hosts.error(ip(7));
        assert!(hosts.is_passed_over(ip(7)));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[4], &bytes[16..20]), (TABLE, 2, 2, &[192, 0, 2, 7][..]));
        hosts.success(ip(7));
        assert!(!hosts.is_passed_over(ip(7)));
        std::fs::write(&path, b"short").unwrap();
        assert!(!hosts.is_passed_over(ip(7)));
    }
}
