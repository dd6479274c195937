//! The lines of a dot-qmail file.

/// One line, what it means alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `:label`: a place to jump to.
    Label(Vec<u8>),
    /// `?label`, `?label command`: skip forward to the label, always or when the command says 99.
    Jump {
        /// Where to.
        label: Vec<u8>,
        /// Who decides.
        command: Option<Vec<u8>>,
    },
    /// `%dir`: load variables from the files of a directory.
    Variables(Vec<u8>),
    /// `/path` or `./path` ending in a slash.
    Maildir(Vec<u8>),
    /// `/path` or `./path`.
    Mbox(Vec<u8>),
    /// `|command`.
    Program(Vec<u8>),
    /// `+list`: from here on forwards only.
    ForwardsOnly,
    /// `&address` or `address`.
    Forward(Vec<u8>),
}

/// A file that must not be obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Reads a whole file. Blanks and tabs at the end of a line, comments, blank lines and lines that
/// are only `:` mean nothing.
///
/// # Errors
/// The first line is blank (an editor at work, or a mistake), a NUL, or a forward to nobody.
pub fn parse(text: &[u8]) -> Result<Vec<Instruction>, ParseError> {
    let mut instructions = Vec::new();
    for (index, line) in text.split(|&b| b == b'\n').enumerate() {
        let number = index + 1;
        let end = line.iter().rposition(|b| !b" \t\r".contains(b)).map_or(0, |i| i + 1);
        let line = &line[..end];
        if line.is_empty() && index == 0 && !text.is_empty() {
            return Err(ParseError { line: number, what: "the first line is blank" });
        }
        if line.contains(&0) {
            return Err(ParseError { line: number, what: "a NUL byte" });
        }
        instructions.extend(read(line).map_err(|what| ParseError { line: number, what })?);
    }
    Ok(instructions)
}

fn read(line: &[u8]) -> Result<Option<Instruction>, &'static str> {
    let Some((&first, rest)) = line.split_first() else {
        return Ok(None);
    };
    Ok(Some(match first {
        b'#' => return Ok(None),
        b':' if rest.is_empty() => return Ok(None),
        b':' => Instruction::Label(rest.to_vec()),
        b'?' => jump(rest),
        b'%' => Instruction::Variables(rest.to_vec()),
        b'/' | b'.' if line.ends_with(b"/") => Instruction::Maildir(line.to_vec()),
        b'/' | b'.' => Instruction::Mbox(line.to_vec()),
        b'|' => Instruction::Program(rest.to_vec()),
        b'+' if rest == b"list" => Instruction::ForwardsOnly,
        b'+' => return Err("expected +list"),
        b'&' if rest.is_empty() => return Err("a forward to nobody"),
        b'&' => Instruction::Forward(rest.to_vec()),
        _ => Instruction::Forward(line.to_vec()),
    }))
}

fn jump(rest: &[u8]) -> Instruction {
    let end = rest.iter().position(|b| b" \t".contains(b)).unwrap_or(rest.len());
    let command = rest[end..].trim_ascii_start();
    let command = (!command.is_empty()).then(|| command.to_vec());
    Instruction::Jump { label: rest[..end].to_vec(), command }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_line() {
        use Instruction::*;
        let text =
            b"# comment\n./Mailbox \t\n./Maildir/\n/abs/box\n|prog  $X\n&a@b\njoe@c\n+list\n:end\n:\n\n\
            ?end\n?end test -f x\n%vars";
        assert_eq!(
            parse(text).unwrap(),
            [
                Mbox(b"./Mailbox".to_vec()),
                Maildir(b"./Maildir/".to_vec()),
                Mbox(b"/abs/box".to_vec()),
                Program(b"prog  $X".to_vec()),
                Forward(b"a@b".to_vec()),
                Forward(b"joe@c".to_vec()),
                ForwardsOnly,
                Label(b"end".to_vec()),
                Jump { label: b"end".to_vec(), command: None },
                Jump { label: b"end".to_vec(), command: Some(b"test -f x".to_vec()) },
                Variables(b"vars".to_vec()),
            ]
        );
    }

    #[test]
    fn files_that_are_not_obeyed() {
        assert_eq!(parse(b"\n&a@b\n").unwrap_err().line, 1);
        assert_eq!(parse(b" \t\n").unwrap_err().line, 1);
        assert_eq!(parse(b"&a@b\n&\n").unwrap_err().line, 2);
        assert_eq!(parse(b"#\n+lisp\n").unwrap_err().line, 2);
        assert_eq!(parse(b"&a\0b\n").unwrap_err().line, 1);
        assert_eq!(parse(b"").unwrap(), []);
        assert_eq!(parse(b"#\n").unwrap(), []);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in prop::collection::vec(prop::sample::select(&b"#:?%./|+&a \t\n\0list"[..]), 0..60)) {
            if let Ok(all) = parse(&text) {
                for i in all {
                    match i {
                        Instruction::Forward(a) | Instruction::Mbox(a) => prop_assert!(!a.is_empty() && !a.contains(&b'\n')),
                        _ => {}
                    }
                }
            }
        }
    }
}
