//! `supervise/death_tally`: the last deaths of a service, 14 bytes each: packed TAI64N, exit code, signal.

use tai::Label;
use unix::child::Ending;

/// Bytes of one death.
pub const LEN: usize = 14;
/// Deaths that are kept unless the file `max-death-tally` says otherwise.
pub const DEFAULT_MAX: usize = 100;
/// Deaths that are kept at most.
pub const MAX: usize = 4096;

/// One death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// When.
    pub when: Label,
    /// How.
    pub ending: Ending,
}

impl Death {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..12].copy_from_slice(&self.when.pack());
        let byte = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
        match self.ending {
            Ending::Exited(code) => out[12] = byte(code),
            Ending::Killed(signal) => out[13] = byte(signal),
        }
        out
    }
}

/// All deaths of a file, the oldest first; an incomplete one at its end does not count.
#[must_use]
pub fn decode(bytes: &[u8]) -> Vec<Death> {
    let (whole, _) = bytes.as_chunks::<LEN>();
    whole
        .iter()
        .map(|&[a, b, c, d, e, f, g, h, i, j, k, l, code, signal]| Death {
            when: Label::unpack([a, b, c, d, e, f, g, h, i, j, k, l]),
            ending: match signal {
                0 => Ending::Exited(i32::from(code)),
                signal => Ending::Killed(i32::from(signal)),
            },
        })
        .collect()
}

/// The file with one more death, the oldest left out when there would be more than `max`.
#[must_use]
pub fn with(bytes: &[u8], death: Death, max: usize) -> Vec<u8> {
    let (whole, _) = bytes.as_chunks::<LEN>();
    let keep = max.min(MAX).saturating_sub(1).min(whole.len());
    let mut out = whole[whole.len() - keep..].concat();
    out.extend(death.encode());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn death(n: u64, ending: Ending) -> Death {
        Death { when: Label::from_unix(Duration::from_secs(n)), ending }
    }

    #[test]
    fn bytes() {
        let bytes = death(935_467_445, Ending::Exited(3)).encode();
        assert_eq!(&bytes, b"\x40\0\0\0\x37\xc2\x19\xbf\0\0\0\0\x03\0");
        assert_eq!(death(1, Ending::Killed(9)).encode()[12..], [0, 9]);
    }

    #[test]
    fn the_oldest_go_first() {
        let mut file = Vec::new();
        for n in 1..=5 {
            file = with(&file, death(n, Ending::Exited(0)), 3);
        }
        let seconds: Vec<_> = decode(&file).iter().map(|d| d.when.to_unix().unwrap().as_secs()).collect();
        assert_eq!(seconds, [3, 4, 5]);
        file.truncate(LEN + 5);
        assert_eq!(
            decode(&with(&file, death(9, Ending::Killed(2)), 100)).len(),
            2,
            "half a record is dropped"
        );
    }

    proptest! {
        #[test]
        fn round_trip(deaths in proptest::collection::vec((any::<u32>(), 0..256, 0..65), 0..20)) {
            let deaths: Vec<_> = deaths
                .into_iter()
                .map(|(n, code, signal)| {
                    let ending = if signal == 0 { Ending::Exited(code) } else { Ending::Killed(signal) };
                    death(u64::from(n), ending)
                })
                .collect();
            let file = deaths.iter().fold(Vec::new(), |file, &d| with(&file, d, 100));
            prop_assert_eq!(decode(&file), deaths);
        }

        #[test]
        fn never_more_than_allowed(file: Vec<u8>, max in 1usize..10) {
            let file = with(&file, death(1, Ending::Exited(1)), max);
            prop_assert!(decode(&file).len() <= max);
        }
    }
}
