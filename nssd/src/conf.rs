//! The syntax of `nssd.conf`: lines of key, white space, value.
//!
//! `#` in the first column begins a comment, a backslash at the very end of a line continues it, and
//! a line has at most 1023 bytes. What a key means is not known here.

/// Bytes of a line, continuation lines included.
const LINE_LIMIT: usize = 1023;

/// One line with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins, from 1.
    pub line: usize,
    /// The key.
    pub key: Vec<u8>,
    /// The value without white space around it; may be empty.
    pub value: Vec<u8>,
}

/// A line that cannot be read: where, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad {
    /// Where it begins, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// Reads a file's bytes.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Result<Entry, Bad>> {
    let mut entries = Vec::new();
    let mut lines = text.split(|&b| b == b'\n').zip(1..);
    while let Some((first, line)) = lines.next() {
        let mut whole = first.to_vec();
        while whole.last() == Some(&b'\\') {
            whole.pop();
            match lines.next() {
                Some((more, _)) => whole.extend_from_slice(more),
                None => break,
            }
        }
        if whole.first() == Some(&b'#') || whole.trim_ascii().is_empty() {
            continue;
        }
        entries.push(entry(line, &whole));
    }
    entries
}

fn entry(line: usize, whole: &[u8]) -> Result<Entry, Bad> {
    if whole.len() > LINE_LIMIT {
        return Err(Bad { line, why: "line longer than 1023 bytes" });
    }
    if whole.contains(&0) {
        return Err(Bad { line, why: "line with a NUL byte" });
    }
    let whole = whole.trim_ascii();
    let end = whole.iter().position(u8::is_ascii_whitespace).unwrap_or(whole.len());
    let (key, value) = whole.split_at(end);
    Ok(Entry { line, key: key.to_vec(), value: value.trim_ascii().to_vec() })
}

/// For fuzzing: any bytes as the file.
pub fn fuzz_conf(bytes: &[u8]) {
    for entry in parse(bytes).into_iter().flatten() {
        assert!(!entry.key.is_empty() && entry.line > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let text_of = |b: Vec<u8>| String::from_utf8(b).unwrap();
        let entries = parse(text.as_bytes()).into_iter().map(Result::unwrap);
        entries.map(|e| (e.line, text_of(e.key), text_of(e.value))).collect()
    }

    #[test]
    fn comments_continuations_and_line_numbers() {
        let text = "# comment\nshell  /bin/sh \n\n  threads\t7\nlong a\\\nb\\\nc\n #x y\nflag\n";
        let expected = [
            (2, "shell", "/bin/sh"),
            (4, "threads", "7"),
            (5, "long", "abc"),
            (8, "#x", "y"),
            (9, "flag", ""),
        ];
        let expected = expected.map(|(n, k, v)| (n, k.to_owned(), v.to_owned()));
        assert_eq!(read(text), expected);
        assert_eq!(read("key value\\"), [(1, "key".to_owned(), "value".to_owned())]);
    }

    #[test]
    fn long_lines_and_nul_bytes_are_refused_where_they_are() {
        let text = format!("a 1\nb {}\nc\0d e\n", "x".repeat(1022));
        let bad: Vec<usize> =
            parse(text.as_bytes()).into_iter().filter_map(|e| e.err().map(|b| b.line)).collect();
        assert_eq!(bad, [2, 3]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_conf(&text);
        }
    }
}
