//! Where the home of an account is: `BASE/BUCKET/DOMAIN/USER`, the Maildir in it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use accounts::{Address, Domain, UnixIds};

use crate::context::{Context, Failure};
use crate::tree::Dir;

/// Mode of a home and of what is in it.
const HOME: u32 = 0o700;
/// Mode of the directories above: accounts with a user id of their own pass through.
const ABOVE: u32 = 0o751;

/// The directory that homes of users with this first letter are in.
fn bucket(local: &str) -> &'static str {
    match local.bytes().next() {
        Some(b'a'..=b'e') => "A2E",
        Some(b'f'..=b'k') => "F2K",
        Some(b'l'..=b'p') => "L2P",
        Some(b'q'..=b's') => "Q2S",
        _ => "T2Zsym",
    }
}

/// The base of the homes of a domain: the given one, else its file `.base_path`, else the site's.
pub(crate) fn base(context: &Context<'_>, domain: &Domain, given: Option<&[u8]>) -> Result<PathBuf, Failure> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let base = match given {
        Some(given) => path(given),
        None => match domain_file(domain, ".base_path")? {
            Some(bytes) => path(control::trimmed(bytes.split(|&b| b == b'\n').next().unwrap_or_default())),
            None => context.base_path.clone(),
        },
    };
    if base.is_absolute() {
        Ok(base)
    } else {
        Err(Failure::refused(base.display(), "the base path must be absolute"))
    }
}

/// The contents of a file in the directory of a domain (which may be that of an alias domain, a link).
pub(crate) fn domain_file(domain: &Domain, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let read = Dir::open(&domain.dir).and_then(|d| d.read(OsStr::new(name)));
    read.map_err(|e| Failure::step(domain.dir.join(name).display(), e))
}

/// The home of an account below `base`.
pub(crate) fn path(base: &Path, address: &Address) -> PathBuf {
    base.join(bucket(address.local())).join(address.domain().as_str()).join(address.local())
}

/// Makes the directories above the home; with `home`, the home itself and its Maildir too. A home that is
/// there already is refused: it holds what belonged to somebody else.
pub(crate) fn make(
    context: &Context<'_>,
    base: &Path,
    address: &Address,
    domain: UnixIds,
    ids: UnixIds,
    home: bool,
) -> Result<(), Failure> {
    let path = path(base, address);
    let fail = |e: io::Error| Failure::step(path.display(), e);
    if !base.exists() {
        let missing: Vec<&Path> = base.ancestors().take_while(|dir| !dir.exists()).collect();
        std::fs::create_dir_all(base).map_err(fail)?;
        // The umask of the commands is tight; these directories are for everybody to pass through.
        for dir in missing {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir, mode).map_err(fail)?;
        }
    }
    let shared = if context.roles.is_single_user() { None } else { context.owner(context.indimail()?) };
    let base = Dir::open(base).map_err(fail)?;
    let (bucket, _) = base.child(OsStr::new(bucket(address.local())), 0o755, shared).map_err(fail)?;
    let name = OsStr::new(address.domain().as_str());
    let (above, _) = bucket.child(name, ABOVE, context.owner(domain)).map_err(fail)?;
    let user = OsStr::new(address.local());
    if above.existing(user).map_err(fail)?.is_some() {
        return Err(Failure::refused(
            path.display(),
            "the home directory exists already; move or remove it first",
        ));
    }
    if !home {
        return Ok(());
    }
    let made = (|| {
        let (home, made) = above.child(user, HOME, context.owner(ids))?;
        if !made {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let (maildir, _) = home.child(OsStr::new("Maildir"), HOME, context.owner(ids))?;
        for sub in ["cur", "new", "tmp"] {
            maildir.child(OsStr::new(sub), HOME, context.owner(ids))?;
        }
        Ok(())
    })();
    if let Err(e) = made {
        if e.kind() != io::ErrorKind::AlreadyExists
            && let Err(also) = above.remove(user)
        {
            context.warn(format!("{}: left half made: {also}", path.display()));
        }
        return Err(fail(e));
    }
    Ok(())
}

/// Removes the home that the account's row names, with everything below it; `false` when it is not there.
///
/// Only a home that lies where homes of this account are made is removed: a row is data, and must not
/// be able to name another directory.
pub(crate) fn remove(home: &Path, address: &Address) -> Result<bool, Failure> {
    let fail = |e: io::Error| Failure::step(home.display(), e);
    let mut up = home.ancestors().skip(1);
    let parts = (home.file_name(), up.next().and_then(Path::file_name), up.next().and_then(Path::file_name));
    let expected = [address.local(), address.domain().as_str(), bucket(address.local())].map(OsStr::new);
    let ([user, domain, bucket], Some(base)) = (expected, up.next()) else {
        return Err(Failure::refused(home.display(), "not a home made by vadduser; remove it by hand"));
    };
    if parts != (Some(user), Some(domain), Some(bucket)) {
        return Err(Failure::refused(home.display(), "not a home made by vadduser; remove it by hand"));
    }
    let Some(above) = descend(base, &[bucket, domain]).map_err(fail)? else {
        return Ok(false);
    };
    above.remove(user).map_err(fail)
}

/// Removes the directories of a domain below `base` that are empty, or with `everything` all that is in them.
pub(crate) fn remove_domain(base: &Path, domain: &str, everything: bool) -> Result<(), Failure> {
    for bucket in ["A2E", "F2K", "L2P", "Q2S", "T2Zsym"] {
        let fail = |e: io::Error| Failure::step(base.join(bucket).join(domain).display(), e);
        if let Some(bucket) = descend(base, &[OsStr::new(bucket)]).map_err(fail)? {
            let name = OsStr::new(domain);
            if everything {
                bucket.remove(name).map_err(fail)?
            } else {
                bucket.remove_empty(name).map_err(fail)?
            };
        }
    }
    Ok(())
}

fn descend(base: &Path, names: &[&OsStr]) -> io::Result<Option<Dir>> {
    let mut dir = match Dir::open(base) {
        Ok(dir) => dir,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    for name in names {
        match dir.existing(name)? {
            Some(next) => dir = next,
            None => return Ok(None),
        }
    }
    Ok(Some(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_go_by_first_letter() {
        let home =
            |a: &str| path(Path::new("/b"), &Address::parse(a.as_bytes()).unwrap()).display().to_string();
        assert_eq!(home("ann@x.example"), "/b/A2E/x.example/ann");
        assert_eq!(home("sue@x.example"), "/b/Q2S/x.example/sue");
        assert_eq!(home("9@x.example"), "/b/T2Zsym/x.example/9");
    }

    #[test]
    fn only_homes_of_the_account_itself_are_removed() {
        let address = Address::parse(b"ann@x.example").unwrap();
        for wrong in ["/etc", "/", "/b/A2E/x.example/bob", "/b/A2E/y.example/ann", "/b/x.example/ann"] {
            assert!(matches!(remove(Path::new(wrong), &address), Err(Failure::Refused(_))), "{wrong}");
        }
    }
}
