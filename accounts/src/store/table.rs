//! Tables and columns: the only place that names them.
//!
//! The layout is that of existing IndiMail databases, so that a site can keep its own; `accountids` is ours.

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Active accounts.
    Active,
    /// Inactive accounts, same columns.
    Inactive,
    /// Unix ids of accounts that have their own.
    Ids,
    /// Alias lines, one a row.
    Alias,
    /// Limits of domains and users.
    Limits,
    /// The last event by account and service.
    LastAuth,
    /// Bounces for a full mailbox.
    UserQuota,
    /// Logins that open the relay.
    Relay,
}

impl Table {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Active,
        Self::Inactive,
        Self::Ids,
        Self::Alias,
        Self::Limits,
        Self::LastAuth,
        Self::UserQuota,
        Self::Relay,
    ];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Active => "indimail",
            Self::Inactive => "indibak",
            Self::Ids => "accountids",
            Self::Alias => "valias",
            Self::Limits => "vlimits",
            Self::LastAuth => "lastauth",
            Self::UserQuota => "userquota",
            Self::Relay => "relay",
        }
    }

    /// Columns and keys. `{ts}` is a timestamp set on every change, `{ts0}` one set on insertion.
    const fn columns(self) -> &'static str {
        match self {
            Self::Active | Self::Inactive => {
                "pw_name CHAR(40) NOT NULL, pw_domain CHAR(67) NOT NULL, pw_passwd CHAR(128) NOT NULL, \
                 pw_uid INT, pw_gid INT, pw_gecos CHAR(48) NOT NULL, pw_dir CHAR(156), pw_shell CHAR(30), \
                 scram CHAR(255), {ts}, PRIMARY KEY (pw_name, pw_domain)"
            }
            Self::Ids => {
                "pw_name CHAR(40) NOT NULL, pw_domain CHAR(67) NOT NULL, uid BIGINT NOT NULL, \
                 gid BIGINT NOT NULL, {ts}, PRIMARY KEY (pw_name, pw_domain), UNIQUE (uid)"
            }
            Self::Alias => {
                "alias CHAR(40) NOT NULL, domain CHAR(67) NOT NULL, valias_line CHAR(190) NOT NULL, {ts}, \
                 UNIQUE (alias, domain, valias_line)"
            }
            Self::Limits => {
                "domain CHAR(108) NOT NULL, domain_expiry INT NOT NULL DEFAULT -1, \
                 passwd_expiry INT NOT NULL DEFAULT -1, maxpopaccounts INT NOT NULL DEFAULT -1, \
                 maxaliases INT NOT NULL DEFAULT -1, maxforwards INT NOT NULL DEFAULT -1, \
                 maxautoresponders INT NOT NULL DEFAULT -1, maxmailinglists INT NOT NULL DEFAULT -1, \
                 diskquota BIGINT NOT NULL DEFAULT 0, maxmsgcount BIGINT NOT NULL DEFAULT 0, \
                 defaultquota BIGINT NOT NULL DEFAULT 0, defaultmaxmsgcount BIGINT NOT NULL DEFAULT 0, \
                 disable_pop TINYINT NOT NULL DEFAULT 0, disable_imap TINYINT NOT NULL DEFAULT 0, \
                 disable_dialup TINYINT NOT NULL DEFAULT 0, \
                 disable_passwordchanging TINYINT NOT NULL DEFAULT 0, \
                 disable_webmail TINYINT NOT NULL DEFAULT 0, disable_relay TINYINT NOT NULL DEFAULT 0, \
                 disable_smtp TINYINT NOT NULL DEFAULT 0, perm_account TINYINT NOT NULL DEFAULT 0, \
                 perm_alias TINYINT NOT NULL DEFAULT 0, perm_forward TINYINT NOT NULL DEFAULT 0, \
                 perm_autoresponder TINYINT NOT NULL DEFAULT 0, perm_maillist SMALLINT NOT NULL DEFAULT 0, \
                 perm_quota TINYINT NOT NULL DEFAULT 0, perm_defaultquota TINYINT NOT NULL DEFAULT 0, {ts}, \
                 PRIMARY KEY (domain)"
            }
            Self::LastAuth => {
                "user CHAR(40) NOT NULL, domain CHAR(67) NOT NULL, service CHAR(10) NOT NULL, \
                 remote_ip CHAR(46) NOT NULL, quota INT NOT NULL, gecos CHAR(48) NOT NULL, {ts0}, \
                 PRIMARY KEY (user, domain, service)"
            }
            Self::UserQuota => {
                "user CHAR(40) NOT NULL, domain CHAR(67) NOT NULL, quota BIGINT NOT NULL, {ts0}, \
                 PRIMARY KEY (user, domain)"
            }
            Self::Relay => {
                "email CHAR(108) NOT NULL, ipaddr CHAR(46) NOT NULL, timestamp BIGINT NOT NULL, \
                 UNIQUE (email, ipaddr)"
            }
        }
    }

    /// Columns of the index by domain, for tables whose primary key begins with the user.
    const fn by_domain(self) -> Option<&'static str> {
        match self {
            Self::Active | Self::Inactive => Some("pw_domain, pw_name"),
            Self::Alias => Some("domain, alias, valias_line"),
            _ => None,
        }
    }

    /// The statements that create it, with its index, where it is missing.
    pub(crate) fn create(self, dialect: &Dialect) -> Vec<String> {
        let columns = self.columns().replace("{ts}", dialect.changed).replace("{ts0}", dialect.inserted);
        let (name, options) = (self.name(), dialect.table_options);
        let table = |index: &str| format!("CREATE TABLE IF NOT EXISTS {name} ({columns}{index}){options}");
        match self.by_domain() {
            None => vec![table("")],
            Some(index) if dialect.index_in_table => {
                vec![table(&format!(", INDEX {name}_by_domain ({index})"))]
            }
            Some(index) => {
                vec![table(""), format!("CREATE INDEX IF NOT EXISTS {name}_by_domain ON {name} ({index})")]
            }
        }
    }
}

/// Where the two servers' languages differ.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// A timestamp column set on every change.
    pub(crate) changed: &'static str,
    /// A timestamp column set on insertion.
    pub(crate) inserted: &'static str,
    /// Does an index stand among the columns?
    pub(crate) index_in_table: bool,
    /// What follows the columns.
    pub(crate) table_options: &'static str,
    /// The column `timestamp` as seconds since 1970.
    pub(crate) epoch: &'static str,
    /// A bound number of seconds as a value for such a column.
    pub(crate) at: &'static str,
    /// `FROM` for a select that has none but a condition.
    pub(crate) from_nothing: &'static str,
}
