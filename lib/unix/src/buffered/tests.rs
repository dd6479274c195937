use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What happened at the descriptors, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Read,
    Wrote(Vec<u8>),
}

type Record = Rc<RefCell<Vec<Event>>>;

/// Gives these answers, one a read.
struct Script(VecDeque<io::Result<Vec<u8>>>, Record);

impl Read for Script {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1.borrow_mut().push(Event::Read);
        match self.0.pop_front() {
            None => Ok(0),
            Some(answer) => answer.map(|bytes| {
                buf[..bytes.len()].copy_from_slice(&bytes);
                bytes.len()
            }),
        }
    }
}

/// Takes at most so many bytes a write, until it fails.
struct Sink(usize, Option<io::ErrorKind>, Record);

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let Some(kind) = self.1 {
            self.2.borrow_mut().push(Event::Wrote(b"failed".to_vec()));
            if kind == io::ErrorKind::Interrupted {
                self.1 = None;
            }
            return Err(kind.into());
        }
        let n = buf.len().min(self.0);
        self.2.borrow_mut().push(Event::Wrote(buf[..n].to_vec()));
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wrote(bytes: &[u8]) -> Event {
    Event::Wrote(bytes.to_vec())
}

#[test]
fn everything_is_out_before_each_read() {
    let record = Record::default();
    let answers = [Ok(b"one\ntwo\nth".to_vec()), Err(io::ErrorKind::Interrupted.into()), Ok(b"ree".to_vec())];
    let mut input = Input::new(Script(answers.into(), record.clone()));
    let mut output = Output::new(Sink(100, None, record.clone()));
    let mut line = Vec::new();
    while input.line(&mut [&mut output], &mut line).unwrap() {
        output.write_all(&line).unwrap();
        line.clear();
    }
    output.flush().unwrap();
    use Event::Read;
    assert_eq!(*record.borrow(), [Read, wrote(b"one\ntwo\n"), Read, Read, Read, wrote(b"three")]);
}

#[test]
fn short_and_interrupted_writes_are_continued() {
    let record = Record::default();
    let mut output = Output::new(Sink(2, Some(io::ErrorKind::Interrupted), record.clone()));
    output.write_all(b"abcde").unwrap();
    output.flush().unwrap();
    assert_eq!(*record.borrow(), [wrote(b"failed"), wrote(b"ab"), wrote(b"cd"), wrote(b"e")]);
}

#[test]
fn an_error_is_reported_once() {
    let record = Record::default();
    let mut output = Output::new(Sink(2, Some(io::ErrorKind::StorageFull), record.clone()));
    output.write_all(b"abc").unwrap();
    assert_eq!(output.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(output.has_failed());
    output.write_all(b"more").unwrap();
    output.flush().unwrap();
    drop(output);
    assert_eq!(*record.borrow(), [wrote(b"failed")]);
}

#[test]
fn filters_tell_reading_from_writing() {
    let record = Record::default();
    let answers = || Script([Ok(b"x".to_vec()), Err(io::ErrorKind::NotFound.into())].into(), record.clone());
    let copy = |bytes: &[u8], out: &mut Output<Sink>| out.write_all(bytes);
    let good = Output::new(Sink(9, None, record.clone()));
    assert!(matches!(filter(Input::new(answers()), good, copy), Err(Failure::Read(_))));
    let full = Output::new(Sink(9, Some(io::ErrorKind::StorageFull), record.clone()));
    assert!(matches!(filter(Input::new(answers()), full, copy), Err(Failure::Write(_))));
}

#[test]
fn a_non_blocking_descriptor_is_waited_for() {
    let (read, write) = crate::fd::pipe_nonblocking().unwrap();
    let all = vec![7u8; 300_000];
    let sent = all.clone();
    let writer = std::thread::spawn(move || {
        let mut output = Output::new(Patient::new(write.as_fd()));
        output.write_all(&sent).and_then(|()| output.flush())
    });
    let mut got = Vec::new();
    filter(Input::new(Patient::new(read.as_fd())), Output::new(&mut got), |bytes, out| out.write_all(bytes))
        .unwrap();
    writer.join().unwrap().unwrap();
    assert!(got == all);
}

proptest! {
    #[test]
    fn lines_come_whole_whatever_the_reads(text in "[a\n]{0,40}", size in 1usize..9) {
        let mut input = Input::with_capacity(size, text.as_bytes());
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while input.line(&mut [], &mut line).unwrap() {
            lines.push(String::from_utf8(std::mem::take(&mut line)).unwrap());
        }
        prop_assert_eq!(lines, text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>());
    }
}
