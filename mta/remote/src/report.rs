//! What this program tells the one who started it.
//!
//! Zero or more recipient reports, letter `r` (accepted), `h` (never), `s` (not now), text, NUL; then
//! one message report, letter `K`, `D` or `Z`, text, NUL.

use smtp::client::{Class, Report, Verdict};

use crate::settings::Job;

/// A report without recipients, for what went wrong before a host was asked.
#[must_use]
pub(crate) fn trouble(letter: u8, text: &str) -> Vec<u8> {
    record(letter, &[text.as_bytes(), b"\n"].concat())
}

/// The report of a dialogue with the host at `ip`.
#[must_use]
pub(crate) fn of(job: &Job, ip: &str, report: &Report) -> Vec<u8> {
    let mut out = Vec::new();
    for (recipient, verdict) in job.recipients.iter().zip(&report.recipients) {
        let (letter, text) = match verdict.class {
            Class::Accepted => (b'r', Vec::new()),
            Class::Permanent => (b'h', words(job, recipient, ip, "does not like recipient", verdict)),
            Class::Temporary => (b's', words(job, recipient, ip, "does not like recipient now", verdict)),
        };
        out.extend(record(letter, &text));
    }
    let (letter, what) = match report.message.class {
        Class::Accepted => (b'K', "accepted message"),
        Class::Permanent => (b'D', "refused message"),
        Class::Temporary => (b'Z', "did not take message"),
    };
    let first = job.recipients.first().map(Vec::as_slice).unwrap_or_default();
    out.extend(record(letter, &words(job, first, ip, what, &report.message)));
    out
}

fn words(job: &Job, recipient: &[u8], ip: &str, what: &str, verdict: &Verdict) -> Vec<u8> {
    [
        b"From:<",
        &job.sender[..],
        b"> RCPT:<",
        recipient,
        b"> ",
        ip.as_bytes(),
        b" ",
        what.as_bytes(),
        b".\nRemote host said: ",
        &verdict.text,
        b"\n",
    ]
    .concat()
}

/// A NUL in a text would end the record.
fn record(letter: u8, text: &[u8]) -> Vec<u8> {
    let mut out = vec![letter];
    out.extend(text.iter().map(|&b| if b == 0 { b'?' } else { b }).filter(|&b| b != b'\r'));
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let job = Job {
            host: b"d".to_vec(),
            sender: b"s@x".to_vec(),
            recipients: vec![b"a@d".to_vec(), b"b@d".to_vec()],
        };
        let verdict = |class, text: &str| Verdict { class, text: text.as_bytes().to_vec() };
        let report = Report {
            recipients: vec![verdict(Class::Accepted, "250 ok"), verdict(Class::Permanent, "550 n\0o")],
            message: verdict(Class::Accepted, "250 queued"),
        };
        assert_eq!(
            of(&job, "192.0.2.1", &report).escape_ascii().to_string(),
            "r\\x00hFrom:<s@x> RCPT:<b@d> 192.0.2.1 does not like recipient.\\nRemote host said: 550 n?o\\n\\x00\
             KFrom:<s@x> RCPT:<a@d> 192.0.2.1 accepted message.\\nRemote host said: 250 queued\\n\\x00"
        );
        assert_eq!(trouble(b'Z', "x (#4.3.0)"), b"Zx (#4.3.0)\n\0");
    }
}
