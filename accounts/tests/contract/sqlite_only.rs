//! What can happen to a file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use accounts::{StoreSettings, create_store, open_store};

use crate::suite::{account, address};

fn fresh(dir: &Path) -> StoreSettings {
    let settings = StoreSettings::sqlite(dir.join("accounts.sqlite"));
    create_store(&settings, None).unwrap();
    open_store(&settings).insert(&account("ann@example.com")).unwrap();
    settings
}

fn error(settings: &StoreSettings) -> String {
    open_store(settings).account(&address("ann@example.com")).unwrap_err().to_string()
}

#[test]
fn the_file_is_private_and_creating_again_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = fresh(dir.path());
    let mode = std::fs::metadata(dir.path().join("accounts.sqlite")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    create_store(&settings, None).unwrap();
    assert!(open_store(&settings).account(&address("ann@example.com")).unwrap().is_some());
}

#[test]
fn a_missing_file_cannot_tell() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreSettings::sqlite(dir.path().join("accounts.sqlite"));
    let text = error(&settings);
    assert!(text.contains("accounts.sqlite: ") && text.contains("vadddomain"), "{text}");
    assert!(!dir.path().join("accounts.sqlite").exists(), "asking must not create it");
    let mut store = open_store(&settings);
    assert!(store.account(&address("ann@example.com")).is_err());
    fresh(dir.path());
    assert!(store.account(&address("ann@example.com")).unwrap().is_some(), "found again by the same store");
    std::fs::remove_file(dir.path().join("accounts.sqlite")).unwrap();
    assert!(store.account(&address("bob@example.com")).is_err());
}

#[test]
fn damaged_empty_and_foreign_files_cannot_tell() {
    let dir = tempfile::tempdir().unwrap();
    let settings = fresh(dir.path());
    let path = dir.path().join("accounts.sqlite");
    drop(std::fs::remove_file(dir.path().join("accounts.sqlite-wal")));
    for (contents, expected) in [
        (&b"this is not a database file, whatever its name says, and it is long enough"[..], "backup"),
        (&b""[..], "schema version 0"),
    ] {
        std::fs::write(&path, contents).unwrap();
        let text = error(&settings);
        assert!(text.contains("accounts.sqlite: ") && text.contains(expected), "{text}");
    }
}

#[test]
fn a_file_restored_over_the_open_one_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let settings = fresh(dir.path());
    let mut store = open_store(&settings);
    assert!(store.account(&address("bob@example.com")).unwrap().is_none());
    let other = tempfile::tempdir().unwrap();
    let restored = fresh(other.path());
    open_store(&restored).insert(&account("bob@example.com")).unwrap();
    for end in ["-wal", "-shm"] {
        drop(std::fs::remove_file(dir.path().join(format!("accounts.sqlite{end}"))));
    }
    std::fs::rename(other.path().join("accounts.sqlite"), dir.path().join("accounts.sqlite")).unwrap();
    assert!(store.account(&address("bob@example.com")).unwrap().is_some());
}
