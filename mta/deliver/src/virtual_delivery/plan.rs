//! What becomes of a message, decided from what is known.

use lookup::mail::Mailbox;

/// What the plan depends on besides the account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switches {
    /// Aliases and `.qmail` are not obeyed (NOALIAS).
    pub no_alias: bool,
    /// Inactive accounts take mail (ALLOW_INACTIVE).
    pub allow_inactive: bool,
    /// A filter wants this message to bounce (BOUNCE_MAIL).
    pub filtered: bool,
    /// `user-anything` is `user` (QMAIL_EXT).
    pub extensions: bool,
}

/// What happens to mail that no account takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `delete`
    Delete,
    /// `bounce-no-mailbox`
    Bounce,
    /// A Maildir.
    Directory(Vec<u8>),
    /// Another address.
    Forward(Vec<u8>),
}

impl Instruction {
    /// Reads the second operand of vdelivermail.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, &'static str> {
        match text {
            b"delete" => Ok(Self::Delete),
            b"bounce-no-mailbox" => Ok(Self::Bounce),
            [b'/', ..] => Ok(Self::Directory(text.to_vec())),
            _ => {
                let address = text.strip_prefix(b"&").unwrap_or(text);
                let at = address.iter().rposition(|&b| b == b'@');
                if at.is_some_and(|at| at > 0 && at + 1 < address.len()) {
                    return Ok(Self::Forward(address.to_vec()));
                }
                Err("expected bounce-no-mailbox, delete, a directory or an address")
            }
        }
    }
}

/// Why no account takes the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is none with this name.
    Unknown,
    /// It is switched off.
    Inactive,
    /// A filter says so.
    Filtered,
}

impl Reason {
    /// The text of the bounce.
    #[must_use]
    pub fn text(self, address: &str) -> String {
        match self {
            Self::Unknown => format!("no account {address} here by that name. indimail (#5.1.5)"),
            Self::Inactive => format!("account {address} is inactive. indimail (#5.1.3)"),
            Self::Filtered => format!("account {address} does not take this message. indimail (#5.7.1)"),
        }
    }
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan<'a> {
    /// Nothing; it is done.
    Nothing,
    /// Deliver to the account's Maildir.
    Maildir(&'a Mailbox),
    /// Obey these lines instead of delivering to the Maildir.
    Lines(&'a Mailbox, Vec<u8>),
    /// Nobody takes it: the operand decides.
    Instruction(Reason),
}

/// Decides. `home_lines` is the text of the home's `.qmail`, if there is one.
#[must_use]
pub fn plan<'a>(mailbox: Option<&'a Mailbox>, home_lines: Option<Vec<u8>>, switches: &Switches) -> Plan<'a> {
    let Some(mailbox) = mailbox else {
        return Plan::Instruction(Reason::Unknown);
    };
    if mailbox.alias_only {
        return Plan::Lines(mailbox, mailbox.aliases.join(&b"\n"[..]));
    }
    if switches.filtered {
        return Plan::Instruction(Reason::Filtered);
    }
    if !mailbox.active && !switches.allow_inactive {
        return Plan::Instruction(Reason::Inactive);
    }
    if !switches.no_alias {
        if !mailbox.aliases.is_empty() {
            return Plan::Lines(mailbox, mailbox.aliases.join(&b"\n"[..]));
        }
        if let Some(text) = home_lines {
            return Plan::Lines(mailbox, text);
        }
    }
    if mailbox.gecos.starts_with(b"MailGroup ") {
        return Plan::Nothing;
    }
    Plan::Maildir(mailbox)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use unix::{Gid, Uid};

    pub(crate) fn mailbox() -> Mailbox {
        Mailbox {
            address: b"joe@x.y".to_vec(),
            uid: Uid::current(),
            gid: Gid::current(),
            home: b"/nonexistent/joe".to_vec(),
            gecos: b"Joe".to_vec(),
            quota: lookup::mail::Quota::default(),
            flags: 0,
            active: true,
            alias_only: false,
            aliases: Vec::new(),
        }
    }

    #[test]
    fn accounts_are_planned_in_the_order_of_the_rules() {
        let on = Switches::default();
        let plain = mailbox();
        assert_eq!(plan(None, None, &on), Plan::Instruction(Reason::Unknown));
        assert_eq!(plan(Some(&plain), None, &on), Plan::Maildir(&plain));
        let off = Mailbox { active: false, ..mailbox() };
        assert_eq!(plan(Some(&off), None, &on), Plan::Instruction(Reason::Inactive));
        assert_eq!(plan(Some(&off), None, &Switches { allow_inactive: true, ..on }), Plan::Maildir(&off));
        assert_eq!(
            plan(Some(&plain), None, &Switches { filtered: true, ..on }),
            Plan::Instruction(Reason::Filtered)
        );
    }

    #[test]
    fn lines_take_the_place_of_the_maildir() {
        let on = Switches::default();
        let aliased = Mailbox { aliases: vec![b"&a@b".to_vec(), b"|x".to_vec()], ..mailbox() };
        assert_eq!(
            plan(Some(&aliased), Some(b"other".to_vec()), &on),
            Plan::Lines(&aliased, b"&a@b\n|x".to_vec())
        );
        assert_eq!(plan(Some(&aliased), None, &Switches { no_alias: true, ..on }), Plan::Maildir(&aliased));
        let plain = mailbox();
        assert_eq!(plan(Some(&plain), Some(Vec::new()), &on), Plan::Lines(&plain, Vec::new()));
        let group = Mailbox { gecos: b"MailGroup list".to_vec(), ..mailbox() };
        assert_eq!(plan(Some(&group), None, &on), Plan::Nothing);
        let name = Mailbox { alias_only: true, aliases: vec![b"a@b".to_vec()], ..mailbox() };
        assert_eq!(
            plan(Some(&name), None, &Switches { filtered: true, no_alias: true, ..on }),
            Plan::Lines(&name, b"a@b".to_vec())
        );
    }

    #[test]
    fn instructions() {
        use Instruction::*;
        let parse = |t: &str| Instruction::parse(t.as_bytes());
        assert_eq!(parse("delete"), Ok(Delete));
        assert_eq!(parse("bounce-no-mailbox"), Ok(Bounce));
        assert_eq!(parse("/var/x/"), Ok(Directory(b"/var/x/".to_vec())));
        assert_eq!(parse("&a@b"), Ok(Forward(b"a@b".to_vec())));
        for bad in ["", "bounce", "a@", "@b", "host:1.2.3.4:25"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
