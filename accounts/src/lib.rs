//! Mail accounts: what they are, where they are kept, and the domains they belong to.
//!
//! ```text
//!   Settings ──► Accounts ──► Domains        users/assign, compiled to users/cdb: name → real domain, ids
//!                   │
//!                   └──────► AccountStore    rows: accounts, aliases, limits, last logins
//!                             ├─ SQLite      (the default: one file)
//!                             └─ MySQL/MariaDB (the connections of a daemon's workers: one pool)
//!   password                 verify and create: crypt(3) schemes, argon2id, SCRAM secrets
//!   Editor                   changes to users/assign and the control files of a domain
//! ```
//!
//! [`Accounts`] is the paved way: it resolves an alias domain to its real one before every lookup and
//! write, and fills in the Unix ids of an account. The store below it knows real domains only.
//!
//! Invariants:
//! - Three answers never mix: `Ok(Some(..))`, `Ok(None)` (there is none), `Err(Unavailable)` (cannot
//!   tell). A store whose file or tables are missing cannot tell.
//! - An [`Address`] that exists is valid: its parts are lower case, safe as path components and as SQL
//!   values; a name that is not valid cannot name an account.
//! - Opening never fails: a store connects on first use, and connects again after its server was away.
//!
//! Not here: delivery, the lookup daemons and their caches, the command-line tools.

#![deny(unsafe_code)]

mod accounts;
mod address;
mod domains;
mod error;
mod flags;
mod limits;
mod model;
pub mod password;
mod quota;
mod settings;
mod store;

pub use accounts::{Accounts, AccountsPool, Entry, Page};
pub use address::{Address, DomainName};
pub use domains::{Domain, Domains, Editor};
pub use error::{Answer, Invalid, Unavailable};
pub use flags::ServiceFlags;
pub use limits::Limits;
pub use maildir::Quota;
pub use model::{Account, SecretBytes, SyncState, UnixIds};
pub use quota::parse_quota;
pub use settings::{HostMysql, MySqlServer, Settings, StoreKind, StoreSettings, Timeouts};
pub use store::{AccountStore, Added, Event, Service, StorePool, create_store, open_store};
