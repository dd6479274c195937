//! Do the modules that live in other programs find their daemons, and are they asked at all?

use std::path::Path;

use lookup::conf::{Conf, Fault};

use super::{Finding, Places, single_user};

/// What `nsswitch.conf` must ask our module for.
const DATABASES: [&str; 3] = ["passwd", "group", "shadow"];

/// `lookup.conf`: is it root's, does it make sense, and do the daemons listen where it says?
pub(super) fn check_lookup_conf(places: &Places) -> Finding {
    let path = &places.lookup_conf;
    let shown = path.display();
    let check = format!("module settings {shown}");
    let conf = match Conf::load_from(path) {
        Ok(conf) => conf,
        Err(e) => {
            let fix = match e.fault {
                Fault::NotRoots => format!("chown root:root {shown} && chmod 644 {shown}"),
                Fault::Unreadable(_) => "make it readable".to_owned(),
                Fault::Line(..) | Fault::TooLong => {
                    "mend the file (see lookup.conf(5)): until then the modules cannot tell anything"
                        .to_owned()
                }
            };
            return Finding::fault(check, e.to_string(), fix);
        }
    };
    // A private system of an ordinary user shows its sockets at other places, and has no such file.
    let pairs = [
        ("nssd_socket", &conf.nssd_socket, &places.nssd),
        ("inlookup_socket", &conf.inlookup_socket, &places.inlookup),
    ];
    if let Some((key, asked, daemon)) =
        pairs.into_iter().find(|(_, asked, daemon)| asked != daemon && !single_user())
    {
        return Finding::fault(
            check,
            format!("the modules ask {}, the daemon listens on {}", asked.display(), daemon.display()),
            format!("write the line: {key} {}", daemon.display()),
        );
    }
    if path.exists() {
        Finding::well(check, "root's, every line is right")
    } else {
        Finding::well(check, "absent: the usual sockets")
    }
}

/// `nsswitch.conf`: our service after the machine's own files, so that no mail account takes the
/// place of a user of the machine, and none of those waits for our daemon.
pub(super) fn check_order(path: &Path, installed: bool) -> Vec<Finding> {
    let check = format!("name services {}", path.display());
    let text = match std::fs::read(path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return vec![Finding::fault(check, e.to_string(), "make it readable")],
    };
    let faults: Vec<Finding> = DATABASES
        .iter()
        .filter_map(|database| {
            let (line, services) = services(&text, database);
            let at = |name: &str| services.iter().position(|s| *s == name);
            let found = match (at("files").or(at("compat")), at("indimail")) {
                (_, None) if !installed => return None,
                (_, None) => {
                    format!("{database}: indimail is not asked: mail accounts are no users of this machine")
                }
                (Some(files), Some(ours)) if files < ours => return None,
                (_, Some(_)) => format!("{database}: indimail is asked before files"),
            };
            let place =
                line.map_or_else(|| path.display().to_string(), |n| format!("{}:{n}", path.display()));
            let others = services.iter().filter(|s| !["files", "indimail"].contains(s));
            let order: Vec<&str> =
                std::iter::once("files").chain(others.copied()).chain(["indimail"]).collect();
            Some(Finding::fault(
                &check,
                format!("{place}: {found}"),
                format!("write the line: {database}: {}", order.join(" ")),
            ))
        })
        .collect();
    if !faults.is_empty() {
        return faults;
    }
    vec![Finding::well(
        check,
        if text.contains("indimail") { "indimail after files" } else { "indimail is not asked" },
    )]
}

/// The number of the line of a database, and its words.
fn services<'a>(text: &'a str, database: &str) -> (Option<usize>, Vec<&'a str>) {
    let mut lines = (1..).zip(text.lines());
    let found = lines.find_map(|(number, line)| {
        let line = line.split('#').next().unwrap_or_default();
        let (name, services) = line.split_once(':')?;
        (name.trim() == database).then(|| (number, services.split_whitespace().collect()))
    });
    found.map_or((None, Vec::new()), |(number, services)| (Some(number), services))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tree::set_mode;

    fn places(dir: &Path) -> Places {
        let mut places = Places::from_variables(|_| None);
        places.lookup_conf = dir.join("lookup.conf");
        places
    }

    #[test]
    fn lookup_conf_is_root_s_right_and_names_the_daemons_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let path = &places.lookup_conf;
        let check = || check_lookup_conf(&places);
        assert!(check().ok && check().found.contains("absent"), "{:?}", check());
        let write = |text: &str| std::fs::write(path, text).unwrap();
        write("# ours\nnssd_socket /run/indimail/nssd.sock\ntimeout 700\n");
        set_mode(path, 0o644).unwrap();
        assert!(check().ok, "{:?}", check());
        let faults = [
            ("timeout 700\n\nnss_socket /run/x\n", ":3: unknown key nss_socket", "lookup.conf(5)"),
            ("timeout soon\n", ":1: timeout: expected MILLISECONDS", "lookup.conf(5)"),
            ("inlookup_socket run/x\n", ":1: inlookup_socket: expected one /PATH", "lookup.conf(5)"),
            ("nssd_socket /run/x\n", "the modules ask /run/x", "nssd_socket /run/indimail/nssd.sock"),
        ];
        for (text, found, fix) in faults {
            write(text);
            let finding = check();
            assert!(!finding.ok && finding.found.contains(found) && finding.fix.contains(fix), "{finding:?}");
            assert!(finding.check.contains(&path.display().to_string()), "{finding:?}");
        }
        write("timeout 700\n");
        set_mode(path, 0o664).unwrap();
        assert!(!check().ok && check().fix.starts_with("chown root:root "), "{:?}", check());
        set_mode(path, 0o644).unwrap();
        std::os::unix::fs::chown(path, Some(4711), None).unwrap();
        assert!(!check().ok && check().found.contains("belongs to root"), "{:?}", check());
    }

    #[test]
    fn our_service_comes_after_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nsswitch.conf");
        let check = |text: &str, installed| {
            std::fs::write(&path, text).unwrap();
            check_order(&path, installed)
        };
        let good = "passwd: files systemd indimail\ngroup:\tfiles indimail # ours\nshadow:compat indimail\nhosts: dns\n";
        assert!(check(good, true).iter().all(|f| f.ok));
        let wrong = check(&good.replace("files systemd indimail", "indimail files systemd"), false);
        let [wrong] = &wrong[..] else { panic!("{wrong:?}") };
        assert!(!wrong.ok && wrong.found.contains("nsswitch.conf:1: passwd: "), "{wrong:?}");
        assert_eq!(wrong.fix, "write the line: passwd: files systemd indimail");
        let plain = "passwd: files\n#group: files indimail\nshadow: files\n";
        assert!(check(plain, false).iter().all(|f| f.ok), "not installed here: nothing is missing");
        let missing = check(plain, true);
        assert_eq!(missing.iter().filter(|f| !f.ok).count(), 3, "{missing:?}");
        assert!(missing[1].fix.ends_with("group: files indimail"), "{missing:?}");
        std::fs::remove_file(&path).unwrap();
        assert!(check_order(&path, false)[0].ok && !check_order(&path, true)[0].ok);
    }
}
