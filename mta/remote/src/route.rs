//! Static routes: `smtproutes` and the variable SMTPROUTE.
//!
//! A line is `domain:relay[:port[:min_penalty[:max_tolerance]]]`, optionally followed by a blank and
//! credentials, which are not part of the relay's name. The first of the domain itself, its
//! suffixes that begin with a dot, and the empty domain counts; for each, the variable before the
//! file. `!@` is the key of bounces.

use control::Map;

/// Where mail for a domain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The relay; `None`: the mail exchangers of the domain.
    pub relay: Option<String>,
    /// Its port; 465 means TLS from the first byte.
    pub port: u16,
    /// How long the relay is passed over when it does not answer, see [`crate::Limits`].
    pub min_penalty: Option<i64>,
    /// Errors within so many seconds count as one.
    pub max_tolerance: Option<u32>,
}

/// Why a route cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The relay or its port makes no sense.
    #[error("wrong route {0}")]
    Malformed(String),
    /// A number of the timeout table is none.
    #[error("wrong route {0}")]
    Penalty(String),
    /// Port 209 means QMTP.
    #[error("route {0}: QMTP is not supported")]
    Qmtp(String),
}

/// Port of SMTP.
pub const SMTP: u16 = 25;
/// Port of QMTP.
const QMTP: u16 = 209;

/// All routes.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// SMTPROUTE.
    pub variable: Map,
    /// `smtproutes`.
    pub file: Map,
}

impl Routes {
    /// The route for mail to `host` from `sender`; `None` without any.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn find(&self, host: &[u8], sender: &[u8]) -> Result<Option<Route>, RouteError> {
        let suffixes = host.iter().enumerate().filter(|&(_, &b)| b == b'.').map(|(i, _)| &host[i..]);
        let bounce = sender.is_empty().then_some(&b"!@"[..]);
        let keys =
            bounce.into_iter().chain(std::iter::once(host)).chain(suffixes).chain(std::iter::once(&b""[..]));
        for key in keys {
            if let Some(value) = self.variable.get(key).or_else(|| self.file.get(key)) {
                return parse(value).map(Some);
            }
        }
        Ok(None)
    }
}

/// Reads the value of a route.
///
/// # Errors
/// See [`RouteError`].
pub fn parse(value: &[u8]) -> Result<Route, RouteError> {
    let shown = || RouteError::Malformed(value.escape_ascii().to_string());
    let penalty = || RouteError::Penalty(value.escape_ascii().to_string());
    let text = std::str::from_utf8(value).map_err(|_| shown())?;
    let text = text.split([' ', '\t']).next().unwrap_or_default();
    let (relay, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (literal, rest) = bracketed.split_once(']').ok_or_else(shown)?;
            (literal, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or_else(shown)?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let mut numbers = rest.split(':').map(str::trim);
    let port = match numbers.next().unwrap_or_default() {
        "" => SMTP,
        number => number.parse().ok().filter(|p| *p > 0).ok_or_else(shown)?,
    };
    let min_penalty = number(numbers.next()).ok_or_else(penalty)?;
    let max_tolerance = number(numbers.next()).ok_or_else(penalty)?;
    if numbers.next().is_some() {
        return Err(penalty());
    }
    if port == QMTP {
        return Err(RouteError::Qmtp(text.to_owned()));
    }
    Ok(Route { relay: (!relay.is_empty()).then(|| relay.to_owned()), port, min_penalty, max_tolerance })
}

/// `None`: not a number; `Some(None)`: not given.
#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<Option<T>> {
    match text.unwrap_or_default() {
        "" => Some(None),
        digits => digits.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routes(variable: &[&str], file: &[&str]) -> Routes {
        Routes { variable: Map::new(variable), file: Map::new(file) }
    }

    fn shown(routes: &Routes, host: &str, sender: &str) -> String {
        match routes.find(host.as_bytes(), sender.as_bytes()) {
            Ok(Some(r)) => format!("{}:{}", r.relay.as_deref().unwrap_or("mx"), r.port),
            Ok(None) => "none".into(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn the_longest_key_counts_and_the_variable_before_the_file() {
        let r = routes(&["a.example:v"], &["a.example:f", ".example:below:26", "!@:bounces", ":smart"]);
        assert_eq!(shown(&r, "a.EXAMPLE", "s"), "v:25");
        assert_eq!(shown(&r, "x.b.example", "s"), "below:26");
        assert_eq!(shown(&r, "a.example", ""), "bounces:25");
        assert_eq!(shown(&r, "other", "s"), "smart:25");
        assert_eq!(shown(&routes(&[], &["x:y"]), "other", "s"), "none");
    }

    #[test]
    fn penalties_of_a_route() {
        let limits = |value: &str| parse(value.as_bytes()).map(|r| (r.min_penalty, r.max_tolerance));
        assert_eq!(limits("relay:25:0"), Ok((Some(0), None)));
        assert_eq!(limits("relay::-60:5"), Ok((Some(-60), Some(5))));
        assert_eq!(limits("relay"), Ok((None, None)));
        assert!(limits("relay:25:1:2:3").is_err());
    }

    #[test]
    fn forms_of_a_route() {
        let find = |value: &str| shown(&routes(&[], &[&format!("d:{value}")]), "d", "s");
        assert_eq!(find(""), "mx:25");
        assert_eq!(find(":587"), "mx:587");
        assert_eq!(find("192.0.2.1"), "192.0.2.1:25");
        assert_eq!(find("[2001:db8::1]:2525"), "2001:db8::1:2525");
        assert_eq!(find("relay:many"), "wrong route relay:many");
        assert_eq!(find("relay:25:soon"), "wrong route relay:25:soon");
        assert_eq!(find("[2001:db8::1"), "wrong route [2001:db8::1");
        assert_eq!(find("relay:209"), "route relay:209: QMTP is not supported");
    }

    #[test]
    fn fix_6_credentials_are_no_part_of_the_relay() {
        let find = |value: &str| shown(&routes(&[], &[&format!("d:{value}")]), "d", "s");
        assert_eq!(find("relay:465:3600:120 user secret"), "relay:465");
        assert_eq!(find("relay user secret"), "relay:25");
        assert_eq!(find("[::1]:26\tuser secret A=b"), "::1:26");
        assert_eq!(find("relay:25:1:2 /token"), "relay:25");
        assert_eq!(find(" user secret"), "mx:25");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
