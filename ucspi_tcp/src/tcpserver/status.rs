//! What a running tcpserver tells about itself: lines of text, made from numbers and read back.
//!
//! ```text
//! tcpserver pid=812 limit=40 connections=1 pending=0 accepted=7 denied=2 limited=0 dropped=0 draining=no
//! connection pid=901 ip=192.0.2.7 seconds=12
//! end
//! ```
//!
//! Without the last line the text was cut short.

use std::fmt::Write as _;

/// The numbers of the first line, in their order.
const COUNTERS: [&str; 8] =
    ["pid", "limit", "connections", "pending", "accepted", "denied", "limited", "dropped"];

/// The state of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Process id, limit, connections, connections that wait for a PROXY header; then since the start:
    /// accepted connections and those of them that were denied by a rule, sent away by a limit of their
    /// client, dropped because of an error.
    pub counters: [u64; 8],
    /// Is it waiting for its last connections to end?
    pub draining: bool,
    /// The connections.
    pub connections: Vec<Row>,
}

/// One connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Process id of its program.
    pub pid: u64,
    /// The client's address, or `unix`.
    pub ip: String,
    /// Age.
    pub seconds: u64,
}

impl Snapshot {
    /// As text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::from("tcpserver");
        for (name, value) in COUNTERS.iter().zip(self.counters) {
            let _ = write!(out, " {name}={value}");
        }
        let _ = writeln!(out, " draining={}", if self.draining { "yes" } else { "no" });
        for Row { pid, ip, seconds } in &self.connections {
            let _ = writeln!(out, "connection pid={pid} ip={ip} seconds={seconds}");
        }
        out.push_str("end\n");
        out
    }

    /// From text; `None` when it is something else or was cut short.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix("end\n")?.lines();
        let mut first = lines.next()?.strip_prefix("tcpserver ")?.split(' ');
        let mut found = Self::default();
        for (name, value) in COUNTERS.iter().zip(&mut found.counters) {
            *value = field(first.next()?, name)?.parse().ok()?;
        }
        found.draining = match field(first.next()?, "draining")? {
            "yes" => true,
            "no" => false,
            _ => return None,
        };
        for line in lines {
            let words: Vec<&str> = line.strip_prefix("connection ")?.split(' ').collect();
            let [pid, ip, seconds] = words[..] else { return None };
            found.connections.push(Row {
                pid: field(pid, "pid")?.parse().ok()?,
                ip: field(ip, "ip")?.to_owned(),
                seconds: field(seconds, "seconds")?.parse().ok()?,
            });
        }
        Some(found)
    }

    /// As one JSON object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::from("{");
        for (name, value) in COUNTERS.iter().zip(self.counters) {
            let _ = write!(out, "\"{name}\":{value},");
        }
        let _ = write!(out, "\"draining\":{},\"table\":[", self.draining);
        for (at, Row { pid, ip, seconds }) in self.connections.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(out, "{comma}{{\"pid\":{pid},\"ip\":{},\"seconds\":{seconds}}}", string(ip));
        }
        out.push_str("]}\n");
        out
    }
}

fn field<'a>(word: &'a str, name: &str) -> Option<&'a str> {
    word.strip_prefix(name)?.strip_prefix('=')
}

/// A JSON string.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_and_json() {
        let row = Row { pid: 9, ip: "2001:db8::1".into(), seconds: 3 };
        let snapshot =
            Snapshot { counters: [1, 2, 3, 4, 5, 6, 7, 8], draining: true, connections: vec![row] };
        let text = snapshot.encode();
        assert!(text.ends_with("connection pid=9 ip=2001:db8::1 seconds=3\nend\n"), "{text}");
        assert_eq!(
            snapshot.json(),
            "{\"pid\":1,\"limit\":2,\"connections\":3,\"pending\":4,\"accepted\":5,\"denied\":6,\"limited\":7,\
             \"dropped\":8,\"draining\":true,\"table\":[{\"pid\":9,\"ip\":\"2001:db8::1\",\"seconds\":3}]}\n"
        );
        assert_eq!(Snapshot::decode(&text[..text.len() - 4]), None, "cut short");
        assert_eq!(string("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(tcpserver|connection)?[ -~\n]{0,60}(end\n)?") {
            let _ = Snapshot::decode(&text);
        }

        #[test]
        fn round_trip(counters: [u64; 8], draining: bool, rows in proptest::collection::vec((any::<u64>(), "[0-9a-f.:]{1,9}", any::<u64>()), 0..4)) {
            let connections = rows.into_iter().map(|(pid, ip, seconds)| Row { pid, ip, seconds }).collect();
            let snapshot = Snapshot { counters, draining, connections };
            prop_assert_eq!(Snapshot::decode(&snapshot.encode()), Some(snapshot));
        }
    }
}
