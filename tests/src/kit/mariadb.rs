//! A private MariaDB server: own data directory, Unix socket and loopback port.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::{PATIENCE, Running, free_port, root, run, run_with_input, until};

/// A running server; stopped and removed when dropped. User `root` has no password.
#[derive(Debug)]
pub struct MariaDb {
    server: Option<Running>,
    root: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
}

impl MariaDb {
    /// Makes an empty database and starts a server on it.
    ///
    /// # Panics
    /// When mariadb-server is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// As [`MariaDb::start`], with further options; they may name files made in the directory given.
    ///
    /// # Panics
    /// As [`MariaDb::start`].
    #[must_use]
    pub fn start_with(options: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let root = root();
        let options = options(root.path());
        let mut server = Self { server: None, root, port: free_port(), options };
        let data = server.root.path().join("data");
        std::fs::create_dir(&data).expect("data directory");
        let user = server_user();
        if user == "mysql" {
            run(Command::new("chown").args(["-R", "mysql:mysql"]).arg(server.root.path())).ok();
        }
        run(Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(["--skip-name-resolve", "--innodb-log-file-size=8M"])
            .arg(format!("--user={user}"))
            // A server that starts removes the temporary tables of all others from a shared directory.
            .arg(format!("--tmpdir={}", server.root.path().display()))
            .arg(format!("--datadir={}", data.display())))
        .ok();
        server.launch();
        server
    }

    /// Starts a stopped or killed server again on the same data.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn launch(&mut self) {
        let path = |name: &str| self.root.path().join(name).display().to_string();
        let log = std::fs::File::create(self.root.path().join("stderr")).expect("log file");
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF"])
            .args(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M"])
            .arg(format!("--user={}", server_user()))
            .arg(format!("--tmpdir={}", self.root.path().display()))
            .arg(format!("--datadir={}", path("data")))
            .arg(format!("--socket={}", path("sock")))
            .arg(format!("--pid-file={}", path("pid")))
            .arg(format!("--port={}", self.port))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.server = Some(Running::start(&mut command));
        until(PATIENCE * 2, "MariaDB answers", || {
            let mut ping = Command::new("mariadb-admin");
            ping.arg("--no-defaults").arg(format!("--socket={}", path("sock"))).args(["-u", "root", "ping"]);
            run(&mut ping).code == 0
        });
    }

    /// Stops it in an orderly way; [`MariaDb::launch`] starts it again.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    /// Kills it without warning; [`MariaDb::launch`] starts it again.
    ///
    /// # Panics
    /// When it cannot be signalled.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal(Signal::SIGKILL);
            server.wait_within(PATIENCE);
        }
    }

    /// Sends the running server a signal: SIGSTOP makes it one that is there and does not answer.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("the server runs").signal(signal);
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.path().join("sock")
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A directory beside the data, for files that belong to the server.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.root.path()
    }

    /// Runs SQL statements as root; the rows as tab-separated lines.
    ///
    /// # Panics
    /// When a statement fails.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-u", "root", "-N", "-B"]);
        client.arg(format!("--socket={}", self.socket().display()));
        run_with_input(&mut client, statements.as_bytes()).ok().stdout
    }
}

fn server_user() -> &'static str {
    if nix::unistd::geteuid().is_root() { "mysql" } else { "root" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_rows_survive_a_kill() {
        let mut db = MariaDb::start();
        db.sql("create database d; create table d.t (a int primary key); insert into d.t values (7);");
        db.kill();
        db.launch();
        assert_eq!(db.sql("select a from d.t").trim(), "7");
    }
}
