//! A place for one qmail-remote, and a host that misbehaves by script.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// No step of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Self { dir, variables: BTreeMap::new() };
        for name in ["control", "certs", "certs/tlshosts", "certs/notlshosts"] {
            std::fs::create_dir(place.dir.path().join(name)).unwrap();
        }
        let path = |name: &str| place.dir.path().join(name).to_str().unwrap().to_owned();
        let (control, certs) = (path("control"), path("certs"));
        place.set("CONTROLDIR", &control).set("CERTDIR", &certs);
        place.control("me", "me.example\n").control("timeoutremote", "10\n");
        place
    }

    pub(crate) fn control(&mut self, name: &str, text: &str) -> &mut Self {
        std::fs::write(self.dir.path().join("control").join(name), text).unwrap();
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Everything goes to this host.
    pub(crate) fn relay(&mut self, host: &Host) -> &mut Self {
        let (ip, port) = (host.address.ip(), host.address.port());
        let route = if host.address.is_ipv6() { format!(":[{ip}]:{port}") } else { format!(":{ip}:{port}") };
        self.set("SMTPROUTE", &route)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qmail-remote"));
        command.env_clear().envs(&self.variables).args(arguments);
        command
    }

    /// Sends `message` as a file to `recipients` of d.example.
    pub(crate) fn send_to(&self, message: &[u8], domain: &str, recipients: &[&str]) -> Report {
        let file = self.dir.path().join("message");
        std::fs::write(&file, message).unwrap();
        let arguments = [&[domain, "s@x.example", "", "10"], recipients].concat();
        let out = self.command(&arguments).stdin(std::fs::File::open(file).unwrap()).output().unwrap();
        Report::read(&out)
    }

    pub(crate) fn send(&self, message: &[u8]) -> Report {
        self.send_to(message, "d.example", &["a@d.example"])
    }

    /// Sends `message` through a pipe.
    pub(crate) fn pipe(&self, message: &[u8]) -> Report {
        let mut child = self
            .command(&["d.example", "s@x.example", "", "10", "a@d.example"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(message).unwrap();
        Report::read(&child.wait_with_output().unwrap())
    }
}

/// Letters and texts of a report.
#[derive(Debug)]
pub(crate) struct Report {
    /// All letters in order: `rhK`.
    pub(crate) letters: String,
    /// Text of the message report.
    pub(crate) text: String,
}

impl Report {
    fn read(out: &std::process::Output) -> Self {
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let records: Vec<&str> =
            text.strip_suffix('\0').expect("a report ends with NUL").split('\0').collect();
        let letters: String = records.iter().map(|r| r.chars().next().unwrap()).collect();
        let (others, last) = letters.split_at(letters.len() - 1);
        assert!("KDZ".contains(last) && others.chars().all(|c| "rhs".contains(c)), "{text:?}");
        Self { letters, text: records.last().unwrap()[1..].to_owned() }
    }

    #[track_caller]
    pub(crate) fn is(&self, letters: &str, text: &str) {
        assert!(self.letters == letters && self.text.contains(text), "{self:?}");
    }
}

/// What a host does in each place. A reply that begins with `!` closes the connection instead
/// (after the rest of the text, if there is any).
#[derive(Clone)]
pub(crate) struct Script {
    /// Command (first word) or `GREETING`, `.`; and the reply.
    pub(crate) replies: Vec<(&'static str, &'static str)>,
    /// Private key and certificate; without it, STARTTLS ends in nonsense.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

impl Script {
    /// A host that takes everything, with these exceptions; later ones count before earlier ones.
    pub(crate) fn with(exceptions: &[(&'static str, &'static str)]) -> Self {
        let mut replies = vec![
            ("GREETING", "220 fake"),
            ("EHLO", "250 fake"),
            ("HELO", "250 fake"),
            ("MAIL", "250 ok"),
            ("RCPT", "250 ok"),
            ("DATA", "354 go"),
            (".", "250 taken"),
            ("QUIT", "221 bye"),
            ("STARTTLS", "220 go"),
        ];
        replies.extend_from_slice(exceptions);
        Self { replies, tls: None }
    }

    pub(crate) fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    fn reply(&self, command: &str) -> &'static str {
        let matching = |name: &str| {
            command.eq_ignore_ascii_case(name)
                || command.to_ascii_uppercase().starts_with(&format!("{name} "))
                || command.to_ascii_uppercase().starts_with(&format!("{name}:"))
        };
        self.replies.iter().rev().find(|(name, _)| matching(name)).map_or("502 what", |r| r.1)
    }
}

/// A self-signed certificate for `name`: server configuration, PEM.
pub(crate) fn certificate(name: &str) -> (Arc<rustls::ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    (Arc::new(config), made.cert.pem())
}

/// A running host.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

impl Host {
    /// A host on a free port of 127.0.0.1.
    pub(crate) fn start(script: Script) -> Self {
        Self::at("127.0.0.1:0", script)
    }

    pub(crate) fn at(address: &str, script: Script) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let host = Self { address: listener.local_addr().unwrap(), heard: Arc::default() };
        let heard = host.heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, heard) = (script.clone(), heard.clone());
                std::thread::spawn(move || talk(stream.unwrap(), &script, &heard));
            }
        });
        host
    }

    /// Every line that was heard, and `TLS` where a handshake succeeded.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until exactly these commands have been heard (the host may lag behind its client).
    #[track_caller]
    pub(crate) fn hears(&self, expected: &str) {
        let start = std::time::Instant::now();
        while self.verbs() != expected {
            assert!(start.elapsed() < PATIENCE, "heard {}, not {expected}", self.verbs());
            std::thread::yield_now();
        }
    }

    /// First words of the commands.
    pub(crate) fn verbs(&self) -> String {
        let text = self.heard();
        let verbs: Vec<_> = text.iter().map(|l| l.split([' ', ':']).next().unwrap()).collect();
        verbs.join(" ")
    }
}

fn talk(stream: TcpStream, script: &Script, heard: &Mutex<Vec<String>>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut wire: Box<dyn Wire> = Box::new(stream.try_clone().unwrap());
    if !say(&mut wire, script.reply("GREETING")) {
        return;
    }
    let mut in_data = false;
    while let Some(line) = read_line(&mut wire) {
        if in_data && line != "." {
            heard.lock().unwrap().push(format!("> {line}"));
            continue;
        }
        heard.lock().unwrap().push(line.clone());
        let reply = script.reply(&line);
        if !say(&mut wire, reply) {
            return;
        }
        in_data = !in_data && reply.starts_with("354");
        if line == "STARTTLS" && reply.starts_with("220") {
            let Some(config) = &script.tls else {
                let _ = wire.write_all(b"this is no handshake\r\n");
                return;
            };
            let server = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(server, stream.try_clone().unwrap());
            while tls.conn.is_handshaking() {
                if tls.conn.complete_io(&mut tls.sock).is_err() {
                    return;
                }
            }
            heard.lock().unwrap().push("TLS".into());
            wire = Box::new(tls);
        }
    }
}

fn say(wire: &mut Box<dyn Wire>, reply: &str) -> bool {
    let (text, goes_on) = reply.strip_prefix('!').map_or((reply, true), |rest| (rest, false));
    if !text.is_empty() {
        let lines = format!("{}\r\n", text.replace('|', "\r\n"));
        if wire.write_all(lines.as_bytes()).and_then(|()| wire.flush()).is_err() {
            return false;
        }
    }
    goes_on
}

fn read_line(wire: &mut Box<dyn Wire>) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match wire.read(&mut byte) {
            Ok(1) => {}
            _ => return None,
        }
        line.push(byte[0]);
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
    }
}
