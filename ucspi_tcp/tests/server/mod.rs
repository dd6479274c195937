//! What the tests of the server side share: our programs under their names, a running tcpserver, its log.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Kit {
    pub(crate) dir: tempfile::TempDir,
}

impl Kit {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tcpserver", "tcp-env", "tcprules", "tcprulescheck", "tcpstatus"] {
            symlink(env!("CARGO_BIN_EXE_ucspi-tcp"), dir.path().join(name)).unwrap();
        }
        // tcpserver looks for it beside the executable that the links lead to.
        let (plain, tls) = (env!("CARGO_BIN_EXE_ucspi-tcp"), env!("CARGO_BIN_EXE_tcpserver-tls"));
        assert_eq!(PathBuf::from(plain).parent(), PathBuf::from(tls).parent());
        Self { dir }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        command.current_dir(self.dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
        command
    }

    /// A server on a free port, its log in the file `log`.
    pub(crate) fn server(&self, args: &[&str]) -> Server {
        self.server_with(args, |_| {})
    }

    pub(crate) fn server_with(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Server {
        let mut command = self.command("tcpserver");
        let log = fs::File::create(self.path("log")).unwrap();
        command.arg("-1v").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("no port: {}", self.text("log")));
        Server { child, port }
    }

    pub(crate) fn text(&self, below: &str) -> String {
        fs::read(self.path(below)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    pub(crate) fn wait_log(&self, what: &str) {
        wait_until(&format!("{what:?} in the log: {}", self.text("log")), || self.text("log").contains(what));
    }

    pub(crate) fn rules(&self, text: &str) -> PathBuf {
        let path = self.path("rules.cdb");
        let mut child =
            self.command("tcprules").arg(&path).arg("ignored").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        path
    }
}

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn connect(&self) -> TcpStream {
        self.connect_to(Ipv4Addr::LOCALHOST.into())
    }

    pub(crate) fn connect_to(&self, ip: std::net::IpAddr) -> TcpStream {
        let stream = TcpStream::connect(SocketAddr::new(ip, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// From another address of this host.
    pub(crate) fn connect_from(&self, from: &str) -> TcpStream {
        self.connect_between(from, "127.0.0.1")
    }

    /// From one address of this host to another one.
    pub(crate) fn connect_between(&self, from: &str, to: &str) -> TcpStream {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let address =
            |ip: &str, port| SockaddrIn::from(std::net::SocketAddrV4::new(ip.parse().unwrap(), port));
        bind(fd.as_raw_fd(), &address(from, 0)).unwrap();
        connect(fd.as_raw_fd(), &address(to, self.port)).unwrap();
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// All that the program says.
    pub(crate) fn answer(&self) -> String {
        read_all(self.connect())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does the program greet with `hello` and a newline? The connection stays.
pub(crate) fn greeted(stream: &TcpStream) -> bool {
    let mut buf = [0; 6];
    (&*stream).read_exact(&mut buf).is_ok() && &buf == b"hello\n"
}

/// A program that greets and then echoes.
pub(crate) const GREETER: [&str; 3] = ["/bin/sh", "-c", "echo hello; exec cat"];

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn read_all(mut stream: impl Read) -> String {
    let mut all = Vec::new();
    // A connection that is reset has said all it will say.
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

pub(crate) fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|l| l.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

pub(crate) const QUIET: [&str; 4] = ["-H", "-R", "-l", "here"];

pub(crate) fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    QUIET.iter().copied().chain(more.iter().copied()).collect()
}
