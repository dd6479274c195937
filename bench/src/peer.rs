//! The peer: Debian's Postfix in a mount namespace of its own, queue and mailboxes on the same disk.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// A running Postfix.
pub(crate) struct Postfix {
    holder: Child,
    pub(crate) port: u16,
    pub(crate) maildir: PathBuf,
}

/// The address that delivers to [`Postfix::maildir`].
pub(crate) const RECIPIENT: &str = "jane@bench.test";

/// Mounts the private directories, starts Postfix, waits for end of input, stops it.
const HOLD: &str = r#"set -e
D=$1
mount --make-rprivate /
mount --bind "$D/etc" /etc/postfix
mount --bind "$D/spool" /var/spool/postfix
mount --bind "$D/lib" /var/lib/postfix
chown postfix: /var/lib/postfix
postfix start
cat >/dev/null
postfix stop
"#;

impl Postfix {
    /// Starts one below `dir`; default durability settings, no chroot, no limits per client.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        ensure!(Path::new("/usr/sbin/postfix").exists(), "postfix is not installed; apt-get install postfix");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        for sub in ["spool", "lib", "mail/jane"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let copied = Command::new("cp").args(["-a", "/etc/postfix"]).arg(dir.join("etc")).status()?;
        ensure!(copied.success(), "cannot copy /etc/postfix");
        let mail = dir.join("mail");
        fs::write(dir.join("etc/main.cf"), main_cf(&mail))?;
        let master = fs::read_to_string("/etc/postfix/master.cf")?;
        fs::write(dir.join("etc/master.cf"), master_cf(&master, port))?;
        let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(&mail).status()?;
        ensure!(owned.success(), "cannot give {} to the mailbox user", mail.display());
        let holder = Command::new("unshare")
            .args(["--mount", "--fork", "sh", "-c", HOLD, "sh"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let postfix = Self { holder, port, maildir: mail.join("jane/Maildir") };
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > patience {
                bail!("postfix does not listen on port {port} after 20 s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(postfix)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        if let Err(e) = self.holder.wait().context("waiting for postfix to stop") {
            eprintln!("bench: warning: {e:#}");
        }
    }
}

fn main_cf(mail: &Path) -> String {
    format!(
        "compatibility_level = 3.6\nmyhostname = bench.test\nmydestination =\ninet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nalias_maps =\nalias_database =\n\
         virtual_mailbox_domains = bench.test\nvirtual_mailbox_base = {}\n\
         virtual_mailbox_maps = inline:{{ {RECIPIENT}=jane/Maildir/ }}\n\
         virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\nvirtual_minimum_uid = 100\n\
         maillog_file = /var/spool/postfix/log\nmaillog_file_prefixes = /var/spool\n\
         smtpd_client_connection_count_limit = 0\n",
        mail.display()
    )
}

/// Debian's master.cf with our port, without chroot, with the log service of `maillog_file`.
fn master_cf(debian: &str, port: u16) -> String {
    let mut out = String::new();
    let mut has_postlog = false;
    for line in debian.lines() {
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        let is_service = fields.len() >= 8 && matches!(fields[1], "inet" | "unix" | "unix-dgram" | "fifo");
        if line.starts_with(['#', ' ', '\t']) || !is_service {
            out.push_str(line);
        } else {
            has_postlog |= fields[0] == "postlog";
            let listener = format!("127.0.0.1:{port}");
            if fields[0] == "smtp" && fields[1] == "inet" {
                fields[0] = &listener;
            }
            fields[4] = "n";
            out.push_str(&fields.join(" "));
        }
        out.push('\n');
    }
    if !has_postlog {
        out.push_str("postlog unix-dgram n - n - 1 postlogd\n");
    }
    out
}
