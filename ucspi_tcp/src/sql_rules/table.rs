//! What the file and the rows say, without I/O.

use crate::rules::Verdict;
use crate::tcprules::address_keys;

/// Where the table is.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Host name, or a path that begins with `/`.
    pub host: String,
    /// User.
    pub user: String,
    /// Password; not shown.
    pub password: String,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, user, database, table, .. } = self;
        write!(f, "Server {{ {host}, {user}, {database}, {table} }}")
    }
}

impl Server {
    /// Reads `server:user:password:database:table`; only the password may hold colons.
    ///
    /// # Errors
    /// What is expected; nothing of the line is repeated, since the password is in it.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(line).map_err(|_| "not text")?;
        let words: Vec<&str> = text.split(':').collect();
        let [host, user, password @ .., database, table] = &words[..] else {
            return Err("expected server:user:password:database:table");
        };
        if password.is_empty() || [host, user, database, table].iter().any(|word| word.is_empty()) {
            return Err("expected server:user:password:database:table");
        }
        if !table.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$') {
            return Err("the table's name may hold letters, digits, _ and $ only");
        }
        let [host, user, database, table] = [host, user, database, table].map(|w| (*w).to_owned());
        Ok(Self { host, user, password: password.join(":"), database, table })
    }
}

/// The keys of a row and what is done with clients under them. A row that is no rule denies, when its address
/// at least is one; the text says what is wrong.
#[must_use]
pub fn rule_of_row(iprule: &[u8], decision: &[u8], env: &[u8]) -> (Vec<Vec<u8>>, Verdict, Option<String>) {
    let shown = iprule.escape_ascii();
    let deny = Verdict { deny: true, changes: Vec::new() };
    let Some(keys) = address_keys(iprule) else {
        return (Vec::new(), deny, Some(format!("iprule {shown}: is no address of a rule, and is skipped")));
    };
    let is_deny = match decision.trim_ascii() {
        word if word.eq_ignore_ascii_case(b"allow") => false,
        word if word.eq_ignore_ascii_case(b"deny") => true,
        _ => {
            return (keys, deny, Some(format!("iprule {shown}: decision is neither allow nor deny; denied")));
        }
    };
    match settings(env) {
        Some(changes) => (keys, Verdict { deny: is_deny, changes }, None),
        None => {
            let why = format!("iprule {shown}: env is no list of NAME=value and !NAME; denied");
            (keys, deny, Some(why))
        }
    }
}

/// A name, and its value or removal.
type Change = (Vec<u8>, Option<Vec<u8>>);

fn settings(env: &[u8]) -> Option<Vec<Change>> {
    items(env).into_iter().filter(|item| !item.is_empty()).map(|item| change(&item)).collect()
}

fn change(item: &[u8]) -> Option<Change> {
    if item.contains(&0) {
        return None;
    }
    if let Some(name) = item.strip_prefix(b"!") {
        return (!name.is_empty() && !name.contains(&b'=')).then(|| (name.to_vec(), None));
    }
    let equals = item.iter().position(|&b| b == b'=').filter(|&at| at > 0)?;
    Some((item[..equals].to_vec(), Some(item[equals + 1..].to_vec())))
}

/// Separated by commas; a backslash takes the meaning from what follows it.
fn items(list: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(&byte) = bytes.next() {
        let last = all.len() - 1;
        match byte {
            b',' => all.push(Vec::new()),
            b'\\' => all[last].extend(bytes.next()),
            other => all[last].push(other),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_file() {
        let server = Server::parse(b"/run/db.sock:indimail:a:b:mail:rules").unwrap();
        assert_eq!((server.host.as_str(), server.user.as_str()), ("/run/db.sock", "indimail"));
        assert_eq!((server.password.as_str(), server.table.as_str()), ("a:b", "rules"));
        assert!(!format!("{server:?}").contains("a:b"));
        assert_eq!(Server::parse(b"h:u::d:t").unwrap().password, "");
        for bad in ["", "h:u:d:t", ":u:p:d:t", "h:u:p:d:", "h:u:p:d:t`; DROP TABLE x"] {
            assert!(Server::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows() {
        let row = |ip: &str, decision: &str, env: &str| {
            let (keys, verdict, wrong) = rule_of_row(ip.as_bytes(), decision.as_bytes(), env.as_bytes());
            let text = String::from_utf8(verdict.encode()).unwrap().replace('\0', ";");
            (keys.len(), text, wrong.is_some())
        };
        assert_eq!(
            row("10.", "allow", "RELAYCLIENT=,A=b\\,c\\\\,!X"),
            (1, "+RELAYCLIENT=;+A=b,c\\;-X;".into(), false)
        );
        assert_eq!(row("1.2.3.4-6", "DENY ", ""), (3, "D;".into(), false));
        assert_eq!(row("", "allow", ","), (1, String::new(), false));
        for (ip, decision, env, keys) in [
            ("1.2.3.4", "maybe", "", 1),
            ("1.2.3.4", "allow", "X", 1),
            ("1 2", "allow", "", 0),
            ("::", "allow", "=x", 1),
        ] {
            assert_eq!(row(ip, decision, env), (keys, "D;".into(), true), "{ip} {decision} {env}");
        }
    }

    proptest! {
        #[test]
        fn any_row_can_be_read(ip in "[0-9a-f.:/=@-]{0,20}", decision: Vec<u8>, env: Vec<u8>) {
            let _ = rule_of_row(ip.as_bytes(), &decision, &env);
            let _ = rule_of_row(ip.as_bytes(), b"allow", &env);
            let _ = Server::parse(&env);
        }

        #[test]
        fn values_come_back(values in proptest::collection::vec("[ -~]{0,6}", 0..4)) {
            let written: Vec<String> =
                values.iter().map(|v| format!("N={}", v.replace('\\', "\\\\").replace(',', "\\,"))).collect();
            let (_, verdict, wrong) = rule_of_row(b"", b"allow", written.join(",").as_bytes());
            prop_assert_eq!(wrong, None);
            let read: Vec<String> =
                verdict.changes.into_iter().map(|(_, v)| String::from_utf8(v.unwrap()).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
