//! Messages per second accepted and delivered, ours and Postfix, on the same disk in the same run.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::instance::Instance;
use crate::peer::{Postfix, RECIPIENT};
use crate::stats::{children_cpu, machine_cpu, median};

struct Target<'a> {
    port: u16,
    recipient: &'a str,
    maildir: &'a Path,
}

/// One round: seconds until the last message was accepted, until the last was in the Maildir,
/// CPU milliseconds a message without the generator.
struct Round {
    accepted: f64,
    delivered: f64,
    cpu: f64,
}

pub(crate) fn run(stage: &Path, dir: &Path, quick: bool) -> anyhow::Result<String> {
    let peer_dir = dir.join("postfix");
    if peer_dir.exists() {
        std::fs::remove_dir_all(&peer_dir)?;
    }
    let ours = Instance::start(stage, &dir.join("ours"))?;
    let postfix = Postfix::start(&peer_dir)?;
    let account = ours.accounts.first().context("the instance has no account")?;
    let port = *ours.ports.get("smtp").context("the instance has no smtp port")?;
    let ours = Target { port, recipient: &account.address, maildir: &account.maildir };
    let peer = Target { port: postfix.port, recipient: RECIPIENT, maildir: &postfix.maildir };
    let mut out = String::from(
        "SMTP in, 4 KiB, delivered to a Maildir, both durable; medians of alternating rounds\n\
         | sessions | ours accepted/s | ours delivered/s | ours CPU ms | Postfix accepted/s | Postfix delivered/s | \
         Postfix CPU ms | ratio accepted | ratio delivered | ratio CPU |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (sessions, messages) in [(1, 200), (10, 1000), (50, 1000)] {
        let messages = if quick { messages / 10 } else { messages };
        let rounds = if quick { 1 } else { 3 };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            a.push(round(&ours, sessions, messages)?);
            b.push(round(&peer, sessions, messages)?);
        }
        let count = f64::from(messages);
        let rate = |rounds: &[Round], time: fn(&Round) -> f64| {
            median(rounds.iter().map(|r| count / time(r)).collect())
        };
        let cpu = |rounds: &[Round]| median(rounds.iter().map(|r| r.cpu).collect());
        let (aa, ad, ac) = (rate(&a, |r| r.accepted), rate(&a, |r| r.delivered), cpu(&a));
        let (ba, bd, bc) = (rate(&b, |r| r.accepted), rate(&b, |r| r.delivered), cpu(&b));
        writeln!(
            out,
            "| {sessions} | {aa:.0} | {ad:.0} | {ac:.2} | {ba:.0} | {bd:.0} | {bc:.2} | {:.2} | {:.2} | {:.2} |",
            aa / ba,
            ad / bd,
            ac / bc
        )?;
    }
    Ok(out)
}

fn round(target: &Target<'_>, sessions: u32, messages: u32) -> anyhow::Result<Round> {
    let new = target.maildir.join("new");
    let before = count(&new)?;
    let (machine, children) = (machine_cpu()?, children_cpu()?);
    let start = Instant::now();
    let sent = Command::new("smtp-source")
        .args([
            "-s",
            &sessions.to_string(),
            "-m",
            &messages.to_string(),
            "-l",
            "4096",
            "-f",
            "load@bench.test",
        ])
        .args(["-t", target.recipient, &format!("127.0.0.1:{}", target.port)])
        .output()
        .context("cannot start smtp-source; apt-get install postfix")?;
    ensure!(sent.status.success(), "smtp-source: {}", String::from_utf8_lossy(&sent.stderr));
    let accepted = start.elapsed().as_secs_f64();
    let wanted = before + usize::try_from(messages)?;
    let patience = start + Duration::from_secs(300);
    while count(&new)? < wanted {
        if Instant::now() > patience {
            bail!(
                "{} of {messages} messages arrived in {} within 300 s",
                count(&new)? - before,
                new.display()
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let delivered = start.elapsed().as_secs_f64();
    let spent = (machine_cpu()? - machine).saturating_sub(children_cpu()? - children);
    Ok(Round { accepted, delivered, cpu: spent.as_secs_f64() * 1000.0 / f64::from(messages) })
}

fn count(directory: &Path) -> anyhow::Result<usize> {
    match std::fs::read_dir(directory) {
        Ok(entries) => Ok(entries.count()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", directory.display())),
    }
}
