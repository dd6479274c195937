//! When a message is tried again.

use mta_queue::layout::Channel;

/// Time of the next try, in seconds since 1970.
///
/// Tries lie on a parabola that starts at the message's `birth`: with failures all the way, a
/// local message is tried after 0, 100, 400, 900, ... seconds, a remote one after 0, 400, 1600,
/// 3600, ... A clock that says `now` is before `birth` only delays.
#[must_use]
pub fn next_try(birth: u64, now: u64, channel: Channel) -> u64 {
    let skip = match channel {
        Channel::Local => 10,
        Channel::Remote => 20,
    };
    let steps = now.saturating_sub(birth).isqrt() + skip;
    birth.saturating_add(steps.saturating_mul(steps))
}

/// Is a try that begins at `now` the last one of a message with this lifetime (seconds)?
#[must_use]
pub fn is_last(birth: u64, now: u64, lifetime: u64) -> bool {
    now > birth.saturating_add(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tries(channel: Channel, count: usize) -> Vec<u64> {
        let birth = 1_000_000;
        let mut at = vec![birth];
        while at.len() < count {
            at.push(next_try(birth, at[at.len() - 1], channel));
        }
        at.iter().map(|t| t - birth).collect()
    }

    #[test]
    fn tries_lie_on_a_parabola() {
        assert_eq!(tries(Channel::Local, 6), [0, 100, 400, 900, 1600, 2500]);
        assert_eq!(tries(Channel::Remote, 5), [0, 400, 1600, 3600, 6400]);
    }

    #[test]
    fn the_last_try_comes_after_the_lifetime() {
        assert!(!is_last(1000, 1100, 100));
        assert!(is_last(1000, 1101, 100));
        assert!(!is_last(1000, 0, 100));
    }

    proptest! {
        #[test]
        fn the_next_try_is_always_later_and_never_overflows(birth in any::<u64>(), now in any::<u64>()) {
            for channel in Channel::BOTH {
                let next = next_try(birth, now, channel);
                prop_assert!(next > now || next == u64::MAX);
            }
        }
    }
}
