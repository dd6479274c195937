//! tcprules and tcprulescheck: make a rules database, and ask it.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec, Variable};

use crate::rules::{Verdict, Who, bits, expanded, look_up, network_key};

/// Largest rules text.
const MAX_INPUT: usize = 256 << 20;

/// The table of tcprules.
pub static TCPRULES: Spec = Spec {
    name: "tcprules",
    summary: "make a rules database for tcpserver",
    section: 1,
    place: Place::Bin,
    operands: Operands { synopsis: "rules.cdb [temporary]", min: 1, max: Some(2) },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage, or a line that is no rule" },
        ExitCodeDoc { code: 111, meaning: "the rules cannot be read or the database not be written" },
    ],
    description: "\
Reads rules from its input and replaces the database at once when all of them are good. A rule is a line \
address:allow or address:deny, followed by any number of ,NAME=\"value\" (the quote is any character that stands on both sides) \
and ,!NAME, which removes the variable. Empty lines and lines that begin with # are skipped.

The address is an IPv4 or IPv6 address, an IPv4 prefix that ends in a dot, a range in one number of either \
(1.2.3.37-53, 10.2-3.), a network (10.0.0.0/8, 2001:db8::/32), a name (=mail.example.com), the end of names (=.example.com), = for whoever has a name, \
a user at an address or a name (jane@10.0.0.1, jane@=mail.example.com), or nothing, which is everybody. The most special rule counts alone; nothing is merged.

The database is the one that other ucspi-tcp programs read, and theirs is read here; only networks and removals (,!NAME) are beyond them. \
The temporary file of older versions is not needed; the operand is accepted. tcpserver sees a new database at the next connection.",
    ..Spec::EMPTY
};

/// The table of tcprulescheck.
pub static TCPRULESCHECK: Spec = Spec {
    name: "tcprulescheck",
    summary: "what does a rules database say about an address?",
    section: 1,
    place: Place::Bin,
    operands: Operands { synopsis: "rules.cdb", min: 1, max: Some(1) },
    variables: &[
        Variable { name: "TCPREMOTEIP", help: "The address." },
        Variable { name: "TCPREMOTEHOST", help: "The name, when there is one." },
        Variable { name: "TCPREMOTEINFO", help: "The user, when there is one." },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "printed" },
        ExitCodeDoc { code: 100, meaning: "wrong usage, or TCPREMOTEIP is no address" },
        ExitCodeDoc { code: 111, meaning: "the database cannot be read" },
    ],
    description: "Prints the rule that counts for a client, the variables it sets and removes, and allow or deny.",
    ..Spec::EMPTY
};

/// tcprules.
pub const PROGRAM: Program = Program { spec: &TCPRULES, main };
/// tcprulescheck.
pub const CHECK_PROGRAM: Program = Program { spec: &TCPRULESCHECK, main: check };

/// Reads one line: the keys it stands for and what is done; `None` when it is no rule.
#[must_use]
pub fn parse_rule(line: &[u8]) -> Option<(Vec<Vec<u8>>, Verdict)> {
    // IPv6 addresses have colons themselves.
    let allow = first_valid(line, b":allow").map(|(at, end)| (at, end, false));
    let deny = first_valid(line, b":deny").map(|(at, end)| (at, end, true));
    let (at, end, deny) = allow.into_iter().chain(deny).min()?;
    let mut verdict = Verdict { deny, changes: Vec::new() };
    let mut rest = &line[end..];
    while let Some(setting) = rest.strip_prefix(b",") {
        if let Some(removed) = setting.strip_prefix(b"!") {
            let end = removed.iter().position(|&b| b == b',').unwrap_or(removed.len());
            verdict.changes.push((name(&removed[..end])?, None));
            rest = &removed[end..];
            continue;
        }
        let equals = setting.iter().position(|&b| b == b'=')?;
        let (quote, quoted) = setting[equals + 1..].split_first()?;
        let close = quoted.iter().position(|b| b == quote)?;
        verdict.changes.push((name(&setting[..equals])?, Some(quoted[..close].to_vec())));
        rest = &quoted[close + 1..];
    }
    if !rest.is_empty() {
        return None;
    }
    Some((address_keys(&line[..at])?, verdict))
}

/// The first place where the word stands and is followed by a setting or nothing.
fn first_valid(line: &[u8], word: &[u8]) -> Option<(usize, usize)> {
    let at = line.windows(word.len()).position(|w| w == word)?;
    let end = at + word.len();
    matches!(line.get(end), None | Some(b',')).then_some((at, end))
}

fn name(text: &[u8]) -> Option<Vec<u8>> {
    (!text.is_empty() && !text.contains(&0)).then(|| text.to_vec())
}

/// The keys that the address part of a rule stands for; `None` when it is none.
#[must_use]
pub fn address_keys(address: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = std::str::from_utf8(address).ok()?;
    if text.contains([' ', '\t', '\0']) {
        return None;
    }
    if let Some((info, ip)) = text.rsplit_once('@') {
        return match plain_address(ip) {
            Some(ip) => Some(vec![format!("{info}@{ip}").into_bytes()]),
            // What has a colon must be an IPv6 address, or nobody would ever be found under it.
            None => (!ip.contains(':')).then(|| vec![address.to_vec()]),
        };
    }
    if text.starts_with('=') || text.contains('=') {
        return Some(vec![address.to_vec()]);
    }
    if let Some((ip, length)) = text.split_once('/') {
        let (ip, length): (IpAddr, usize) = (ip.parse().ok()?, length.parse().ok()?);
        return Some(vec![network(ip, length)?]);
    }
    if let Some(ip) = plain_address(text) {
        return Some(vec![ip.into_bytes()]);
    }
    if text.contains(':') {
        return None;
    }
    match text.split_once('-') {
        Some((before, after)) => range(before, after),
        None => Some(vec![address.to_vec()]),
    }
}

/// The form of a whole address in keys; `None` when the text is none.
fn plain_address(text: &str) -> Option<String> {
    match text.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(v4) => Some(v4.to_string()),
        IpAddr::V6(v6) => Some(expanded(v6)),
    }
}

/// The key of a network; `None` when the length does not fit the address.
fn network(ip: IpAddr, length: usize) -> Option<Vec<u8>> {
    let canonical = ip.to_canonical();
    // A network of IPv4 addresses in IPv6 form: clients are looked up by their IPv4 form.
    let length = if canonical == ip { Some(length) } else { length.checked_sub(96) }?;
    Some(network_key(canonical, bits(canonical).get(..length)?))
}

/// `1.2.3.37` and `53`, or `10.2` and `3.`: one key for each number between; missing numbers are 0.
fn range(before: &str, after: &str) -> Option<Vec<Vec<u8>>> {
    let number = |text: &str| -> Option<u64> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        if text.is_empty() { Some(0) } else { text.parse().ok().filter(|_| digits) }
    };
    let (start, low) = before.rfind('.').map_or(("", before), |dot| before.split_at(dot + 1));
    let (high, end) = after.split_at(after.find('.').unwrap_or(after.len()));
    let (low, high) = (number(low)?, number(high)?.min(255));
    Some((low..=high).map(|n| format!("{start}{n}{end}").into_bytes()).collect())
}

/// Makes the database.
///
/// # Errors
/// The number of the line that is no rule, or 0 when the database would be too large.
pub fn build(rules: &[u8]) -> Result<cdb::Builder, usize> {
    let mut builder = cdb::Builder::new();
    for (number, line) in (1usize..).zip(rules.split(|&b| b == b'\n')) {
        let line = line.trim_ascii_end();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (keys, verdict) = parse_rule(line).ok_or(number)?;
        let value = verdict.encode();
        keys.iter().try_for_each(|key| builder.add(key, &value)).map_err(|_| 0usize)?;
    }
    Ok(builder)
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let path = Path::new(&parsed.operands[0]);
    let mut rules = Vec::new();
    let limit = u64::try_from(MAX_INPUT).unwrap_or(u64::MAX);
    if let Err(e) = io::stdin().take(limit).read_to_end(&mut rules) {
        invocation.complain("fatal", format_args!("unable to read the rules: {e}"));
        return Exit::TEMPORARY;
    }
    match build(&rules) {
        Ok(builder) => match builder.replace(path, 0o644, None) {
            Ok(()) => Exit::OK,
            Err(e) => {
                invocation.complain("fatal", format_args!("unable to write {}: {e}", path.display()));
                Exit::TEMPORARY
            }
        },
        Err(0) => {
            invocation.complain("fatal", "too many rules for one database");
            Exit::TEMPORARY
        }
        Err(line) => {
            let text = rules.split(|&b| b == b'\n').nth(line - 1).unwrap_or_default().escape_ascii();
            invocation.complain("fatal", format_args!("line {line}: unable to parse this line: {text}"));
            Exit::PERMANENT
        }
    }
}

fn check(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let path = Path::new(&parsed.operands[0]);
    let text = |name| invocation.environment.bytes(name).and_then(|v| std::str::from_utf8(v).ok());
    let ip = match text("TCPREMOTEIP").map(str::parse) {
        None => None,
        Some(Ok(ip)) => Some(ip),
        Some(Err(_)) => {
            invocation.complain("fatal", "variable TCPREMOTEIP: expected an address");
            return Exit::PERMANENT;
        }
    };
    match answer(path, Who { ip, host: text("TCPREMOTEHOST"), info: text("TCPREMOTEINFO") }) {
        Ok(text) => match io::stdout().write_all(&text) {
            Ok(()) => Exit::OK,
            Err(_) => Exit::TEMPORARY,
        },
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to read {}: {e}", path.display()));
            Exit::TEMPORARY
        }
    }
}

fn answer(path: &Path, who: Who<'_>) -> Result<Vec<u8>, cdb::Error> {
    let reader = cdb::Reader::open(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let Some((key, verdict)) = look_up(who, |key| reader.get(key))? else {
        return Ok(b"default:\nallow connection\n".to_vec());
    };
    let mut out = [b"rule ", key.as_slice(), b":\n"].concat();
    for (name, value) in &verdict.changes {
        match value {
            Some(value) => {
                out.extend([b"set environment variable ", name.as_slice(), b"=", value, b"\n"].concat())
            }
            None => out.extend([b"unset environment variable ", name.as_slice(), b"\n"].concat()),
        }
    }
    out.extend(if verdict.deny { &b"deny connection\n"[..] } else { b"allow connection\n" });
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(line: &str) -> Option<(Vec<String>, String)> {
        let (keys, verdict) = parse_rule(line.as_bytes())?;
        let keys = keys.into_iter().map(|k| String::from_utf8(k).unwrap()).collect();
        Some((keys, String::from_utf8(verdict.encode()).unwrap().replace('\0', ";")))
    }

    #[test]
    fn rules() {
        for (line, keys, value) in [
            ("127.:allow,RELAYCLIENT=\"\"", &["127."][..], "+RELAYCLIENT=;"),
            (":allow", &[""], ""),
            ("5.6.:deny", &["5.6."], "D;"),
            ("9.9.9.9:allow,RBLSMTPD=/-listed, %IP%/,X='y'", &["9.9.9.9"], "+RBLSMTPD=-listed, %IP%;+X=y;"),
            ("10.:allow,!GREYIP", &["10."], "-GREYIP;"),
            ("1.2.3.37-39:deny", &["1.2.3.37", "1.2.3.38", "1.2.3.39"], "D;"),
            ("10.2-3.:allow", &["10.2.", "10.3."], ""),
            ("1.254-999:allow", &["1.254", "1.255"], ""),
            ("1.2-3.4:allow", &["1.2.4", "1.3.4"], ""),
            ("5-3.:allow", &[], ""),
            ("=A.example:allow", &["=A.example"], ""),
            ("=x-1-9.example:deny", &["=x-1-9.example"], "D;"),
            ("jane@1.2.3.4:allow", &["jane@1.2.3.4"], ""),
            ("jane-1-2@=.b:allow", &["jane-1-2@=.b"], ""),
            ("jane@2001:db8::1:deny", &["jane@2001:0db8:0000:0000:0000:0000:0000:0001"], "D;"),
            ("::ffff:1.2.3.4:deny", &["1.2.3.4"], "D;"),
            ("::ffff:10.0.0.0/104:deny", &["_00001010"], "D;"),
            ("10.0.0.0/6:deny", &["_000010"], "D;"),
            ("2001:db8::1:allow", &["2001:0db8:0000:0000:0000:0000:0000:0001"], ""),
            ("2001::/3:deny", &["^001"], "D;"),
            ("0.0.0.0/0:deny", &["_"], "D;"),
            ("::/0:deny", &["^"], "D;"),
        ] {
            let want = (keys.iter().map(|&k| k.to_owned()).collect(), value.to_owned());
            assert_eq!(rule(line), Some(want), "{line}");
        }
        for bad in [
            "1.2.3.4",
            "1.2.3.4:maybe",
            "1.2:allow,",
            "1.2:allow,X",
            "1.2:allow,X=\"",
            "1.2:allowed",
            "1.2.3.4/33:allow",
            "2001:db8::/129:allow",
            "::ffff:1.2.3.4/95:allow",
            "2001:db8:allow",
            "1:2:allow",
            "jane@1:2:allow",
            "1.2.3.a-5:allow",
            "1.2.3.-+5:allow",
            "1.2 :allow",
            "1.2:allow,=\"x\"",
        ] {
            assert_eq!(rule(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(build(b"# c\n\n1.:allow\nnonsense\n").err(), Some(4));
    }

    proptest! {
        #[test]
        fn parse_never_panics(line: Vec<u8>) {
            let _ = parse_rule(&line);
        }

        #[test]
        fn parse_of_near_rules_never_panics(line in "[0-9./:-]{0,10}:(allow|deny)(,!?[A-Z=\"x]{0,5}){0,3}") {
            let _ = parse_rule(line.as_bytes());
        }
    }
}
