//! The text form.

use crate::{Entry, id};

/// Which local parts a line is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// `=local`
    Exact(Vec<u8>),
    /// `+prefix`
    Prefix(Vec<u8>),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which local parts it is for.
    pub matches: Match,
    /// What it says about them; for a prefix the extension is what comes before the rest.
    pub entry: Entry,
}

impl Line {
    /// The line of a virtual domain.
    #[must_use]
    pub fn of_domain(name: &[u8], real: &[u8], uid: u32, gid: u32, directory: &[u8]) -> Self {
        let entry = Entry {
            user: real.to_vec(),
            uid,
            gid,
            home: directory.to_vec(),
            dash: b"-".to_vec(),
            ext: Vec::new(),
        };
        Self { matches: Match::Prefix([name, b"-"].concat()), entry }
    }

    /// The line's bytes, newline included; [`parse`] reads them back when no field holds a colon, a
    /// newline or a NUL.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        let (sign, key) = match &self.matches {
            Match::Exact(key) => (&b"="[..], key),
            Match::Prefix(key) => (&b"+"[..], key),
        };
        let e = &self.entry;
        let (uid, gid) = (e.uid.to_string(), e.gid.to_string());
        let fields: [&[u8]; 7] = [key, &e.user, uid.as_bytes(), gid.as_bytes(), &e.home, &e.dash, &e.ext];
        let mut text = sign.to_vec();
        for field in fields {
            text.extend_from_slice(field);
            text.push(b':');
        }
        text.push(b'\n');
        text
    }
}

/// A line of the file is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TextError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Reads the whole file. Lines after the final dot are not looked at.
///
/// # Errors
/// The first wrong line, or the missing dot.
pub fn parse(text: &[u8]) -> Result<Vec<Line>, TextError> {
    let mut lines = Vec::new();
    for (index, line) in text.split(|&b| b == b'\n').enumerate() {
        if line == b"." {
            return Ok(lines);
        }
        let number = index + 1;
        if line.is_empty() {
            let what = "an empty line, or no final line that is a single dot";
            return Err(TextError { line: number, what });
        }
        lines.push(read(line).map_err(|what| TextError { line: number, what })?);
    }
    Err(TextError { line: lines.len(), what: "the final line that is a single dot is missing" })
}

fn read(line: &[u8]) -> Result<Line, &'static str> {
    if line.contains(&0) {
        return Err("a NUL byte");
    }
    let (sign, rest) = line.split_first().ok_or("an empty line")?;
    let fields: Vec<&[u8]> = rest.split(|&b| b == b':').collect();
    let [key, user, uid, gid, home, dash, ext, _, ..] = fields[..] else {
        return Err("expected seven fields, each followed by a colon");
    };
    let entry = Entry {
        user: user.to_vec(),
        uid: id(uid).ok_or("the third field is not a user id")?,
        gid: id(gid).ok_or("the fourth field is not a group id")?,
        home: home.to_vec(),
        dash: dash.to_vec(),
        ext: ext.to_vec(),
    };
    match sign {
        b'=' => Ok(Line { matches: Match::Exact(key.to_vec()), entry }),
        b'+' => Ok(Line { matches: Match::Prefix(key.to_vec()), entry }),
        _ => Err("expected a line that begins with = or +"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_domain_line_is_as_the_original_has_it() {
        let line = Line::of_domain(b"x.org", b"x.org", 555, 556, b"/var/x");
        assert_eq!(line.to_text(), b"+x.org-:x.org:555:556:/var/x:-::\n");
        assert_eq!(parse(b"+x.org-:x.org:555:556:/var/x:-::\n.\n").unwrap(), [line]);
    }

    #[test]
    fn wrong_files_are_refused_with_the_line() {
        let error = |t: &str| parse(t.as_bytes()).unwrap_err();
        assert_eq!(error("=a:b:1:2:/h:::\n").line, 2);
        assert_eq!(error("=a:b:1:2:/h:::\n=c:d:1:2:/h:\n.\n").line, 2);
        assert_eq!(error("a:b:1:2:/h:::\n.\n").what, "expected a line that begins with = or +");
        assert_eq!(error("=a:b:x:2:/h:::\n.\n").what, "the third field is not a user id");
        assert_eq!(error("=a:b:1:4294967295:/h:::\n.\n").what, "the fourth field is not a group id");
        assert_eq!(error("").line, 1);
        assert_eq!(parse(b".\nrubbish").unwrap(), []);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in prop::collection::vec(prop::sample::select(&b"=+:.1\n\0a"[..]), 0..60)) {
            if let Ok(lines) = parse(&text) {
                let again: Vec<u8> = lines.iter().flat_map(Line::to_text).chain(*b".\n").collect();
                prop_assert_eq!(parse(&again).unwrap(), lines);
            }
        }
    }
}
