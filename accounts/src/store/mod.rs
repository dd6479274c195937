//! Where accounts are kept.
//!
//! [`AccountStore`] is the contract; [`table`] names tables and columns; [`sql`] implements the contract
//! once, with [`rows`], over a [`driver`], of which there are two: [`sqlite`] and [`mysql`]. All
//! addresses given to a store are those of real domains.

mod driver;
mod mysql;
mod rows;
mod sql;
mod sqlite;
mod table;

use crate::{Account, Address, Answer, DomainName, Limits, SecretBytes, StoreKind, StoreSettings, UnixIds};

/// A service that left a trace in `lastauth`: `add`, `pass`, `imap`, `pop3`, `webm`, ...; 1 to 10 lower or
/// upper case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service(String);

impl Service {
    /// The account was created.
    #[must_use]
    pub fn created() -> Self {
        Self("add".to_owned())
    }

    /// The password was changed.
    #[must_use]
    pub fn password() -> Self {
        Self("pass".to_owned())
    }

    /// A service by name.
    ///
    /// # Errors
    /// The name is empty, too long or has another character.
    pub fn parse(name: &[u8]) -> Result<Self, crate::Invalid> {
        match std::str::from_utf8(name) {
            Ok(n) if (1..=10).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Ok(Self(n.to_owned()))
            }
            _ => Err(crate::Invalid::new("service", name, "expected 1 to 10 letters and digits")),
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The last time something happened to an account through one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which service.
    pub service: Service,
    /// From where; empty when not from the network.
    pub remote_ip: String,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// What became of an account to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is in the store.
    Done,
    /// There is one with this address; nothing was changed.
    Exists,
    /// Its Unix user id belongs to another account; nothing was changed.
    IdsTaken,
}

/// A store of accounts. Every method may wait, never longer than the timeouts of its settings
/// (twice when a lost connection is made again).
///
/// A change is on disk when the method returns `Ok`.
pub trait AccountStore: Send {
    /// The account with this address, active or not.
    ///
    /// # Errors
    /// [`crate::Unavailable`], as every method here.
    fn account(&mut self, address: &Address) -> Answer<Option<Account>>;

    /// The account that has this Unix user id for its own.
    fn account_by_uid(&mut self, uid: u32) -> Answer<Option<Account>>;

    /// At most `limit` accounts after `after`, ordered by user name, then domain; of one domain or of all.
    /// A page shorter than `limit` is the last one.
    fn list(
        &mut self,
        domain: Option<&DomainName>,
        after: Option<&Address>,
        limit: u32,
    ) -> Answer<Vec<Account>>;

    /// Number of active and inactive accounts of a domain.
    fn count(&mut self, domain: &DomainName) -> Answer<(u64, u64)>;

    /// Adds an account with its own ids, if it has any.
    fn insert(&mut self, account: &Account) -> Answer<Added>;

    /// Makes the row of this address as given, ids apart (a change of `active` moves it); `false` when there
    /// is none.
    fn update(&mut self, account: &Account) -> Answer<bool>;

    /// Sets password and SCRAM secret and nothing else; `false` when there is no such account.
    fn set_password(
        &mut self,
        address: &Address,
        password: &SecretBytes,
        scram: Option<&SecretBytes>,
    ) -> Answer<bool>;

    /// Takes an insertion back: the row and its ids, nothing else. `false` when there is none.
    fn withdraw(&mut self, address: &Address) -> Answer<bool>;

    /// Removes an account and what belongs to it: ids, last logins, quota and limit rows, the alias of
    /// the same name and aliases that lead to it alone. `false` when there is none.
    fn delete(&mut self, address: &Address) -> Answer<bool>;

    /// Removes everything of a domain; the number of accounts removed.
    fn delete_domain(&mut self, domain: &DomainName) -> Answer<u64>;

    /// The lines of an alias, sorted; empty when there is no such alias.
    fn aliases(&mut self, address: &Address) -> Answer<Vec<Vec<u8>>>;

    /// At most `limit` alias rows of a domain after `after` (alias and line), ordered by both.
    fn list_aliases(
        &mut self,
        domain: &DomainName,
        after: Option<(&Address, &[u8])>,
        limit: u32,
    ) -> Answer<Vec<(Address, Vec<u8>)>>;

    /// Adds a line to an alias; `false` when it was there already.
    fn add_alias(&mut self, address: &Address, line: &[u8]) -> Answer<bool>;

    /// Removes a line of an alias, or with `None` all of them; the number removed.
    fn remove_alias(&mut self, address: &Address, line: Option<&[u8]>) -> Answer<u64>;

    /// The limits of a domain or of one address; the key is the text of either.
    fn limits(&mut self, key: &str) -> Answer<Option<Limits>>;

    /// Sets (or with `None` removes) the limits of a domain or of one address.
    fn set_limits(&mut self, key: &str, limits: Option<&Limits>) -> Answer<()>;

    /// Gives an account Unix ids of its own, or with `None` takes them; `false` when the user id belongs
    /// to another account.
    fn set_ids(&mut self, address: &Address, ids: Option<UnixIds>) -> Answer<bool>;

    /// Notes that something happened; the previous event of the same service is forgotten.
    fn note(&mut self, address: &Address, event: &Event) -> Answer<()>;

    /// The last event of every service.
    fn events(&mut self, address: &Address) -> Answer<Vec<Event>>;

    /// Did this account log in from this address at `since` (seconds since 1970) or later, so that it
    /// may relay?
    fn may_relay(&mut self, address: &Address, ip: &str, since: i64) -> Answer<bool>;

    /// Notes a login that opens the relay.
    fn open_relay(&mut self, address: &Address, ip: &str, at: i64) -> Answer<()>;

    /// Asks the store for a sign of life.
    fn ping(&mut self) -> Answer<()>;
}

/// Opens stores of the same settings, one for each worker. On a MySQL server their connections are of one
/// pool: together they never have more than [`StoreSettings::connections`].
#[derive(Debug, Clone)]
pub struct StorePool(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Sqlite(std::path::PathBuf, crate::Timeouts),
    MySql(mysql::Shared),
}

impl StorePool {
    /// A pool without connections yet.
    #[must_use]
    pub fn new(settings: &StoreSettings) -> Self {
        Self(match &settings.kind {
            StoreKind::Sqlite(path) => Kind::Sqlite(path.clone(), settings.timeouts),
            StoreKind::MySql(server) => {
                Kind::MySql(mysql::Shared::new(server.clone(), settings.timeouts, settings.connections))
            }
        })
    }

    /// A store. It connects on its first question and keeps the connection until it is dropped; when all
    /// are in use it waits for one, at most [`crate::Timeouts::connect`], and then cannot tell.
    #[must_use]
    pub fn open(&self) -> Box<dyn AccountStore> {
        match &self.0 {
            Kind::Sqlite(path, timeouts) => {
                Box::new(sql::SqlStore::new(sqlite::Sqlite::new(path.clone(), *timeouts)))
            }
            Kind::MySql(shared) => Box::new(sql::SqlStore::new(mysql::MySql::new(shared.clone()))),
        }
    }
}

/// The store these settings name, with a pool of its own. Nothing is touched before the first question.
#[must_use]
pub fn open_store(settings: &StoreSettings) -> Box<dyn AccountStore> {
    StorePool::new(settings).open()
}

/// Creates what the store consists of (the SQLite file, the database and its tables) where it is
/// missing; what is there stays. `owner` becomes the owner of a new SQLite file.
///
/// # Errors
/// It cannot be created or is damaged.
pub fn create_store(settings: &StoreSettings, owner: unix::durable::Owner) -> Answer<()> {
    match &settings.kind {
        StoreKind::Sqlite(path) => sqlite::create(path, settings.timeouts, owner),
        StoreKind::MySql(server) => mysql::create(server, settings.timeouts),
    }
}
