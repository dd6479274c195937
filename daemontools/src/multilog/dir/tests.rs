use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

fn spec(path: &Path, size: Option<u64>, keep: usize, processor: Option<&str>) -> DirSpec {
    let command = |text: &str| Processor::Command { command: text.into(), background: false };
    DirSpec { size, keep, processor: processor.map(command), ..DirSpec::new(path) }
}

fn options() -> Options {
    Options {
        durability: Durability::default(),
        environment: program::Environment::from_iter([("PATH", "/bin:/usr/bin")]),
    }
}

/// All log files by name, `lock` and `state` left out.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let names = entries.filter(|n| n != "lock" && n != "state");
    names
        .map(|n| {
            let content = fs::read(dir.join(&n)).unwrap();
            (n, content)
        })
        .collect()
}

fn everything(dir: &Path) -> Vec<u8> {
    // '@' sorts before letters, and labels by time.
    files(dir).into_values().flatten().collect()
}

fn suffixes(dir: &Path) -> String {
    files(dir).keys().filter_map(|n| n.rsplit_once('.').map(|(_, s)| s.to_owned())).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn put(dir: &mut LogDir, bytes: &[u8], labels: &mut Ascending) {
    let (taken, result) = dir.append(bytes, labels);
    result.unwrap();
    assert_eq!(taken, bytes.len());
}

#[test]
fn rotation_keeps_all_bytes_and_so_many_files() {
    let temp = tempfile::tempdir().unwrap();
    let mut labels = Ascending::default();
    let keep_all = spec(temp.path(), Some(4096), 100, None);
    let mut dir = LogDir::open(&keep_all, &options(), &mut labels).unwrap();
    let text: Vec<u8> = (0..1000).flat_map(|n| format!("line number {n}\n").into_bytes()).collect();
    put(&mut dir, &text, &mut labels);
    assert_eq!(everything(temp.path()), text);
    assert_eq!(mode(&temp.path().join("current")), 0o644);
    dir.close(&mut labels).unwrap();
    assert_eq!(mode(&temp.path().join("current")), 0o744);
    drop(dir);
    // Opened again, it goes on where it was.
    let keep_three = spec(temp.path(), Some(4096), 3, None);
    let mut dir = LogDir::open(&keep_three, &options(), &mut labels).unwrap();
    assert_eq!(everything(temp.path()), text);
    dir.rotate_now(&mut labels).unwrap();
    assert_eq!(suffixes(temp.path()), "ss", "three files with the current one");
    dir.rotate_now(&mut labels).unwrap();
    assert_eq!(suffixes(temp.path()), "ss", "an empty file is not finished");
}

#[test]
fn a_directory_has_one_logger() {
    let temp = tempfile::tempdir().unwrap();
    let mut labels = Ascending::default();
    let spec = spec(temp.path(), None, 10, None);
    let _first = LogDir::open(&spec, &options(), &mut labels).unwrap();
    assert!(
        LogDir::open(&spec, &options(), &mut labels).unwrap_err().to_string().contains("another multilog")
    );
}

#[test]
fn the_processor_has_state() {
    let temp = tempfile::tempdir().unwrap();
    let mut labels = Ascending::default();
    let command = "tr a-z A-Z; cat <&4 >&5; echo one more >&5";
    let spec = spec(temp.path(), None, 10, Some(command));
    let mut dir = LogDir::open(&spec, &options(), &mut labels).unwrap();
    for text in ["first\n", "second\n"] {
        put(&mut dir, text.as_bytes(), &mut labels);
        dir.rotate_now(&mut labels).unwrap();
    }
    assert_eq!(everything(temp.path()), b"FIRST\nSECOND\n");
    assert_eq!(fs::read(temp.path().join("state")).unwrap(), b"one more\none more\n");
    assert!(!temp.path().join("previous").exists() && !temp.path().join("newstate").exists());
}

#[test]
fn a_failing_processor_is_tried_again() {
    let temp = tempfile::tempdir().unwrap();
    let mut labels = Ascending::default();
    let spec = spec(temp.path(), None, 10, Some("test -e ok && cat"));
    let mut dir = LogDir::open(&spec, &options(), &mut labels).unwrap();
    put(&mut dir, b"text\n", &mut labels);
    assert!(dir.rotate_now(&mut labels).is_err());
    assert_eq!(fs::read(temp.path().join("previous")).unwrap(), b"text\n");
    fs::write(temp.path().join("ok"), "").unwrap();
    let (taken, result) = dir.append(b"more\n", &mut labels);
    result.unwrap();
    assert_eq!(taken, 5);
    fs::remove_file(temp.path().join("ok")).unwrap();
    assert_eq!(everything(temp.path()), b"text\nmore\n");
}

/// Every state that a KILL can leave, made by hand.
#[test]
fn recovery_from_every_state() {
    type Made = (&'static str, &'static str, u32);
    let states: [(&[Made], &str, &[u8]); 7] = [
        (&[("current", "c\n", 0o644)], "u", b"c\n"),
        (&[("current", "c\n", 0o744)], "", b"c\n"),
        (&[("previous", "p\n", 0o644), ("current", "", 0o600)], "uu", b"p\n"),
        (&[("previous", "p\n", 0o744), ("current", "c\n", 0o644)], "uu", b"p\nc\n"),
        (
            &[("previous", "p\n", 0o744), ("processed", "half", 0o644), ("current", "c\n", 0o644)],
            "uu",
            b"p\nc\n",
        ),
        (
            &[("previous", "p\n", 0o744), ("processed", "P\n", 0o744), ("current", "c\n", 0o644)],
            "su",
            b"P\nc\n",
        ),
        (
            &[("processed", "P\n", 0o744), ("newstate", "n", 0o644), ("current", "c\n", 0o644)],
            "su",
            b"P\nc\n",
        ),
    ];
    for (made, want_suffixes, want) in states {
        let temp = tempfile::tempdir().unwrap();
        for (name, content, mode) in made {
            fs::write(temp.path().join(name), content).unwrap();
            chmod(&temp.path().join(name), *mode).unwrap();
        }
        let mut labels = Ascending::default();
        let spec = spec(temp.path(), None, 10, None);
        let dir = LogDir::open(&spec, &options(), &mut labels).unwrap();
        assert_eq!(suffixes(temp.path()), want_suffixes, "{made:?}");
        assert_eq!(everything(temp.path()), want, "{made:?}");
        assert_eq!(mode(&temp.path().join("current")), 0o644);
        drop(dir);
    }
}

#[test]
fn a_file_with_both_names_is_kept_once() {
    let temp = tempfile::tempdir().unwrap();
    let (previous, finished) =
        (temp.path().join("previous"), temp.path().join("@4000000037c219bf2ef02e94.s"));
    fs::write(&previous, "p\n").unwrap();
    fs::hard_link(&previous, &finished).unwrap();
    let mut labels = Ascending::default();
    let _dir = LogDir::open(&spec(temp.path(), None, 10, None), &options(), &mut labels).unwrap();
    assert_eq!(everything(temp.path()), b"p\n");
    assert!(finished.exists() && !previous.exists());
}

#[test]
fn a_full_disk_takes_what_fits_and_the_rest_later() {
    // Writing to /dev/full is the same for the code as writing to a full disk.
    let temp = tempfile::tempdir().unwrap();
    let mut labels = Ascending::default();
    let mut dir = LogDir::open(&spec(temp.path(), None, 10, None), &options(), &mut labels).unwrap();
    let good = std::mem::replace(&mut dir.current, OpenOptions::new().write(true).open("/dev/full").unwrap());
    let (taken, result) = dir.append(b"text\n", &mut labels);
    assert_eq!(taken, 0);
    assert!(result.unwrap_err().to_string().contains("No space left"));
    dir.current = good;
    put(&mut dir, b"text\n", &mut labels);
    assert_eq!(everything(temp.path()), b"text\n");
}

#[test]
fn gzip_leaves_the_state_alone() {
    use std::io::Read;
    let temp = tempfile::tempdir().unwrap();
    let mut labels = Ascending::default();
    let spec = DirSpec {
        processor: Some(Processor::Gzip),
        mode: 0o640,
        suffix: "s.gz".into(),
        ..DirSpec::new(temp.path())
    };
    let mut dir = LogDir::open(&spec, &options(), &mut labels).unwrap();
    fs::write(temp.path().join("state"), "mine").unwrap();
    put(&mut dir, b"text\n", &mut labels);
    dir.rotate_now(&mut labels).unwrap();
    assert_eq!(fs::read(temp.path().join("state")).unwrap(), b"mine");
    let (name, content) = files(temp.path()).into_iter().next().unwrap();
    assert!(name.ends_with(".s.gz"));
    assert_eq!(mode(&temp.path().join(name)), 0o740);
    assert_eq!(mode(&temp.path().join("current")), 0o640);
    let mut text = String::new();
    flate2::read::GzDecoder::new(content.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "text\n");
}

#[test]
fn input_goes_on_while_a_file_is_processed_in_the_background() {
    let temp = tempfile::tempdir().unwrap();
    let gate = temp.path().join("gate");
    let mut labels = Ascending::default();
    let command = Processor::Command {
        command: "until test -e gate; do sleep 0.01; done; cat".into(),
        background: true,
    };
    let spec = DirSpec { processor: Some(command), ..DirSpec::new(temp.path()) };
    let mut dir = LogDir::open(&spec, &options(), &mut labels).unwrap();
    put(&mut dir, b"first\n", &mut labels);
    dir.rotate_now(&mut labels).unwrap();
    put(&mut dir, b"second\n", &mut labels);
    dir.attend(&mut labels).unwrap();
    assert!(temp.path().join("previous").exists());
    assert_eq!(fs::read(temp.path().join("current")).unwrap(), b"second\n");
    // The next file has to wait for it, and so has the end.
    fs::write(&gate, "").unwrap();
    dir.rotate_now(&mut labels).unwrap();
    dir.close(&mut labels).unwrap();
    fs::remove_file(temp.path().join("gate")).unwrap();
    assert_eq!(everything(temp.path()), b"first\nsecond\n");
}
