//! What an instance is configured with: the layer over /etc, control files, a certificate.

use std::path::Path;

use anyhow::{Context, Result};

use super::store::{Mysql, Store};
use super::tree::{make_directory, set_mode};
use super::users::MailIds;
use super::{Instance, view};

/// What is written for the trial's PAM service.
const PAM_SERVICE: &str =
    "auth required pam_multi.so\naccount required pam_multi.so\nsession required pam_permit.so\n";

/// Writes the layer over /etc: users, name services, PAM services. Done on every start, since the
/// machine's own files may have changed.
///
/// # Errors
/// A file cannot be read or written.
pub fn write_layer(instance: &Instance, ids: Option<(&str, &str)>) -> Result<()> {
    let layer = instance.layer("etc");
    for below in ["pam.d", "indimail"] {
        make_directory(&layer.join(below))?;
    }
    for mount_point in ["open", "lib", "run"] {
        make_directory(&instance.layer(mount_point))?;
    }
    view::copy_mounted_files(&layer)?;
    if let Some((passwd, group)) = ids {
        put(&layer.join("passwd"), passwd)?;
        put(&layer.join("group"), group)?;
    }
    let own = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    put(&layer.join("nsswitch.conf"), &with_our_service(&own))?;
    put(&layer.join("pam.d/indimail-try"), PAM_SERVICE)?;
    // Mail accounts have the shell nologin; su takes another one (-s) only for a user whose own is
    // listed, and this view is for trying logins.
    let shells = std::fs::read_to_string("/etc/shells").unwrap_or_default();
    put(&layer.join("shells"), &format!("{shells}/usr/sbin/nologin\n"))?;
    if let Ok(su) = std::fs::read_to_string("/etc/pam.d/su") {
        let ours =
            "auth sufficient pam_rootok.so\nauth sufficient pam_multi.so\naccount sufficient pam_multi.so\n";
        put(&layer.join("pam.d/su"), &format!("{ours}{su}"))?;
    }
    Ok(())
}

/// nsswitch.conf with `indimail` asked after the local files.
fn with_our_service(text: &str) -> String {
    let mut out = String::new();
    let mut missing = vec!["passwd", "group", "shadow"];
    for line in text.lines() {
        let database = line.split(':').next().unwrap_or_default().trim();
        if let Some(at) = missing.iter().position(|m| *m == database) {
            missing.remove(at);
            let services = line.split_once(':').map_or("", |(_, s)| s);
            let services = services.split('#').next().unwrap_or_default();
            let words: Vec<_> = services.split_whitespace().filter(|w| *w != "indimail").collect();
            out.push_str(&format!("{database}: {} indimail\n", words.join(" ")));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    for database in missing {
        out.push_str(&format!("{database}: files indimail\n"));
    }
    out
}

/// Makes the directories of the instance with their owners.
///
/// # Errors
/// One cannot be made.
pub fn make_directories(instance: &Instance, ids: &MailIds) -> Result<()> {
    let owned = [
        ("etc/indimail/control", "root", "root", 0o755),
        ("etc/indimail/users", "root", "root", 0o755),
        ("etc/indimail/certs", "root", "qcerts", 0o755),
        // The account database and its journal are made in it.
        ("var/indimail", "indimail", "indimail", 0o755),
        ("var/indimail/alias", "alias", "nofiles", 0o2755),
        ("var/indimail/domains", "indimail", "indimail", 0o755),
        ("var/log", "root", "root", 0o755),
        ("var/log/svc", "qmaill", "nofiles", 0o755),
        ("home/mail", "indimail", "indimail", 0o755),
        // Sockets made in it get its group.
        ("run/indimail", "indimail", "qmail", 0o2755),
        ("service", "root", "root", 0o755),
    ];
    for (below, user, group, mode) in owned {
        let path = instance.at(below);
        make_directory(&path)?;
        if let Some((uid, gid)) = ids.owner(user, group) {
            std::os::unix::fs::chown(&path, Some(uid.as_raw()), Some(gid.as_raw()))
                .with_context(|| path.display().to_string())?;
        }
        set_mode(&path, mode)?;
    }
    Ok(())
}

/// The name of the mail host of a domain.
#[must_use]
pub fn host_name(domain: &str) -> String {
    format!("mail.{domain}")
}

/// Writes control files that are missing, and the choice of store.
///
/// # Errors
/// A file cannot be written.
pub fn write_control_files(instance: &Instance, domain: &str, store: &Store, ids: &MailIds) -> Result<()> {
    let control = instance.control();
    let host = host_name(domain);
    let files = [
        ("me", host.clone()),
        ("locals", host.clone()),
        ("rcpthosts", host.clone()),
        ("defaulthost", domain.to_owned()),
        ("defaultdomain", domain.to_owned()),
        ("plusdomain", domain.to_owned()),
        ("envnoathost", domain.to_owned()),
        ("virtualdomains", String::new()),
    ];
    for (name, line) in files {
        let path = control.join(name);
        if !path.exists() {
            put(&path, &if line.is_empty() { line } else { format!("{line}\n") })?;
        }
    }
    let assign = instance.at("etc/indimail/users/assign");
    if !assign.exists() {
        put(&assign, ".\n")?;
    }
    let alias = instance.at("var/indimail/alias/.qmail-postmaster");
    if !alias.exists() {
        put(&alias, &format!("&postmaster@{domain}\n"))?;
    }
    let nssd = instance.at("etc/indimail/nssd.conf");
    if !nssd.exists() {
        put(&nssd, "# The accounts of a private instance may log in.\nshell /bin/sh\n")?;
    }
    let sockets = format!(
        "# Where the NSS and PAM modules find their daemons.\nnssd_socket {}\ninlookup_socket {}\n",
        instance.socket("nssd").display(),
        instance.socket("inlookup").display()
    );
    if !ids.is_single() {
        put(&instance.at("etc/indimail/lookup.conf"), &sockets)?;
    }
    write_store(&control, store, ids, instance)
}

fn write_store(control: &Path, store: &Store, ids: &MailIds, instance: &Instance) -> Result<()> {
    let host_mysql = control.join("host.mysql");
    match store {
        Store::Sqlite => {
            if host_mysql.exists() {
                std::fs::remove_file(&host_mysql).context("remove host.mysql")?;
            }
            let file = instance.at("var/indimail/accounts.sqlite");
            put(&control.join("accountstore"), &format!("sqlite:{}\n", file.display()))
        }
        Store::Mysql(mysql) => {
            let line = host_mysql_line(mysql)?;
            let owner = ids.owner("indimail", "qmail");
            unix::durable::replace(&host_mysql, line.as_bytes(), 0o640, owner).context("host.mysql")?;
            put(&control.join("accountstore"), &format!("mysql:{}\n", mysql.database))
        }
    }
}

/// `host:user:password:socket_or_port`
fn host_mysql_line(mysql: &Mysql) -> Result<String> {
    let password = mysql.password.read()?;
    anyhow::ensure!(!password.contains('\n'), "the password holds a newline");
    Ok(format!("{}:{}:{password}:{}\n", mysql.host, mysql.user, mysql.place))
}

/// Makes a certificate and key for STARTTLS, once.
///
/// # Errors
/// It cannot be made or written.
pub fn write_certificate(instance: &Instance, domain: &str, ids: &MailIds) -> Result<()> {
    let path = instance.at("etc/indimail/certs/servercert.pem");
    if path.exists() {
        return Ok(());
    }
    let names = vec![host_name(domain), domain.to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).context("make a certificate")?;
    let pem = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
    unix::durable::replace(&path, pem.as_bytes(), 0o640, ids.owner("root", "qcerts"))
        .context("servercert.pem")?;
    // What a client needs to trust the server.
    put(&instance.at("etc/indimail/certs/cacert.pem"), &made.cert.pem())
}

fn put(path: &Path, text: &str) -> Result<()> {
    unix::durable::replace(path, text.as_bytes(), 0o644, None).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_service_comes_last_and_once() {
        let text = "# c\npasswd:         files systemd # local\ngroup: files indimail\nhosts: files dns\n";
        assert_eq!(
            with_our_service(text),
            "# c\npasswd: files systemd indimail\ngroup: files indimail\nhosts: files dns\nshadow: files indimail\n"
        );
    }
}
