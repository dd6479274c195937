//! Paths: `<@route:"local part"@domain>` and back.

/// Longest address in an envelope, in bytes.
pub const MAX_ADDRESS: usize = 900;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No `<...>` and no text after the colon.
    #[error("no address")]
    Missing,
    /// A quote or a bracket is never closed.
    #[error("unfinished address")]
    Unfinished,
    /// Control characters, a domain that is none, or junk behind the closing bracket.
    #[error("illegal character in address")]
    Illegal,
    /// More than [`MAX_ADDRESS`] bytes.
    #[error("address too long")]
    TooLong,
}

/// The argument of MAIL or RCPT, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathArgument<'a> {
    /// The address with quotes and backslashes resolved and the source route removed; empty for `<>`.
    pub address: Vec<u8>,
    /// The text behind it: ESMTP parameters.
    pub parameters: &'a [u8],
}

/// Reads `FROM:<address> parameters` (or `TO:`), and the form without brackets of old clients.
///
/// # Errors
/// See [`PathError`].
pub fn path(argument: &[u8]) -> Result<PathArgument<'_>, PathError> {
    let (text, terminator) = match argument.iter().position(|&b| b == b'<') {
        Some(open) => (&argument[open + 1..], b'>'),
        None => {
            let colon = argument.iter().position(|&b| b == b':').ok_or(PathError::Missing)?;
            let rest = &argument[colon + 1..];
            let start = rest.iter().position(|b| !blank(*b)).ok_or(PathError::Missing)?;
            (&rest[start..], b' ')
        }
    };
    let text = without_route(text, terminator);
    let mut address = Vec::with_capacity(text.len().min(MAX_ADDRESS));
    let (mut escaped, mut quoted) = (false, false);
    let mut end = None;
    for (i, &byte) in text.iter().enumerate() {
        if !escaped {
            if !quoted && byte == terminator {
                end = Some(i);
                break;
            }
            match byte {
                b'\\' => {
                    escaped = true;
                    continue;
                }
                b'"' => {
                    quoted = !quoted;
                    continue;
                }
                _ => {}
            }
        }
        escaped = false;
        if byte < 0x20 || byte == 0x7f {
            return Err(PathError::Illegal);
        }
        if address.len() == MAX_ADDRESS {
            return Err(PathError::TooLong);
        }
        address.push(byte);
    }
    if quoted || escaped || (end.is_none() && terminator == b'>') {
        return Err(PathError::Unfinished);
    }
    if split(&address).1.is_some_and(|domain| domain.iter().any(|b| b" \t<>()\\\",;".contains(b))) {
        return Err(PathError::Illegal);
    }
    let rest = end.map_or(&b""[..], |e| &text[e + 1..]);
    if terminator == b'>' && rest.first().is_some_and(|&b| !blank(b)) {
        return Err(PathError::Illegal);
    }
    Ok(PathArgument { address, parameters: rest.trim_ascii() })
}

/// `@a,@b:rest` → `rest`; a route that never ends stays as it is.
fn without_route(text: &[u8], terminator: u8) -> &[u8] {
    if text.first() != Some(&b'@') {
        return text;
    }
    match text.iter().position(|&b| b == b':' || b == terminator) {
        Some(i) if text[i] == b':' => &text[i + 1..],
        _ => text,
    }
}

fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The address at its last `@`: local part and domain.
#[must_use]
pub fn split(address: &[u8]) -> (&[u8], Option<&[u8]>) {
    match address.iter().rposition(|&b| b == b'@') {
        Some(at) => (&address[..at], Some(&address[at + 1..])),
        None => (address, None),
    }
}

/// The address as it may stand between `<` and `>`: the local part quoted when it must be.
#[must_use]
pub fn quoted(address: &[u8]) -> Vec<u8> {
    let (local, domain) = split(address);
    let mut out = Vec::with_capacity(address.len() + 2);
    if address.is_empty() || is_dot_string(local) {
        out.extend_from_slice(local);
    } else {
        out.push(b'"');
        for &byte in local {
            if byte == b'"' || byte == b'\\' {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    if let Some(domain) = domain {
        out.push(b'@');
        out.extend_from_slice(domain);
    }
    out
}

fn is_dot_string(local: &[u8]) -> bool {
    local.split(|&b| b == b'.').all(|atom| !atom.is_empty() && atom.iter().all(|&b| atext(b)))
}

fn atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Fuzz target: any bytes give an address within bounds, and its quoted form reads back the same.
pub fn fuzz_path(bytes: &[u8]) {
    if let Ok(found) = path(bytes) {
        assert!(found.address.len() <= MAX_ADDRESS);
        if found.address.first() != Some(&b'@') {
            let again = [b"TO:<", &quoted(&found.address)[..], b">"].concat();
            assert_eq!(path(&again).map(|p| p.address), Ok(found.address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(argument: &str) -> Result<String, PathError> {
        path(argument.as_bytes()).map(|p| String::from_utf8(p.address).unwrap())
    }

    #[test]
    fn forms_of_a_path() {
        assert_eq!(address("FROM:<a@b>"), Ok("a@b".into()));
        assert_eq!(address("FROM: <a@b> SIZE=1"), Ok("a@b".into()));
        assert_eq!(address("from:<>"), Ok(String::new()));
        assert_eq!(address("TO:a@b BODY=7BIT"), Ok("a@b".into()));
        assert_eq!(address("TO:<@r1,@r2:a@b>"), Ok("a@b".into()));
        assert_eq!(address(r#"TO:<"a \"b\" > c"@d>"#), Ok(r#"a "b" > c@d"#.into()));
        assert_eq!(address(r"TO:<a\@b@c>"), Ok("a@b@c".into()));
        assert_eq!(path(b"FROM:<a@b>  SIZE=1 BODY=8BITMIME ").unwrap().parameters, b"SIZE=1 BODY=8BITMIME");
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(address("FROM"), Err(PathError::Missing));
        assert_eq!(address("FROM:"), Err(PathError::Missing));
        assert_eq!(address("FROM:<a@b"), Err(PathError::Unfinished));
        assert_eq!(address(r#"FROM:<"a@b>"#), Err(PathError::Unfinished));
        assert_eq!(address("FROM:<a\n@b>"), Err(PathError::Illegal));
        assert_eq!(address("FROM:<a@b>junk"), Err(PathError::Illegal));
        assert_eq!(address(&format!("TO:<{}>", "x".repeat(901))), Err(PathError::TooLong));
        assert!(address(&format!("TO:<{}>", "x".repeat(900))).is_ok());
    }

    #[test]
    fn quoting_only_where_needed() {
        assert_eq!(quoted(b"a.b+c@d"), b"a.b+c@d");
        assert_eq!(quoted(b"a b@d"), br#""a b"@d"#);
        assert_eq!(quoted(b".a@d"), br#"".a"@d"#);
        assert_eq!(quoted(br#"a"\@d"#), br#""a\"\\"@d"#);
        assert_eq!(quoted(b""), b"");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            fuzz_path(&bytes);
        }

        #[test]
        fn likely_bytes(text in r#"(TO:)?<?[@a-b "\\.:,<>]{0,20}>?"#) {
            fuzz_path(text.as_bytes());
        }
    }
}
