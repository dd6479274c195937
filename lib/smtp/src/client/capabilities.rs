//! What a host offers in its answer to EHLO.

/// The extensions this client uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one keyword of EHLO")]
pub struct Capabilities {
    /// PIPELINING
    pub pipelining: bool,
    /// 8BITMIME
    pub eight_bit: bool,
    /// SIZE
    pub size: bool,
    /// STARTTLS
    pub starttls: bool,
    /// SMTPUTF8
    pub smtputf8: bool,
}

impl Capabilities {
    /// Reads the lines of the answer; the first one is the host's name.
    #[must_use]
    pub fn read(lines: &[Vec<u8>]) -> Self {
        let has = |keyword: &[u8]| {
            lines.iter().skip(1).any(|l| {
                l.split(|b| b" =".contains(b)).next().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
            })
        };
        Self {
            pipelining: has(b"PIPELINING"),
            eight_bit: has(b"8BITMIME"),
            size: has(b"SIZE"),
            starttls: has(b"STARTTLS"),
            smtputf8: has(b"SMTPUTF8"),
        }
    }
}
