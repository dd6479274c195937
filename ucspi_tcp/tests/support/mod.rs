//! What the tests of the client side share: the programs under their names, Debian's beside them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Our programs under their names, and a directory to work in.
pub(crate) struct Kit {
    dir: tempfile::TempDir,
}

impl Kit {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        let kit = Self { dir };
        kit.link(env!("CARGO_BIN_EXE_ucspi-tcp"));
        kit
    }

    /// Links all programs of an executable.
    pub(crate) fn link(&self, executable: &str) {
        let list = Command::new(executable).arg("--list-programs").output().unwrap();
        for line in String::from_utf8(list.stdout).unwrap().lines() {
            symlink(executable, self.path("bin").join(line.split('\t').next().unwrap())).unwrap();
        }
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    /// One of our programs.
    pub(crate) fn ours(&self, name: &str) -> Command {
        self.command(self.path("bin").join(name))
    }

    /// The same of Debian's ucspi-tcp.
    pub(crate) fn debians(&self, name: &str) -> Command {
        let path = Path::new("/usr/bin").join(name);
        assert!(path.exists(), "the package ucspi-tcp must be installed");
        self.command(path)
    }

    /// Code and output of ours and of Debian's, which must be the same.
    pub(crate) fn same(&self, name: &str, args: &[&str], input: &[u8]) -> (Option<i32>, String) {
        let [ours, debians] = [self.ours(name), self.debians(name)].map(|mut command| {
            let out = run(command.args(args), input);
            (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
        });
        assert_eq!(ours, debians, "{name} {args:?}");
        ours
    }
}

/// Runs a program to its end with this input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = start(command);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program need not read its input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Starts a program with pipes.
pub(crate) fn start(command: &mut Command) -> std::process::Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A server that does the same for each connection, until the test is over.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", serve)
    }

    pub(crate) fn at(address: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let serve = std::sync::Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address }
    }

    /// Greets, then sends back all it gets, to its end.
    pub(crate) fn echo() -> Self {
        Self::start(|mut stream| {
            stream.write_all(b"hi\n").unwrap();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        })
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }
}
