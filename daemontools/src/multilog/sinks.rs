//! Lines as datagrams: to a syslog server (RFC 5424), and to the journal of systemd.
//!
//! Nothing here waits: a datagram that cannot be sent at once is dropped. The log directories are what
//! does not lose lines.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;

use unix::clock::CalendarTime;

use super::script::Sink;

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Facility "system daemons" of syslog.
const DAEMON: u8 = 3;
/// Severity of a line that does not say: informational.
const INFORMATIONAL: u8 = 6;

/// Severity and text of a line, which may begin with `<N>`, as systemd has it.
#[must_use]
pub fn severity(line: &[u8]) -> (u8, &[u8]) {
    match line {
        [b'<', digit @ b'0'..=b'7', b'>', text @ ..] => (digit - b'0', text),
        _ => (INFORMATIONAL, line),
    }
}

/// One line as a message of RFC 5424; `time` in UTC.
#[must_use]
pub fn syslog(line: &[u8], host: &str, pid: u32, time: Option<CalendarTime>, microseconds: u32) -> Vec<u8> {
    let (severity, text) = severity(line);
    let time = time.map_or_else(
        || "-".to_owned(),
        |t| {
            let (date, clock) = ((t.year, t.month, t.day), (t.hour, t.minute, t.second));
            format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{microseconds:06}Z",
                date.0, date.1, date.2, clock.0, clock.1, clock.2
            )
        },
    );
    let visible = |c: &char| c.is_ascii_graphic();
    let host: String = host.chars().filter(visible).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let mut message = format!("<{}>1 {time} {host} multilog {pid} - - ", DAEMON * 8 + severity).into_bytes();
    message.extend_from_slice(text);
    message
}

/// One line as a message of the journal's native protocol.
#[must_use]
pub fn journal(line: &[u8], identifier: &[u8]) -> Vec<u8> {
    let (severity, text) = severity(line);
    let mut message = format!("PRIORITY={severity}\nSYSLOG_IDENTIFIER=").into_bytes();
    // A newline would begin another field; a line has none.
    message.extend(identifier.iter().filter(|&&b| b != b'\n'));
    message.extend_from_slice(b"\nMESSAGE=");
    message.extend_from_slice(text);
    message.push(b'\n');
    message
}

#[derive(Debug)]
enum Open {
    Syslog(UdpSocket),
    Journal(UnixDatagram, Vec<u8>),
}

/// The sinks of a script, open.
#[derive(Debug)]
pub struct Sinks {
    all: Vec<Open>,
    host: String,
    pid: u32,
}

impl Sinks {
    /// Opens them; this is when names of servers are looked up.
    ///
    /// # Errors
    /// A server that is not known, or no descriptors.
    pub fn open(sinks: &[Sink]) -> Result<Self, String> {
        let all = sinks.iter().map(|sink| match sink {
            Sink::Syslog(server) => to_server(server).map(Open::Syslog).map_err(|e| {
                format!("unable to send to {server}: {e}: give an address, or make the name known")
            }),
            Sink::Journal(identifier) => to_journal()
                .map(|socket| Open::Journal(socket, identifier.clone()))
                .map_err(|e| format!("unable to make a socket for the journal: {e}")),
        });
        let all = all.collect::<Result<Vec<_>, _>>()?;
        let host = unix::host::name();
        Ok(Self { all, host, pid: std::process::id() })
    }

    /// Sends a line to sink number `sink`.
    pub fn send(&self, sink: usize, line: &[u8], now: std::time::Duration) {
        // See above for why no error is looked at.
        match self.all.get(sink) {
            Some(Open::Syslog(socket)) => {
                let seconds = i64::try_from(now.as_secs()).unwrap_or(0);
                let time = unix::clock::calendar_time(seconds, true);
                let _ = socket.send(&syslog(line, &self.host, self.pid, time, now.subsec_micros()));
            }
            Some(Open::Journal(socket, identifier)) => {
                let _ = socket.send_to(&journal(line, identifier), JOURNAL);
            }
            None => {}
        }
    }
}

fn to_server(server: &str) -> io::Result<UdpSocket> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in server.to_socket_addrs()? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let connected = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => return Ok(socket),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn to_journal() -> io::Result<UnixDatagram> {
    // Not connected: the journal may be restarted.
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let time = unix::clock::calendar_time(935_467_445, true);
        assert_eq!(
            syslog(b"<3>disk full", "mx 1", 7, time, 787_492),
            b"<27>1 1999-08-24T04:04:05.787492Z mx1 multilog 7 - - disk full"
        );
        assert_eq!(syslog(b"<9>x", "", 7, None, 0), b"<30>1 - - multilog 7 - - <9>x");
        assert_eq!(journal(b"<4>low\0", b"ma\nil"), b"PRIORITY=4\nSYSLOG_IDENTIFIER=mail\nMESSAGE=low\0\n");
    }
}
