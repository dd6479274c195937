//! tcpserver, tcp-env, tcprules and tcprulescheck, with real connections.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);

struct Kit {
    dir: tempfile::TempDir,
}

impl Kit {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tcpserver", "tcp-env", "tcprules", "tcprulescheck"] {
            symlink(env!("CARGO_BIN_EXE_ucspi-tcp"), dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        command.current_dir(self.dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
        command
    }

    /// A server on a free port, its log in the file `log`.
    fn server(&self, args: &[&str]) -> Server {
        self.server_with(args, |_| {})
    }

    fn server_with(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Server {
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

    fn text(&self, below: &str) -> String {
        fs::read(self.path(below)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    fn wait_log(&self, what: &str) {
        wait_until(&format!("{what:?} in the log: {}", self.text("log")), || self.text("log").contains(what));
    }

    fn rules(&self, text: &str) -> PathBuf {
        let path = self.path("rules.cdb");
        let mut child =
            self.command("tcprules").arg(&path).arg("ignored").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        path
    }
}

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn connect(&self) -> TcpStream {
        self.connect_to(Ipv4Addr::LOCALHOST.into())
    }

    fn connect_to(&self, ip: std::net::IpAddr) -> TcpStream {
        let stream = TcpStream::connect(SocketAddr::new(ip, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// All that the program says.
    fn answer(&self) -> String {
        read_all(self.connect())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read_all(mut stream: impl Read) -> String {
    let mut all = Vec::new();
    // A connection that is reset has said all it will say.
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|l| l.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

const QUIET: [&str; 4] = ["-H", "-R", "-l", "here"];

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    QUIET.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn the_program_gets_the_connection_and_its_description() {
    let kit = Kit::new();
    let mut server = kit.server_with(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "env; exec cat"]), |c| {
        c.env("TCPREMOTEINFO", "forged").env("TCPREMOTEHOST", "forged").env("KEPT", "1");
    });
    let mut client = server.connect();
    client.write_all(b"echo=this\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let port = client.local_addr().unwrap().port().to_string();
    let got = variables(&read_all(client));
    let local = server.port.to_string();
    for (name, value) in [
        ("PROTO", "TCP"),
        ("TCPLOCALIP", "127.0.0.1"),
        ("TCPLOCALPORT", local.as_str()),
        ("TCPLOCALHOST", "here"),
        ("TCPREMOTEIP", "127.0.0.1"),
        ("TCPREMOTEPORT", port.as_str()),
        ("KEPT", "1"),
        ("echo", "this"),
    ] {
        assert_eq!(got.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(
        !got.contains_key("TCPREMOTEINFO") && !got.contains_key("TCPREMOTEHOST"),
        "an outer server's values"
    );
    kit.wait_log("status: 0/40 end");
    let log = kit.text("log");
    let lines: Vec<_> = log.lines().map(|l| l.strip_prefix("tcpserver: ").unwrap()).collect();
    let pid = lines[2].split(' ').nth(1).unwrap();
    assert_eq!(lines[0], "status: 0/40");
    assert_eq!(lines[1], format!("status: 1/40 start, pid={pid}, IP 127.0.0.1"));
    assert_eq!(lines[2], format!("pid {pid} from 127.0.0.1"));
    assert_eq!(lines[3], format!("ok {pid} here[127.0.0.1]{local} [127.0.0.1]:{port}:maxperip=20"));
    assert_eq!(lines[4], format!("end {pid} status 0"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn all_addresses_means_both_families() {
    let kit = Kit::new();
    for host in ["0", "", "::"] {
        let server = kit.server(&args(&[host, "0", "/usr/bin/env"]));
        let got = variables(&server.answer());
        assert_eq!((got["PROTO"].as_str(), got["TCPREMOTEIP"].as_str()), ("TCP", "127.0.0.1"));
        assert_eq!(got["TCP6REMOTEIP"], "::ffff:127.0.0.1");
        let got = variables(&read_all(server.connect_to(Ipv6Addr::LOCALHOST.into())));
        assert_eq!((got["PROTO"].as_str(), got["TCPREMOTEIP"].as_str()), ("TCP6", "::1"));
        assert_eq!(got["TCP6LOCALHOST"], "here");
    }
    let server = kit.server(&args(&["-4", "0", "0", "/usr/bin/env"]));
    assert!(!server.answer().contains("TCP6"));
    let server = kit.server(&args(&["-6", "0", "0", "/usr/bin/env"]));
    assert_eq!(variables(&server.answer())["PROTO"], "TCP6");
}

#[test]
fn clients_above_the_limit_wait() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-c", "2", "127.0.0.1", "0", "/bin/sh", "-c", "echo hello; exec cat"]));
    let mut greeted: Vec<_> = (0..2).map(|_| BufReader::new(server.connect())).collect();
    for client in &mut greeted {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
    }
    let third = server.connect();
    kit.wait_log("status: 2/2");
    // It is in the queue of the socket; nobody greets it until another one is done.
    third.set_nonblocking(true).unwrap();
    assert_eq!((&third).read(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(greeted.pop());
    third.set_nonblocking(false).unwrap();
    let mut line = String::new();
    BufReader::new(third).read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
}

#[test]
fn the_limit_in_a_file_is_read_again_at_hup() {
    let kit = Kit::new();
    fs::write(kit.path("max"), "1\n").unwrap();
    let server = kit.server_with(
        &args(&["-c", "max", "127.0.0.1", "0", "/bin/sh", "-c", "echo hello; exec cat"]),
        |c| {
            c.env("CONTROLDIR", kit.path(""));
        },
    );
    let hello = |stream: &TcpStream| {
        let mut buf = [0; 6];
        (&*stream).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"hello\n");
    };
    let first = server.connect();
    hello(&first);
    let second = server.connect();
    fs::write(kit.path("max"), "3\n").unwrap();
    server.signal(Signal::SIGHUP);
    hello(&second);
    kit.wait_log("sighup: 1/3");
    // Lower than what is running: those go on, nobody new comes in.
    fs::write(kit.path("max"), "1\n").unwrap();
    server.signal(Signal::SIGHUP);
    kit.wait_log("sighup: 2/1");
    let third = server.connect();
    (&first).write_all(b"still\n").unwrap();
    let mut buf = [0; 6];
    (&first).read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"still\n");
    drop((first, second));
    hello(&third);
    // Without a file, HUP changes nothing (and does not end the server).
    let fixed = kit.server(&args(&["-c", "5", "127.0.0.1", "0", "/bin/echo", "hi"]));
    fixed.signal(Signal::SIGHUP);
    kit.wait_log("sighup: 0/5");
    assert_eq!(fixed.answer(), "hi\n");
}

#[test]
fn one_client_has_its_own_limit() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-C", "2", "0", "0", "/bin/sh", "-c", "echo hello; exec cat"]));
    let greeted = |stream: &TcpStream| {
        let mut buf = [0; 6];
        (&*stream).read_exact(&mut buf).is_ok()
    };
    let kept: Vec<_> = (0..2).map(|_| server.connect()).collect();
    assert!(kept.iter().all(greeted));
    let third = server.connect();
    assert!(!greeted(&third), "sent away");
    kit.wait_log("end 127.0.0.1 perIPlimit 2");
    let other = server.connect_to(Ipv6Addr::LOCALHOST.into());
    assert!(greeted(&other), "another address is another client");
    drop(kept);
    wait_until("room", || greeted(&server.connect()));
}

#[test]
fn limits_above_twenty_and_limits_by_rule() {
    let kit = Kit::new();
    let server =
        kit.server(&args(&["-c", "50", "-C", "30", "127.0.0.1", "0", "/bin/sh", "-c", "echo x; exec cat"]));
    let clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
    assert!(clients.iter().all(|mut c| c.read_exact(&mut [0; 2]).is_ok()), "the limit of -C is the limit");
    assert!(server.connect().read_exact(&mut [0; 2]).is_err());
    drop(clients);
    let rules = kit.rules("127.0.0.1:allow,MAXPERIP=\"3\"\n");
    let rules = rules.to_str().unwrap();
    for per_client in ["1", "20"] {
        let server = kit.server(&args(&[
            "-C",
            per_client,
            "-x",
            rules,
            "127.0.0.1",
            "0",
            "/bin/sh",
            "-c",
            "echo x; exec cat",
        ]));
        let clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
        assert!(
            clients.iter().all(|mut c| c.read_exact(&mut [0; 2]).is_ok()),
            "a rule raises -C {per_client}"
        );
        assert!(server.connect().read_exact(&mut [0; 2]).is_err(), "and lowers it");
    }
}

#[test]
fn rules() {
    let kit = Kit::new();
    let path = kit.rules("127.0.0.1:allow,RELAYCLIENT=\"\",!HOME\n::1:deny\n:allow\n");
    let path = path.to_str().unwrap();
    let server = kit.server_with(&args(&["-x", path, "0", "0", "/usr/bin/env"]), |c| {
        c.env("HOME", "/x");
    });
    let got = variables(&server.answer());
    assert_eq!(got.get("RELAYCLIENT").map(String::as_str), Some(""));
    assert!(!got.contains_key("HOME"));
    assert_eq!(read_all(server.connect_to(Ipv6Addr::LOCALHOST.into())), "");
    kit.wait_log("deny ");
    // Read again at HUP.
    kit.rules("127.:deny\n");
    server.signal(Signal::SIGHUP);
    kit.wait_log("sighup");
    assert_eq!(server.answer(), "");
    // A network.
    kit.rules("127.0.0.0/8:allow,NET=\"yes\"\n:deny\n");
    server.signal(Signal::SIGHUP);
    wait_until("the new rules", || server.answer().contains("NET=yes"));
    // No database: nobody comes in, unless -X says otherwise.
    for (options, open) in [(&["-x", "nosuch.cdb"][..], false), (&["-X", "-x", "nosuch.cdb"], true)] {
        let mut all = options.to_vec();
        all.extend(args(&["127.0.0.1", "0", "/bin/echo", "in"]));
        let server = kit.server(&all);
        assert_eq!(server.answer() == "in\n", open, "{options:?}");
    }
    fs::write(kit.path("bad.cdb"), "this is no database").unwrap();
    let server = kit.server(&args(&["-X", "-x", "bad.cdb", "127.0.0.1", "0", "/bin/echo", "in"]));
    kit.wait_log("bad.cdb");
    assert_eq!(server.answer(), "", "-X is about a missing database only");
}

#[test]
fn tcprules_agrees_with_debians() {
    let kit = Kit::new();
    let rules = "# comment\n\n127.:allow,RELAYCLIENT=\"\"\n1.2.3.37-53:deny\n10.2-3.:allow,X='a b'\n9.9.9.9:allow,RBLSMTPD=/-no/\n:allow\n";
    let ours = kit.rules(rules);
    let mut debians = Command::new("/usr/bin/tcprules")
        .args(["debian.cdb", "debian.tmp"])
        .current_dir(kit.path(""))
        .stdin(Stdio::piped())
        .spawn()
        .expect("the package ucspi-tcp must be installed");
    debians.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(debians.wait().unwrap().success());
    let check = |program: &Path, cdb: &Path, ip: &str| {
        let out = Command::new(program).arg(cdb).env_clear().env("TCPREMOTEIP", ip).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    for ip in ["127.0.0.1", "1.2.3.36", "1.2.3.37", "1.2.3.53", "10.2.9.9", "10.4.0.1", "9.9.9.9", "8.8.8.8"]
    {
        let want = check(Path::new("/usr/bin/tcprulescheck"), &kit.path("debian.cdb"), ip);
        assert_eq!(check(Path::new("/usr/bin/tcprulescheck"), &ours, ip), want, "Debian's reads ours: {ip}");
        assert_eq!(check(&kit.path("tcprulescheck"), &ours, ip), want, "ours says the same: {ip}");
        assert_eq!(
            check(&kit.path("tcprulescheck"), &kit.path("debian.cdb"), ip),
            want,
            "ours reads Debian's: {ip}"
        );
    }
    // A bad line is named, and the old database stays.
    let before = fs::read(&ours).unwrap();
    let mut child =
        kit.command("tcprules").arg(&ours).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b":allow\nnonsense here\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(100));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("line 2: unable to parse this line: nonsense here")
    );
    assert_eq!(fs::read(&ours).unwrap(), before);
}

#[test]
fn term_leaves_running_connections() {
    let kit = Kit::new();
    let mut server = kit.server(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "echo hello; exec cat"]));
    let client = server.connect();
    (&client).read_exact(&mut [0; 6]).unwrap();
    server.signal(Signal::SIGUSR1);
    kit.wait_log("connection: pid=");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "nobody listens");
    (&client).write_all(b"still\n").unwrap();
    let mut buf = [0; 6];
    (&client).read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"still\n");
}

#[test]
fn endings_are_logged() {
    let kit = Kit::new();
    let server = kit.server(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "exit 7"]));
    server.answer();
    kit.wait_log(" status 7\n");
    let server = kit.server(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "kill -9 $$"]));
    server.answer();
    kit.wait_log(" killed by signal 9\n");
    let server = kit.server(&args(&["127.0.0.1", "0", "/nonexistent"]));
    assert_eq!(server.answer(), "");
    kit.wait_log("unable to run /nonexistent");
    assert_eq!(server.answer(), "", "and the server goes on");
}

#[test]
fn banner_and_unix_socket() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-B", "220 early\r\n", "127.0.0.1", "0", "/bin/echo", "late"]));
    assert_eq!(server.answer(), "220 early\r\nlate\n");
    let path = kit.path("s");
    let shown = path.to_str().unwrap().to_owned();
    let mut server = kit.server(&[&shown, "/usr/bin/env"]);
    let got = variables(&read_all(UnixStream::connect(&path).unwrap()));
    assert_eq!((got["PROTO"].as_str(), got["UNIXLOCALPATH"].as_str()), ("UNIX", shown.as_str()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert!(!path.exists(), "the socket file is removed");
}

#[test]
fn root_is_given_up_for_good() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let kit = Kit::new();
    let show = ["127.0.0.1", "0", "/bin/sh", "-c", "id -u; id -g; id -G"];
    for (options, want) in [
        (&["-u", "nobody"][..], "65534\n65534\n65534\n"),
        (&["-u", "nobody", "-g", "mail,12"], "65534\n8\n8 12\n"),
        (&["-u", "65534", "-g", "65534"], "65534\n65534\n65534\n"),
    ] {
        let mut all = options.to_vec();
        all.extend(args(&show));
        assert_eq!(kit.server(&all).answer(), want, "{options:?}");
    }
    let mut all = vec!["-U"];
    all.extend(args(&show));
    let server = kit.server_with(&all, |c| {
        c.env("UID", "65534").env("GID", "12");
    });
    assert_eq!(server.answer(), "65534\n12\n12\n");
}

#[test]
fn names_are_looked_up_by_default() {
    let kit = Kit::new();
    let server = kit.server(&["-R", "127.0.0.1", "0", "/usr/bin/env"]);
    let got = variables(&server.answer());
    assert_eq!((got["TCPREMOTEHOST"].as_str(), got["TCPLOCALHOST"].as_str()), ("localhost", "localhost"));
    assert_eq!(got["TCPREMOTEIP"], "127.0.0.1");
    let server = kit.server(&["-R", "-p", "127.0.0.1", "0", "/usr/bin/env"]);
    assert_eq!(variables(&server.answer())["TCPREMOTEHOST"], "localhost");
    // Nobody answers at port 113 of this host: no variable, and no delay by the timeout either.
    let server = kit.server(&["-H", "-l", "x", "127.0.0.1", "0", "/usr/bin/env"]);
    assert!(!server.answer().contains("TCPREMOTEINFO"));
}

#[test]
fn tcp_env_by_itself() {
    // As from inetd: the connection on descriptor 0, nothing in the environment.
    let kit = Kit::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let socket = std::os::fd::OwnedFd::from(accepted);
    let out = kit
        .command("tcp-env")
        .args(["-HR", "-l", "me", "/usr/bin/env"])
        .stdin(Stdio::from(socket))
        .output()
        .unwrap();
    let got = variables(&String::from_utf8(out.stdout).unwrap());
    assert_eq!(got["TCPREMOTEPORT"], client.local_addr().unwrap().port().to_string());
    assert_eq!((got["PROTO"].as_str(), got["TCPLOCALHOST"].as_str()), ("TCP", "me"));
    let out = kit.command("tcp-env").args(["/nonexistent"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(111));
}

#[test]
fn readiness_is_announced_and_not_passed_on() {
    let kit = Kit::new();
    let path = kit.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let server = kit.server_with(&args(&["127.0.0.1", "0", "/usr/bin/env"]), |c| {
        c.env("NOTIFY_SOCKET", &path);
    });
    let mut buf = [0; 100];
    let n = socket.recv(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"READY=1\n");
    assert!(!server.answer().contains("NOTIFY_SOCKET"));
}

#[test]
fn one_instance_for_a_pid_file() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-e", "pid", "127.0.0.1", "0", "/bin/true"]));
    assert_eq!(kit.text("pid"), format!("{}\n", server.child.id()));
    let mut second = kit.command("tcpserver");
    second.args(args(&["-e", "pid", "127.0.0.1", "0", "/bin/true"])).stdin(Stdio::null());
    let out = second.output().unwrap();
    assert_eq!(out.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&out.stderr).contains("another instance"));
}

#[test]
fn usage() {
    let kit = Kit::new();
    let code = |args: &[&str]| {
        kit.command("tcpserver").args(args).stdin(Stdio::null()).output().unwrap().status.code()
    };
    assert_eq!(code(&[]), Some(100));
    assert_eq!(code(&["127.0.0.1", "0"]), Some(100));
    assert_eq!(code(&["-c", "0", "127.0.0.1", "0", "true"]), Some(100));
    assert_eq!(code(&["-C", "x", "127.0.0.1", "0", "true"]), Some(100));
    assert_eq!(code(&["-u", "nosuchuser", "127.0.0.1", "0", "true"]), Some(100));
    assert_eq!(code(&["127.0.0.1", "nosuchservice", "true"]), Some(111));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(code(&["127.0.0.1", &taken.local_addr().unwrap().port().to_string(), "true"]), Some(111));
}

#[test]
fn nothing_leaks_into_the_program() {
    let kit = Kit::new();
    let rules = kit.rules(":allow\n");
    let server = kit.server(&args(&[
        "-x",
        rules.to_str().unwrap(),
        "-e",
        "pid",
        "127.0.0.1",
        "0",
        "/bin/ls",
        "/proc/self/fd",
    ]));
    let list = Command::new("/bin/ls").arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap();
    assert_eq!(server.answer(), String::from_utf8(list.stdout).unwrap());
}
