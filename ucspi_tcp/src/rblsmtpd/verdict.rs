//! What is to become of a client. Pure but for the questions to the lists.

use std::net::{IpAddr, Ipv4Addr};

use dns::{Records, reverse};

/// Longest text of a refusal, bytes.
const MAX_TEXT: usize = 200;
/// The text when a list cannot be asked and that counts as listed.
const TROUBLE: &str = "temporary RBL lookup error";

/// One list, in the order of the options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// Who has a text there is refused with it; with a text of ours, who has an address there.
    Refuse {
        /// The zone.
        zone: String,
        /// Our text.
        text: Option<String>,
        /// Does it count as listed when the list cannot be asked?
        closed: bool,
    },
    /// Who has an address there is let in without further questions.
    Accept {
        /// The zone.
        zone: String,
    },
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No list has the client.
    Unlisted,
    /// The client is let in without further ado: by a list, or by RBLSMTPD.
    Welcome,
    /// It is refused.
    Refused {
        /// 553 rather than 451?
        forever: bool,
        /// What it is told.
        text: String,
    },
}

/// The verdict that the variable RBLSMTPD holds.
#[must_use]
pub fn given(value: &[u8], ip: &str) -> Verdict {
    match value {
        [] => Verdict::Welcome,
        [b'-', text @ ..] => Verdict::Refused { forever: true, text: shown(text, ip) },
        text => Verdict::Refused { forever: false, text: shown(text, ip) },
    }
}

/// Asks the lists in turn. `forever`: are those who are listed told 553? `ip` is `None` when it is not known who
/// the client is: then no list can be asked. `trouble` gets what did not answer.
pub fn of(
    lists: &[List],
    forever: bool,
    ip: Option<IpAddr>,
    records: &dyn Records,
    mut trouble: impl FnMut(&str),
) -> Verdict {
    for list in lists {
        let answer = match ip {
            Some(ip) => ask(list, ip, records),
            None => Err("the client's address is not known".to_owned()),
        };
        match (answer, list) {
            (Ok(None), _) => {}
            (Ok(Some(_)), List::Accept { .. }) => return Verdict::Welcome,
            (Ok(Some(text)), List::Refuse { .. }) => return Verdict::Refused { forever, text },
            (Err(why), list) => {
                trouble(&why);
                if matches!(list, List::Refuse { closed: true, .. }) {
                    return Verdict::Refused { forever: false, text: TROUBLE.to_owned() };
                }
            }
        }
    }
    Verdict::Unlisted
}

/// Found: the text. Not listed: `None`. Cannot tell: why.
fn ask(list: &List, ip: IpAddr, records: &dyn Records) -> Result<Option<String>, String> {
    let client = ip.to_canonical().to_string();
    let (zone, text) = match list {
        List::Refuse { zone, text: None, .. } => {
            let found = records.texts(&reverse::name(ip, zone)).map_err(|e| e.to_string())?;
            return Ok(found.unwrap_or_default().first().map(|text| shown(text, &client)));
        }
        List::Refuse { zone, text: Some(text), .. } => (zone, text.as_str()),
        List::Accept { zone } => (zone, ""),
    };
    let found = records.ipv4(&reverse::name(ip, zone)).map_err(|e| e.to_string())?.unwrap_or_default();
    if found.iter().any(|&a| is_entry(a)) {
        return Ok(Some(shown(text.as_bytes(), &client)));
    }
    match found.first() {
        None => Ok(None),
        Some(strange) => Err(format!("{zone} answers {strange}, which is no entry of a list")),
    }
}

/// Entries are in 127.0.0.0/8 (RFC 5782); anything else comes from who now owns a zone that was given up. Lists
/// say in 127.255.255.0/24 that they do not answer the one who asks.
fn is_entry(address: Ipv4Addr) -> bool {
    address.is_loopback() && !address.octets().starts_with(&[127, 255, 255])
}

/// Text that can be a line of SMTP: %IP% expanded, printable, not too long.
fn shown(text: &[u8], ip: &str) -> String {
    let printable = |&b: &u8| if (b' '..=b'~').contains(&b) { char::from(b) } else { '?' };
    let text: String = text.iter().map(printable).collect();
    let mut text = text.replace("%IP%", ip);
    // All ASCII, so any cut is between characters.
    text.truncate(MAX_TEXT);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dns::Unavailable;
    use proptest::prelude::*;
    use std::cell::RefCell;

    /// Answers by the first label after the address, and notes what it was asked.
    #[derive(Default)]
    struct Fake(RefCell<Vec<String>>);

    impl Fake {
        fn zone(&self, name: &str) -> String {
            self.0.borrow_mut().push(name.to_owned());
            name.rsplit('.').next().unwrap_or_default().to_owned()
        }
    }

    impl Records for Fake {
        fn texts(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, Unavailable> {
            match self.zone(name).as_str() {
                "listed" => Ok(Some(vec![b"see %IP%".to_vec(), b"second".to_vec()])),
                "notext" => Ok(Some(vec![])),
                "sick" => Err(Unavailable("SERVFAIL".into())),
                _ => Ok(None),
            }
        }

        fn ipv4(&self, name: &str) -> Result<Option<Vec<Ipv4Addr>>, Unavailable> {
            match self.zone(name).as_str() {
                "listed" => Ok(Some(vec![[192, 0, 2, 1].into(), [127, 0, 0, 4].into()])),
                "parked" => Ok(Some(vec![[192, 0, 2, 1].into()])),
                "greedy" => Ok(Some(vec![[127, 255, 255, 254].into()])),
                "sick" => Err(Unavailable("SERVFAIL".into())),
                _ => Ok(None),
            }
        }
    }

    /// `-zone`, `-zone:text`, `+zone`; a `!` in front: closed.
    fn list(word: &str) -> List {
        let closed = word.starts_with('!');
        let word = word.trim_start_matches('!');
        match (word.strip_prefix('+'), word.strip_prefix('-').map(|w| w.split_once(':'))) {
            (Some(zone), _) => List::Accept { zone: zone.into() },
            (_, Some(Some((zone, text)))) => {
                List::Refuse { zone: zone.into(), text: Some(text.into()), closed }
            }
            _ => List::Refuse { zone: word[1..].into(), text: None, closed },
        }
    }

    fn verdict(words: &str, ip: Option<&str>) -> (String, usize, usize) {
        let lists: Vec<_> = words.split(' ').map(list).collect();
        let (fake, mut troubles) = (Fake::default(), 0);
        let ip = ip.map(|ip| ip.parse().unwrap());
        let verdict = of(&lists, true, ip, &fake, |_| troubles += 1);
        let shown = match verdict {
            Verdict::Unlisted => "unlisted".to_owned(),
            Verdict::Welcome => "welcome".to_owned(),
            Verdict::Refused { forever, text } => format!("{} {text}", if forever { 553 } else { 451 }),
        };
        (shown, fake.0.into_inner().len(), troubles)
    }

    #[test]
    fn the_first_that_knows_decides() {
        let v = |words, want: &str, asked, troubles| {
            assert_eq!(verdict(words, Some("10.0.0.1")), (want.to_owned(), asked, troubles), "{words}");
        };
        v("-none", "unlisted", 1, 0);
        v("-notext", "unlisted", 1, 0);
        v("-none -listed -sick", "553 see 10.0.0.1", 2, 0);
        v("-listed:ours", "553 ours", 1, 0);
        v("-none:ours", "unlisted", 1, 0);
        v("+listed -listed", "welcome", 1, 0);
        v("-listed +listed", "553 see 10.0.0.1", 1, 0);
        v("+none -none", "unlisted", 2, 0);
        v("-sick +sick -none", "unlisted", 3, 2);
        v("!-sick -none", "451 temporary RBL lookup error", 1, 1);
        v("-parked:x -greedy:x +parked", "unlisted", 3, 3);
        v("!-greedy:x", "451 temporary RBL lookup error", 1, 1);
    }

    #[test]
    fn a_client_without_an_address_is_in_no_list() {
        assert_eq!(verdict("-listed", None), ("unlisted".into(), 0, 1));
        assert_eq!(verdict("!-listed", None).0, "451 temporary RBL lookup error");
        assert_eq!(verdict("-listed", Some("::ffff:10.0.0.1")).0, "553 see 10.0.0.1");
    }

    #[test]
    fn the_variable() {
        assert_eq!(given(b"", "1"), Verdict::Welcome);
        let refused = |forever, text: &str| Verdict::Refused { forever, text: text.into() };
        assert_eq!(given(b"-no %IP% %IP%", "::1"), refused(true, "no ::1 ::1"));
        assert_eq!(given(b"later\r\n250 ok", "::1"), refused(false, "later??250 ok"));
    }

    proptest! {
        #[test]
        fn texts_are_one_printable_line(text: Vec<u8>) {
            let shown = shown(&text, "2001:db8::1");
            prop_assert!(shown.len() <= 200 && shown.bytes().all(|b| (32..=126).contains(&b)));
        }
    }
}
