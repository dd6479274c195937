//! Logins over SSH: OpenSSH's own daemon and client, through libpam, the module and the daemon.

mod site;

use std::process::{Command, Stdio};

use e2e::kit::{self, PATIENCE, Running, free_port, until};
use site::{Site, with_mail_logins, with_module};

/// An sshd in the site's view, and the port it listens on.
fn sshd(site: &Site) -> (Running, u16) {
    let port = free_port();
    let key = site.at("hostkey");
    kit::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
    let conf = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nUsePAM yes\n\
         PasswordAuthentication yes\nKbdInteractiveAuthentication no\nPubkeyAuthentication no\n",
        key.display()
    );
    std::fs::write(site.at("sshd_config"), conf).unwrap();
    let mut command = site.etc.command("sh");
    // sshd wants its directory below /run, which a machine without a running sshd does not have.
    command.args([
        "-c",
        r#"mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f "$0""#,
    ]);
    command.arg(site.at("sshd_config")).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(site.at("sshd.log")).unwrap());
    let daemon = Running::start(&mut command);
    until(PATIENCE, "sshd listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (daemon, port)
}

/// What a login shows, and the client's exit code.
fn ssh(site: &Site, port: u16, user: &str, password: &str) -> (String, i32) {
    let script = r#"
        set timeout 60
        spawn ssh -p $env(PORT) -l $env(WHO) -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
            -o NumberOfPasswordPrompts=1 -o PreferredAuthentications=password 127.0.0.1 \
            {echo "I am $(id -un) in $(pwd)"}
        expect {
            "assword:" { send "$env(WORD)\r" }
            eof { exit 90 }
            timeout { exit 91 }
        }
        expect { eof {} timeout { exit 92 } }
        exit [lindex [wait] 3]
    "#;
    let path = site.at("dialogue.exp");
    std::fs::write(&path, script).unwrap();
    let mut command = Command::new("expect");
    let out = kit::run(
        command.arg("-f").arg(path).env("PORT", port.to_string()).env("WHO", user).env("WORD", password),
    );
    (format!("{}{}", out.stdout, out.stderr), out.code)
}

#[test]
fn a_mail_user_logs_in_with_her_mail_password() {
    let mut site =
        Site::new(|etc, root| with_mail_logins(with_module(etc, root), root, &["jane", "joe"], ""));
    site.add("joe", |a| a.active = false);
    site.start();
    let (daemon, port) = sshd(&site);
    let log = || std::fs::read_to_string(site.at("sshd.log")).unwrap();
    let (text, code) = ssh(&site, port, "jane@example.com", "secret");
    assert!(
        text.contains(&format!("I am jane@example.com in {}", site.at("home/jane").display())),
        "{text}\n{}",
        log()
    );
    assert_eq!(code, 0);
    for (user, password) in
        [("jane@example.com", "wrong"), ("joe@example.com", "secret"), ("nobody@example.com", "secret")]
    {
        let (text, code) = ssh(&site, port, user, password);
        assert!(text.contains("Permission denied"), "{user}: {text}\n{}", log());
        assert_eq!(code, 255, "{user}");
    }
    let lines = site.log();
    assert!(lines.contains("login: jane@example.com from 127.0.0.1 for sshd: wrong password"), "{lines}");
    assert!(lines.contains("login: joe@example.com from 127.0.0.1 for sshd: disabled"), "{lines}");
    // Without the daemon nobody gets in, and it is no worse afterwards.
    site.stop();
    assert_eq!(ssh(&site, port, "jane@example.com", "secret").1, 255);
    site.start();
    assert_eq!(ssh(&site, port, "jane@example.com", "secret").1, 0);
    drop(daemon);
}
