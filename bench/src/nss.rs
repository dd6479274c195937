//! getpwnam calls per second: ours, `files` and libnss-extrausers, each alone in nsswitch.conf.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use accounts::{Account, Address, SecretBytes, StoreSettings};
use anyhow::{Context, ensure};
use control::Directory;

use crate::instance::Instance;
use crate::stats::median;

/// The loop itself: looks up `PREFIX<i>SUFFIX` for pseudo-random i below `names`.
pub(crate) fn look_up(prefix: &str, suffix: &str, names: u32, count: u32) -> anyhow::Result<()> {
    let mut state = 1u32;
    let mut all: Vec<u64> = Vec::with_capacity(usize::try_from(count)?);
    for i in 0..=count {
        // A full-period generator: every name is asked about equally often.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let name = format!("{prefix}{:05}{suffix}", (state >> 8) % names);
        let start = Instant::now();
        let found = nix::unistd::User::from_name(&name).with_context(|| format!("getpwnam_r {name}"))?;
        let took = u64::try_from(start.elapsed().as_nanos())?;
        ensure!(found.is_some(), "{name} was not found");
        // The first call loads the module.
        if i > 0 {
            all.push(took);
        }
    }
    all.sort_unstable();
    let total: u64 = all.iter().sum();
    let at = |percent: usize| all.get(all.len() * percent / 100).copied().unwrap_or(0);
    println!("{total} {} {}", at(50), at(99));
    Ok(())
}

/// Makes one nsswitch.conf and, where given, one database file visible to the loop only.
const PRIVATE: &str = r#"set -e
mount --make-rprivate /
mount --bind "$1" /etc/nsswitch.conf
if [ -n "$2" ]; then mkdir -p "$(dirname "$3")" 2>/dev/null || :; mount --bind "$2" "$3"; fi
shift 3
exec "$@"
"#;

/// Puts the accounts into the instance's store, as many as are missing.
fn add_accounts(ours: &Instance, names: u32) -> anyhow::Result<()> {
    let control = Directory::new(ours.dir().join("etc/indimail/control"));
    let settings = StoreSettings::load(&control, &ours.dir().join("var/indimail"))?;
    let mut store = accounts::open_store(&settings);
    for i in 0..names {
        let address = Address::parse(format!("bench{i:05}@{}", ours.domain).as_bytes())?;
        let mut account = Account::new(address, "/nonexistent/bench".into());
        account.password = SecretBytes::new(b"!".to_vec());
        store.insert(&account)?;
    }
    // They came into the store without a word to the daemon: it is to build its map anew.
    let socket = ours.socket("nssd")?;
    let mut nssd = lookup::identity::Client::new(socket, std::time::Duration::from_secs(10));
    nssd.flush(lookup::Key::All)?;
    let end = Instant::now() + std::time::Duration::from_secs(120);
    while !nssd.status()?.contains(&(b"map_asking".to_vec(), b"0".to_vec())) {
        ensure!(Instant::now() < end, "nssd does not finish its map");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}

struct Provider<'a> {
    name: &'a str,
    prefix: &'a str,
    suffix: String,
    names: u32,
    command: Box<dyn Fn() -> Command + 'a>,
}

pub(crate) fn run(stage: &Path, dir: &Path, quick: bool) -> anyhow::Result<String> {
    let names: u32 = if quick { 500 } else { 10_000 };
    let ours = Instance::start(stage, &dir.join("ours"))?;
    add_accounts(&ours, names)?;
    let me = std::env::current_exe()?;
    let lines = |few: u32| -> String {
        (0..few).map(|i| format!("bench{i:05}:x:{}:65534::/nonexistent:/bin/false\n", 100_000 + i)).collect()
    };
    fs::write(dir.join("few"), lines(20))?;
    fs::write(dir.join("many"), lines(names))?;
    for source in ["files", "extrausers", "indimail"] {
        fs::write(dir.join(source), format!("passwd: {source}\ngroup: files\nshadow: files\n"))?;
    }
    ensure!(
        Path::new("/var/lib/extrausers").is_dir(),
        "/var/lib/extrausers is missing; apt-get install libnss-extrausers"
    );
    for database in ["/var/lib/extrausers/passwd", "/var/lib/extrausers/group", "/var/lib/extrausers/shadow"]
    {
        if !Path::new(database).exists() {
            fs::write(database, "")?;
        }
    }
    let private = |source: &str, database: &str, at: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", PRIVATE, "sh"])
            .arg(dir.join(source))
            .arg(dir.join(database))
            .arg(at);
        command.arg(&me);
        command
    };
    // The instance's own lookup.conf stands where the module looks for it, in the instance's namespace.
    let own = fs::read_to_string(ours.dir().join("etc/indimail/lookup.conf")).unwrap_or_default();
    fs::write(dir.join("lookup.conf"), format!("{own}\nnssd_map off\n"))?;
    let inside = |with_map: bool| {
        let mut command = ours.command("unshare");
        command.args(["--mount", "sh", "-c", PRIVATE, "sh"]).arg(dir.join("indimail"));
        if with_map {
            command.args(["", ""]);
        } else {
            command.arg(dir.join("lookup.conf")).arg(lookup::conf::PATH);
        }
        command.arg(&me);
        command
    };
    let plain =
        |name, names, command| Provider { name, prefix: "bench", suffix: String::new(), names, command };
    let providers = [
        Provider {
            name: "ours (map)",
            prefix: "bench",
            suffix: format!("@{}", ours.domain),
            names,
            command: Box::new(|| inside(true)),
        },
        Provider {
            name: "ours (socket)",
            prefix: "bench",
            suffix: format!("@{}", ours.domain),
            names,
            command: Box::new(|| inside(false)),
        },
        plain("files, 20 lines", 20, Box::new(|| private("files", "few", "/etc/passwd"))),
        plain("files, all accounts", names, Box::new(|| private("files", "many", "/etc/passwd"))),
        plain(
            "extrausers, all accounts",
            names,
            Box::new(|| private("extrausers", "many", "/var/lib/extrausers/passwd")),
        ),
    ];
    let count: u32 = if quick { 500 } else { 5000 };
    let mut results = vec![Vec::new(); providers.len()];
    for _ in 0..if quick { 1 } else { 3 } {
        for (provider, result) in providers.iter().zip(&mut results) {
            result.push(measure(provider, count)?);
        }
    }
    let medians: Vec<[f64; 3]> = results
        .iter()
        .map(|rounds| [0, 1, 2].map(|i| median(rounds.iter().map(|r| r[i]).collect())))
        .collect();
    let mut out = format!(
        "getpwnam_r, {names} accounts, one process, each source alone in nsswitch.conf; medians\n\
         | source | calls/s | p50 us | p99 us | ours : this (calls/s) |\n|---|---|---|---|---|\n"
    );
    let mine = medians.first().map_or(f64::NAN, |m| m[0]);
    for (provider, [rate, p50, p99]) in providers.iter().zip(&medians) {
        writeln!(out, "| {} | {rate:.0} | {p50:.1} | {p99:.1} | {:.2} |", provider.name, mine / rate)?;
    }
    Ok(out)
}

/// Calls a second, p50 and p99 in microseconds.
fn measure(provider: &Provider<'_>, count: u32) -> anyhow::Result<[f64; 3]> {
    let output = (provider.command)()
        .args([
            "nss-loop",
            provider.prefix,
            &provider.suffix,
            &provider.names.to_string(),
            &count.to_string(),
        ])
        .output()?;
    ensure!(output.status.success(), "{}: {}", provider.name, String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [total, p50, p99] = numbers[..] else { anyhow::bail!("unexpected output of the loop: {text}") };
    Ok([f64::from(count) * 1e9 / total, p50 / 1000.0, p99 / 1000.0])
}
