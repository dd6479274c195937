//! Frames: `u32be length | u8 version | u8 code | u16be flags | fields`, a field being
//! `u16be length | bytes`.
//!
//! The length counts everything after itself. `code` is the type of a request or the status of a
//! reply. No flag is defined yet; they are zero, and a reader ignores those it does not know.

/// The version both sides speak.
pub const VERSION: u8 = 1;
/// Bytes of a frame after the length, at most.
pub const MAX_FRAME: usize = 64 * 1024;
/// Bytes of a request after the length, at most.
pub const MAX_REQUEST: usize = 4096;
/// Bytes of a name (`user@domain`) that can exist at all; a longer one is absent.
pub const MAX_NAME: usize = 320;

/// Bytes of the length itself.
const PREFIX: usize = 4;
/// Version, code, flags.
const HEADER: usize = 4;

/// Bytes that are not a frame, or a frame that is not what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length is below the header's or above the limit.
    #[error("frame length out of range")]
    Length,
    /// A version that this side does not speak.
    #[error("unknown protocol version")]
    Version,
    /// A type or status that does not exist.
    #[error("unknown frame code")]
    Code,
    /// A field ends after the frame, or is missing.
    #[error("field cut short")]
    Field,
    /// A field has a value it cannot have.
    #[error("field value out of range")]
    Value,
    /// Bytes after the last field.
    #[error("bytes left over")]
    Leftover,
}

/// What was to be sent does not fit a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not fit a frame")]
pub struct TooLong;

/// One frame, borrowed from the buffer it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type of a request, status of a reply.
    pub code: u8,
    /// Reserved.
    pub flags: u16,
    /// The fields, encoded.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The fields, to be read one after the other.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields(self.body)
    }
}

/// Finds the first frame in `buffer`: the frame and how many bytes it takes, `None` while it is
/// incomplete. `limit` is the greatest length to accept.
///
/// # Errors
/// The bytes can never become a frame.
pub fn split(buffer: &[u8], limit: usize) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let Some((length, rest)) = buffer.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Malformed::Length)?;
    if length < HEADER || length > limit.min(MAX_FRAME) {
        return Err(Malformed::Length);
    }
    match rest.first() {
        Some(&version) if version != VERSION => return Err(Malformed::Version),
        _ => {}
    }
    let Some(whole) = rest.get(..length) else {
        return Ok(None);
    };
    let [_, code, high, low, body @ ..] = whole else {
        return Err(Malformed::Length);
    };
    let frame = Frame { code: *code, flags: u16::from_be_bytes([*high, *low]), body };
    Ok(Some((frame, PREFIX + length)))
}

/// Appends one frame to a buffer. Nothing is appended when a field does not fit.
///
/// # Errors
/// [`TooLong`], from `fields` or because the whole is above `limit`.
pub fn append(
    out: &mut Vec<u8>,
    code: u8,
    limit: usize,
    fields: impl FnOnce(&mut Writer<'_>) -> Result<(), TooLong>,
) -> Result<(), TooLong> {
    let start = out.len();
    let written = write(out, start, code, limit, fields);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn write(
    out: &mut Vec<u8>,
    start: usize,
    code: u8,
    limit: usize,
    fields: impl FnOnce(&mut Writer<'_>) -> Result<(), TooLong>,
) -> Result<(), TooLong> {
    let mut writer = Writer { out, end: start.saturating_add(PREFIX).saturating_add(limit.min(MAX_FRAME)) };
    writer.raw(&[0, 0, 0, 0, VERSION, code, 0, 0])?;
    fields(&mut writer)?;
    let length = out.len().saturating_sub(start).saturating_sub(PREFIX);
    let length = u32::try_from(length).map_err(|_| TooLong)?;
    let prefix = out.get_mut(start..).and_then(|s| s.first_chunk_mut::<PREFIX>()).ok_or(TooLong)?;
    *prefix = length.to_be_bytes();
    Ok(())
}

/// Writes the fields of one frame.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
}

impl Writer<'_> {
    /// A field of any bytes.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn bytes(&mut self, value: &[u8]) -> Result<(), TooLong> {
        let length = u16::try_from(value.len()).map_err(|_| TooLong)?;
        self.raw(&length.to_be_bytes())?;
        self.raw(value)
    }

    /// A field of one byte.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn byte(&mut self, value: u8) -> Result<(), TooLong> {
        self.bytes(&[value])
    }

    /// A field of four bytes.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn number(&mut self, value: u32) -> Result<(), TooLong> {
        self.bytes(&value.to_be_bytes())
    }

    /// A field of eight bytes.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn long(&mut self, value: u64) -> Result<(), TooLong> {
        self.bytes(&value.to_be_bytes())
    }

    /// A field of eight bytes, or an empty one.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn optional_long(&mut self, value: Option<u64>) -> Result<(), TooLong> {
        match value {
            Some(v) => self.long(v),
            None => self.bytes(b""),
        }
    }

    /// How many bytes still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.end.saturating_sub(self.out.len())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > self.room() || self.out.try_reserve(bytes.len()).is_err() {
            return Err(TooLong);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads the fields of one frame, in order.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field.
    ///
    /// # Errors
    /// There is none, or it is cut short.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let (length, rest) = self.0.split_first_chunk::<2>().ok_or(Malformed::Field)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (field, rest) = rest.split_at_checked(length).ok_or(Malformed::Field)?;
        self.0 = rest;
        Ok(field)
    }

    /// The next field, which must have one byte.
    ///
    /// # Errors
    /// There is none, or it has another size.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array::<1>()?;
        Ok(byte)
    }

    /// The next field, which must be 0 or 1.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Value),
        }
    }

    /// The next field, which must have four bytes.
    ///
    /// # Errors
    /// There is none, or it has another size.
    pub fn number(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next field, which must have eight bytes.
    ///
    /// # Errors
    /// There is none, or it has another size.
    pub fn long(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next field, which must have eight bytes or none.
    ///
    /// # Errors
    /// There is none, or it has another size.
    pub fn optional_long(&mut self) -> Result<Option<u64>, Malformed> {
        match self.bytes()? {
            [] => Ok(None),
            bytes => bytes.try_into().map(|b| Some(u64::from_be_bytes(b))).map_err(|_| Malformed::Value),
        }
    }

    /// Are there more fields?
    #[must_use]
    pub fn more(&self) -> bool {
        !self.0.is_empty()
    }

    /// Ends the reading; bytes that are left over are an error.
    ///
    /// # Errors
    /// [`Malformed::Leftover`].
    pub fn end(self) -> Result<(), Malformed> {
        if self.more() { Err(Malformed::Leftover) } else { Ok(()) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes()?.try_into().map_err(|_| Malformed::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut out = Vec::new();
        append(&mut out, 7, MAX_FRAME, |w| w.bytes(b"ab")).unwrap();
        assert_eq!(out, [0, 0, 0, 8, 1, 7, 0, 0, 0, 2, b'a', b'b']);
    }

    #[test]
    fn lengths_and_versions_are_refused_before_the_body_arrives() {
        assert_eq!(split(&[0, 0, 0, 3], MAX_FRAME), Err(Malformed::Length));
        assert_eq!(split(&[0, 1, 0, 1], MAX_FRAME), Err(Malformed::Length));
        assert_eq!(split(&[0xff; 4], usize::MAX), Err(Malformed::Length));
        assert_eq!(split(&[0, 0, 16, 1], MAX_REQUEST), Err(Malformed::Length));
        assert_eq!(split(&[0, 0, 0, 4, 2], MAX_FRAME), Err(Malformed::Version));
        assert_eq!(split(&[0, 0, 0, 4, 1], MAX_FRAME), Ok(None));
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let mut out = vec![9];
        assert_eq!(append(&mut out, 1, MAX_FRAME, |w| w.bytes(&[0; 70_000])), Err(TooLong));
        assert_eq!(append(&mut out, 1, 10, |w| w.bytes(&[0; 5])), Err(TooLong));
        assert_eq!(out, [9]);
        append(&mut out, 1, 10, |w| w.bytes(&[0; 4])).unwrap();
    }

    proptest! {
        #[test]
        fn frames_come_back(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), code: u8) {
            let mut out = Vec::new();
            append(&mut out, code, MAX_FRAME, |w| fields.iter().try_for_each(|f| w.bytes(f))).unwrap();
            for cut in 0..out.len() {
                prop_assert_eq!(split(&out[..cut], MAX_FRAME), Ok(None));
            }
            let whole = out.len();
            out.extend_from_slice(b"next");
            let (frame, used) = split(&out, MAX_FRAME).unwrap().unwrap();
            prop_assert_eq!((frame.code, used), (code, whole));
            let mut reader = frame.fields();
            for f in &fields {
                prop_assert_eq!(reader.bytes().unwrap(), f.as_slice());
            }
            prop_assert!(reader.end().is_ok());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((frame, used))) = split(&bytes, MAX_FRAME) {
                prop_assert!(used <= bytes.len());
                let mut fields = frame.fields();
                while fields.more() && fields.bytes().is_ok() {}
            }
        }
    }
}
