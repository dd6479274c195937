//! Shell patterns: `*`, `?`, `[a-z]`, `[^a-z]`, and a backslash before a byte that means itself.

/// Does the whole text match the pattern? Both are bytes; case counts.
///
/// The time is at most the product of both lengths. A bracket that is never closed means itself.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and up to where it has swallowed the text.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        match text.get(t).and_then(|&byte| one(&pattern[p..], byte)) {
            Some(used) => {
                p += used;
                t += 1;
            }
            None => match star {
                Some((after, swallowed)) if swallowed < text.len() => {
                    star = Some((after, swallowed + 1));
                    (p, t) = (after, swallowed + 1);
                }
                _ => return false,
            },
        }
    }
    true
}

/// How many bytes of the pattern match this byte; `None`: it does not match.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    let (used, fits) = match *pattern {
        [] => return None,
        [b'?', ..] => (1, true),
        [b'\\', literal, ..] => (2, literal == byte),
        [b'[', ref rest @ ..] => match set(rest, byte) {
            Some((used, fits)) => (used + 1, fits),
            None => (1, byte == b'['),
        },
        [literal, ..] => (1, literal == byte),
    };
    fits.then_some(used)
}

/// A set up to and including its `]`: bytes used, and whether `byte` is in it.
fn set(rest: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = rest.first() == Some(&b'^');
    let start = usize::from(negated);
    // A `]` in the first place is a member.
    let end = start + 1 + rest.get(start + 1..)?.iter().position(|&b| b == b']')?;
    let members = &rest[start..end];
    let (mut i, mut inside) = (0, false);
    while i < members.len() {
        match members[i..] {
            [low, b'-', high, ..] => {
                inside |= (low..=high).contains(&byte);
                i += 3;
            }
            _ => {
                inside |= members[i] == byte;
                i += 1;
            }
        }
    }
    Some((end + 1, inside != negated))
}

/// Goes through all lines; the last one that matches decides, `!` in front of it means no.
pub(crate) fn verdict(lines: &[Vec<u8>], text: &[u8]) -> bool {
    lines.iter().fold(false, |so_far, line| match line.strip_prefix(b"!") {
        Some(pattern) if matches(pattern, text) => false,
        None if matches(line, text) => true,
        _ => so_far,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("*@x.example", "a@x.example", "a@x.example.org"),
            ("*.x.example", "a@b.x.example", "a@x.example"),
            ("a?c", "abc", "ac"),
            ("[a-c]x", "bx", "dx"),
            ("[^a-c]x", "dx", "bx"),
            ("[]a]", "]", "b"),
            (r"a\*b", "a*b", "axb"),
            ("a[b", "a[b", "ab"),
            ("*a*b*", "xaxbx", "xbxax"),
            ("", "", "a"),
        ] {
            assert!(matches(pattern.as_bytes(), yes.as_bytes()), "{pattern} {yes}");
            assert!(!matches(pattern.as_bytes(), no.as_bytes()), "{pattern} {no}");
        }
    }

    #[test]
    fn the_last_line_that_matches_decides() {
        let lines: Vec<Vec<u8>> = ["*@x", "!good@x", "*bad*"].map(|l| l.as_bytes().to_vec()).to_vec();
        let says = |t: &str| verdict(&lines, t.as_bytes());
        assert!(says("any@x") && !says("good@x") && says("badgood@x") && !says("a@y"));
    }

    proptest! {
        #[test]
        fn any_bytes(pattern in "[a*?\\[\\]^\\\\-]{0,12}", text in "[ab\\]-]{0,12}") {
            matches(pattern.as_bytes(), text.as_bytes());
        }

        #[test]
        fn every_text_matches_itself_and_a_star(text in "[a-z@.]{0,20}", cut in 0usize..20) {
            prop_assert!(matches(text.as_bytes(), text.as_bytes()));
            let cut = cut.min(text.len());
            let starred = [&text[..cut], "*", &text[cut..]].concat();
            prop_assert!(matches(starred.as_bytes(), text.as_bytes()));
        }
    }
}
