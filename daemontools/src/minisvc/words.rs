//! Command lines as text for the shell and back: a subset that the shell reads in the same way.

/// One word, in quotes if it needs them.
#[must_use]
pub fn quote(word: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=+./,:@%".contains(b);
    if !word.is_empty() && word.iter().all(plain) {
        return word.to_vec();
    }
    let mut out = vec![b'\''];
    for &byte in word {
        match byte {
            b'\'' => out.extend(b"'\\''"),
            other => out.push(other),
        }
    }
    out.push(b'\'');
    out
}

/// Words with blanks between them.
#[must_use]
pub fn join(words: &[Vec<u8>]) -> Vec<u8> {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(&b' ')
}

/// The words of a line; `None` when it holds what [`join`] never writes: an open quote, or an unquoted byte that has
/// a meaning for the shell.
#[must_use]
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take()),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'\'' => break,
                        other => word.push(other),
                    }
                }
            }
            b'\\' => word.get_or_insert_default().push(bytes.next().filter(|&b| b == b'\'')?),
            b'"' | b'$' | b'`' | b'*' | b'?' | b'[' | b'~' | b'#' | b'&' | b';' | b'<' | b'>' | b'|'
            | b'(' | b')' | b'{' | b'!' | 0 => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_of_a_line() {
        let words = |line: &str| {
            split(line.as_bytes())
                .map(|all| all.into_iter().map(|w| String::from_utf8(w).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(
            words("minisvc --svscanlog  --initcmd='a b'\n").unwrap(),
            ["minisvc", "--svscanlog", "--initcmd=a b"]
        );
        assert_eq!(words("'it'\\''s' ''").unwrap(), ["it's", ""]);
        for wrong in ["'open", "a\\", "$HOME", "a;b", "`x`", "a\\b"] {
            assert_eq!(words(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_shell_reads_the_same_words() {
        let words: Vec<Vec<u8>> =
            ["a", "", "it's", "$HOME", "a b\nc", "*", "-x", "\\"].map(Into::into).to_vec();
        let mut script = b"printf '%s\\0' ".to_vec();
        script.extend(join(&words));
        let script = String::from_utf8(script).unwrap();
        let out = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        let read: Vec<Vec<u8>> = out.stdout.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
        assert_eq!(read[..words.len()], words);
    }

    proptest! {
        #[test]
        fn round_trip(words in proptest::collection::vec(proptest::collection::vec(1u8.., 0..9), 0..6)) {
            prop_assert_eq!(split(&join(&words)), Some(words));
        }

        #[test]
        fn split_never_panics(line: Vec<u8>) {
            let _ = split(&line);
        }
    }
}
