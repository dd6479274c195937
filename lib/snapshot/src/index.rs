//! Fixed hash tables: buckets of one cache line, seven slots and a checksum.
//!
//! A slot is the place of a record (low half) and the upper half of its key's hash; 0 is free. What finds its
//! bucket full goes on in the next one, so that a bucket that is not full ends a search.

use crate::Words;
use crate::header::Part;
use crate::layout::{Kind, Mix, halves, join, place, word};
use crate::record::Entry;

/// Words of a bucket.
pub(crate) const BUCKET: usize = 8;
const SLOTS: usize = BUCKET - 1;
/// Buckets that a search looks at, at most.
const MAX_PROBES: usize = 64;

/// Something does not add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

fn bucket_check(seed: u64, number: usize, slots: &[u64]) -> u64 {
    let mut mix = Mix::new(seed, Kind::Bucket);
    mix.add(number as u64);
    slots.iter().for_each(|&s| mix.add(s));
    mix.end()
}

fn low_bits(hash: u64) -> usize {
    place(halves(hash).0)
}

/// The first record under this hash that `wanted` takes.
pub(crate) fn find(
    words: &Words,
    table: Part,
    seed: u64,
    hash: u64,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Option<Entry>, Damaged> {
    let mask = table.size.checked_sub(1).ok_or(Damaged)?;
    let tag = halves(hash).1;
    for step in 0..MAX_PROBES.min(table.size) {
        let number = low_bits(hash).wrapping_add(step) & mask;
        let mut slots = [0; SLOTS];
        let start = number.wrapping_mul(BUCKET).wrapping_add(table.at);
        let bucket = words.get(start..start.wrapping_add(BUCKET)).ok_or(Damaged)?;
        for (n, slot) in slots.iter_mut().enumerate() {
            *slot = word(bucket, n).ok_or(Damaged)?;
        }
        if word(bucket, SLOTS) != Some(bucket_check(seed, number, &slots)) {
            return Err(Damaged);
        }
        for slot in slots {
            if slot == 0 {
                return Ok(None);
            }
            let (at, of) = halves(slot);
            if of == tag {
                let entry = Entry::read(words, place(at), seed).ok_or(Damaged)?;
                if wanted(&entry) {
                    return Ok(Some(entry));
                }
            }
        }
    }
    // So many in a row do not happen in a table that was built here.
    Err(Damaged)
}

/// The words of a table with these hashes and places; `None` when they crowd too much.
pub(crate) fn build(pairs: &[(u64, u32)], seed: u64) -> Option<Vec<u64>> {
    // Half full on average.
    let mut buckets = (pairs.len() / 4 + 1).next_power_of_two();
    'larger: for _ in 0..4 {
        let mask = buckets - 1;
        let mut words = vec![0_u64; buckets.checked_mul(BUCKET)?];
        for &(hash, at) in pairs {
            let slot = (0..MAX_PROBES.min(buckets)).find_map(|step| {
                let start = (low_bits(hash).wrapping_add(step) & mask) * BUCKET;
                (start..start + SLOTS).find(|&n| words.get(n) == Some(&0))
            });
            match slot.and_then(|n| words.get_mut(n)) {
                Some(slot) => *slot = join(at, halves(hash).1),
                None => {
                    buckets = buckets.checked_mul(2)?;
                    continue 'larger;
                }
            }
        }
        // A search ends at a free slot: without one in reach it would be taken for damage.
        if words.chunks_exact(BUCKET).all(|b| b.iter().take(SLOTS).all(|&s| s != 0)) {
            buckets = buckets.checked_mul(2)?;
            continue 'larger;
        }
        for (number, bucket) in words.chunks_exact_mut(BUCKET).enumerate() {
            if let Some((check, slots)) = bucket.split_last_mut() {
                *check = bucket_check(seed, number, slots);
            }
        }
        return Some(words);
    }
    None
}
