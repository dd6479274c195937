//! recordio, fixcrio, addcr, delcr and argv0 against Debian's.

mod support;

use std::io::{BufRead, BufReader, Read, Write};

use support::{Kit, run, start, text};

/// What is logged: code, output and the log with `PID` in place of the program's number.
fn recorded(command: &mut std::process::Command, input: &[u8]) -> (Option<i32>, String, Vec<String>) {
    let mut child = start(command);
    let pid = child.id().to_string();
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    let log = text(&out.stderr).lines().map(|line| line.replace(&pid, "PID")).collect();
    (out.status.code(), text(&out.stdout), log)
}

#[test]
fn recordio_logs_as_debians() {
    let kit = Kit::new();
    let script = "read x; echo \"got $x\"; cat; echo; printf 'no end'; exit 4";
    for input in [&b"hello\nwor"[..], b"\n\nx\n", b"a\r\nb\0\xffc\n"] {
        let [mut ours, mut debians] = [kit.ours("recordio"), kit.debians("recordio")].map(|mut command| {
            let mut all = recorded(command.args(["sh", "-c", script]), input);
            // How the program's output was cut into packets depends on who read when; put it together.
            let (to, from): (Vec<String>, Vec<String>) =
                all.2.into_iter().partition(|l| l.starts_with("PID < "));
            let whole: String = from.iter().map(|l| piece(l)).collect();
            all.2 = to;
            all.2.push(whole);
            all
        });
        ours.2.retain(|l| !l.is_empty());
        debians.2.retain(|l| !l.is_empty());
        assert_eq!(ours, debians, "{input:?}");
        assert_eq!(ours.0, Some(4));
    }
}

/// The data of a line of the log.
fn piece(line: &str) -> String {
    let data = line.strip_prefix("PID > ").unwrap_or_else(|| panic!("not of the log: {line}"));
    match data.strip_suffix('+') {
        Some(part) => part.to_owned(),
        None => format!("{}\n", data.strip_suffix(' ').unwrap_or(data)),
    }
}

#[test]
fn recordio_logs_before_it_passes_on() {
    let kit = Kit::new();
    let mut child = start(kit.ours("recordio").arg("cat"));
    let pid = child.id();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        line.replace(&pid.to_string(), "PID")
    };
    let mut input = child.stdin.take().unwrap();
    for (sent, logged) in [("one\n", "one \n"), ("two", "two+\n"), ("\n", " \n")] {
        input.write_all(sent.as_bytes()).unwrap();
        assert_eq!((next(), next()), (format!("PID < {logged}"), format!("PID > {logged}")));
    }
    drop(input);
    assert_eq!((next(), next()), ("PID < [EOF]\n".to_owned(), "PID > [EOF]\n".to_owned()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_program_is_the_process_that_was_started() {
    let kit = Kit::new();
    for name in ["recordio", "fixcrio"] {
        let mut child = start(kit.ours(name).args(["sh", "-c", "echo $$; exec cat"]));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim().parse(), Ok(child.id()), "{name}");
        // It is killed though its input is open, and what copied ends too: the log is at its end.
        let _input = child.stdin.take();
        child.kill().unwrap();
        child.wait().unwrap();
        child.stderr.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn codes_are_debians() {
    let kit = Kit::new();
    for name in ["recordio", "fixcrio", "argv0"] {
        assert_eq!(kit.same(name, &[], b"").0, Some(100), "{name}");
        assert_eq!(kit.same(name, &["/nonexistent", "x"], b"").0, Some(111), "{name}");
    }
    for name in ["recordio", "fixcrio"] {
        assert_eq!(
            kit.same(name, &["sh", "-c", "cat; exit 7"], b"x\n"),
            (Some(7), "x\n".replace('\n', end(name)))
        );
        assert_eq!(kit.same(name, &["sh", "-c", "kill -9 $$"], b"").0, None, "{name}");
        let big = vec![b'y'; 500_000];
        let out = run(kit.ours(name).arg("cat"), &big);
        assert!(out.stdout == big, "{name}");
    }
    assert_eq!(kit.same("argv0", &["sh", "-name", "-c", "echo $0 $1; exit 3", "x", "y"], b"").0, Some(3));
    assert_eq!(kit.same("argv0", &["sh", "-name"], b"echo $0\n").1, "-name\n");
}

fn end(name: &str) -> &'static str {
    if name == "fixcrio" { "\r\n" } else { "\n" }
}

#[test]
fn line_ends_are_converted_as_debians() {
    let kit = Kit::new();
    let all_threes: Vec<u8> = {
        let letters = [b'a', b'\r', b'\n'];
        letters
            .iter()
            .flat_map(|a| letters.iter().flat_map(move |b| letters.map(|c| [*a, *b, c])))
            .flatten()
            .collect()
    };
    let long: Vec<u8> = (0..40_000).flat_map(|n| format!("line {n}\r\n").into_bytes()).collect();
    for input in [&b""[..], b"a\nb\r\n\n\r", &all_threes, &long] {
        kit.same("addcr", &[], input);
        kit.same("delcr", &[], input);
        kit.same("fixcrio", &["cat"], input);
    }
    assert_eq!(kit.same("fixcrio", &["od", "-c"], b"a\nb\r\n\n").0, Some(0));
}

#[test]
fn a_filter_says_that_it_cannot_write() {
    let kit = Kit::new();
    for name in ["addcr", "delcr"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut child = kit
            .ours(name)
            .stdin(std::process::Stdio::piped())
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"x\n").unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(111), "{name}");
        assert!(text(&out.stderr).starts_with(&format!("{name}: fatal: unable to write output")), "{name}");
    }
}
