//! Filters of log lines: time labels, and the lines of a delivery log.
#![no_main]

use daemontools::logselect::Span;
use daemontools::qlogselect::{Selection, Selector};
use daemontools::tai64n::convert::{FromTai, ToTai, ToUnix};
use daemontools::tai64n::line_starts::LineStarts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (first, second) = data.split_at(data.len() / 2);
    let mut out = Vec::new();
    let (mut unix, mut tai, mut from) = (
        LineStarts::new(ToUnix::default()),
        LineStarts::new(ToTai::default()),
        LineStarts::new(FromTai::default()),
    );
    for chunk in [first, second] {
        unix.feed(chunk, &mut out).unwrap();
        tai.feed(chunk, &mut out).unwrap();
        from.feed(chunk, &mut out).unwrap();
    }
    let span = Span { start: tai::Label::new(tai::ORIGIN, 0), stop: tai::Label::new(u64::MAX, 0) };
    let _ = span.selects(data);
    let words = ["from", "*a*", "start", "5", "addstatus"].map(Into::into);
    let mut selector = Selector::new(Selection::parse(&words).unwrap());
    data.split_inclusive(|&b| b == b'\n').for_each(|line| selector.line(line, &mut out));
});
