//! Who may ask what.
//!
//! | peer | user, mailbox, domain, relay | authenticate, account | flush, status |
//! |---|---|---|---|
//! | root, indimail, the daemon's own user | yes | yes | yes |
//! | qmaild, qmails, qmailq, qmailr, alias, and whoever works in group qmail | yes | yes | no |
//! | anybody else who reaches the socket (0660, group qmail) | no | yes | no |
//!
//! The last row is for programs that check passwords under a user of their own (a Dovecot worker, a
//! web server) and were let in through the group or through an access list on the socket: they can
//! try passwords, which is counted, but cannot list who exists or read anybody's home.

use unix::socket::Peer;
use unix::{Gid, Uid};

/// The mail users that may look accounts up.
const MAIL_USERS: [&str; 5] = ["qmaild", "qmails", "qmailq", "qmailr", "alias"];

/// What kind of question it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Looks at accounts, domains and the relay table.
    Look,
    /// Checks a password or an account's standing.
    Login,
    /// Forgets cached answers, tells about the daemon.
    Manage,
}

/// The ids that have rights, resolved once at the start.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    administrators: Vec<Uid>,
    mail_users: Vec<Uid>,
    mail_group: Option<Gid>,
}

impl Peers {
    /// Looks the names up. A user that does not exist has no rights.
    ///
    /// # Errors
    /// The name service cannot tell.
    pub fn resolve(own: Uid) -> std::io::Result<Self> {
        let uid = |name| unix::ids::user(name).map(|u| u.map(|u| u.uid));
        let mut all = Self {
            administrators: vec![Uid::from_raw(0), own],
            mail_group: unix::ids::group("qmail")?,
            ..Self::default()
        };
        all.administrators.extend(uid("indimail")?);
        for name in MAIL_USERS {
            all.mail_users.extend(uid(name)?);
        }
        Ok(all)
    }

    /// May this peer ask that?
    #[must_use]
    pub fn allows(&self, peer: Peer, right: Right) -> bool {
        if self.administrators.contains(&peer.uid) {
            return true;
        }
        match right {
            Right::Manage => false,
            Right::Login => true,
            Right::Look => self.mail_users.contains(&peer.uid) || self.mail_group == Some(peer.gid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), pid: 1 }
    }

    #[test]
    fn the_matrix() {
        let peers = Peers {
            administrators: vec![Uid::from_raw(0), Uid::from_raw(555)],
            mail_users: vec![Uid::from_raw(100)],
            mail_group: Some(Gid::from_raw(200)),
        };
        let rights = |p| [Right::Look, Right::Login, Right::Manage].map(|r| peers.allows(p, r));
        assert_eq!(rights(peer(0, 0)), [true, true, true]);
        assert_eq!(rights(peer(555, 9)), [true, true, true]);
        assert_eq!(rights(peer(100, 9)), [true, true, false]);
        assert_eq!(rights(peer(101, 200)), [true, true, false]);
        assert_eq!(rights(peer(101, 9)), [false, true, false]);
    }

    #[test]
    fn a_missing_group_lets_nobody_in() {
        assert!(!Peers::default().allows(peer(1, 1), Right::Look));
    }

    #[test]
    fn names_resolve_to_at_least_root_and_the_daemon_itself() {
        let peers = Peers::resolve(Uid::from_raw(4321)).unwrap();
        assert!(peers.allows(peer(0, 9), Right::Manage) && peers.allows(peer(4321, 9), Right::Manage));
    }
}
