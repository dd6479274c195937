//! Constant databases from outside: any file may be read, none may hurt.
#![no_main]

use std::io::Write;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut file = std::fs::File::from(memory_file());
    file.write_all(data).unwrap();
    if let Ok(reader) = cdb::Reader::new(file) {
        let _ = reader.get(b"key");
        let _ = reader.records().take(1000).count();
    }
});

fn memory_file() -> std::os::fd::OwnedFd {
    let path = format!("/dev/shm/fuzz-cdb-{}", std::process::id());
    let file =
        std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.into()
}
