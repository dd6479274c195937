//! ESMTP parameters.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    smtp::parameter::fuzz_mail_parameters(data);
});
