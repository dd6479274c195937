//! The smallest SMTP client that can hand one message over, for the proof and the checks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Longest reply line that is read.
const LONGEST_LINE: u64 = 1000;

/// A connection to a server on 127.0.0.1.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects and waits for the greeting.
    ///
    /// # Errors
    /// Nobody listens, no greeting in time, or not one with code 220.
    pub fn connect(port: u16, patience: Duration) -> Result<Self> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, patience).with_context(|| address.to_string())?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.expect("greeting", '2')?;
        Ok(client)
    }

    /// Hands a message over; returns what the server said when it took it.
    ///
    /// # Errors
    /// What the server said when it did not.
    pub fn send(&mut self, from: &str, to: &str, message: &str) -> Result<String> {
        self.command("EHLO localhost", '2')?;
        self.command(&format!("MAIL FROM:<{from}>"), '2')?;
        self.command(&format!("RCPT TO:<{to}>"), '2')?;
        self.command("DATA", '3')?;
        let body = message.trim_end().replace("\r\n", "\n").replace("\n.", "\n..").replace('\n', "\r\n");
        let accepted = self.command(&format!("{body}\r\n."), '2')?;
        self.command("QUIT", '2')?;
        Ok(accepted)
    }

    fn command(&mut self, line: &str, wanted: char) -> Result<String> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).context("write to the server")?;
        self.expect(line.lines().next().unwrap_or_default(), wanted)
    }

    fn expect(&mut self, after: &str, wanted: char) -> Result<String> {
        loop {
            let mut line = String::new();
            let read = std::io::Read::take(&mut self.stream, LONGEST_LINE).read_line(&mut line);
            let read = read.with_context(|| format!("answer to {after}"))?;
            ensure!(read > 0, "{after}: the server closed the connection");
            if line.as_bytes().get(3) != Some(&b'-') {
                ensure!(line.starts_with(wanted), "{after}: {}", line.trim_end());
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}
