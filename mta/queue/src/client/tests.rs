//! What the callers of the queue see.

use super::*;

fn outcome(vars: &[(&str, &str)], message: &[u8], recipients: &[&[u8]]) -> Outcome {
    let vars: Vec<(OsString, OsString)> = vars.iter().map(|(n, v)| (n.into(), v.into())).collect();
    let program = QueueProgram::new(Path::new("/nonexistent"), &vars).patience(Duration::from_secs(20));
    match program.open() {
        Ok(mut transfer) => {
            transfer.write(message);
            transfer.finish(b"s@x", recipients.iter().copied())
        }
        Err(outcome) => outcome,
    }
}

fn with_script(script: &str, message: &[u8]) -> Outcome {
    let line = format!("/bin/sh -c '{script}'");
    outcome(&[("QMAILQUEUE", &line), ("PATH", "/usr/bin:/bin")], message, &[b"r@y"])
}

const READ_ALL: &str = "cat >/dev/null; cat <&1 >/dev/null; ";

fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Queued { .. } => "queued".to_owned(),
        Outcome::Permanent(t) => format!("D{}", String::from_utf8_lossy(t)),
        Outcome::Temporary(t) => format!("Z{}", String::from_utf8_lossy(t)),
    }
}

#[test]
fn the_program_gets_message_and_envelope_and_its_status_is_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!("cat >{0}; cat <&1 >>{0}", out.display());
    assert!(matches!(with_script(&script, b"Subject: x\n\n"), Outcome::Queued { qp } if qp > 0));
    assert_eq!(std::fs::read(&out).unwrap(), b"Subject: x\n\nFs@x\0Tr@y\0\0");
    for (code, wanted) in [(11, 'D'), (31, 'D'), (53, 'Z'), (115, 'D'), (99, 'Z')] {
        let got = text(&with_script(&format!("{READ_ALL} exit {code}"), b""));
        assert!(got.starts_with(wanted), "{code}: {got}");
    }
    assert!(text(&with_script(&format!("{READ_ALL} kill -9 $$"), b"")).contains("crashed"));
}

#[test]
fn custom_text_reaches_the_caller() {
    let custom = |t: &str| text(&with_script(&format!("{READ_ALL} printf \"{t}\" >&2; exit 88"), b""));
    assert_eq!(custom("Dno such thing (#5.0.0)\\nmore"), "Dno such thing (#5.0.0)");
    assert_eq!(custom("Zlater"), "Zlater");
    assert!(custom("D").starts_with('Z'));
    let flood = format!("{READ_ALL} printf Dfull >&2; head -c 65536 /dev/zero >&2; exit 88");
    assert!(text(&with_script(&flood, b"")).starts_with("Dfull"));
}

/// What fits into a pipe may be said before anything is read; what does not must not hang us.
#[test]
fn fix_9b_text_before_the_message_is_read_blocks_nobody() {
    let big = vec![b'x'; 1 << 20];
    let say = |size: u32| format!("printf Dno >&2; head -c {size} /dev/zero >&2; {READ_ALL} exit 88");
    assert!(text(&with_script(&say(60_000), &big)).starts_with("Dno?"));
    let line = format!("/bin/sh -c '{}'", say(1 << 20));
    let vars = [("QMAILQUEUE", line.as_str()), ("PATH", "/usr/bin:/bin")].map(|(n, v)| (n.into(), v.into()));
    let program = QueueProgram::new(Path::new("/x"), &vars).patience(Duration::from_millis(50));
    let mut transfer = program.open().unwrap();
    transfer.write(&big);
    // Never a success, and it comes to an end.
    assert!(!matches!(transfer.finish(b"", []), Outcome::Queued { .. }));
}

#[test]
fn a_program_that_does_not_read_cannot_say_yes() {
    let big = vec![b'x'; 1 << 20];
    assert!(text(&with_script("exit 0", &big)).starts_with('Z'));
}

#[test]
fn a_program_that_hangs_is_killed() {
    let vars = [(OsString::from("QMAILQUEUE"), OsString::from("/bin/sleep 1000"))];
    let program = QueueProgram::new(Path::new("/x"), &vars).patience(Duration::from_millis(50));
    let transfer = program.open().unwrap();
    assert!(text(&transfer.finish(b"", [])).starts_with('Z'));
}

#[test]
fn missing_program_is_temporary_and_nullqueue_swallows() {
    assert!(text(&outcome(&[], b"", &[])).contains("cannot run the queue program"));
    assert!(matches!(outcome(&[("NULLQUEUE", ""), ("QMAILQUEUE", "/x")], b"m", &[]), Outcome::Queued { .. }));
}

#[test]
fn bad_addresses_are_refused_before_anything_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("/bin/sh -c 'cat >/dev/null; cat <&1 >{}'", dir.path().join("e").display());
    let vars = [("QMAILQUEUE", line.as_str()), ("PATH", "/usr/bin:/bin")];
    assert!(text(&outcome(&vars, b"", &[&[b'x'; 1003]])).starts_with('D'));
    assert!(text(&outcome(&vars, b"", &[b"a\0b"])).starts_with('D'));
    // The program saw no complete envelope.
    assert!(!std::fs::read(dir.path().join("e")).unwrap_or_default().ends_with(b"\0\0"));
}

#[test]
fn command_lines_split_with_quotes() {
    let split = |s: &str| command_line(OsStr::new(s));
    assert_eq!(split("/a/b"), ["/a/b"]);
    assert_eq!(split("/a b "), ["/a", "b"]);
    assert_eq!(split("/a b "), ["/a", "b"]);
    assert_eq!(split("/a "), ["/a "]);
    assert_eq!(split("/a 'b c' \"d'e\" f"), ["/a", "b c", "d'e", "f"]);
}
