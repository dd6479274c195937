//! A private MariaDB server: temporary directory, Unix socket only.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use accounts::{HostMysql, MySqlServer, StoreKind, StoreSettings, Timeouts};

const USER: &str = "mailtest";
const PASSWORD: &str = "a pass:word";

/// A running server; dropped, it is killed and its files are removed.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    child: Child,
}

/// Runs `program` as the unprivileged user `mysql` when the tests run as root.
fn command(program: &str) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    // The server goes when the thread that started it does, however that ends.
    command.args(["--reuid=mysql", "--regid=mysql", "--clear-groups", "--pdeathsig=KILL", "--", program]);
    command
}

impl Server {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("indimail-db").tempdir_in("/tmp").unwrap();
        if nix::unistd::geteuid().is_root() {
            let status = Command::new("chown").arg("mysql").arg(dir.path()).status().unwrap();
            assert!(status.success(), "no user mysql: install mariadb-server");
        }
        let output = command("mariadb-install-db")
            .arg("--no-defaults")
            .arg(format!("--datadir={}", dir.path().join("data").display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
            .arg("--innodb-log-file-size=8M")
            .output()
            .expect("mariadb-install-db: install mariadb-server");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let child = spawn(dir.path());
        let server = Self { dir, child };
        server.wait_until_ready();
        server.sql(&format!(
            "CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO '{USER}'@'%'"
        ));
        server
    }

    /// Kills the server as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same files.
    pub(crate) fn again(&mut self) {
        self.child = spawn(self.dir.path());
        self.wait_until_ready();
    }

    /// Stops or continues the process: a server that is there but does not answer.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = Command::new("mariadb-admin")
                .args(["--no-defaults", "-u", "root", "ping", "-S"])
                .arg(self.socket())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("mariadb-admin: install mariadb-server");
            if ready.success() {
                return;
            }
            assert!(Instant::now() < deadline, "the server did not start: see {}", self.dir.path().display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs statements as root and gives back what they print.
    pub(crate) fn sql(&self, text: &str) -> String {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "-N", "-B", "-u", "root", "-e", text, "-S"])
            .arg(self.socket())
            .output()
            .unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn settings(&self, database: &str) -> StoreSettings {
        let line = format!("localhost:{USER}:{PASSWORD}:{}", self.socket().display());
        settings(&line, database)
    }
}

pub(crate) fn settings(line: &str, database: &str) -> StoreSettings {
    let server = MySqlServer {
        host: HostMysql::parse(line.as_bytes()).unwrap(),
        database: database.to_owned(),
        authority: None,
    };
    StoreSettings { kind: StoreKind::MySql(server), timeouts: Timeouts::default() }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(dir: &Path) -> Child {
    let at = |name: &str| dir.join(name).display().to_string();
    command("mariadbd")
        .arg("--no-defaults")
        .arg(format!("--datadir={}", at("data")))
        .arg(format!("--socket={}", at("sock")))
        .arg(format!("--pid-file={}", at("pid")))
        .arg(format!("--log-error={}", at("log")))
        .args(["--skip-networking", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF"])
        .args([
            "--innodb-log-file-size=8M",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=1",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mariadbd: install mariadb-server")
}
