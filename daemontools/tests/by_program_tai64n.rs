//! The filters of time labels, beside Debian's where the two must agree.

mod kit;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use kit::{Kit, wait_until};

/// What a filter makes of an input that comes in pieces of this size.
fn filtered(mut command: Command, input: &[u8], piece: usize) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut out = Vec::new();
        stdout.read_to_end(&mut out).map(|_| out)
    });
    input.chunks(piece).for_each(|c| stdin.write_all(c).unwrap());
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    String::from_utf8(reader.join().unwrap().unwrap()).unwrap()
}

/// Labels over the years, changes of the clock among them, and lines without one.
fn labelled() -> Vec<u8> {
    let mut text = String::new();
    for (at, step) in [(0u64, 7_777_777u64), (1_711_846_700, 7), (1_698_541_000, 13), (1_727_531_000, 61)] {
        for n in 0..300 {
            let label = (1u64 << 62) + 10 + at + n * step;
            text.push_str(&format!(
                "@{label:016x}{:08x} line {n}: @4000000037c219bf2ef02e94\n",
                n * 1_234_567
            ));
        }
        text.push_str("no label\n\n@4000000037c219bf2ef02e94\n");
    }
    text.push_str("@4000000037c219bf2ef02e94 without newline");
    text.into_bytes()
}

#[test]
fn local_times_are_those_of_debians() {
    let kit = Kit::new();
    let input = labelled();
    for zone in [
        "UTC",
        "Europe/Berlin",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "America/New_York",
        "Africa/Monrovia",
        "XXX-5:17:30",
    ] {
        let with_zone = |mut command: Command| {
            command.env("TZ", zone);
            command
        };
        let debians = filtered(with_zone(kit.debians("tai64nlocal")), &input, 1 << 20);
        assert!(debians.contains("1999-08-2"), "{debians}");
        for piece in [1 << 20, 17] {
            let ours = filtered(with_zone(kit.ours("tai64nlocal")), &input, piece);
            assert!(ours == debians, "{zone} {piece}");
        }
    }
}

#[test]
fn nonsense_does_not_stop_tai64nlocal() {
    let kit = Kit::new();
    let input = "@notatai\n@4000 x\n@ffffffffffffffffffffffff x\n@\n@4000000037c219bf2ef02e94a\n";
    let mut command = kit.ours("tai64nlocal");
    command.args(["-u", "-i"]);
    let want = input.replace("@4000000037c219bf2ef02e94a", "1999-08-24T04:04:05.787492500+00:00a");
    assert_eq!(filtered(command, input.as_bytes(), 1 << 20), want);
}

#[test]
fn stamped_lines_are_those_of_debians_but_for_the_time() {
    let kit = Kit::new();
    let input = b"one\n\n@4000000037c219bf2ef02e94 old\nlast without newline";
    let without_times = |text: String| {
        let lines = text.split_inclusive('\n').map(|line| {
            let (label, rest) = line.split_at(26);
            assert!(label.starts_with("@40000000") && label.ends_with(' '), "{line}");
            rest.to_owned()
        });
        lines.collect::<Vec<_>>()
    };
    let ours = filtered(kit.ours("tai64n"), input, 3);
    assert!(ours.lines().is_sorted_by_key(|line| line.get(..25).unwrap().to_owned()));
    assert_eq!(without_times(ours), without_times(filtered(kit.debians("tai64n"), input, 3)));
}

#[test]
fn numbers_and_back() {
    let kit = Kit::new();
    let input = "@4000000037c219bf2ef02e94 x\nplain\n@40000000ffffffff00000001\n";
    assert_eq!(
        filtered(kit.ours("tai64nunix"), input.as_bytes(), 5),
        "935467445.787492500 x\nplain\n4294967285.000000001\n"
    );
    let tai = filtered(kit.ours("tai64n2tai"), input.as_bytes(), 5);
    assert_eq!(tai, "0935467455.787492500 x\nplain\n4294967295.000000001\n");
    assert_eq!(filtered(kit.ours("tai2tai64n"), tai.as_bytes(), 5), input);
}

#[test]
fn a_line_is_out_before_the_next_one_is_waited_for() {
    let kit = Kit::new();
    for name in ["tai64n", "tai64nlocal", "tai64nunix", "tai64n2tai", "tai2tai64n"] {
        let out = kit.path(name);
        let mut command = kit.ours(name);
        let mut child = command.stdin(Stdio::piped()).stdout(File::create(&out).unwrap()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A prompt, without a newline.
        stdin.write_all(b"name: ").unwrap();
        wait_until("the prompt", || kit::text(&out).ends_with("name: "));
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn exit_codes_say_which_side_failed() {
    let kit = Kit::new();
    for (name, read, write) in
        [("tai64n", 111, 111), ("tai64nlocal", 111, 111), ("tai64n2tai", 1, 2), ("tai2tai64n", 1, 2)]
    {
        let mut command = kit.ours(name);
        command.stdin(File::open("/").unwrap());
        assert_eq!(command.status().unwrap().code(), Some(read), "{name} reading a directory");
        let mut command = kit.ours(name);
        command
            .stdin(File::open("/etc/passwd").unwrap())
            .stdout(File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(command.status().unwrap().code(), Some(write), "{name} on a full disk");
        assert_eq!(kit.code(name, &["operand"]), 100);
    }
}
