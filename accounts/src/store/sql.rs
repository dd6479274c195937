//! The store contract, once, over any driver.

use super::driver::{Row, Sql, SqlError, Value};
use super::rows::{self, ids_taken, key, table_for, write_ids};
use super::table::Table;
use super::{AccountStore, Added, Event, Service};
use crate::{Account, Address, Answer, DomainName, Limits, SecretBytes, ServiceFlags, Unavailable, UnixIds};

/// The contract over a driver.
pub(crate) struct SqlStore<S>(S);

/// Tries of a transaction that has to give way.
const TRIES: u32 = 20;

impl<S: Sql> SqlStore<S> {
    pub(crate) fn new(driver: S) -> Self {
        Self(driver)
    }

    /// Runs a question; a lost connection is made again once, missing tables are created once.
    fn read<T>(&mut self, mut question: impl FnMut(&mut S) -> Result<T, SqlError>) -> Answer<T> {
        let (mut reconnected, mut created) = (false, false);
        loop {
            match question(&mut self.0) {
                Ok(answer) => return Ok(answer),
                Err(SqlError::Lost(_)) if !reconnected => reconnected = true,
                Err(SqlError::MissingTable) if !created => {
                    self.0.create_missing(false)?;
                    created = true;
                }
                Err(e) => return Err(self.give_up(e)),
            }
        }
    }

    /// Runs a change as one transaction. It is tried again when the connection was lost before the commit
    /// was sent or the server made it give way; when the outcome of a commit is unknown, it is not.
    fn write<T>(&mut self, mut change: impl FnMut(&mut S) -> Result<T, SqlError>) -> Answer<T> {
        let (mut reconnected, mut created, mut tries) = (false, false, 0);
        loop {
            let outcome = self.0.begin().and_then(|()| change(&mut self.0));
            let error = match outcome {
                Ok(value) => match self.0.commit() {
                    Ok(()) => return Ok(value),
                    Err(SqlError::Conflict(u)) => SqlError::Conflict(u),
                    Err(e) => {
                        self.0.rollback();
                        let why = self.give_up(e);
                        let what = "while the change was committed: it may have been made or not; look before trying again";
                        return Err(Unavailable::new(why, what));
                    }
                },
                Err(e) => e,
            };
            self.0.rollback();
            match error {
                SqlError::Lost(_) if !reconnected => reconnected = true,
                SqlError::MissingTable if !created => {
                    self.0.create_missing(true)?;
                    created = true;
                }
                SqlError::Conflict(_) if tries < TRIES => {
                    tries += 1;
                    give_way(tries);
                }
                e => return Err(self.give_up(e)),
            }
        }
    }

    fn give_up(&self, error: SqlError) -> Unavailable {
        match error {
            SqlError::Unavailable(u) | SqlError::Lost(u) | SqlError::Conflict(u) => u,
            SqlError::MissingTable => Unavailable::new(self.0.name(), "a table is missing"),
            SqlError::Duplicate => Unavailable::new(self.0.name(), "a key exists twice"),
        }
    }

    /// At most `limit` raw rows after the key `from`.
    fn page(&mut self, domain: Option<&DomainName>, from: &[Value; 2], limit: u32) -> Answer<Vec<Row>> {
        let [name, dom] = from.clone();
        let (condition, keys) = match domain {
            Some(d) => ("a.pw_domain = ? AND a.pw_name > ?", vec![d.as_str().into(), name]),
            None => ("a.pw_name >= ? AND (a.pw_name > ? OR a.pw_domain > ?)", vec![name.clone(), name, dom]),
        };
        let tail = " ORDER BY a.pw_name, a.pw_domain LIMIT ?";
        let [active, inactive] = rows::select(condition, tail);
        let sql = format!(
            "SELECT * FROM ({active}) AS x UNION ALL SELECT * FROM ({inactive}) AS y \
             ORDER BY pw_name, pw_domain LIMIT ?"
        );
        let limit = Value::from(limit);
        let mut parameters = Vec::new();
        for _ in 0..2 {
            parameters.extend(keys.iter().cloned());
            parameters.push(limit.clone());
        }
        parameters.push(limit);
        self.read(|s| s.query(&sql, &parameters))
    }

    fn read_account(&self, row: Row) -> Answer<Account> {
        rows::read(&self.0.name(), row)
    }
}

impl<S: Sql> AccountStore for SqlStore<S> {
    fn account(&mut self, address: &Address) -> Answer<Option<Account>> {
        let [active, inactive] = rows::select("a.pw_name = ? AND a.pw_domain = ?", "");
        let sql = format!("{active} UNION ALL {inactive}");
        let parameters = [key(address), key(address)].concat();
        let rows = self.read(|s| s.query(&sql, &parameters))?;
        // An account being moved may be seen in both; the active row comes first.
        let found = rows.into_iter().next().map(|row| self.read_account(row)).transpose()?;
        // A server may compare more loosely (case, accents) than addresses are equal.
        Ok(found.filter(|a| a.address == *address))
    }

    fn account_by_uid(&mut self, uid: u32) -> Answer<Option<Account>> {
        let [active, inactive] = rows::select("i.uid = ?", "");
        let sql = format!("{active} UNION ALL {inactive}");
        let rows = self.read(|s| s.query(&sql, &[uid.into(), uid.into()]))?;
        rows.into_iter().next().map(|row| self.read_account(row)).transpose()
    }

    fn list(
        &mut self,
        domain: Option<&DomainName>,
        after: Option<&Address>,
        limit: u32,
    ) -> Answer<Vec<Account>> {
        let mut from: [Value; 2] =
            [after.map_or("", Address::local).into(), after.map_or("", |a| a.domain().as_str()).into()];
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut accounts = Vec::new();
        loop {
            let rows = self.page(domain, &from, limit)?;
            let last = rows.len() < most;
            for row in rows {
                from = row.start();
                // A table shared with other tools may have names that no address can have; no
                // question finds those either.
                if rows::address_of(&from).is_some() {
                    accounts.push(self.read_account(row)?);
                    if accounts.len() == most {
                        return Ok(accounts);
                    }
                }
            }
            if last {
                return Ok(accounts);
            }
        }
    }

    fn count(&mut self, domain: &DomainName) -> Answer<(u64, u64)> {
        let mut one = |table: Table| -> Answer<u64> {
            let sql = format!("SELECT COUNT(*) FROM {} WHERE pw_domain = ?", table.name());
            let rows = self.read(|s| s.query(&sql, &[domain.as_str().into()]))?;
            let count = rows.into_iter().next().and_then(|mut row| row.number());
            Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
        };
        Ok((one(Table::Active)?, one(Table::Inactive)?))
    }

    fn insert(&mut self, account: &Account) -> Answer<Added> {
        let (table, other) = table_for(account);
        self.write(|s| {
            if let Some(ids) = account.own_ids
                && ids_taken(s, &account.address, ids)?
            {
                return Ok(Added::IdsTaken);
            }
            if !rows::insert(s, account, table, other)? {
                return Ok(Added::Exists);
            }
            write_ids(s, &account.address, account.own_ids)?;
            Ok(Added::Done)
        })
    }

    fn update(&mut self, account: &Account) -> Answer<bool> {
        let (table, other) = table_for(account);
        let set = "pw_passwd = ?, pw_uid = ?, pw_gid = ?, pw_gecos = ?, pw_dir = ?, pw_shell = ?, scram = ?";
        let sql = format!("UPDATE {} SET {set} WHERE pw_name = ? AND pw_domain = ?", table.name());
        let parameters: Vec<Value> = rows::cells(account).into_iter().chain(key(&account.address)).collect();
        let delete = format!("DELETE FROM {} WHERE pw_name = ? AND pw_domain = ?", other.name());
        self.write(|s| {
            if s.execute(&sql, &parameters)? > 0 {
                return Ok(true);
            }
            if s.execute(&delete, &key(&account.address))? == 0 {
                return Ok(false);
            }
            rows::insert(s, account, table, other)
        })
    }

    fn set_password(
        &mut self,
        address: &Address,
        password: &SecretBytes,
        scram: Option<&SecretBytes>,
    ) -> Answer<bool> {
        let [name, domain] = key(address);
        let scram = scram.map_or(Value::Null, |s| s.expose().into());
        let parameters = [password.expose().into(), scram, name, domain];
        self.write(|s| {
            let mut rows = 0;
            for table in [Table::Active, Table::Inactive] {
                let set = "pw_passwd = ?, scram = ? WHERE pw_name = ? AND pw_domain = ?";
                rows += s.execute(&format!("UPDATE {} SET {set}", table.name()), &parameters)?;
            }
            Ok(rows > 0)
        })
    }

    fn withdraw(&mut self, address: &Address) -> Answer<bool> {
        let key = key(address);
        self.write(|s| {
            let mut rows = 0;
            for table in [Table::Active, Table::Inactive, Table::Ids] {
                let sql = format!("DELETE FROM {} WHERE pw_name = ? AND pw_domain = ?", table.name());
                rows += s.execute(&sql, &key)?;
            }
            Ok(rows > 0)
        })
    }

    fn delete(&mut self, address: &Address) -> Answer<bool> {
        let [local, domain] = key(address);
        let text = address.to_string();
        let by = |table: Table, name: &str, dom: &str| {
            format!("DELETE FROM {} WHERE {name} = ? AND {dom} = ?", table.name())
        };
        self.write(|s| {
            let key = [local.clone(), domain.clone()];
            let mut rows = 0;
            for table in [Table::Active, Table::Inactive] {
                rows += s.execute(&by(table, "pw_name", "pw_domain"), &key)?;
            }
            s.execute(&by(Table::Ids, "pw_name", "pw_domain"), &key)?;
            for table in [Table::LastAuth, Table::UserQuota] {
                s.execute(&by(table, "user", "domain"), &key)?;
            }
            s.execute(&by(Table::Alias, "alias", "domain"), &key)?;
            for line in [format!("&{text}"), text.clone()] {
                s.execute(
                    &by(Table::Alias, "valias_line", "domain"),
                    &[line.as_str().into(), domain.clone()],
                )?;
            }
            let limits = format!("DELETE FROM {} WHERE domain = ?", Table::Limits.name());
            s.execute(&limits, &[text.as_str().into()])?;
            let relay = format!("DELETE FROM {} WHERE email = ?", Table::Relay.name());
            s.execute(&relay, &[text.as_str().into()])?;
            Ok(rows > 0)
        })
    }

    fn delete_domain(&mut self, domain: &DomainName) -> Answer<u64> {
        let name = Value::from(domain.as_str());
        // A domain holds neither % nor _, so the pattern means what it says.
        let users = Value::from(format!("%@{domain}").as_str());
        self.write(|s| {
            let mut rows = 0;
            for table in [Table::Active, Table::Inactive] {
                let sql = format!("DELETE FROM {} WHERE pw_domain = ?", table.name());
                rows += s.execute(&sql, std::slice::from_ref(&name))?;
            }
            let sql = format!("DELETE FROM {} WHERE pw_domain = ?", Table::Ids.name());
            s.execute(&sql, std::slice::from_ref(&name))?;
            for table in [Table::Alias, Table::LastAuth, Table::UserQuota, Table::Limits] {
                let sql = format!("DELETE FROM {} WHERE domain = ?", table.name());
                s.execute(&sql, std::slice::from_ref(&name))?;
            }
            for (table, column) in [(Table::Limits, "domain"), (Table::Relay, "email")] {
                let sql = format!("DELETE FROM {} WHERE {column} LIKE ?", table.name());
                s.execute(&sql, std::slice::from_ref(&users))?;
            }
            Ok(rows)
        })
    }

    fn aliases(&mut self, address: &Address) -> Answer<Vec<Vec<u8>>> {
        let sql = format!(
            "SELECT valias_line FROM {} WHERE alias = ? AND domain = ? ORDER BY valias_line",
            Table::Alias.name()
        );
        let rows = self.read(|s| s.query(&sql, &key(address)))?;
        Ok(rows.into_iter().filter_map(|mut row| row.bytes()).collect())
    }

    fn list_aliases(
        &mut self,
        domain: &DomainName,
        after: Option<(&Address, &[u8])>,
        limit: u32,
    ) -> Answer<Vec<(Address, Vec<u8>)>> {
        let sql = format!(
            "SELECT alias, valias_line FROM {} WHERE domain = ? AND alias >= ? AND (alias > ? OR valias_line > ?) \
             ORDER BY alias, valias_line LIMIT ?",
            Table::Alias.name()
        );
        let (alias, line) = after.map_or(("", &b""[..]), |(a, l)| (a.local(), l));
        let parameters = [domain.as_str().into(), alias.into(), alias.into(), line.into(), limit.into()];
        let rows = self.read(|s| s.query(&sql, &parameters))?;
        rows.into_iter()
            .map(|mut row| {
                let (alias, line) = (row.bytes().unwrap_or_default(), row.bytes().unwrap_or_default());
                let address = Address::new(&alias, domain.as_bytes())
                    .map_err(|e| Unavailable::new(self.0.name(), format!("table valias: {e}")))?;
                Ok((address, line))
            })
            .collect()
    }

    fn add_alias(&mut self, address: &Address, line: &[u8]) -> Answer<bool> {
        let sql =
            format!("INSERT INTO {} (alias, domain, valias_line) VALUES (?, ?, ?)", Table::Alias.name());
        let [alias, domain] = key(address);
        let parameters = [alias, domain, line.into()];
        self.write(|s| match s.execute(&sql, &parameters) {
            Ok(_) => Ok(true),
            Err(SqlError::Duplicate) => Ok(false),
            Err(e) => Err(e),
        })
    }

    fn remove_alias(&mut self, address: &Address, line: Option<&[u8]>) -> Answer<u64> {
        let mut sql = format!("DELETE FROM {} WHERE alias = ? AND domain = ?", Table::Alias.name());
        let mut parameters = key(address).to_vec();
        if let Some(line) = line {
            sql.push_str(" AND valias_line = ?");
            parameters.push(line.into());
        }
        self.write(|s| s.execute(&sql, &parameters))
    }

    fn limits(&mut self, key: &str) -> Answer<Option<Limits>> {
        let disable: Vec<&str> = Limits::DISABLE.iter().map(|d| d.0).collect();
        let sql = format!(
            "SELECT domain_expiry, passwd_expiry, maxpopaccounts, maxaliases, diskquota, maxmsgcount, \
             defaultquota, defaultmaxmsgcount, {} FROM {} WHERE domain = ?",
            disable.join(", "),
            Table::Limits.name()
        );
        let rows = self.read(|s| s.query(&sql, &[key.into()]))?;
        Ok(rows.into_iter().next().map(|mut row| {
            let [domain_expiry, password_expiry, max_accounts, max_aliases] =
                std::array::from_fn(|_| row.number().filter(|&n| n >= 0));
            let [disk_quota, max_messages, default_quota, default_max_messages] =
                std::array::from_fn(|_| row.number().unwrap_or(0).max(0));
            let mut disabled = ServiceFlags::NONE;
            for (_, flag) in Limits::DISABLE {
                if row.number().unwrap_or(0) != 0 {
                    disabled |= flag;
                }
            }
            Limits {
                domain_expiry,
                password_expiry,
                max_accounts,
                max_aliases,
                disk_quota,
                max_messages,
                default_quota,
                default_max_messages,
                disabled,
            }
        }))
    }

    fn set_limits(&mut self, key: &str, limits: Option<&Limits>) -> Answer<()> {
        let table = Table::Limits.name();
        let delete = format!("DELETE FROM {table} WHERE domain = ?");
        let disable: Vec<&str> = Limits::DISABLE.iter().map(|d| d.0).collect();
        let insert = format!(
            "INSERT INTO {table} (domain, domain_expiry, passwd_expiry, maxpopaccounts, maxaliases, diskquota, \
             maxmsgcount, defaultquota, defaultmaxmsgcount, {}) VALUES (?{})",
            disable.join(", "),
            ", ?".repeat(8 + disable.len())
        );
        self.write(|s| {
            s.execute(&delete, &[key.into()])?;
            let Some(l) = limits else {
                return Ok(());
            };
            let mut parameters = vec![Value::from(key)];
            let unlimited = [l.domain_expiry, l.password_expiry, l.max_accounts, l.max_aliases];
            parameters.extend(unlimited.map(|n| Value::Number(n.unwrap_or(-1))));
            let counts = [l.disk_quota, l.max_messages, l.default_quota, l.default_max_messages];
            parameters.extend(counts.map(Value::Number));
            parameters.extend(Limits::DISABLE.map(|(_, f)| Value::Number(i64::from(l.disabled.contains(f)))));
            s.execute(&insert, &parameters).map(|_| ())
        })
    }

    fn set_ids(&mut self, address: &Address, ids: Option<UnixIds>) -> Answer<bool> {
        self.write(|s| {
            if let Some(ids) = ids
                && ids_taken(s, address, ids)?
            {
                return Ok(false);
            }
            write_ids(s, address, ids).map(|()| true)
        })
    }

    fn note(&mut self, address: &Address, event: &Event) -> Answer<()> {
        let sql = format!(
            "REPLACE INTO {} (user, domain, service, remote_ip, quota, gecos, timestamp) \
             VALUES (?, ?, ?, ?, 0, '', {})",
            Table::LastAuth.name(),
            S::DIALECT.at
        );
        let [user, domain] = key(address);
        let service = Value::from(event.service.as_str());
        let parameters = [user, domain, service, event.remote_ip.as_str().into(), event.at.into()];
        self.write(|s| s.execute(&sql, &parameters).map(|_| ()))
    }

    fn events(&mut self, address: &Address) -> Answer<Vec<Event>> {
        let sql = format!(
            "SELECT service, remote_ip, {} FROM {} WHERE user = ? AND domain = ? ORDER BY service",
            S::DIALECT.epoch,
            Table::LastAuth.name()
        );
        let rows = self.read(|s| s.query(&sql, &key(address)))?;
        let event = |mut row: Row| {
            let service = Service::parse(&row.bytes()?).ok()?;
            Some(Event { service, remote_ip: row.text(), at: row.number()? })
        };
        Ok(rows.into_iter().filter_map(event).collect())
    }

    fn may_relay(&mut self, address: &Address, ip: &str, since: i64) -> Answer<bool> {
        let sql = format!(
            "SELECT 1 FROM {} WHERE email = ? AND ipaddr = ? AND timestamp >= ?",
            Table::Relay.name()
        );
        let parameters = [address.to_string().as_str().into(), ip.into(), since.into()];
        Ok(!self.read(|s| s.query(&sql, &parameters))?.is_empty())
    }

    fn open_relay(&mut self, address: &Address, ip: &str, at: i64) -> Answer<()> {
        let sql = format!("REPLACE INTO {} (email, ipaddr, timestamp) VALUES (?, ?, ?)", Table::Relay.name());
        let parameters = [address.to_string().as_str().into(), ip.into(), at.into()];
        self.write(|s| s.execute(&sql, &parameters).map(|_| ()))
    }

    fn ping(&mut self) -> Answer<()> {
        self.read(|s| s.query("SELECT 1", &[]).map(|_| ()))
    }
}

/// Lets the others go on: a few milliseconds, more each time, and not the same for two who met.
fn give_way(tries: u32) {
    // Without a random number they may meet again, no more.
    let random = unix::host::random().unwrap_or(0) % 8;
    std::thread::sleep(std::time::Duration::from_millis(u64::from(tries.min(8)) * (1 + random)));
}
