//! The format against an independent implementation, and the reader against damaged files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use cdb::{Builder, Error, Reader};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn build(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new();
    records.iter().for_each(|(k, v)| builder.add(k, v).unwrap());
    builder.finish().unwrap()
}

fn open(dir: &Path, bytes: &[u8]) -> Result<Reader, Error> {
    let path = dir.join("x.cdb");
    std::fs::write(&path, bytes).unwrap();
    Reader::new(File::open(path).unwrap())
}

/// Everything a reader offers; only panics and hangs are wrong.
fn exercise(reader: &Reader, keys: &[Vec<u8>]) {
    for key in keys {
        let _ = reader.get(key);
        let _ = reader.get_all(key);
    }
    let _ = reader.records().count();
}

#[test]
fn absent_file_absent_key_and_repeated_keys() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Reader::open(&dir.path().join("none")).unwrap().is_none());
    let reader = open(dir.path(), &build(&[(b"k".into(), b"1".into()), (b"k".into(), b"2".into())])).unwrap();
    assert_eq!(reader.get(b"other").unwrap(), None);
    assert_eq!(reader.get(b"k").unwrap().unwrap(), b"1");
    assert_eq!(reader.get_all(b"k").unwrap(), [b"1".to_vec(), b"2".to_vec()]);
    let empty = open(dir.path(), &build(&[])).unwrap();
    assert_eq!((empty.get(b"").unwrap(), empty.records().count()), (None, 0));
}

#[test]
fn a_file_cut_short_is_damaged_and_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = build(&[(b"key".into(), b"value".into())]);
    for cut in 0..bytes.len() {
        let answer = open(dir.path(), &bytes[..cut]).and_then(|r| r.get(b"key"));
        assert!(matches!(answer, Err(Error::Damaged(_))), "{cut}: {answer:?}");
    }
    let path = dir.path().join("x.cdb");
    let reader = open(dir.path(), &bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(2050).unwrap();
    assert!(matches!(reader.get(b"key"), Err(Error::Damaged(_))));
}

#[test]
fn replacing_is_whole_and_open_readers_keep_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.cdb");
    let write = |value: &[u8]| {
        let mut builder = Builder::new();
        builder.add(b"k", value).unwrap();
        builder.replace(&path, 0o644, None).unwrap();
    };
    write(b"old");
    let old = Reader::open(&path).unwrap().unwrap();
    write(b"new");
    assert_eq!(old.get(b"k").unwrap().unwrap(), b"old");
    assert_eq!(Reader::open(&path).unwrap().unwrap().get(b"k").unwrap().unwrap(), b"new");
}

fn records() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    btree_map(vec(any::<u8>(), 0..24), vec(any::<u8>(), 0..64), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_implementations_read_both_files(map in records()) {
        let dir = tempfile::tempdir().unwrap();
        let list: Vec<_> = map.clone().into_iter().collect();
        let ours = dir.path().join("ours.cdb");
        std::fs::write(&ours, build(&list)).unwrap();
        let theirs = dir.path().join("theirs.cdb");
        let mut writer = cdb2::CDBWriter::create(theirs.to_str().unwrap()).unwrap();
        list.iter().for_each(|(k, v)| writer.add(k, v).unwrap());
        writer.finish().unwrap();
        let peer = cdb2::CDB::open(ours.to_str().unwrap()).unwrap();
        let mine = Reader::open(&theirs).unwrap().unwrap();
        for (key, value) in &list {
            prop_assert_eq!(peer.get(key).unwrap().unwrap(), value.clone());
            prop_assert_eq!(mine.get(key).unwrap().unwrap(), value.clone());
        }
        prop_assert_eq!(mine.get(b"certainly absent, longer than any key made above").unwrap(), None);
        let all: Vec<_> = mine.records().map(|r| r.unwrap()).map(|r| (r.key, r.value)).collect();
        prop_assert_eq!(all, list);
    }

    #[test]
    fn damage_never_panics_or_hangs(map in records(), at in any::<prop::sample::Index>(), byte in any::<u8>(), many in vec(any::<u8>(), 8)) {
        let dir = tempfile::tempdir().unwrap();
        let list: Vec<_> = map.into_iter().collect();
        let mut bytes = build(&list);
        let at = at.index(bytes.len() - 8);
        bytes[at] = byte;
        let keys: Vec<_> = list.into_iter().map(|r| r.0).collect();
        if let Ok(reader) = open(dir.path(), &bytes) { exercise(&reader, &keys); }
        bytes[at..at + 8].copy_from_slice(&many);
        if let Ok(reader) = open(dir.path(), &bytes) { exercise(&reader, &keys); }
    }
}
