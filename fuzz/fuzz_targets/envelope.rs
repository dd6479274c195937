//! Envelopes on descriptor 1 of qmail-queue, in pieces of any size.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut whole = mta_queue::envelope::Decoder::default();
    let mut split = mta_queue::envelope::Decoder::default();
    let take = |decoder: &mut mta_queue::envelope::Decoder, piece: &[u8]| {
        decoder.take(piece, |_| Ok::<(), mta_queue::envelope::EnvelopeError>(()))
    };
    let one = take(&mut whole, data);
    let many = data.iter().try_for_each(|b| take(&mut split, std::slice::from_ref(b)));
    assert_eq!(one.is_ok(), many.is_ok());
    if one.is_ok() {
        assert_eq!(whole.is_complete(), split.is_complete());
    }
});
