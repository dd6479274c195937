//! The status record of a service: `supervise/status`.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0-11 | packed TAI64N of the last change of state |
//! | 12-15 | pid of the service, little endian; 0 while it is down |
//! | 16 | 1: paused |
//! | 17 | `u` wanted up, `d` wanted down, 0 run once |
//! | 18-19 | seconds left of a wait for another service, little endian; 0 none, -2 the other is not up |
//! | 20 | 1: up, 0: down |
//! | 21-24 | pid of supervise, little endian |
//!
//! The first 18 bytes are those of the original daemontools. Readers take every length that the family
//! writes (18, 20, 21, 40) and ours (25).

use tai::Label;

/// Bytes of the record we write.
pub const LEN: usize = 25;
/// Bytes every member of the family writes.
pub const COMMON_LEN: usize = 18;

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
    /// A wait for another service before the start.
    pub wait: Wait,
    /// Process id of supervise, where the record has it.
    pub supervise: Option<u32>,
}

/// A wait for another service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// There is none.
    None,
    /// The other service is not up yet.
    ForService,
    /// It is up; this many seconds are left.
    Seconds(u16),
}

/// The bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad format: {0} bytes, expected at least {COMMON_LEN}")]
pub struct BadRecord(pub usize);

impl Record {
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
            Wait::Seconds(n) => i16::try_from(n).unwrap_or(i16::MAX),
        };
        out[18..20].copy_from_slice(&wait.to_le_bytes());
        out[20] = u8::from(self.pid.is_some());
        out[21..].copy_from_slice(&self.supervise.unwrap_or(0).to_le_bytes());
        out
    }

    /// Reads a record of any member of the family.
    ///
    /// # Errors
    /// It is too short.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let bad = BadRecord(bytes.len());
        let Some((stamp, rest)) = bytes.split_first_chunk::<12>() else { return Err(bad) };
        let Some((pid, rest)) = rest.split_first_chunk::<4>() else { return Err(bad) };
        let [paused, want, more @ ..] = rest else { return Err(bad) };
        let number = |bytes| Some(u32::from_le_bytes(bytes)).filter(|&n| n != 0);
        // The 21-byte form has supervise's own pid in the place of a service that is down.
        let (wait, up, supervise) = match *more {
            [low, high, up] => (i16::from_le_bytes([low, high]), up != 0, number(*pid).filter(|_| up == 0)),
            [low, high, up, a, b, c, d] => (i16::from_le_bytes([low, high]), up != 0, number([a, b, c, d])),
            _ => (0, true, None),
        };
        let pid = number(*pid).filter(|_| up);
        Ok(Self {
            since: Label::unpack(*stamp),
            pid,
            paused: *paused != 0 && pid.is_some(),
            want: match want {
                b'u' => Want::Up,
                b'd' => Want::Down,
                _ => Want::Once,
            },
            wait: match wait {
                -2 => Wait::ForService,
                n => u16::try_from(n).ok().filter(|&n| n > 0).map_or(Wait::None, Wait::Seconds),
            },
            supervise,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn record() -> Record {
        Record {
            since: Label::from_unix(Duration::new(935_467_445, 787_492_500)),
            pid: Some(0x0001_4fad),
            paused: false,
            want: Want::Up,
            wait: Wait::None,
            supervise: None,
        }
    }

    #[test]
    fn bytes_of_an_up_and_a_down_service() {
        let up = record().encode();
        assert_eq!(&up[..12], b"\x40\0\0\0\x37\xc2\x19\xbf\x2e\xf0\x2e\x94");
        assert_eq!(&up[12..], b"\xad\x4f\x01\0\0u\0\0\x01\0\0\0\0");
        let down = Record { pid: None, want: Want::Down, ..record() }.encode();
        assert_eq!(
            &down[12..],
            b"\0\0\0\0\0d\0\0\0\0\0\0\0",
            "pid 0 while down, so that every svstat says so"
        );
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
        // The original writes supervise's own pid while the service is down.
        let mut down = bytes[..21].to_vec();
        down[20] = 0;
        let down = Record::decode(&down).unwrap();
        assert_eq!((down.pid, down.supervise), (None, Some(0x0001_4fad)));
        assert_eq!(Record::decode(&bytes[..17]), Err(BadRecord(17)));
    }

    proptest! {
        #[test]
        fn round_trip(stamp: [u8; 12], pid: Option<u32>, paused: bool, want in 0..3, wait in 0u16..3) {
            let record = Record {
                since: Label::unpack(stamp),
                pid: pid.filter(|&p| p != 0),
                paused: paused && pid.is_some_and(|p| p != 0),
                want: [Want::Up, Want::Down, Want::Once][usize::try_from(want).unwrap()],
                wait: [Wait::None, Wait::ForService, Wait::Seconds(77)][usize::from(wait)],
                supervise: pid.filter(|&p| p != 0),
            };
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn decode_never_panics(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
