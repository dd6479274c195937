//! Lines that come before the message.

use message::trace;

use super::Settings;

/// The `Delivered-To` line: DTLINE, or one made from the address.
pub(super) fn delivered_to(settings: &Settings) -> Vec<u8> {
    match settings.environment.bytes("DTLINE").filter(|l| !l.is_empty()) {
        Some(line) => one_line(line),
        None => trace::delivered_to(&[&settings.domain[..], b"-", &settings.address()].concat()),
    }
}

/// Everything for a message in a mailbox.
pub(super) fn for_mailbox(settings: &Settings) -> Vec<u8> {
    let return_path = match settings.environment.bytes("RPLINE").filter(|l| !l.is_empty()) {
        Some(line) => one_line(line),
        None => trace::return_path(&settings.sender),
    };
    [return_path, delivered_to(settings), extra(settings), filter(settings), received()].concat()
}

/// What a program of an alias sees before the message.
pub(super) fn for_program(settings: &Settings) -> Vec<u8> {
    let trace = crate::forward::trace(&[settings.address()], &settings.address());
    [trace, filter(settings), received()].concat()
}

/// What goes before a message that is sent on.
pub(super) fn for_forward(settings: &Settings, to: &[Vec<u8>]) -> Vec<u8> {
    [delivered_to(settings), crate::forward::trace(to, &settings.address()), extra(settings)].concat()
}

fn extra(settings: &Settings) -> Vec<u8> {
    let block = settings.environment.bytes("QQEH").unwrap_or_default();
    let newline: &[u8] = if block.is_empty() || block.ends_with(b"\n") { b"" } else { b"\n" };
    [block, newline].concat()
}

fn filter(settings: &Settings) -> Vec<u8> {
    let line = settings.environment.bytes("XFILTER").filter(|l| !l.is_empty());
    one_line(line.unwrap_or(b"X-Filter: None"))
}

fn received() -> Vec<u8> {
    let how = format!("invoked by uid {}", unix::Uid::current());
    let host = unix::host::name();
    trace::received("indimail-virtual", std::process::id(), host.as_bytes(), how.as_bytes(), crate::now())
}

/// A line from a variable, with exactly one newline, at its end.
fn one_line(line: &[u8]) -> Vec<u8> {
    let text = line.trim_ascii_end();
    let safe = text.iter().map(|&b| if b"\r\n".contains(&b) { b' ' } else { b });
    safe.chain([b'\n']).collect()
}
