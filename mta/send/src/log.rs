//! Log lines of the queue, byte for byte as log tools expect them.

/// A text that cannot break a log line: newline becomes `/`, other unprintable bytes, blanks and `%` become `_`.
#[must_use]
pub fn safe(text: &[u8]) -> Vec<u8> {
    text.iter()
        .map(|&b| match b {
            b'\n' => b'/',
            b'%' => b'_',
            33..=126 => b,
            _ => b'_',
        })
        .collect()
}

/// Builds a line of bytes from pieces that may be text or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(Vec<u8>);

impl Line {
    /// Begins a line.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    /// Adds text of our own.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds a number or anything that displays as plain text of ours.
    #[must_use]
    pub fn value(self, value: impl std::fmt::Display) -> Self {
        self.text(&value.to_string())
    }

    /// Adds text of others, made [`safe`].
    #[must_use]
    pub fn safe(mut self, text: &[u8]) -> Self {
        self.0.extend(safe(text));
        self
    }

    /// The line, without newline.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Delivery numbers of one process in log lines: `7`, or `7.QIDENT`.
#[must_use]
pub fn delivery(number: u64, ident: Option<&[u8]>) -> String {
    match ident {
        Some(ident) => format!("{number}.{}", String::from_utf8_lossy(&safe(ident))),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_forge_lines() {
        assert_eq!(safe(b"a b\nc%d\x7f\xff~!"), b"a_b/c_d__~!");
        let line = Line::new("x ").safe(b"\n").value(7).text(" y").into_bytes();
        assert_eq!(line, b"x /7 y");
    }
}
