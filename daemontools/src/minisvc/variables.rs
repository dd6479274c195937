//! A directory of variables, as envdir reads it: one file is one variable. And the same as lines of text.
//!
//! | file | line | meaning |
//! |---|---|---|
//! | `NAME`, first line `value` | `NAME=value` | set |
//! | `NAME`, empty | `NAME` | removed from the environment |
//!
//! A newline in a value is a NUL byte in both.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Values by name; `None`: to be removed from the environment.
pub type Variables = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The mode of a directory of variables.
const MODE: u32 = 0o500;
const FILE_MODE: u32 = 0o600;

/// Can this be the name of a variable, and of its file?
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.starts_with(b".") && !name.iter().any(|b| matches!(b, b'/' | b'=' | b'\n' | 0))
}

/// What the file of a variable holds.
#[must_use]
pub fn encode(value: Option<&[u8]>) -> Vec<u8> {
    let Some(value) = value else { return Vec::new() };
    let mut out: Vec<u8> = value.iter().map(|&b| if b == b'\n' { 0 } else { b }).collect();
    out.push(b'\n');
    out
}

/// The value in the file of a variable: the first line without blanks at its end.
#[must_use]
pub fn decode(contents: &[u8]) -> Option<Vec<u8>> {
    if contents.is_empty() {
        return None;
    }
    let line = contents.split(|&b| b == b'\n').next().unwrap_or_default();
    let end = line.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |at| at + 1);
    Some(line[..end].iter().map(|&b| if b == 0 { b'\n' } else { b }).collect())
}

/// Lines of text, sorted by name.
#[must_use]
pub fn to_text(variables: &Variables) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in variables {
        out.extend(name);
        match value {
            Some(value) => {
                out.push(b'=');
                out.extend(encode(Some(value)));
            }
            None => out.push(b'\n'),
        }
    }
    out
}

/// Reads lines of text; empty ones and those that begin with `#` are passed over.
///
/// # Errors
/// The number of a line that names no variable.
pub fn from_text(text: &[u8]) -> Result<Variables, usize> {
    let mut variables = Variables::new();
    for (at, line) in text.split(|&b| b == b'\n').enumerate() {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (name, value) = match line.iter().position(|&b| b == b'=') {
            Some(equals) => {
                // The blanks at its end would not be read back.
                (&line[..equals], Some(decode(&[&line[equals + 1..], b"\n"].concat()).unwrap_or_default()))
            }
            None => (line, None),
        };
        if !is_name(name) {
            return Err(at + 1);
        }
        variables.insert(name.to_vec(), value);
    }
    Ok(variables)
}

/// All variables in a directory.
///
/// # Errors
/// Something cannot be read.
pub fn read(dir: &Path) -> io::Result<Variables> {
    let mut variables = Variables::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().into_vec();
        if is_name(&name) {
            let value = decode(&fs::read(dir.join(OsStr::from_bytes(&name)))?);
            variables.insert(name, value);
        }
    }
    Ok(variables)
}

/// What to do with one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Give it this value, or have it removed from the environment.
    Set(Option<Vec<u8>>),
    /// Remove its file: the environment decides.
    Remove,
}

/// Makes changes in a directory, which is made if it is missing. `global` is the directory of variables for all
/// services, which a new one names.
///
/// # Errors
/// Something cannot be written; changes before it are made.
pub fn change(dir: &Path, global: &Path, changes: &[(Vec<u8>, Change)]) -> io::Result<()> {
    let made = match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(e),
    };
    let mode = if made { MODE } else { fs::metadata(dir)?.permissions().mode() & 0o7777 };
    // Only its owner is stopped by the mode, and only if he is not root.
    fs::set_permissions(dir, Permissions::from_mode(mode | 0o300))?;
    let done = write(dir, changes).and_then(|()| if made { name_global(dir, global) } else { Ok(()) });
    fs::set_permissions(dir, Permissions::from_mode(mode))?;
    done
}

fn write(dir: &Path, changes: &[(Vec<u8>, Change)]) -> io::Result<()> {
    for (name, change) in changes {
        let path = dir.join(OsStr::from_bytes(name));
        match change {
            Change::Set(value) => unix::durable::replace(&path, &encode(value.as_deref()), FILE_MODE, None)?,
            Change::Remove => match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            },
        }
    }
    Ok(())
}

/// A directory that is named must be there to be read.
fn name_global(dir: &Path, global: &Path) -> io::Result<()> {
    fs::create_dir_all(global)?;
    let line = [global.as_os_str().as_bytes(), b"\n"].concat();
    unix::durable::replace(&dir.join(".envdir"), &line, FILE_MODE, None)
}

/// Writes a file that is none of the variables, such as `.options`, into their directory.
///
/// # Errors
/// It cannot be written.
pub fn write_beside(dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let mode = fs::metadata(dir)?.permissions().mode() & 0o7777;
    fs::set_permissions(dir, Permissions::from_mode(mode | 0o300))?;
    let done = unix::durable::replace(&dir.join(name), contents, FILE_MODE, None);
    fs::set_permissions(dir, Permissions::from_mode(mode))?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_and_lines() {
        assert_eq!(decode(b""), None);
        assert_eq!(decode(b"\n"), Some(vec![]));
        assert_eq!(decode(b"a b \t\nmore"), Some(b"a b".to_vec()));
        assert_eq!(decode(b"a\0b"), Some(b"a\nb".to_vec()));
        let variables = from_text(b"# no\nB=x y \n\nA\nC=\n").unwrap();
        assert_eq!(to_text(&variables), b"A\nB=x y\nC=\n");
        assert_eq!(from_text(b"A=1\n=2\n"), Err(2));
        assert_eq!(from_text(b".A=1"), Err(1));
        assert_eq!(from_text(b"a/b=1"), Err(1));
    }

    #[test]
    fn a_directory_is_made_and_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (at, global) = (dir.path().join("variables"), dir.path().join("control/global_vars"));
        let set = |name: &str, value: &str| (name.into(), Change::Set(Some(value.into())));
        change(&at, &global, &[set("A", "1"), ("B".into(), Change::Set(None))]).unwrap();
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o500);
        assert!(global.is_dir());
        assert_eq!(fs::read(at.join(".envdir")).unwrap(), [global.as_os_str().as_bytes(), b"\n"].concat());
        assert_eq!(to_text(&read(&at).unwrap()), b"A=1\nB\n");
        change(&at, &global, &[set("C", "x\ny"), ("A".into(), Change::Remove), ("D".into(), Change::Remove)])
            .unwrap();
        assert_eq!(to_text(&read(&at).unwrap()), b"B\nC=x\0y\n");
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o500);
    }

    proptest! {
        #[test]
        fn text_round_trip(text: Vec<u8>) {
            if let Ok(variables) = from_text(&text) {
                prop_assert_eq!(from_text(&to_text(&variables)), Ok(variables));
            }
        }

        #[test]
        fn values_round_trip(value in "[^\0]{0,20}") {
            let value = value.trim_end_matches([' ', '\t']).as_bytes().to_vec();
            prop_assert_eq!(decode(&encode(Some(&value))), Some(value));
        }
    }
}
