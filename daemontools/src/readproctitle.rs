//! readproctitle: the last messages of a program without a log, where ps(1) shows them.

use std::io::{self, Read};

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use unix::buffered::Patient;
use unix::title::LastArgument;

/// The table of readproctitle.
pub static SPEC: Spec = Spec {
    name: "readproctitle",
    summary: "keep the last messages in the list of processes",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "label ... dots", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "end of input" },
        ExitCodeDoc { code: 100, meaning: "wrong usage: the last operand has fewer than 5 bytes" },
        ExitCodeDoc { code: 111, meaning: "the input cannot be read" },
    ],
    description: "\
Reads its standard input to the end and keeps the last bytes of it in its own last argument, where ps(1) shows them. Every byte \
of that argument becomes a dot first, and the first three stay dots: the argument is as long as what is to be \
kept. NUL bytes are dropped. svscanboot(8) starts it for the messages of svscan(8) when there is no log.",
    ..Spec::EMPTY
};

/// readproctitle.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Fewer bytes would show nothing.
const AT_LEAST: usize = 5;
/// Bytes at the front that stay dots.
const DOTS: usize = 3;

/// The last bytes of a stream, in a fixed number of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Dots, in so many bytes.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self(vec![b'.'; length])
    }

    /// Takes more of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(shown) = self.0.get_mut(DOTS..) else { return };
        let new: Vec<u8> = bytes.iter().copied().filter(|&b| b != 0).collect();
        let new = &new[new.len().saturating_sub(shown.len())..];
        shown.rotate_left(new.len());
        let at = shown.len() - new.len();
        shown[at..].copy_from_slice(new);
    }

    /// What is to be shown.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let last = parsed.operands.last().map(|last| last.as_os_str()).unwrap_or_default();
    if last.len() < AT_LEAST {
        invocation.complain(
            "fatal",
            format_args!("the last operand has {} bytes: give as many dots as are to be shown", last.len()),
        );
        return Exit::PERMANENT;
    }
    let mut memory = match LastArgument::find(last) {
        Ok(memory) => Some(memory),
        Err(e) => {
            // Whoever writes to us must not be stopped by that.
            invocation.complain("warning", format_args!("nothing will be shown: {e}"));
            None
        }
    };
    match keep(memory.as_mut(), Tail::new(last.len())) {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to read: {e}"));
            Exit::TEMPORARY
        }
    }
}

fn keep(mut memory: Option<&mut LastArgument>, mut tail: Tail) -> io::Result<()> {
    let stdin = io::stdin();
    let mut input = Patient::new(std::os::fd::AsFd::as_fd(&stdin));
    let mut buffer = [0; 4096];
    loop {
        if let Some(memory) = &mut memory {
            memory.write(tail.bytes());
        }
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            count => tail.push(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_newest_bytes_are_at_the_end() {
        let mut tail = Tail::new(10);
        assert_eq!(tail.bytes(), b"..........");
        tail.push(b"a\0b\n");
        assert_eq!(tail.bytes(), b".......ab\n");
        tail.push(b"0123456789");
        assert_eq!(tail.bytes(), b"...3456789");
        let mut none = Tail::new(2);
        none.push(b"x");
        assert_eq!(none.bytes(), b"..");
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(stream: Vec<u8>, length in 5usize..40, size in 1usize..20) {
            let (mut whole, mut parts) = (Tail::new(length), Tail::new(length));
            whole.push(&stream);
            stream.chunks(size).for_each(|chunk| parts.push(chunk));
            prop_assert_eq!(&whole, &parts);
            let kept: Vec<u8> = stream.iter().copied().filter(|&b| b != 0).collect();
            let want = &kept[kept.len().saturating_sub(length - 3)..];
            prop_assert!(whole.bytes().ends_with(want));
            prop_assert_eq!(whole.bytes().len(), length);
            prop_assert!(whole.bytes().starts_with(b"..."));
        }
    }
}
