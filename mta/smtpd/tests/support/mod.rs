//! A place for one qmail-smtpd: control files, a queue program that records, a lookup daemon.
//!
//! A test executable whose name begins with `resident_` gets the resident server, all others one program
//! for each connection.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lookup::mail::{Mailbox, Quota, Reply, Request, UserStatus, Verdict};

/// No step of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Which kind of server the tests of this executable get.
pub(crate) fn resident() -> bool {
    env!("CARGO_CRATE_NAME").starts_with("resident_")
}

/// Hands its standard input on as a socket that a service manager passes.
const INHERIT: &str = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --inherit "$@""#;

/// Records message and envelope, and commits only a whole envelope; `verdict` is a piece of shell.
const QUEUE: &str = r#"#!/bin/sh
cat > "$0.$$.message"
cat <&1 > "$0.$$.envelope"
env > "$0.$$.environment"
. "$0.verdict"
if [ "$(tail -c 2 "$0.$$.envelope" | od -An -tx1 | tr -d ' \n')" = 0000 ]; then
    mv "$0.$$.envelope" "$0.$$.done"
fi
exit 0
"#;

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Place {
    /// `me` is mx.example, `here.example` is ours, pauses are short.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("control")).unwrap();
        std::fs::create_dir(dir.path().join("certs")).unwrap();
        let queue = dir.path().join("queue");
        std::fs::write(&queue, QUEUE).unwrap();
        std::fs::set_permissions(&queue, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut place = Self { dir, variables: BTreeMap::new() };
        place.control("me", "mx.example\n").control("rcpthosts", "here.example\n").verdict("");
        let path = |name: &str| place.dir.path().join(name).to_str().unwrap().to_owned();
        let (control, certs, socket) = (path("control"), path("certs"), path("inlookup.sock"));
        place
            .set("CONTROLDIR", &control)
            .set("CERTDIR", &certs)
            .set("INLOOKUP_SOCKET", &socket)
            .set("QMAILQUEUE", queue.to_str().unwrap())
            .set("PATH", "/usr/bin:/bin")
            .set("TCPREMOTEIP", "192.0.2.7")
            .set("TCPLOCALHOST", "mx.example")
            .set("DISABLE_EXTRA_GREET", "")
            .set("PENALTY", "0");
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

    pub(crate) fn unset(&mut self, name: &str) -> &mut Self {
        self.variables.remove(name);
        self
    }

    /// Shell that the queue program runs before it commits.
    pub(crate) fn verdict(&mut self, shell: &str) -> &mut Self {
        std::fs::write(self.dir.path().join("queue.verdict"), shell).unwrap();
        self
    }

    /// Makes servercert.pem for mx.example; returns its certificate.
    pub(crate) fn certificate(&mut self) -> rustls_pki_types::CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["mx.example".to_owned()]).unwrap();
        let pem = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
        std::fs::write(self.dir.path().join("certs/servercert.pem"), pem).unwrap();
        self.set("STARTTLS", "");
        made.cert.der().clone()
    }

    pub(crate) fn command(&self, client: impl Into<OwnedFd>) -> Command {
        let fd: OwnedFd = client.into();
        let mut command = Command::new(env!("CARGO_BIN_EXE_qmail-smtpd"));
        command
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::from(fd.try_clone().unwrap()))
            .stdout(Stdio::from(fd))
            .stderr(Stdio::from(self.log_file()));
        command
    }

    /// A resident server on this socket, with these options.
    pub(crate) fn resident(&self, listener: TcpListener, options: &[&str]) -> Served {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", INHERIT, env!("CARGO_BIN_EXE_qmail-smtpd"), "--verbose"])
            // Root would become qmaild, whom this machine need not know.
            .args(["--user", "root", "--groups", "root"].iter().filter(|_| nix::unistd::geteuid().is_root()))
            .args(options)
            .arg("mx.example")
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(self.log_file()));
        Served { child: command.spawn().unwrap(), log: Some(self.dir.path().join("log")) }
    }

    /// A resident server on a free port.
    pub(crate) fn resident_anywhere(&self, options: &[&str]) -> (Served, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (self.resident(listener, options), port)
    }

    /// Starts a session; the greeting has not been read.
    pub(crate) fn start(&self) -> Talk {
        if !resident() {
            return self.start_alone();
        }
        let (listener, mut ours) = connection();
        let rules = self.rules();
        let rules = rules.to_str().unwrap();
        ours.write_all(self.proxy_header().as_bytes()).unwrap();
        let served =
            self.resident(listener, &["--proxy-from", "127.0.0.0/8", "--rules", rules, "--drain", "0"]);
        Talk::on(Some(served), ours)
    }

    /// As [`Place::start`], with a program for this session alone.
    pub(crate) fn start_alone(&self) -> Talk {
        let (listener, ours) = connection();
        let child = self.command(listener.accept().unwrap().0).spawn().unwrap();
        Talk::on(Some(Served { child, log: None }), ours)
    }

    /// What tcpserver would say by variables, as a proxy says it.
    fn proxy_header(&self) -> String {
        let value = |name: &str| self.variables.get(name).map(String::as_str);
        let port = value("TCPLOCALPORT").unwrap_or("25");
        match value("TCPREMOTEIP").and_then(|ip| ip.parse::<std::net::IpAddr>().ok()) {
            Some(ip) if ip.is_ipv4() => {
                let local = value("TCPLOCALIP").unwrap_or("192.0.2.1");
                format!("PROXY TCP4 {ip} {local} 4321 {port}\r\n")
            }
            Some(ip) => {
                let local = value("TCPLOCALIP").unwrap_or("2001:db8::1");
                format!("PROXY TCP6 {ip} {local} 4321 {port}\r\n")
            }
            None => "PROXY UNKNOWN\r\n".to_owned(),
        }
    }

    /// Rules that set what else tcpserver would have found out.
    fn rules(&self) -> PathBuf {
        let path = self.dir.path().join("rules.cdb");
        let mut value = Vec::new();
        let plain = ["TCPREMOTEIP", "TCPLOCALIP", "TCPLOCALPORT", "TCP6LOCALPORT"];
        for (name, text) in &self.variables {
            if name.starts_with("TCP") && !plain.contains(&name.as_str()) {
                value.extend(format!("+{name}={text}\0").bytes());
            }
        }
        let mut builder = cdb::Builder::default();
        builder.add(b"", &value).unwrap();
        std::fs::write(&path, builder.finish().unwrap()).unwrap();
        path
    }

    fn log_file(&self) -> std::fs::File {
        std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap()
    }

    /// Starts a session and reads the greeting.
    pub(crate) fn greeted(&self) -> Talk {
        let mut talk = self.start();
        assert!(talk.reply().starts_with("220 "));
        talk
    }

    /// Sends everything at once, closes the sending side, and returns all that was answered.
    pub(crate) fn batch(&self, input: &str) -> (String, ExitStatus) {
        let mut talk = self.start();
        talk.send(input);
        talk.half_close();
        talk.finish()
    }

    /// The log, without the lines that tcpserver or the resident server writes about connections.
    pub(crate) fn log(&self) -> String {
        let about_a_connection = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            match words.get(1).copied() {
                Some("status:" | "ok" | "end" | "listening" | "stopped" | "deny") => true,
                Some("pid") => words.len() == 5,
                _ => false,
            }
        };
        let all = self.whole_log();
        all.split_inclusive('\n').filter(|l| !resident() || !about_a_connection(l)).collect()
    }

    pub(crate) fn whole_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What the queue program committed: envelope, message, environment.
    pub(crate) fn queued(&self) -> Vec<(String, String, String)> {
        self.files("done")
            .iter()
            .map(|f| {
                let read = |end: &str| std::fs::read_to_string(f.with_extension(end)).unwrap();
                (read("done"), read("message"), read("environment"))
            })
            .collect()
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == extension))
            .collect();
        all.sort();
        all
    }

    /// Starts a lookup daemon that knows these accounts.
    pub(crate) fn accounts(&self) -> Accounts {
        Accounts::start(&self.dir.path().join("inlookup.sock"))
    }
}

/// A client's end of a connection that waits to be accepted.
fn connection() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = Talk::with(listener.local_addr().unwrap().port()).unwrap();
    (listener, ours)
}

/// The program that serves: for one client, or for all that come.
pub(crate) struct Served {
    child: Child,
    /// Where a resident server says how sessions end.
    log: Option<PathBuf>,
}

impl Served {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: unix::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// How the first session ended: as the exit code of its program, or as the resident server logs it.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let Some(log) = &self.log else { return wait(&mut self.child) };
        let start = Instant::now();
        let mark = format!("qmail-smtpd: end {} status ", self.child.id());
        loop {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            if let Some(line) = text.lines().find_map(|l| l.strip_prefix(&mark)) {
                return ExitStatus::from_raw(line.parse::<i32>().unwrap() << 8);
            }
            assert!(start.elapsed() < PATIENCE, "the session does not end");
            std::thread::yield_now();
        }
    }

    /// How the program ended.
    pub(crate) fn exited(mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.log.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A client's side of a session.
pub(crate) struct Talk {
    pub(crate) child: Option<Served>,
    pub(crate) stream: Option<TcpStream>,
    heard: Vec<u8>,
}

impl Talk {
    pub(crate) fn send(&mut self, text: &str) {
        self.stream.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// One whole reply, lines joined with `\n`.
    pub(crate) fn reply(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.heard).into_owned();
            let mut end = 0;
            for line in text.split_inclusive("\r\n").filter(|l| l.ends_with("\r\n")) {
                end += line.len();
                if line.as_bytes().get(3) == Some(&b' ') {
                    self.heard.drain(..end);
                    return text[..end].trim_end().replace("\r\n", "\n");
                }
            }
            let mut buf = [0; 4096];
            let n = self.stream.as_mut().unwrap().read(&mut buf).unwrap();
            assert!(n > 0, "closed after {text:?}");
            self.heard.extend_from_slice(&buf[..n]);
        }
    }

    /// Sends a command and returns the reply.
    pub(crate) fn say(&mut self, command: &str) -> String {
        self.send(&format!("{command}\r\n"));
        self.reply()
    }

    /// EHLO, MAIL, RCPT, DATA.
    pub(crate) fn until_data(&mut self, recipient: &str) {
        assert!(self.say("EHLO c.example").starts_with("250"));
        assert!(self.say("MAIL FROM:<a@b.example>").starts_with("250"));
        assert!(self.say(&format!("RCPT TO:<{recipient}>")).starts_with("250"));
        assert!(self.say("DATA").starts_with("354"));
    }

    pub(crate) fn half_close(&mut self) {
        self.stream.as_ref().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Everything up to the end, and how the program ended.
    pub(crate) fn finish(mut self) -> (String, ExitStatus) {
        let mut all = std::mem::take(&mut self.heard);
        if let Some(mut stream) = self.stream.take() {
            stream.read_to_end(&mut all).unwrap();
        }
        (String::from_utf8_lossy(&all).into_owned(), self.child.as_mut().unwrap().ended())
    }

    /// Vanishes.
    pub(crate) fn vanish(mut self) -> ExitStatus {
        drop(self.stream.take());
        self.child.as_mut().unwrap().ended()
    }

    /// A session of a server that somebody else ends.
    pub(crate) fn on(served: Option<Served>, stream: TcpStream) -> Self {
        Self { child: served, stream: Some(stream), heard: Vec::new() }
    }

    /// A client of a server that is there for all.
    pub(crate) fn with(port: u16) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// Waits for a child, not for ever.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "the program does not end");
        std::thread::yield_now();
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// A lookup daemon: `absent@`, `off@`, `full@`, `alias@`, `down@` say what they are,
/// `odd@` gets an answer that is none; the password
/// of everybody is `p`, `norelay@` may not relay, `nosmtp@` not use SMTP.
pub(crate) struct Accounts {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Accounts {
    fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let seen = seen.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &seen));
            }
        });
        Self { asked }
    }

    /// All questions so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: UnixStream, seen: &Mutex<Vec<String>>) {
    let mut buffer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let mut out = Vec::new();
        let used = match lookup::frame::split(&buffer, lookup::frame::MAX_REQUEST).unwrap() {
            Some((frame, used)) => {
                let request = Request::decode(&frame).unwrap();
                seen.lock().unwrap().push(match request {
                    Request::Authenticate { address, password, service, remote_host } => {
                        [address, password, service, remote_host]
                            .map(|f| f.escape_ascii().to_string())
                            .join(" ")
                    }
                    other => format!("{other:?}"),
                });
                if matches!(request, Request::User(address) if address.starts_with(b"odd@")) {
                    // A status that does not exist.
                    lookup::frame::append(&mut out, 77, lookup::frame::MAX_FRAME, |_| Ok(())).unwrap();
                } else {
                    answer(&request).encode(&mut out).unwrap();
                }
                used
            }
            None => 0,
        };
        if used > 0 {
            buffer.drain(..used);
            stream.write_all(&out).unwrap();
            continue;
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => buffer.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
}

fn answer(request: &Request<'_>) -> Reply {
    let local = |address: &[u8]| {
        let at = address.iter().position(|&b| b == b'@').unwrap();
        String::from_utf8(address[..at].to_vec()).unwrap()
    };
    match request {
        Request::User(address) => match local(address).as_str() {
            "absent" => Reply::User(UserStatus::Absent),
            "off" => Reply::User(UserStatus::Inactive),
            "full" => Reply::User(UserStatus::OverQuota),
            "alias" => Reply::User(UserStatus::Alias),
            "down" => Reply::Temporary,
            _ => Reply::User(UserStatus::Found),
        },
        Request::Mailbox(address) => match local(address).as_str() {
            "absent" => Reply::Absent,
            "down" => Reply::Temporary,
            _ => Reply::Mailbox(mailbox(address, 0)),
        },
        Request::Authenticate { address, password, .. } => Reply::Verdict(match local(address).as_str() {
            "absent" => Verdict::Absent,
            "off" => Verdict::Disabled,
            "down" => return Reply::Temporary,
            _ if *password != b"p" => Verdict::Wrong,
            "norelay" => Verdict::Granted(mailbox(address, 0x20)),
            "nosmtp" => Verdict::Granted(mailbox(address, 0x100)),
            _ => Verdict::Granted(mailbox(address, 0)),
        }),
        _ => Reply::Refused,
    }
}

/// `alias.example` is another name of `here.example`.
fn mailbox(address: &[u8], flags: u32) -> Mailbox {
    let real = String::from_utf8(address.to_vec()).unwrap().replace("@alias.example", "@here.example");
    Mailbox {
        address: real.into_bytes(),
        uid: unix::Uid::from_raw(1),
        gid: unix::Gid::from_raw(1),
        home: b"/nonexistent".to_vec(),
        gecos: Vec::new(),
        quota: Quota::default(),
        flags,
        active: true,
        alias_only: false,
        aliases: Vec::new(),
    }
}

/// A rustls client on a session's socket, after the handshake.
pub(crate) struct TlsTalk {
    child: Option<Served>,
    stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    heard: String,
}

impl TlsTalk {
    /// Shakes hands; the certificate must be `trusted` and for mx.example.
    pub(crate) fn start(
        mut talk: Talk,
        trusted: &rustls_pki_types::CertificateDer<'static>,
    ) -> std::io::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "mx.example".try_into().unwrap();
        let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(client, talk.stream.take().unwrap());
        stream.flush()?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { child: talk.child, stream, heard: String::new() })
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// One whole reply, lines joined with `\n`.
    pub(crate) fn reply(&mut self) -> String {
        loop {
            let mut end = 0;
            for line in self.heard.split_inclusive("\r\n").filter(|l| l.ends_with("\r\n")) {
                end += line.len();
                if line.as_bytes().get(3) == Some(&b' ') {
                    let reply = self.heard[..end].trim_end().replace("\r\n", "\n");
                    self.heard.drain(..end);
                    return reply;
                }
            }
            let mut buf = [0; 4096];
            let n = self.stream.read(&mut buf).unwrap();
            assert!(n > 0, "closed after {:?}", self.heard);
            self.heard.push_str(std::str::from_utf8(&buf[..n]).unwrap());
        }
    }

    pub(crate) fn say(&mut self, command: &str) -> String {
        self.send(&format!("{command}\r\n"));
        self.reply()
    }

    /// The rest; the server must end TLS with close_notify (rustls reports an error otherwise).
    pub(crate) fn finish(mut self) -> (String, ExitStatus) {
        let mut rest = std::mem::take(&mut self.heard);
        self.stream.read_to_string(&mut rest).unwrap();
        let Self { mut child, stream, .. } = self;
        drop(stream);
        (rest, child.as_mut().unwrap().ended())
    }
}

/// Serves TCP connections on a free port of 127.0.0.1, as tcpserver does, until it is dropped.
pub(crate) struct Listener {
    pub(crate) port: u16,
    resident: Option<Served>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Listener {
    pub(crate) fn start(place: Arc<Place>) -> Self {
        if resident() {
            let (served, port) = place.resident_anywhere(&[]);
            return Self { port, resident: Some(served), stop: Arc::default() };
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopping = stop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let mut child = place.command(stream.unwrap()).spawn().unwrap();
                std::thread::spawn(move || child.wait());
            }
        });
        Self { port, resident: None, stop }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
    }
}
