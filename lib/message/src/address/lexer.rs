//! Tokens of structured header fields, with their places.

use std::ops::Range;

use super::SyntaxError;

/// How deep comments may nest.
const DEPTH_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes that are not special, blank or quoted.
    Atom,
    /// `"..."`
    Quoted,
    /// `[...]`
    Literal,
    /// One of `< > @ , ; : .`
    Special(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) place: Range<usize>,
}

/// Tokens of `text`; comments and blanks are dropped.
pub(super) fn tokens(text: &[u8]) -> Result<Vec<Token>, SyntaxError> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let start = at;
        let kind = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'(' => {
                at = comment_end(text, at)?;
                continue;
            }
            b'"' => {
                at = closing(text, at, b'"', "a quoted string has no end")?;
                Kind::Quoted
            }
            b'[' => {
                at = closing(text, at, b']', "a domain literal has no end")?;
                Kind::Literal
            }
            b'<' | b'>' | b'@' | b',' | b';' | b':' | b'.' => {
                at += 1;
                Kind::Special(byte)
            }
            b')' | b']' => return Err(SyntaxError { at, what: "a closing bracket has no opening one" }),
            0 => return Err(SyntaxError { at, what: "a NUL byte" }),
            _ => {
                at = atom_end(text, at)?;
                Kind::Atom
            }
        };
        out.push(Token { kind, place: start..at });
    }
    Ok(out)
}

fn atom_end(text: &[u8], start: usize) -> Result<usize, SyntaxError> {
    let mut at = start;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if at + 1 < text.len() => at += 2,
            b'\\' => return Err(SyntaxError { at, what: "a backslash quotes nothing" }),
            0 | b' ' | b'\t' | b'\r' | b'\n' | b'(' | b')' | b'"' | b'[' | b']' => break,
            b'<' | b'>' | b'@' | b',' | b';' | b':' | b'.' => break,
            _ => at += 1,
        }
    }
    Ok(at)
}

/// Behind the byte that closes what begins at `start`; a backslash quotes the next byte.
fn closing(text: &[u8], start: usize, close: u8, what: &'static str) -> Result<usize, SyntaxError> {
    let mut at = start + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            0 => return Err(SyntaxError { at, what: "a NUL byte" }),
            _ if byte == close => return Ok(at + 1),
            _ => at += 1,
        }
    }
    Err(SyntaxError { at: start, what })
}

fn comment_end(text: &[u8], start: usize) -> Result<usize, SyntaxError> {
    let (mut depth, mut at) = (0, start);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'(' if depth == DEPTH_MAX => {
                return Err(SyntaxError { at, what: "comments are nested too deep" });
            }
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(SyntaxError { at: start, what: "a comment has no end" })
}
