//! What a service says on its notification socket: datagrams of `KEY=value` lines, as for a service
//! manager.

/// The longest text of a `STATUS=` that is kept.
pub const MAX_STATUS: usize = 256;

/// One datagram; keys that mean nothing to supervise are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice<'a> {
    /// `READY=1`
    pub ready: bool,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `WATCHDOG=1`: the service is alive.
    pub alive: bool,
    /// `STATUS=`: a line for people, cut after [`MAX_STATUS`] bytes.
    pub status: Option<&'a [u8]>,
    /// `MAINPID=`
    pub main_pid: Option<u32>,
}

impl<'a> Notice<'a> {
    /// Reads a datagram. The last of several lines with one key counts.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Self {
        let mut notice = Self::default();
        for line in datagram.split(|&b| b == b'\n') {
            let Some(at) = line.iter().position(|&b| b == b'=') else { continue };
            let value = &line[at + 1..];
            match &line[..at] {
                b"READY" => notice.ready |= value == b"1",
                b"STOPPING" => notice.stopping |= value == b"1",
                b"WATCHDOG" => notice.alive |= value == b"1",
                b"STATUS" => notice.status = Some(&value[..value.len().min(MAX_STATUS)]),
                b"MAINPID" => notice.main_pid = pid(value),
                _ => {}
            }
        }
        notice
    }
}

/// A pid other than init's: digits only.
fn pid(value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok().filter(|&p| p > 1 && i32::try_from(p).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys() {
        let all = Notice::parse(
            b"READY=1\nSTATUS=serving 3 = many\nX_OTHER=1\nMAINPID=77\nWATCHDOG=1\nSTOPPING=1\n",
        );
        let wanted = Notice {
            ready: true,
            stopping: true,
            alive: true,
            status: Some(b"serving 3 = many"),
            main_pid: Some(77),
        };
        assert_eq!(all, wanted);
        assert_eq!(Notice::parse(b"READY=0\nWATCHDOG=trigger\n READY=1\nREADY\n=1"), Notice::default());
        for pid in ["0", "1", "-5", "+5", "4294967295", "x", ""] {
            assert_eq!(Notice::parse(format!("MAINPID={pid}").as_bytes()).main_pid, None, "{pid}");
        }
        assert_eq!(
            Notice::parse(&[b"STATUS=".as_slice(), &[b'x'; 999]].concat()).status.unwrap().len(),
            MAX_STATUS
        );
    }

    proptest! {
        #[test]
        fn parse_never_panics(datagram: Vec<u8>) {
            let notice = Notice::parse(&datagram);
            prop_assert!(notice.status.is_none_or(|s| s.len() <= MAX_STATUS && !s.contains(&b'\n')));
        }

        #[test]
        fn order_does_not_matter(lines in Just(vec!["READY=1", "STATUS=a b", "MAINPID=7", "WATCHDOG=1"]).prop_shuffle()) {
            let text = lines.join("\n");
            let notice = Notice::parse(text.as_bytes());
            prop_assert_eq!(notice, Notice { ready: true, stopping: false, alive: true, status: Some(b"a b"), main_pid: Some(7) });
        }
    }
}
