//! Who a local part belongs to: `users/assign`, its compiled form `users/cdb`, and the order of lookup.
//!
//! ```text
//! users/assign ─ parse ─► lines ─ compile ─► users/cdb ─ Assignments::find ─► Entry
//! ```
//!
//! | line | meaning |
//! |---|---|
//! | `=local:user:uid:gid:home:dash:ext:` | exactly this local part |
//! | `+prefix:user:uid:gid:home:dash:pre:` | every local part that begins so; the rest is appended to `pre` |
//! | `.` | the end; a file without it is cut short and not used |
//!
//! Local parts and prefixes are compared without regard to ASCII case. The longest match wins, but
//! an exact line before any prefix, and a prefix counts only where it ends in a byte that some `+`
//! line ends in. A virtual domain is the line `+domain-:domain:uid:gid:directory:-::`.
//!
//! Invariant: an assignment that cannot be read is an error, never "nobody".

#![forbid(unsafe_code)]

mod compiled;
mod text;

pub use compiled::{Assignments, Error, compile, rebuild};
pub use text::{Line, Match, TextError, parse, with_line, without_line};

/// What an assignment says about a local part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name of the user, for the environment of the delivery.
    pub user: Vec<u8>,
    /// Numeric user id of the delivery.
    pub uid: u32,
    /// Numeric group id of the delivery.
    pub gid: u32,
    /// Home directory.
    pub home: Vec<u8>,
    /// `-` when there is an extension, else empty: comes before it in the name of the dot-qmail file.
    pub dash: Vec<u8>,
    /// The extension.
    pub ext: Vec<u8>,
}

impl Entry {
    /// The six fields, each followed by NUL: a value of `users/cdb` and the output of qmail-getpw.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
        let fields: [&[u8]; 6] =
            [&self.user, uid.as_bytes(), gid.as_bytes(), &self.home, &self.dash, &self.ext];
        fields.iter().flat_map(|f| f.iter().copied().chain([0])).collect()
    }

    /// Reads [`Entry::encode`]'s bytes; the last NUL may be missing, more than six fields may not
    /// be there. `None` when they make no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        let fields: Vec<&[u8]> = bytes.split(|&b| b == 0).collect();
        let [user, uid, gid, home, dash, ext] = fields[..] else {
            return None;
        };
        Some(Self {
            user: user.to_vec(),
            uid: id(uid)?,
            gid: id(gid)?,
            home: home.to_vec(),
            dash: dash.to_vec(),
            ext: ext.to_vec(),
        })
    }
}

/// A decimal id. The highest number means "no id" to the system and is none.
fn id(digits: &[u8]) -> Option<u32> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&n| plain && n != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1u8..=255, 0..9)
    }

    proptest! {
        #[test]
        fn entries_round_trip(user in field(), uid in 0..u32::MAX, gid in 0..u32::MAX, home in field(), dash in field(), ext in field()) {
            let entry = Entry { user, uid, gid, home, dash, ext };
            prop_assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Entry::decode(&bytes);
        }
    }

    #[test]
    fn ids_are_plain_numbers() {
        for bad in ["", "-1", "+1", "4294967295", "99999999999", "1x", " 1"] {
            assert_eq!(id(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(id(b"0"), Some(0));
    }
}
