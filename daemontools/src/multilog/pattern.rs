//! Patterns of lines: those of multilog, and those of the shell.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// See [`matches`].
    Simple(Vec<u8>),
    /// See [`matches_glob`].
    Glob(Vec<u8>),
}

impl Pattern {
    /// A pattern of multilog's own.
    #[must_use]
    pub fn simple(text: &[u8]) -> Self {
        Self::Simple(text.to_vec())
    }

    /// A pattern as the shell has them.
    #[must_use]
    pub fn glob(text: &[u8]) -> Self {
        Self::Glob(text.to_vec())
    }

    /// Does the whole line match?
    #[must_use]
    pub fn matches(&self, line: &[u8]) -> bool {
        match self {
            Self::Simple(pattern) => matches(pattern, line),
            Self::Glob(pattern) => matches_glob(pattern, line),
        }
    }
}

/// Does the whole line match? `*` matches the longest string without the byte that follows it in the
/// pattern, and anything at the end.
#[must_use]
pub fn matches(pattern: &[u8], line: &[u8]) -> bool {
    let (mut pattern, mut line) = (pattern, line);
    loop {
        match (pattern, line) {
            ([], rest) => return rest.is_empty(),
            ([b'*'], _) => return true,
            ([b'*', stop, ..], _) => match memchr::memchr(*stop, line) {
                Some(at) => (pattern, line) = (&pattern[1..], &line[at..]),
                None => return false,
            },
            ([p, more @ ..], [l, rest @ ..]) if p == l => (pattern, line) = (more, rest),
            _ => return false,
        }
    }
}

/// Does the whole line match, as fnmatch(3) has it without flags? `*` is any text, `?` any byte, `[a-c]` one
/// of a set and `[!a-c]` any other; `\` takes the meaning of the byte behind it. A `[` without its `]`
/// is itself, and a `\` at the end matches nothing.
#[must_use]
pub fn matches_glob(pattern: &[u8], line: &[u8]) -> bool {
    let (mut at, mut in_line) = (0, 0);
    // Behind the last star, and where the text it stands for ends so far.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, in_line));
            continue;
        }
        if at == pattern.len() && in_line == line.len() {
            return true;
        }
        let one = line.get(in_line).and_then(|&byte| one(&pattern[at..], byte));
        match (one, star) {
            (Some(used), _) => (at, in_line) = (at + used, in_line + 1),
            // Only the last star need take more: what stands before it matched already.
            (None, Some((behind, end))) if end < line.len() => {
                star = Some((behind, end + 1));
                (at, in_line) = (behind, end + 1);
            }
            (None, _) => return false,
        }
    }
}

/// Does the first element of the pattern match this byte? Its length if it does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'\\'] | [] => None,
        [b'[', rest @ ..] => match set(rest, byte) {
            Some((true, length)) => Some(1 + length),
            Some((false, _)) => None,
            None => (byte == b'[').then_some(1),
        },
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// Is the byte in the set that begins here, and how long is the set? `None`: it has no end.
fn set(rest: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(rest, [b'!' | b'^', ..]);
    let start = usize::from(negated);
    let (mut at, mut found) = (start, false);
    loop {
        let low = match *rest.get(at)? {
            // The first ] is a member.
            b']' if at > start => return Some((found != negated, at + 1)),
            b'[' if rest.get(at + 1) == Some(&b':') => {
                let name = &rest[at + 2..];
                if let Some(end) = name.windows(2).position(|pair| pair == b":]") {
                    found |= in_class(&name[..end], byte);
                    at += 2 + end + 2;
                    continue;
                }
                b'['
            }
            b'\\' => {
                at += 1;
                *rest.get(at)?
            }
            other => other,
        };
        at += 1;
        let mut high = low;
        if rest.get(at) == Some(&b'-') && rest.get(at + 1).is_some_and(|&b| b != b']') {
            at += 1;
            if rest[at] == b'\\' {
                at += 1;
            }
            high = *rest.get(at)?;
            at += 1;
        }
        found |= (low..=high).contains(&byte);
    }
}

fn in_class(name: &[u8], byte: u8) -> bool {
    match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, line, want) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "anything", true),
            ("a*", "a", true),
            ("*: *", "host: up", true),
            ("*: *", "host up", false),
            ("*end", "the end", false),
            ("*d", "the end", true),
            ("*b*", "aabb", true),
            ("**x", "a*x", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), line.as_bytes()), want, "{pattern} {line}");
        }
    }

    #[test]
    fn shell_patterns() {
        for (pattern, line, want) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*.log", ".log", true),
            ("?b", "ab", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[[:digit:]]*", "7 up", true),
            ("[![:digit:]]*", "7 up", false),
            ("[ab", "[ab", true),
            ("\\*x", "*x", true),
            ("\\*x", "ax", false),
            ("x\\", "x\\", false),
            ("[\\]]", "]", true),
        ] {
            assert_eq!(matches_glob(pattern.as_bytes(), line.as_bytes()), want, "{pattern} {line}");
        }
    }

    /// By definition: tries everything.
    fn slowly(pattern: &[u8], line: &[u8]) -> bool {
        match pattern {
            [] => line.is_empty(),
            [b'*', rest @ ..] => (0..=line.len()).any(|at| slowly(rest, &line[at..])),
            _ => line
                .first()
                .and_then(|&b| one(pattern, b))
                .is_some_and(|used| slowly(&pattern[used..], &line[1..])),
        }
    }

    proptest! {
        #[test]
        fn matching_ends_and_literals_match_themselves(pattern in "[a*]{0,12}", line in "[ab*]{0,12}") {
            let _ = matches(pattern.as_bytes(), line.as_bytes());
            let literal = line.replace('*', "c");
            prop_assert!(matches(literal.as_bytes(), literal.as_bytes()));
        }

        #[test]
        fn stars_are_found_without_trying_everything(pattern in "[ab*?\\[\\]!-]{0,10}", line in "[ab\\[-]{0,10}") {
            prop_assert_eq!(matches_glob(pattern.as_bytes(), line.as_bytes()), slowly(pattern.as_bytes(), line.as_bytes()));
        }
    }
}
