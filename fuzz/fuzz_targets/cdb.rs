//! Constant databases from outside: a whole one gives back what went in, a damaged one hurts nobody.
#![no_main]

use std::collections::BTreeMap;
use std::io::Write;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The data itself is hardly ever a database: a header alone has 2048 bytes.
    look(data, b"key");
    let (damage, lines) = data.split_at(data.len().min(24));
    let mut builder = cdb::Builder::new();
    let mut first = BTreeMap::new();
    for line in lines.split(|&b| b == b'\n') {
        let at = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
        let (key, value) = line.split_at(at);
        builder.add(key, value).unwrap();
        first.entry(key).or_insert(value);
    }
    let mut bytes = builder.finish().unwrap();
    let whole = cdb::Reader::new(file(&bytes)).unwrap();
    for (key, value) in &first {
        assert_eq!(whole.get(key).unwrap().as_deref(), Some(*value));
    }
    assert_eq!(whole.records().filter(Result::is_ok).count(), lines.split(|&b| b == b'\n').count());
    for place in damage.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([place[0], place[1]])) % bytes.len();
        bytes[at] = place[2];
    }
    look(&bytes, first.keys().next().unwrap());
});

fn look(bytes: &[u8], key: &[u8]) {
    if let Ok(reader) = cdb::Reader::new(file(bytes)) {
        let _ = reader.get(key);
        let _ = reader.get_all(key).map(|all| all.len());
        let _ = reader.records().take(1000).count();
    }
}

fn file(bytes: &[u8]) -> std::fs::File {
    let path = format!("/dev/shm/fuzz-cdb-{}", std::process::id());
    let mut file =
        std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    file
}
