//! A plain SMTP client for scenarios, with every answer at hand.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection to a server on 127.0.0.1.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Connects; the greeting has been read.
    ///
    /// # Errors
    /// No connection or no greeting.
    pub fn connect(port: u16) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).map_err(|e| e.to_string())?;
        stream.set_write_timeout(patience).map_err(|e| e.to_string())?;
        let mut session = Self { stream: BufReader::new(stream) };
        let greeting = session.reply()?;
        if greeting.starts_with("220") { Ok(session) } else { Err(greeting) }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection broke.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.get_mut().write_all(bytes).map_err(|e| e.to_string())
    }

    /// Reads one reply; its lines joined by newlines.
    ///
    /// # Errors
    /// The connection broke or was closed.
    pub fn reply(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) => return Err(format!("connection closed after: {text}")),
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
            text.push_str(&line.replace('\r', ""));
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(text);
            }
        }
    }

    /// Sends one command and reads the reply.
    ///
    /// # Errors
    /// The connection broke.
    pub fn command(&mut self, line: &str) -> Result<String, String> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// As [`Session::command`], but the reply must begin with `code`.
    ///
    /// # Errors
    /// The reply, when it is another one.
    pub fn expect(&mut self, line: &str, code: &str) -> Result<String, String> {
        let reply = self.command(line)?;
        if reply.starts_with(code) { Ok(reply) } else { Err(format!("{line}: {reply}")) }
    }
}

/// Sends one message in a session of its own; the reply that accepted it.
///
/// # Errors
/// What the server said when it refused, or how the connection broke.
pub fn send(port: u16, from: &str, to: &[&str], message: &str) -> Result<String, String> {
    let mut session = Session::connect(port)?;
    session.expect("EHLO client.test", "250")?;
    session.expect(&format!("MAIL FROM:<{from}>"), "250")?;
    for recipient in to {
        session.expect(&format!("RCPT TO:<{recipient}>"), "250")?;
    }
    session.expect("DATA", "354")?;
    let body = message.trim_end_matches('\n').replace("\n.", "\n..").replace('\n', "\r\n");
    let accepted = session.expect(&format!("{body}\r\n."), "250")?;
    session.command("QUIT")?;
    Ok(accepted)
}
