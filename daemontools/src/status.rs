//! The status record of a service: `supervise/status`.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0-11 | packed TAI64N of the last change of state |
//! | 12-15 | pid of the service, little endian; 0 while it is down |
//! | 16 | 1: paused |
//! | 17 | `u` wanted up, `d` wanted down, 0 run once |
//! | 18-19 | seconds left of a wait, little endian; 0 none, -2 another service is not up, -3 the lock is held |
//! | 20 | 1: up, 0: down |
//! | 21-24 | pid of supervise, little endian |
//! | 25 | bits: 1 readiness is announced, 2 ready, 4 stopping, 8 failed for good, 16 last exited, 32 last killed |
//! | 26-37 | packed TAI64N of when it became ready |
//! | 38-41 | how often it was started again after an end that nobody asked for, little endian |
//! | 42 | exit code or signal of the last end |
//! | 43 | 0 |
//!
//! The first 18 bytes are those of the original daemontools. Readers take every length that the family
//! writes: 18, 20, 21, 40, our former 25, our 44, and 35 and 43 of s6, which is big endian throughout.

use std::time::Duration;

use tai::Label;
use unix::child::Ending;

/// Bytes of the record we write.
pub const LEN: usize = 44;
/// Bytes every member of the family writes.
pub const COMMON_LEN: usize = 18;
/// Our labels count leap seconds as if there had been none since 1970; those of s6 count them.
const LEAP_SECONDS: Duration = Duration::from_secs(27);

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Running, and started again when it ends.
    Up,
    /// Stopped.
    Down,
    /// Running, and not started again.
    Once,
}

/// Does the service say when it is ready, and has it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It does not say: up is all there is to know.
    Silent,
    /// It will.
    Awaited,
    /// It has, then.
    Since(Label),
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When the state changed last.
    pub since: Label,
    /// Process id of the service; `None` while it is down.
    pub pid: Option<u32>,
    /// Stopped by a signal of the operator?
    pub paused: bool,
    /// What the operator wants.
    pub want: Want,
    /// A wait before the start.
    pub wait: Wait,
    /// Process id of supervise, where the record has it.
    pub supervise: Option<u32>,
    /// Is it ready?
    pub readiness: Readiness,
    /// Has it said that it is stopping?
    pub stopping: bool,
    /// Has it asked not to be started again?
    pub failed: bool,
    /// How often it was started again after an end that nobody asked for.
    pub restarts: u32,
    /// How it ended last, where that is known.
    pub last: Option<Ending>,
}

/// A wait before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// There is none.
    None,
    /// Another service is not up yet.
    ForService,
    /// What an earlier instance of the service has left running holds its lock.
    ForLock,
    /// The other service is up; this many seconds are left.
    Seconds(u16),
}

/// The bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad format: {0} bytes, expected at least {COMMON_LEN}")]
pub struct BadRecord(pub usize);

impl Record {
    /// A service that is down since then, and nothing else known.
    #[must_use]
    pub fn down(since: Label, want: Want) -> Self {
        Self {
            since,
            pid: None,
            paused: false,
            want,
            wait: Wait::None,
            supervise: None,
            readiness: Readiness::Silent,
            stopping: false,
            failed: false,
            restarts: 0,
            last: None,
        }
    }

    /// Is it running, and ready if it says when it is?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pid.is_some() && self.readiness != Readiness::Awaited
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..12].copy_from_slice(&self.since.pack());
        out[12..16].copy_from_slice(&self.pid.unwrap_or(0).to_le_bytes());
        out[16] = u8::from(self.paused && self.pid.is_some());
        out[17] = match self.want {
            Want::Up => b'u',
            Want::Down => b'd',
            Want::Once => 0,
        };
        let wait = match self.wait {
            Wait::None => 0,
            Wait::ForService => -2,
            Wait::ForLock => -3,
            Wait::Seconds(n) => i16::try_from(n).unwrap_or(i16::MAX),
        };
        out[18..20].copy_from_slice(&wait.to_le_bytes());
        out[20] = u8::from(self.pid.is_some());
        out[21..25].copy_from_slice(&self.supervise.unwrap_or(0).to_le_bytes());
        let (readiness, ready) = match self.readiness {
            Readiness::Silent => (0, [0; 12]),
            Readiness::Awaited => (1, [0; 12]),
            Readiness::Since(label) => (3, label.pack()),
        };
        let (last, value) = match self.last {
            None => (0, 0),
            Some(Ending::Exited(code)) => (16, code),
            Some(Ending::Killed(signal)) => (32, signal),
        };
        out[25] = readiness | u8::from(self.stopping) << 2 | u8::from(self.failed) << 3 | last;
        out[26..38].copy_from_slice(&ready);
        out[38..42].copy_from_slice(&self.restarts.to_le_bytes());
        out[42] = u8::try_from(value).unwrap_or(u8::MAX);
        out
    }

    /// Reads a record of any member of the family.
    ///
    /// # Errors
    /// It is too short.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let bad = BadRecord(bytes.len());
        if let 35 | 43 = bytes.len() {
            return big_endian(bytes).ok_or(bad);
        }
        let Some((stamp, rest)) = bytes.split_first_chunk::<12>() else { return Err(bad) };
        let Some((pid, rest)) = rest.split_first_chunk::<4>() else { return Err(bad) };
        let [paused, want, more @ ..] = rest else { return Err(bad) };
        let want = match want {
            b'u' => Want::Up,
            b'd' => Want::Down,
            _ => Want::Once,
        };
        let mut record = Self::down(Label::unpack(*stamp), want);
        let pid = number(*pid);
        record.pid = pid;
        match bytes.len() {
            // State 5 of daemontools-encore; runit has 1 at most in this byte.
            20 | 40 => record.failed = pid.is_none() && more.first() == Some(&5),
            21 | 25 | LEN => {
                let up = more.get(2).is_some_and(|&up| up != 0);
                record.pid = pid.filter(|_| up);
                if let [low, high, ..] = *more {
                    record.wait = wait(i16::from_le_bytes([low, high]));
                }
                // The 21-byte form has supervise's own pid in the place of a service that is down.
                record.supervise = match more.get(3..).and_then(|m| m.first_chunk()) {
                    Some(own) => number(*own),
                    None => pid.filter(|_| !up),
                };
                if let Some(tail) = more.get(7..) {
                    record.read_tail(tail);
                }
            }
            _ => {}
        }
        record.paused = *paused != 0 && record.pid.is_some();
        Ok(record)
    }

    fn read_tail(&mut self, tail: &[u8]) {
        let [flags, rest @ ..] = tail else { return };
        let Some((ready, rest)) = rest.split_first_chunk::<12>() else { return };
        let Some((restarts, rest)) = rest.split_first_chunk::<4>() else { return };
        let value = rest.first().copied().map_or(0, i32::from);
        self.readiness = match flags & 3 {
            0 | 2 => Readiness::Silent,
            1 => Readiness::Awaited,
            _ => Readiness::Since(Label::unpack(*ready)),
        };
        self.stopping = flags & 4 != 0;
        self.failed = flags & 8 != 0;
        self.restarts = u32::from_le_bytes(*restarts);
        self.last = match flags & 48 {
            16 => Some(Ending::Exited(value)),
            32 => Some(Ending::Killed(value)),
            _ => None,
        };
    }
}

fn number(bytes: [u8; 4]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes)).filter(|&n| n != 0)
}

fn wait(value: i16) -> Wait {
    match value {
        -2 => Wait::ForService,
        -3 => Wait::ForLock,
        n => u16::try_from(n).ok().filter(|&n| n > 0).map_or(Wait::None, Wait::Seconds),
    }
}

/// The record of s6: stamp, stamp of readiness, pid, (group,) wait status, flags.
fn big_endian(bytes: &[u8]) -> Option<Record> {
    let (stamp, rest) = bytes.split_first_chunk::<12>()?;
    let (ready, rest) = rest.split_first_chunk::<12>()?;
    let (pid, rest) = rest.split_first_chunk::<8>()?;
    let [.., code, signal, flags] = *rest else { return None };
    let ours = |stamp: [u8; 12]| {
        let label = Label::unpack(stamp);
        label.to_unix().map_or(label, |t| Label::from_unix(t.saturating_sub(LEAP_SECONDS)))
    };
    let want = if flags & 4 == 0 { Want::Down } else { Want::Up };
    let mut record = Record::down(ours(*stamp), want);
    // While the script `finish` runs, the pid is that of the script.
    record.pid = u32::try_from(u64::from_be_bytes(*pid)).ok().filter(|&p| p != 0 && flags & 2 == 0);
    record.paused = flags & 1 != 0 && record.pid.is_some();
    if flags & 8 != 0 && record.pid.is_some() {
        record.readiness = Readiness::Since(ours(*ready));
    }
    if record.pid.is_none() {
        record.last = Some(match signal & 0x7f {
            0 => Ending::Exited(i32::from(code)),
            signal => Ending::Killed(i32::from(signal)),
        });
    }
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        let since = Label::from_unix(Duration::new(935_467_445, 787_492_500));
        Record { pid: Some(0x0001_4fad), ..Record::down(since, Want::Up) }
    }

    #[test]
    fn bytes_of_an_up_and_a_down_service() {
        let up = record().encode();
        assert_eq!(&up[..12], b"\x40\0\0\0\x37\xc2\x19\xbf\x2e\xf0\x2e\x94");
        assert_eq!(&up[12..25], b"\xad\x4f\x01\0\0u\0\0\x01\0\0\0\0");
        assert_eq!(up[25..], [0; 19]);
        let down = Record { pid: None, want: Want::Down, ..record() }.encode();
        assert_eq!(
            &down[12..25],
            b"\0\0\0\0\0d\0\0\0\0\0\0\0",
            "pid 0 while down, so that every svstat says so"
        );
    }

    #[test]
    fn bytes_of_what_we_add() {
        let ready = Label::from_unix(Duration::new(935_467_446, 1));
        let full = Record {
            readiness: Readiness::Since(ready),
            stopping: true,
            restarts: 258,
            last: Some(Ending::Killed(9)),
            ..record()
        };
        let bytes = full.encode();
        assert_eq!(bytes[25], 1 | 2 | 4 | 32);
        assert_eq!(bytes[26..38], ready.pack());
        assert_eq!(bytes[38..], [2, 1, 0, 0, 9, 0]);
        let failed = Record { pid: None, failed: true, last: Some(Ending::Exited(100)), ..record() }.encode();
        assert_eq!((failed[25], failed[42]), (8 | 16, 100));
        assert_eq!(Record { wait: Wait::ForLock, ..record() }.encode()[18..20], [0xfd, 0xff]);
    }

    #[test]
    fn records_of_the_family() {
        let bytes = record().encode();
        let mut longer = bytes[..18].to_vec();
        assert_eq!(Record::decode(&longer), Ok(record()), "daemontools: 18 bytes");
        longer.extend([3, 0]);
        assert_eq!(Record::decode(&longer), Ok(record()), "daemontools-encore, runit: 20 bytes");
        longer.extend([0; 20]);
        assert_eq!(Record::decode(&longer), Ok(record()), "daemontools-encore with a logger: 40 bytes");
        longer[12..16].fill(0);
        longer[18] = 5;
        assert!(Record::decode(&longer).unwrap().failed, "daemontools-encore: failed");
        // The original writes supervise's own pid while the service is down.
        let mut down = bytes[..21].to_vec();
        down[20] = 0;
        let down = Record::decode(&down).unwrap();
        assert_eq!((down.pid, down.supervise), (None, Some(0x0001_4fad)));
        assert_eq!(Record::decode(&bytes[..25]), Ok(record()), "our former 25 bytes");
        assert_eq!(Record::decode(&bytes[..17]), Err(BadRecord(17)));
    }

    #[test]
    fn records_of_s6() {
        let mut bytes = b"\x40\0\0\0\x37\xc2\x19\xda\x2e\xf0\x2e\x94".to_vec();
        bytes.extend(b"\x40\0\0\0\x37\xc2\x19\xdb\0\0\0\x01\0\0\0\0\0\x01\x4f\xad\0\0\x0c");
        let mut wanted = record();
        wanted.readiness = Readiness::Since(Label::from_unix(Duration::new(935_467_446, 1)));
        assert_eq!(Record::decode(&bytes), Ok(wanted), "its labels are 27 s ahead");
        bytes[24..].copy_from_slice(b"\0\0\0\0\0\0\0\0\0\x09\0");
        let down = Record::decode(&bytes).unwrap();
        assert_eq!((down.pid, down.want, down.last), (None, Want::Down, Some(Ending::Killed(9))));
        bytes.splice(32..32, [0; 8]);
        assert_eq!(Record::decode(&bytes), Ok(down), "the longer form, with the process group");
    }

    fn label() -> impl Strategy<Value = Label> {
        any::<[u8; 12]>().prop_map(Label::unpack)
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let wait = prop_oneof![
            Just(Wait::None),
            Just(Wait::ForService),
            Just(Wait::ForLock),
            (1u16..=32767).prop_map(Wait::Seconds)
        ];
        let want = prop_oneof![Just(Want::Up), Just(Want::Down), Just(Want::Once)];
        let ready = prop_oneof![
            Just(Readiness::Silent),
            Just(Readiness::Awaited),
            label().prop_map(Readiness::Since)
        ];
        let last = proptest::option::of(prop_oneof![
            (0..256).prop_map(Ending::Exited),
            (1..128).prop_map(Ending::Killed)
        ]);
        let pid = || proptest::option::of(1u32..);
        let numbers = (pid(), pid(), any::<u32>());
        (label(), numbers, any::<[bool; 3]>(), want, wait, ready, last).prop_map(
            |(since, (pid, supervise, restarts), [paused, stopping, failed], want, wait, readiness, last)| {
                let paused = paused && pid.is_some();
                Record {
                    pid,
                    paused,
                    wait,
                    supervise,
                    readiness,
                    stopping,
                    failed,
                    restarts,
                    last,
                    ..Record::down(since, want)
                }
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(record in any_record()) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn every_length_of_the_family_is_read(
            bytes in proptest::collection::vec(any::<u8>(), 64),
            length in proptest::sample::select(vec![18usize, 20, 21, 25, 35, 40, 43, 44]),
        ) {
            let record = Record::decode(&bytes[..length]).unwrap();
            prop_assert_ne!(record.pid, Some(0));
            prop_assert!(!record.paused || record.pid.is_some());
        }

        #[test]
        fn decode_never_panics(bytes: Vec<u8>) {
            prop_assert_eq!(Record::decode(&bytes).is_err(), bytes.len() < COMMON_LEN);
        }
    }
}
