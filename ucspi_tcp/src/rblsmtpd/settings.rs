//! What rblsmtpd is told at its start.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use program::{Environment, Exit, Invocation, Loader, Source};

use super::verdict::List;

/// The longest wait that can be asked for, seconds.
const MAX_WAIT: u64 = 86_400;

/// The settings.
#[derive(Debug)]
pub struct Settings {
    /// What to run for clients that are not refused.
    pub command: Vec<OsString>,
    /// Whom to ask.
    pub lists: Vec<List>,
    /// Tell those who are listed 553?
    pub forever: bool,
    /// How long the conversation with one that is refused may take; zero: it is told so and that is all.
    pub patience: Duration,
    /// How long everybody waits before the first word.
    pub delay: Duration,
    /// Refuse those who talk before that?
    pub early_refused: bool,
    /// RBLSMTPD.
    pub given: Option<Vec<u8>>,
    /// The client's address; `None` when it is not known.
    pub ip: Option<IpAddr>,
    /// The same as the log has it.
    pub shown_ip: String,
    /// Our name.
    pub name: String,
    /// Answer EHLO with capabilities?
    pub extended: bool,
    /// Name servers; empty: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// The environment of the program.
    pub environment: Environment,
}

/// Reads the command line and the variables.
///
/// # Errors
/// The exit code to end with.
pub fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let environment = &invocation.environment;
    let mut loader = Loader::new(environment);
    let option = |letter| Source { option: parsed.value(letter).map(|v| (letter, v)), ..Source::default() };
    let patience = loader.number("timeout", option("t"), 60, 0..=MAX_WAIT);
    let delay = loader.number("greet_delay", option("w"), 0, 0..=MAX_WAIT);
    let variable = |name| Source { variable: Some(name), ..Source::default() };
    let name = loader.parsed("greeting", variable("RBLGREETING"), "rblsmtpd.local".to_owned(), "a name");
    let mut lists = Vec::new();
    let (mut closed, mut forever) = (false, false);
    for (letter, value) in parsed.in_order() {
        let value = value.map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
        match letter {
            "c" | "C" => closed = letter == "c",
            "b" | "B" => forever = letter == "b",
            "a" => lists.push(List::Accept { zone: value }),
            "r" => {
                let (zone, text) = match value.split_once(':') {
                    Some((zone, text)) => (zone.to_owned(), Some(text.to_owned())),
                    None => (value, None),
                };
                lists.push(List::Refuse { zone, text, closed });
            }
            _ => {}
        }
    }
    let refuses = lists.iter().any(|list| matches!(list, List::Refuse { .. }));
    if !refuses && !invocation.shows_settings() {
        loader.problem("missing option -r: give at least one list");
    }
    for List::Refuse { zone, .. } | List::Accept { zone } in &lists {
        if !is_zone(zone) {
            loader.problem(format_args!("{}: expected the name of a zone", zone.escape_debug()));
        }
    }
    let servers = environment.get("DNSCACHEIP").map(|v| dns::servers(&v.to_string_lossy()));
    let servers = servers.unwrap_or_else(|| Ok(Vec::new())).unwrap_or_else(|e| {
        loader.problem(format_args!("variable DNSCACHEIP: {e}"));
        Vec::new()
    });
    let shown_ip = environment.get("TCPREMOTEIP").map(|ip| ip.to_string_lossy().into_owned());
    let shown_ip = shown_ip.unwrap_or_default();
    let given = environment.bytes("RBLSMTPD").map(<[u8]>::to_vec);
    loader.show("lists", format_args!("{lists:?}"), parsed.source(&["r", "a", "c", "C"]));
    let source = loader.source(&["DNSCACHEIP"], &[]);
    loader.show("servers", format_args!("{servers:?}"), source);
    let settings = Settings {
        command: parsed.operands.clone(),
        lists,
        forever,
        patience: Duration::from_secs(patience),
        delay: Duration::from_secs(delay),
        early_refused: parsed.flag("W"),
        given,
        ip: shown_ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
        shown_ip,
        name: name.chars().filter(char::is_ascii_graphic).collect(),
        extended: environment.is_set("RBLEHLO"),
        servers,
        environment: environment.clone(),
    };
    invocation.finish(loader, settings, Exit::PERMANENT)
}

/// Labels of up to 63 visible characters; the name of an address must fit in front.
fn is_zone(zone: &str) -> bool {
    let zone = zone.strip_suffix('.').unwrap_or(zone);
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_graphic());
    zone.len() <= 180 && zone.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones() {
        for good in ["zen.example.org", "x", "a.b."] {
            assert!(is_zone(good), "{good}");
        }
        for bad in ["", ".", "a..b", "a b", &"x".repeat(64), &"a.".repeat(100)] {
            assert!(!is_zone(bad), "{bad}");
        }
    }
}
