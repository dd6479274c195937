//! users/assign; what is understood is written back the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(lines) = assign::parse(data) {
        let text: Vec<u8> = lines.iter().flat_map(assign::Line::to_text).chain(*b".\n").collect();
        assert_eq!(assign::parse(&text).unwrap(), lines);
    }
});
