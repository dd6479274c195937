//! Connections a second and memory of tcpserver: ours and that of Debian's ucspi-tcp, in one run.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::stats::median;

/// The peer.
const DEBIANS: &str = "/usr/bin/tcpserver";
/// How the servers are run: what is asked of them, and how many clients there are at a time.
const CASES: [(&str, &[&str], u32); 4] = [
    ("one client", &[], 1),
    ("16 clients", &[], 16),
    ("16 clients, 1000 rules", &["-x", "rules.cdb"], 16),
    ("16 clients, a line of log each step", &["-v"], 16),
];

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(program: &Path, dir: &Path, options: &[&str], command: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["-1", "-c", "500", "-H", "-R", "-l", "0"])
            .args(options)
            .args(["127.0.0.1", "0"])
            .args(command)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| format!("{}: no port", program.display()))?;
        Ok(Self { child, port })
    }

    /// CPU time of the server and of all programs of connections that have ended, whatever else the machine does.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name: utime, stime, cutime and cstime are fields 14 to 17, the state is field 3.
        let fields = stat.rsplit(')').next().context("/proc/PID/stat is malformed")?.split_whitespace();
        let ticks: u64 = fields.skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Kilobytes that this process has written and nobody shares, and its share of all that it has mapped.
    fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let field = |name: &str| -> u64 {
            let lines = text.lines().filter_map(|l| l.strip_prefix(name));
            lines.filter_map(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).sum()
        };
        Ok((field("Private_Dirty:"), field("Pss:")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections a second and milliseconds of CPU time for each.
fn round(server: &Server, clients: u32, count: u32) -> anyhow::Result<(f64, f64)> {
    let left = AtomicU32::new(count);
    let (start, cpu) = (Instant::now(), server.cpu()?);
    thread::scope(|scope| {
        let one = || -> std::io::Result<()> {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                let mut stream = TcpStream::connect(("127.0.0.1", server.port))?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                stream.read_to_end(&mut Vec::new())?;
            }
            Ok(())
        };
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
        all.into_iter().try_for_each(|t| t.join().map_err(|_| std::io::Error::other("a client failed"))?)
    })?;
    let (took, cpu) = (start.elapsed(), server.cpu()?.saturating_sub(cpu));
    Ok((f64::from(count) / took.as_secs_f64(), cpu.as_secs_f64() * 1000.0 / f64::from(count)))
}

/// Makes a database of 1000 rules that do not match, and one that does.
fn rules(stage: &Path, dir: &Path) -> anyhow::Result<()> {
    let mut text: String = (0..1000).map(|i| format!("10.{}.{}.:deny\n", i / 250, i % 250)).collect();
    text.push_str(":allow,RELAYCLIENT=\"\"\n");
    std::fs::write(dir.join("rules"), text)?;
    let made = Command::new(stage.join("usr/bin/tcprules"))
        .args(["rules.cdb", "rules.tmp"])
        .current_dir(dir)
        .stdin(std::fs::File::open(dir.join("rules"))?)
        .status()?;
    ensure!(made.success(), "tcprules failed");
    Ok(())
}

pub(crate) fn run(stage: &Path, dir: &Path, quick: bool) -> anyhow::Result<String> {
    let ours = stage.join("usr/bin/tcpserver");
    ensure!(Path::new(DEBIANS).exists(), "{DEBIANS} is missing; apt-get install ucspi-tcp");
    rules(stage, dir)?;
    let (count, rounds) = if quick { (200, 1) } else { (3000, 5) };
    let mut out = String::from(
        "tcpserver -HRl0, /bin/true for each connection; medians of alternating rounds; CPU of server and programs\n\
         | case | ours connections/s | ours CPU ms | Debian's connections/s | Debian's CPU ms | ratio connections/s | ratio CPU |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (name, options, clients) in CASES {
        // Ours has a limit for each client, which is the same one here.
        let mine = Server::start(&ours, dir, &[&["-C", "0"], options].concat(), &["/bin/true"])?;
        let theirs = Server::start(DEBIANS.as_ref(), dir, options, &["/bin/true"])?;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            a.push(round(&mine, clients, count)?);
            b.push(round(&theirs, clients, count)?);
        }
        let middle = |all: &[(f64, f64)]| {
            let of = |f: fn(&(f64, f64)) -> f64| median(all.iter().map(f).collect());
            (of(|r| r.0), of(|r| r.1))
        };
        let ((ar, ac), (br, bc)) = (middle(&a), middle(&b));
        writeln!(
            out,
            "| {name} | {ar:.0} | {ac:.2} | {br:.0} | {bc:.2} | {:.2} | {:.2} |",
            ar / br,
            ac / bc
        )?;
    }
    out.push_str("\n| memory of the server, KiB | ours written | ours Pss | Debian's written | Debian's Pss |\n|---|---|---|---|---|\n");
    let mine = Server::start(&ours, dir, &["-C", "0"], &["/bin/cat"])?;
    let theirs = Server::start(DEBIANS.as_ref(), dir, &[], &["/bin/cat"])?;
    let mut held = Vec::new();
    for connections in [0, 200] {
        for server in [&mine, &theirs] {
            for _ in 0..connections {
                held.push(TcpStream::connect(("127.0.0.1", server.port))?);
            }
        }
        // A byte that comes back has passed through the connection's program, which has its final shape then.
        for mut stream in &held {
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
        }
        let ((ap, a), (bp, b)) = (mine.memory()?, theirs.memory()?);
        writeln!(out, "| {connections} connections | {ap} | {a} | {bp} | {b} |")?;
    }
    Ok(out)
}
