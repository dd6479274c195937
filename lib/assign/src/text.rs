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

    /// The virtual domain whose line this is, in lower case; `None` when it is another line.
    #[must_use]
    pub fn domain(&self) -> Option<Vec<u8>> {
        let Match::Prefix(prefix) = &self.matches else { return None };
        let is_domain = self.entry.dash == b"-" && self.entry.ext.is_empty();
        prefix.strip_suffix(b"-").filter(|_| is_domain).map(<[u8]>::to_ascii_lowercase)
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

impl Match {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            _ => false,
        }
    }
}

/// The text with `line` as the last one, in place of any for the same local parts.
///
/// # Errors
/// The text is wrong: the first wrong line, or the missing dot.
pub fn with_line(text: &[u8], line: &Line) -> Result<Vec<u8>, TextError> {
    edited(text, &line.matches, &line.to_text())
}

/// The text without the lines for these local parts.
///
/// # Errors
/// As [`with_line`].
pub fn without_line(text: &[u8], matches: &Match) -> Result<Vec<u8>, TextError> {
    edited(text, matches, b"")
}

/// Other lines stay byte by byte, and so does what comes after the dot.
fn edited(text: &[u8], matches: &Match, last: &[u8]) -> Result<Vec<u8>, TextError> {
    let count = parse(text)?.len();
    let mut raw = text.split_inclusive(|&b| b == b'\n');
    let mut out = Vec::with_capacity(text.len().saturating_add(last.len()));
    for line in raw.by_ref().take(count) {
        let is_it = read(line.strip_suffix(b"\n").unwrap_or(line)).is_ok_and(|l| l.matches.is_same(matches));
        if !is_it {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(last);
    raw.for_each(|line| out.extend_from_slice(line));
    Ok(out)
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
            let what = "an empty line, or the file is cut short: its last line must be a single dot";
            return Err(TextError { line: number, what });
        }
        lines.push(read(line).map_err(|what| TextError { line: number, what })?);
    }
    Err(TextError { line: lines.len(), what: "the file is cut short: its last line must be a single dot" })
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

    #[test]
    fn edits_touch_one_line() {
        let text =
            b"=root:a:1:2:/a:-:r:more:\n+X.org-:x.org:5:5:/x:-::\n+x.org-bob-:y:5:5:/y:-::\n.\nnotes\n";
        let line = Line::of_domain(b"x.org", b"x.org", 7, 8, b"/z");
        let with = with_line(text, &line).unwrap();
        let expected =
            "=root:a:1:2:/a:-:r:more:\n+x.org-bob-:y:5:5:/y:-::\n+x.org-:x.org:7:8:/z:-::\n.\nnotes\n";
        assert_eq!(String::from_utf8_lossy(&with), expected);
        assert_eq!(with_line(&with, &line).unwrap(), with);
        let without = without_line(&with, &line.matches).unwrap();
        assert_eq!(without, b"=root:a:1:2:/a:-:r:more:\n+x.org-bob-:y:5:5:/y:-::\n.\nnotes\n");
        assert_eq!(without_line(&without, &line.matches).unwrap(), without);
        assert_eq!(without_line(&without, &Match::Exact(b"ROOT".to_vec())).unwrap(), &without[25..]);
        assert_eq!(with_line(b".", &line).unwrap(), b"+x.org-:x.org:7:8:/z:-::\n.");
        assert_eq!(with_line(b"=a:b:1:2:/h:::\n", &line).unwrap_err().line, 2);
    }

    #[test]
    fn a_domain_is_a_prefix_line_without_extension() {
        let domain = |t: &str| parse(format!("{t}\n.\n").as_bytes()).unwrap()[0].domain();
        assert_eq!(domain("+X.org-:x.org:5:5:/x:-::"), Some(b"x.org".to_vec()));
        for other in ["=x.org-:x:5:5:/x:-::", "+x.org:x:5:5:/x:-::", "+x-:x:5:5:/x:-:e:", "+x-:x:5:5:/x:::"] {
            assert_eq!(domain(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in prop::collection::vec(prop::sample::select(&b"=+:.1\n\0a"[..]), 0..60)) {
            if let Ok(lines) = parse(&text) {
                let again: Vec<u8> = lines.iter().flat_map(Line::to_text).chain(*b".\n").collect();
                prop_assert_eq!(parse(&again).unwrap(), lines.clone());
                let added = Line::of_domain(b"x", b"x", 1, 1, b"/x");
                let with = with_line(&text, &added).unwrap();
                let kept = lines.into_iter().filter(|l| !l.matches.is_same(&added.matches));
                let expected: Vec<Line> = kept.chain([added.clone()]).collect();
                prop_assert_eq!(parse(&with).unwrap(), expected);
            }
        }
    }
}
