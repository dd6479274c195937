//! Where the home of an account is: `BASE/BUCKET/DOMAIN/USER`, the Maildir in it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use accounts::{Address, Domain, UnixIds};
use nix::unistd::{Gid, Uid};
use unix::privilege::with_files_of;

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

/// Where homes begin.
pub(crate) struct Base {
    path: PathBuf,
    /// The user who says so, when it is not an administrator: what is done there is done with the rights of
    /// this user only.
    of: Option<UnixIds>,
}

impl Base {
    /// A base that homes in the store have.
    pub(crate) fn named_by_rows(path: PathBuf) -> Self {
        Self { path, of: None }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<Dir> {
        match self.of {
            None => Dir::open(&self.path),
            Some(ids) => Dir::open_for(&self.path, ids),
        }
    }
}

/// The base of the homes of a domain: the given one, else its file `.base_path`, else the site's.
pub(crate) fn base(context: &Context<'_>, domain: &Domain, given: Option<&[u8]>) -> Result<Base, Failure> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let base = match given {
        Some(given) => Base { path: path(given), of: None },
        None => match owned_file(domain, ".base_path")? {
            Some((bytes, of_root)) => {
                let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
                // The directory is the domain's user's, who can put any file there but none of root's.
                let of = (!of_root).then_some(domain.ids);
                Base { path: path(control::trimmed(line)), of }
            }
            None => Base { path: context.settings.base_path.clone(), of: None },
        },
    };
    if base.path.is_absolute() {
        Ok(base)
    } else {
        Err(Failure::refused(base.path.display(), "the base path must be absolute"))
    }
}

/// The contents of a file in the directory of a domain (which may be that of an alias domain, a link).
pub(crate) fn domain_file(domain: &Domain, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    Ok(owned_file(domain, name)?.map(|(bytes, _)| bytes))
}

/// As [`domain_file`], and whether the file is root's alone.
fn owned_file(domain: &Domain, name: &str) -> Result<Option<(Vec<u8>, bool)>, Failure> {
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
    base: &Base,
    address: &Address,
    domain: UnixIds,
    ids: UnixIds,
    home: bool,
) -> Result<(), Failure> {
    let path = path(&base.path, address);
    let fail = |e: io::Error| Failure::step(path.display(), e);
    create_base(base).map_err(fail)?;
    let site = context.roles.is_single_user() || base.of.is_some();
    let shared = if site { None } else { context.owner(context.indimail()?) };
    let opened = base.open().map_err(fail)?;
    let (bucket, _) = opened.child(OsStr::new(bucket(address.local())), 0o755, shared).map_err(fail)?;
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

/// Makes the base when it is missing.
fn create_base(base: &Base) -> io::Result<()> {
    let create = || {
        let missing: Vec<&Path> = base.path.ancestors().take_while(|dir| !dir.exists()).collect();
        if !missing.is_empty() {
            std::fs::create_dir_all(&base.path)?;
        }
        // The umask of the commands is tight; these directories are for everybody to pass through.
        for dir in missing {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir, mode)?;
        }
        Ok(())
    };
    match base.of {
        None => create(),
        Some(ids) => with_files_of(Uid::from_raw(ids.uid), Gid::from_raw(ids.gid), create)?,
    }
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
    let base = Base::named_by_rows(base.to_owned());
    let above = match descend(&base, &[bucket, domain]) {
        Ok(Some(above)) => above,
        Ok(None) => return Ok(false),
        // Somebody put a link or a file there: what it leads to is not the home.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
            return Err(Failure::refused(
                home.display(),
                "a directory above it was exchanged; left as it is",
            ));
        }
        Err(e) => return Err(fail(e)),
    };
    above.remove(user).map_err(fail)
}

/// Removes the directories of a domain below `base` that are empty, or with `everything` all that is in them.
pub(crate) fn remove_domain(base: &Base, domain: &str, everything: bool) -> Result<(), Failure> {
    for bucket in ["A2E", "F2K", "L2P", "Q2S", "T2Zsym"] {
        let fail = |e: io::Error| Failure::step(base.path.join(bucket).join(domain).display(), e);
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

fn descend(base: &Base, names: &[&OsStr]) -> io::Result<Option<Dir>> {
    let mut dir = match base.open() {
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
