use super::*;
use proptest::prelude::*;

const LOG: &str = "\
5.0 status: local 0/3 remote 0/30
10.1 new msg 40 queue1
10.2 info msg 40: bytes 10 from <ann@example.com> qp 77 uid 500 queue1
11.0 new msg 40 queue2
11.0 info msg 40: bytes 10 from <bob@example.com> qp 78 uid 500 queue2
12.0 starting delivery 1: msg 40 to local root queue1
12.1 status: local 1/3 remote 0/30
12.2 starting delivery 1: msg 40 to remote eve@example.org queue2
12.3 status: local 1/3 remote 1/30
13.0 delivery 1: success: did_0+0+1/ queue1
13.1 delivery 1: deferral: later/ queue2
14.0 end msg 40 qmail-send: queue1
15.0 something else
";

fn selected(words: &[&str], log: &str) -> String {
    let words: Vec<_> = words.iter().map(OsString::from).collect();
    let mut selector = Selector::new(Selection::parse(&words).unwrap());
    let mut out = Vec::new();
    log.split_inclusive('\n').for_each(|line| selector.line(line.as_bytes(), &mut out));
    String::from_utf8(out).unwrap()
}

fn times(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.split_once(' ').unwrap().0).collect()
}

#[test]
fn by_sender() {
    assert_eq!(selected(&[], LOG), LOG);
    assert_eq!(times(&selected(&["from", "bob@*", "stripstatus"], LOG)), ["11.0", "11.0", "12.2", "13.1"]);
    let ann = selected(&["from", "ann@example.com", "addstatus"], LOG);
    assert_eq!(times(&ann), ["10.1", "10.2", "12.0", "12.0", "13.0", "13.0", "14.0"]);
    assert!(ann.contains("12.0 status: local 1/3 remote 0/30\n13.0 delivery"), "{ann}");
    assert!(ann.contains("13.0 status: local 0/3 remote 0/30\n14.0 end"), "{ann}");
    assert_eq!(selected(&["from", "nobody*", "stripstatus"], LOG), "");
}

#[test]
fn a_log_without_queue_names_and_with_labels() {
    let log = "@400000000000001400000000 new msg 7\n@400000000000001400000000 info msg 7: bytes 1 from <> qp 1 uid 0\n@400000000000001500000000 starting delivery 3: msg 7 to local root\n@400000000000001500000000 delivery 3: failure: no/\n@400000000000001500000000 bounce msg 7 qp 9\n@400000000000001500000000 end msg 7\n";
    assert_eq!(selected(&["from", ""], log), log);
    // 2^62 + 10 + 11.
    assert_eq!(selected(&["start", "11"], log).lines().count(), 4);
    assert_eq!(selected(&["end", "11"], log).lines().count(), 2);
}

#[test]
fn times_and_mistakes() {
    assert_eq!(time(b"1999-08-24").unwrap(), 935_452_800);
    assert_eq!(time(b"1970-1-1").unwrap(), 0);
    assert_eq!(time(b"2024-02-29").unwrap(), 1_709_164_800);
    for wrong in [&["from"][..], &["start", "soon"], &["end", "2024-13-01"], &["until", "5"]] {
        let words: Vec<_> = wrong.iter().map(OsString::from).collect();
        assert!(Selection::parse(&words).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn what_comes_out_was_in_the_log(
        lines in proptest::collection::vec("([0-9]{1,3}\\.[0-9] |)(new msg [12]|info msg [12]: bytes 1 from <[ab]> qp 1 uid 0|starting delivery [12]: msg [12] to (local|remote) x|delivery [12]: success: x|end msg [12]|[a-z: ]{0,9})", 0..20),
        from in "[ab*]{0,2}",
    ) {
        let log: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let out = selected(&["from", &from, "start", "5", "end", "500"], &log);
        // In any order: a first line waits for the one that names the sender.
        for line in out.lines() {
            prop_assert!(lines.iter().any(|l| l == line), "{line}");
        }
        prop_assert_eq!(selected(&[], &log), log);
    }
}
