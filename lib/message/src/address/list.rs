//! Address lists (RFC 5322, 3.4, and the obsolete forms of 4.4).

use std::ops::Range;

use super::lexer::{Kind, Token, tokens};
use super::{Address, unquote};

/// An address in a header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The address, quotes removed.
    pub address: Address,
    /// Where it stands in the body, angle brackets and route not included. Empty for `<>`.
    pub place: Range<usize>,
    /// Where its domain stands, `@` not included.
    pub domain_place: Option<Range<usize>>,
}

/// A field body is not an address list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} (byte {at} of the field)")]
pub struct SyntaxError {
    /// Offset into the field's body.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// The addresses of a To, Cc, From, ... field's body, in order.
///
/// Groups are entered, empty list elements skipped, routes (`<@a,@b:c@d>`) dropped.
///
/// # Errors
/// The body is not an address list; nothing is guessed.
pub fn list(body: &[u8]) -> Result<Vec<Found>, SyntaxError> {
    let tokens = tokens(body)?;
    let mut parser = Parser { body, tokens: &tokens, at: 0 };
    let mut found = Vec::new();
    let mut in_group = false;
    while let Some(token) = parser.peek() {
        match token.kind {
            Kind::Special(b',') => parser.at += 1,
            Kind::Special(b';') if in_group => {
                in_group = false;
                parser.at += 1;
            }
            _ => match parser.element()? {
                Element::Mailbox(mailbox) => found.push(mailbox),
                Element::GroupBegins if in_group => {
                    return Err(parser.error("a group inside a group"));
                }
                Element::GroupBegins => in_group = true,
            },
        }
    }
    if in_group { Err(parser.error("a group has no end")) } else { Ok(found) }
}

enum Element {
    Mailbox(Found),
    GroupBegins,
}

struct Parser<'a> {
    body: &'a [u8],
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn error(&self, what: &'static str) -> SyntaxError {
        let at = self.peek().or(self.tokens.last()).map_or(0, |t| t.place.start);
        SyntaxError { at, what }
    }

    /// One element of the list, up to but not including the comma or semicolon behind it.
    fn element(&mut self) -> Result<Element, SyntaxError> {
        let start = self.at;
        // What ends a phrase decides what it was.
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Special(b'<') => return Ok(Element::Mailbox(self.bracketed()?)),
                Kind::Special(b':') if self.at > start => {
                    self.at += 1;
                    return Ok(Element::GroupBegins);
                }
                Kind::Special(b'@' | b',' | b';') => break,
                Kind::Special(b'.') | Kind::Atom | Kind::Quoted => self.at += 1,
                Kind::Special(_) | Kind::Literal => return Err(self.error("unexpected here")),
            }
        }
        self.at = start;
        Ok(Element::Mailbox(self.address()?))
    }

    fn bracketed(&mut self) -> Result<Found, SyntaxError> {
        let open = self.tokens[self.at].place.end;
        self.at += 1;
        if self.is_special(b'@') {
            self.skip_route()?;
        }
        let found = if self.is_special(b'>') {
            Found { address: Address::default(), place: open..open, domain_place: None }
        } else {
            self.address()?
        };
        if !self.is_special(b'>') {
            return Err(self.error("expected a closing angle bracket"));
        }
        self.at += 1;
        match self.peek().map(|t| t.kind) {
            None | Some(Kind::Special(b',' | b';')) => Ok(found),
            Some(_) => Err(self.error("expected a comma after the closing angle bracket")),
        }
    }

    fn skip_route(&mut self) -> Result<(), SyntaxError> {
        while let Some(token) = self.peek() {
            self.at += 1;
            match token.kind {
                Kind::Special(b':') => return Ok(()),
                Kind::Special(b'<' | b'>' | b';') => break,
                _ => {}
            }
        }
        Err(self.error("a route has no end"))
    }

    /// `word *("." word) ["@" domain]`
    fn address(&mut self) -> Result<Found, SyntaxError> {
        let local_place = self.dotted(false)?;
        let raw = unfolded(&self.collect(&local_place));
        let local = unquote(&raw).ok_or_else(|| self.error("a local part with a broken quote"))?;
        if !self.is_special(b'@') {
            let address = Address { local, domain: None };
            return Ok(Found { address, place: self.span(&local_place), domain_place: None });
        }
        self.at += 1;
        let domain = self.dotted(true)?;
        let address = Address { local, domain: Some(self.collect(&domain)) };
        let (local_span, domain_span) = (self.span(&local_place), self.span(&domain));
        let place = local_span.start..domain_span.end;
        Ok(Found { address, place, domain_place: Some(domain_span) })
    }

    /// Words with dots between them: the range of their tokens. Doubled, leading and trailing dots
    /// are taken as they come, as old mail has them.
    fn dotted(&mut self, domain: bool) -> Result<Range<usize>, SyntaxError> {
        let start = self.at;
        let mut after_word = false;
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Special(b'.') => after_word = false,
                Kind::Atom if !after_word => after_word = true,
                Kind::Quoted if !after_word && !domain => after_word = true,
                Kind::Literal if self.at == start && domain => after_word = true,
                Kind::Atom | Kind::Quoted | Kind::Literal => {
                    return Err(self.error("two words without a dot, a comma or angle brackets"));
                }
                Kind::Special(_) => break,
            }
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error(if domain { "a domain is missing" } else { "a local part is missing" }));
        }
        Ok(start..self.at)
    }

    fn is_special(&self, byte: u8) -> bool {
        self.peek().is_some_and(|t| t.kind == Kind::Special(byte))
    }

    /// The bytes of these tokens without what stands between them.
    fn collect(&self, range: &Range<usize>) -> Vec<u8> {
        self.tokens[range.clone()].iter().flat_map(|t| &self.body[t.place.clone()]).copied().collect()
    }

    fn span(&self, range: &Range<usize>) -> Range<usize> {
        self.tokens[range.start].place.start..self.tokens[range.end - 1].place.end
    }
}

/// Without line ends that are not quoted: they fold the field and belong to no address.
fn unfolded(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut quoted = false;
    for &byte in raw {
        if quoted || !b"\r\n".contains(&byte) {
            out.push(byte);
        }
        quoted = byte == b'\\' && !quoted;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::splice;
    use proptest::prelude::*;

    fn all(body: &str) -> Vec<String> {
        let found = list(body.as_bytes()).unwrap();
        found.iter().map(|f| String::from_utf8(f.address.to_envelope()).unwrap()).collect()
    }

    #[test]
    fn usual_forms() {
        assert_eq!(all("a@b"), ["a@b"]);
        assert_eq!(
            all(" Joe Q. Public <joe@x.y> , \"J, S\" <js>,, b@c (com, (ment))"),
            ["joe@x.y", "js", "b@c"]
        );
        assert_eq!(all("friends: a@b, c;, d"), ["a@b", "c", "d"]);
        assert_eq!(all("recipient list not shown: ;"), Vec::<String>::new());
        assert_eq!(all("<@r1,@r2:u@d>"), ["u@d"]);
        assert_eq!(all("<>"), [""]);
        assert_eq!(all("\"a b\"@c, a . b @ c . d"), ["a b@c", "a.b@c.d"]);
        assert_eq!(all("u@[127.0.0.1]"), ["u@[127.0.0.1]"]);
        assert_eq!(all("a\n <b@c>\r\n\t,d"), ["b@c", "d"]);
        assert_eq!(all("\"a\r\n b\"@c"), ["a b@c"]);
        assert_eq!(all(""), Vec::<String>::new());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (body, at) in [
            ("a b", 2),
            ("<a@b", 1),
            ("a@", 1),
            ("@b", 0),
            ("a <b> c", 6),
            ("x: a@b", 3),
            ("\"a", 0),
            ("(a", 0),
            ("a)", 1),
            ("a@b@c", 3),
            ("x: y: a;;", 6),
            ("a\0b", 1),
            ("a\\", 1),
            ("a@\"b\"", 2),
            ("a;", 1),
        ] {
            let error = list(body.as_bytes()).unwrap_err();
            assert!(error.at.abs_diff(at) <= 2, "{body}: {error}");
        }
        assert!(list(&[b'('; 100_000]).is_err());
    }

    #[test]
    fn places_allow_exact_rewriting() {
        let body = b" Joe <joe@x> (c), fred";
        let found = list(body).unwrap();
        let new = [
            (found[0].domain_place.clone().unwrap(), b"x.example".to_vec()),
            (found[1].place.end..found[1].place.end, b"@h".to_vec()),
        ];
        assert_eq!(splice(body, &new), b" Joe <joe@x.example> (c), fred@h");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in prop::collection::vec(prop::sample::select(&b"ab<>@,;:.\"\\()[] \n\0\xff"[..]), 0..40)) {
            if let Ok(found) = list(&body) {
                let mut last = 0;
                for f in found {
                    prop_assert!(f.place.start >= last && f.place.end <= body.len());
                    last = f.place.end;
                }
            }
        }

        #[test]
        fn what_we_quote_we_read(local in prop::collection::vec(1u8..=255, 1..20)) {
            let address = Address { local, domain: Some(b"x.y".to_vec()) };
            let found = list(&address.to_header()).unwrap();
            prop_assert_eq!(&found[0].address, &address);
        }
    }
}
