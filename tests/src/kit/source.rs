//! Source packages of the distribution, for the tests they bring along.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{run, write};

/// The machine's own package sources, turned into sources of source packages.
fn source_lists(into: &Path) {
    let system = Path::new("/etc/apt");
    let listed = std::fs::read_dir(system.join("sources.list.d")).into_iter().flatten();
    let files = listed.map(|e| e.expect("entry").path()).chain([system.join("sources.list")]);
    for file in files.filter(|f| f.is_file()) {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a list of package sources");
        let line = |line: &str| match line.strip_prefix("deb ") {
            Some(rest) => format!("deb-src {rest}\n"),
            None if line.starts_with("deb-src ") => String::new(),
            None if line.starts_with("Types:") => "Types: deb-src\n".to_owned(),
            None => format!("{line}\n"),
        };
        if name.ends_with(".list") || name.ends_with(".sources") {
            write(into.join(name), text.lines().map(line).collect::<String>());
        }
    }
}

/// Fetches and unpacks a Debian source package below `dir`, without applying patches; the directory with `debian/`
/// and the original's directory in it.
///
/// # Panics
/// When it cannot be fetched.
#[must_use]
pub fn debian_source(package: &str, dir: &Path) -> PathBuf {
    for sub in ["parts", "lists/partial", "cache/archives/partial", "source"] {
        std::fs::create_dir_all(dir.join(sub)).expect("directory");
    }
    source_lists(&dir.join("parts"));
    let source = dir.join("source");
    let apt = |verb: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "APT::Sandbox::User=root"]);
        for (option, sub) in
            [("Dir::Etc::sourceparts", "parts"), ("Dir::State::lists", "lists"), ("Dir::Cache", "cache")]
        {
            command.arg("-o").arg(format!("{option}={}", dir.join(sub).display()));
        }
        run(command.args(verb).current_dir(&source))
    };
    let update = apt(&["update"]);
    let fetched = apt(&["source", "--download-only", package]);
    assert_eq!(fetched.code, 0, "{update:?}\n{fetched:?}");
    let archives = std::fs::read_dir(&source).expect("source").map(|e| e.expect("entry").path());
    for archive in archives.filter(|p| p.to_string_lossy().contains(".tar.")) {
        let unpacked = run(Command::new("tar").arg("-xf").arg(&archive).current_dir(&source));
        assert_eq!(unpacked.code, 0, "{unpacked:?}");
    }
    source
}
