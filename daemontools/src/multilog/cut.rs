//! Where one log file ends and the next begins.

/// From this far before the size limit on, a file ends at the next newline.
const MARGIN: u64 = 2000;

/// How much of the bytes at hand still goes into the current file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// So many bytes.
    pub write: usize,
    /// Is the file complete then?
    pub complete: bool,
}

/// Decides about `bytes`, which follow the `written` bytes of the current file.
///
/// A file ends after the first newline at or behind `size` - 2000, and in any case at `size`. The place
/// depends on the bytes alone, not on how they were chunked.
#[must_use]
pub fn cut(size: Option<u64>, written: u64, bytes: &[u8]) -> Cut {
    let Some(size) = size else { return Cut { write: bytes.len(), complete: false } };
    let room = usize::try_from(size.saturating_sub(written)).unwrap_or(usize::MAX).min(bytes.len());
    // The newline itself counts, so it may stand one byte before the margin.
    let from = size.saturating_sub(MARGIN).saturating_sub(written).saturating_sub(1);
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(room);
    if let Some(at) = memchr::memchr(b'\n', &bytes[from..room]) {
        return Cut { write: from + at + 1, complete: true };
    }
    let after = written.saturating_add(u64::try_from(room).unwrap_or(u64::MAX));
    Cut { write: room, complete: after >= size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files(size: u64, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut files = vec![Vec::new()];
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let file = files.last_mut().unwrap();
                let cut = cut(Some(size), u64::try_from(file.len()).unwrap(), rest);
                assert!(cut.write > 0 || cut.complete);
                file.extend(&rest[..cut.write]);
                rest = &rest[cut.write..];
                if cut.complete {
                    files.push(Vec::new());
                }
            }
        }
        files
    }

    #[test]
    fn at_the_first_newline_of_the_margin() {
        let line = [b'x'; 99].iter().copied().chain([b'\n']).collect::<Vec<u8>>();
        let text = line.repeat(100);
        let files = files(4096, &[&text]);
        assert_eq!(files[0].len(), 2100, "the first line end at or after 4096 - 2000");
        assert_eq!(files.concat(), text);
    }

    proptest! {
        #[test]
        fn the_same_bytes_make_the_same_files(
            lines in proptest::collection::vec(0usize..3000, 0..20),
            step in 1usize..5000,
        ) {
            let text: Vec<u8> = lines.iter().flat_map(|&n| std::iter::repeat_n(b'x', n).chain([b'\n'])).collect();
            let whole = files(4096, &[&text]);
            prop_assert_eq!(whole.concat(), text.clone());
            prop_assert_eq!(&files(4096, &text.chunks(step).collect::<Vec<_>>()), &whole);
            for file in &whole[..whole.len() - 1] {
                prop_assert!(file.len() <= 4096);
                prop_assert!(file.ends_with(b"\n") || file.len() == 4096);
            }
        }
    }
}
