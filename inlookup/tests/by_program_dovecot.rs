//! Mail read over IMAP: Dovecot asks libpam, libpam the module, the module the daemon.

mod site;

use std::path::Path;
use std::process::{Command, Stdio};

use accounts::ServiceFlags;
use e2e::kit::{self, PATIENCE, Running, free_port, until};
use site::{Site, with_mail_logins, with_module};

/// A Dovecot in the site's view, and its IMAP port.
fn dovecot(site: &Site) -> (Running, u16) {
    let port = free_port();
    let base = site.at("dovecot");
    std::fs::create_dir(&base).unwrap();
    let conf = format!(
        "base_dir = {base}/run\nstate_dir = {base}/state\nlog_path = {base}/log\nprotocols = imap\n\
         listen = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\nfirst_valid_uid = 500\n\
         mail_location = maildir:~/Maildir\nauth_failure_delay = 0\n\
         passdb {{\n  driver = pam\n  args = %s\n}}\nuserdb {{\n  driver = passwd\n}}\n\
         service imap-login {{\n  inet_listener imap {{\n    port = {port}\n  }}\n\
         \x20 inet_listener imaps {{\n    port = 0\n  }}\n}}\n\
         service anvil {{\n  unix_listener anvil-auth-penalty {{\n    mode = 0\n  }}\n}}\n",
        base = base.display()
    );
    std::fs::write(base.join("conf"), conf).unwrap();
    let mut command = site.etc.command("dovecot");
    command.arg("-F").arg("-c").arg(base.join("conf"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(base.join("stderr")).unwrap());
    let daemon = Running::start(&mut command);
    until(PATIENCE, "Dovecot listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (daemon, port)
}

/// Logs in and says how many messages there are, or why not.
fn imap(port: u16, user: &str, password: &str) -> String {
    let script = "import imaplib, sys\n\
        try:\n    c = imaplib.IMAP4('127.0.0.1', int(sys.argv[1]), timeout=60)\n\
        \x20   c.login(sys.argv[2], sys.argv[3])\n    print('messages', c.select()[1][0].decode())\n    c.logout()\n\
        except imaplib.IMAP4.error as e:\n    print('refused', e)\n";
    kit::run(Command::new("python3").args(["-c", script, &port.to_string(), user, password])).ok().stdout
}

/// A Maildir with one message for the owner of a home directory.
fn deliver(home: &Path, uid: u32) {
    for directory in ["new", "cur", "tmp"] {
        std::fs::create_dir_all(home.join("Maildir").join(directory)).unwrap();
    }
    std::fs::write(home.join("Maildir/new/1.a.b"), "Subject: hello\n\nbody\n").unwrap();
    kit::run(Command::new("chown").args(["-R", &format!("{uid}:{uid}")]).arg(home)).ok();
}

#[test]
fn a_mail_user_reads_her_mail_with_her_mail_password() {
    let mut site = Site::new(|etc, root| {
        let imap = "auth required pam_multi.so nodelay\naccount required pam_multi.so\n";
        with_mail_logins(with_module(etc, root), root, &["jane", "noimap"], "").pam("imap", imap)
    });
    site.add("noimap", |a| a.flags = ServiceFlags::NO_IMAP);
    deliver(&site.at("home/jane"), 60_001);
    deliver(&site.at("home/noimap"), 60_002);
    site.start();
    let (_daemon, port) = dovecot(&site);
    let log_file = site.at("dovecot/log");
    let log = || std::fs::read_to_string(&log_file).unwrap_or_default();
    assert_eq!(imap(port, "jane@example.com", "secret"), "messages 1\n", "{}", log());
    for (user, password) in
        [("jane@example.com", "wrong"), ("nobody@example.com", "secret"), ("noimap@example.com", "secret")]
    {
        let text = imap(port, user, password);
        assert!(text.starts_with("refused"), "{user}: {text}{}", log());
    }
    let lines = site.log();
    for line in [
        "login: jane@example.com from 127.0.0.1 for imap: wrong password",
        "login: nobody@example.com from 127.0.0.1 for imap: no such account",
        "login: noimap@example.com from 127.0.0.1 for imap: disabled",
    ] {
        assert!(lines.contains(line), "{line}: {lines}");
    }
    // Without the daemon nobody gets in, and it is no worse afterwards. (Dovecot 2.3 tells its client
    // about PAM_AUTHINFO_UNAVAIL as about any failure.)
    site.stop();
    let text = imap(port, "jane@example.com", "secret");
    assert!(text.starts_with("refused"), "{text}{}", log());
    site.start();
    assert_eq!(imap(port, "jane@example.com", "secret"), "messages 1\n", "{}", log());
}
