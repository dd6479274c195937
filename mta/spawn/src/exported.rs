//! Header lines of the message as variables of one delivery.
//!
//! The values come from whoever wrote the message. So a line never becomes a variable that a shell,
//! the dynamic linker, an interpreter or one of our programs obeys, and never replaces a variable
//! that the administrator has set.

use program::Environment;

/// Names that nobody may set by mail.
const RESERVED: &[&str] = &[
    "ALIAS_DOMAINS",
    "AUTHSELF",
    "BASE_PATH",
    "BIGTODO",
    "BOUNCEQUEUE",
    "BOUNCE_MAIL",
    "CDPATH",
    "CERTDIR",
    "CONFSPLIT",
    "CONTROLDIR",
    "DATABYTES",
    "DEATH",
    "DEFAULT",
    "DEFAULT_DOMAIN",
    "DISCARD_BOUNCE",
    "DOMAINDIR",
    "DTLINE",
    "EDITOR",
    "ELIMINATE_DUPS",
    "ENV",
    "ERROR_FD",
    "EXPORTED_HEADERS",
    "EXT",
    "EXT2",
    "EXT3",
    "EXT4",
    "EXTRAQUEUE",
    "FAST_QUOTA",
    "FILTERARGS",
    "GCONV_PATH",
    "HOLDOVERQUOTA",
    "HOME",
    "HOST",
    "HOST2",
    "HOST3",
    "HOST4",
    "HOSTALIASES",
    "HOSTNAME",
    "IFS",
    "INCLUDE_TRASH",
    "INDIMAIL_DOMAIN",
    "INLOOKUP_ANSWER",
    "INLOOKUP_SOCKET",
    "JAVA_TOOL_OPTIONS",
    "LANG",
    "LANGUAGE",
    "LOCAL",
    "LOCALDOMAIN",
    "LOCALDOMAINS",
    "LOCPATH",
    "LOGNAME",
    "MAIL",
    "MAILARCHIVE",
    "MAILDIRFOLDER",
    "MAILDIRSIZE_MAX_AGE",
    "MAILDIRSIZE_MAX_SIZE",
    "MAILHOST",
    "MAILNAME",
    "MAILUSER",
    "MDA",
    "MESSID",
    "NAME",
    "NEWSENDER",
    "NLSPATH",
    "NOALIAS",
    "NODE_OPTIONS",
    "NOTIFY_SOCKET",
    "NSSD_SOCKET",
    "NULLQUEUE",
    "OVERQUOTA_CMD",
    "OVERQUOTA_MAILSIZE",
    "PATH",
    "PLUGINDIR",
    "PROMPT_COMMAND",
    "PS4",
    "PWD",
    "PWSTRUCT",
    "QHPSI",
    "QQEH",
    "QUARANTINE",
    "QUEUEDIR",
    "QUEUE_BASE",
    "QUEUE_COUNT",
    "QUEUE_START",
    "REAL_DOMAINS",
    "RECIPIENT",
    "RELAYCLIENT",
    "RES_OPTIONS",
    "ROUTES",
    "RPLINE",
    "RUBYLIB",
    "RUBYOPT",
    "SANITIZE_ENV",
    "SENDER",
    "SHELL",
    "SHELLOPTS",
    "SMTPROUTE",
    "SPAMFILTER",
    "SYSCONFDIR",
    "TCPLOCALIP",
    "TCPREMOTEINFO",
    "TCPREMOTEIP",
    "TERM",
    "TMPDIR",
    "TZ",
    "TZDIR",
    "UFLINE",
    "USER",
    "USE_FDATASYNC",
    "USE_FSYNC",
    "USE_SYNCDIR",
    "XFILTER",
];

/// Families of names that nobody may set by mail.
const RESERVED_PREFIXES: &[&str] = &[
    "BASH", "DYLD_", "GLIBC_", "LC_", "LD_", "MALLOC_", "PERL", "PYTHON", "QMAIL", "SRS", "USE_", "VIRTUAL",
];

/// Longest value, in bytes; longer ones are not exported at all.
const VALUE_MAX: usize = 32 * 1024;

/// The variables that these header lines make: the name in capitals with `-` as `_`, the value after
/// the colon and blanks, continuation lines joined.
#[must_use]
pub fn variables(lines: &[u8], environment: &Environment) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, value) in unfold(lines) {
        let Some(name) = variable_name(name) else {
            continue;
        };
        let taken = environment.is_set(&name) || found.iter().any(|(n, _)| *n == name);
        if !taken && value.len() <= VALUE_MAX && !value.contains(&0) {
            found.push((name, value));
        }
    }
    found
}

fn unfold(lines: &[u8]) -> Vec<(&[u8], Vec<u8>)> {
    let mut fields: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for line in lines.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(b' ' | b'\t') = line.first() {
            if let Some((_, value)) = fields.last_mut() {
                value.extend_from_slice(line);
            }
        } else if let Some(colon) = line.iter().position(|&b| b == b':') {
            fields.push((line[..colon].trim_ascii_end(), line[colon + 1..].to_vec()));
        }
    }
    fields.into_iter().map(|(name, value)| (name, value.trim_ascii().to_vec())).collect()
}

fn variable_name(field: &[u8]) -> Option<String> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
    if !field.first()?.is_ascii_alphabetic() || !field.iter().all(plain) {
        return None;
    }
    let name = String::from_utf8(field.to_ascii_uppercase()).ok()?.replace('-', "_");
    let reserved = RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p));
    (!reserved).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &str) -> Vec<(String, String)> {
        let environment = Environment::from_iter([("SITE", "x")]);
        let found = variables(lines.as_bytes(), &environment);
        found.into_iter().map(|(n, v)| (n, String::from_utf8(v).unwrap())).collect()
    }

    #[test]
    fn fix_8b_folded_values_are_joined() {
        let found = all("Return-Path : <a@b>\nX-Long: one\n two\n\tthree\nX-Long: second\n");
        assert_eq!(found[0], ("RETURN_PATH".into(), "<a@b>".into()));
        assert_eq!(found[1], ("X_LONG".into(), "one two\tthree".into()));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn fix_8c_dangerous_names_never_become_variables() {
        for name in [
            "Path",
            "ld-preload",
            "QmailLocal",
            "IFS",
            "Shell",
            "DYLD-X",
            "HOME",
            "BASH_ENV",
            "Site",
            "1x",
            "a b",
            "",
            "x=y",
            "BASH_FUNC_x%%",
            "Controldir",
            "Sender",
        ] {
            assert_eq!(all(&format!("{name}: v\n")), [], "{name}");
        }
        assert_eq!(all("X-A: a\0b\n"), []);
    }

    #[test]
    fn the_reserved_names_are_sorted_so_that_they_can_be_read() {
        assert!(RESERVED.is_sorted() && RESERVED_PREFIXES.is_sorted());
    }
}
