//! Senders that name the recipient they wrote to (VERP).
//!
//! A stored sender `prefix-@host-@[]` becomes `prefix-u=h@host` for the recipient `u@h`; bounces
//! of our own go to `prefix-@host`.

/// The envelope sender for one recipient.
#[must_use]
pub fn sender_for(stored: &[u8], recipient: &[u8]) -> Vec<u8> {
    let Some((prefix, host)) = parts(stored) else {
        return stored.to_vec();
    };
    let encoded = recipient.iter().map(|&b| if b == b'@' { b'=' } else { b });
    prefix.iter().copied().chain(encoded).chain([b'@']).chain(host.iter().copied()).collect()
}

/// Where a bounce goes.
#[must_use]
pub fn bounce_sender(stored: &[u8]) -> Vec<u8> {
    // BATV tags of the kind `sb*-` are taken off by whoever addresses the bounce.
    let plain =
        stored.strip_prefix(b"sb").filter(|r| r.len() > 2 && r[1] == b'-').map_or(stored, |r| &r[2..]);
    match parts(plain) {
        Some((prefix, host)) => [prefix, b"@", host].concat(),
        None => plain.to_vec(),
    }
}

/// `prefix-` and `host` of `prefix-@host-@[]`.
fn parts(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = stored.strip_suffix(b"-@[]")?;
    let at = rest.iter().rposition(|&b| b == b'@')?;
    let (prefix, host) = (&rest[..at], &rest[at + 1..]);
    prefix.ends_with(b"-").then_some((prefix, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verp_senders_are_made_for_each_recipient() {
        let for_recipient =
            |s: &str, r: &str| String::from_utf8(sender_for(s.as_bytes(), r.as_bytes())).unwrap();
        assert_eq!(for_recipient("list-@host-@[]", "u@h"), "list-u=h@host");
        assert_eq!(for_recipient("list-@host-@[]", "a@b@c"), "list-a=b=c@host");
        for plain in ["", "#@[]", "a@b", "list@host-@[]", "-@[]"] {
            assert_eq!(for_recipient(plain, "u@h"), plain);
        }
    }

    #[test]
    fn bounces_go_to_the_plain_sender() {
        let bounce = |s: &str| String::from_utf8(bounce_sender(s.as_bytes())).unwrap();
        assert_eq!(bounce("list-@host-@[]"), "list-@host");
        assert_eq!(bounce("sb1-me@host"), "me@host");
        assert_eq!(bounce("sb@host"), "sb@host");
        assert_eq!(bounce("#@[]"), "#@[]");
        assert_eq!(bounce(""), "");
    }
}
