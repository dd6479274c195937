//! Rows of accounts: reading them, and the statements that write them.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::driver::{Row, Sql, SqlError, Value};
use super::table::Table;
use crate::{Account, Address, Answer, SecretBytes, ServiceFlags, SyncState, Unavailable, UnixIds};

/// Columns of an account, in the order [`read`] takes them.
const ACCOUNT: &str = "a.pw_name, a.pw_domain, a.pw_passwd, a.pw_uid, a.pw_gid, a.pw_gecos, a.pw_dir, \
                       a.pw_shell, a.scram, i.uid, i.gid";

/// Selects accounts, active and inactive ones, each with the `active` column after those of [`read`].
pub(super) fn select(condition: &str, tail: &str) -> [String; 2] {
    [Table::Active, Table::Inactive].map(|table| {
        let active = u8::from(table == Table::Active);
        format!(
            "SELECT {ACCOUNT}, {active} AS active FROM {} a LEFT JOIN {} i \
             ON i.pw_name = a.pw_name AND i.pw_domain = a.pw_domain WHERE {condition}{tail}",
            table.name(),
            Table::Ids.name()
        )
    })
}

/// The account a row is; `store` names the database in the error.
pub(super) fn read(store: &str, mut row: Row) -> Answer<Account> {
    let (local, domain) = (row.bytes().unwrap_or_default(), row.bytes().unwrap_or_default());
    let broken = |what: &str, why: &dyn std::fmt::Display| {
        let (local, domain) = (local.escape_ascii(), domain.escape_ascii());
        Unavailable::new(store, format!("row {local}@{domain}: column {what}: {why}"))
    };
    let address = Address::new(&local, &domain).map_err(|e| broken("pw_name, pw_domain", &e))?;
    let password = SecretBytes::new(row.bytes().unwrap_or_default());
    let state = SyncState(row.number().unwrap_or(SyncState::IN_STEP.0));
    let bits = u32::try_from(row.number().unwrap_or(0)).map_err(|e| broken("pw_gid", &e))?;
    let gecos = row.text();
    let home = row.bytes().unwrap_or_default();
    let quota = crate::parse_quota(&row.bytes().unwrap_or_default()).map_err(|e| broken("pw_shell", &e))?;
    let scram = row.bytes().filter(|s| !s.is_empty()).map(SecretBytes::new);
    let own_ids = match (row.number(), row.number()) {
        (Some(uid), Some(gid)) => Some(UnixIds {
            uid: u32::try_from(uid).map_err(|e| broken("uid", &e))?,
            gid: u32::try_from(gid).map_err(|e| broken("gid", &e))?,
        }),
        _ => None,
    };
    Ok(Account {
        address,
        password,
        scram,
        own_ids,
        state,
        flags: ServiceFlags::from_bits(bits),
        gecos,
        home: std::ffi::OsString::from_vec(home).into(),
        quota,
        active: row.number() == Some(1),
    })
}

/// The address that the first two cells of a row are.
pub(super) fn address_of([local, domain]: &[Value; 2]) -> Option<Address> {
    match (local, domain) {
        (Value::Bytes(local), Value::Bytes(domain)) => Address::new(local, domain).ok(),
        _ => None,
    }
}

pub(super) fn key(address: &Address) -> [Value; 2] {
    [address.local().into(), address.domain().as_str().into()]
}

/// The columns of an account row after its key.
pub(super) fn cells(account: &Account) -> [Value; 7] {
    [
        account.password.expose().into(),
        account.state.0.into(),
        account.flags.bits().into(),
        account.gecos.as_str().into(),
        account.home.as_os_str().as_bytes().into(),
        account.quota.to_string().as_str().into(),
        account.scram.as_ref().map_or(Value::Null, |s| s.expose().into()),
    ]
}

pub(super) fn table_for(account: &Account) -> (Table, Table) {
    if account.active { (Table::Active, Table::Inactive) } else { (Table::Inactive, Table::Active) }
}

const INSERT_COLUMNS: &str =
    "pw_name, pw_domain, pw_passwd, pw_uid, pw_gid, pw_gecos, pw_dir, pw_shell, scram";

/// Inserts into `table` unless `other` has the key. `Duplicate` becomes `false`.
pub(super) fn insert<S: Sql>(
    s: &mut S,
    account: &Account,
    table: Table,
    other: Table,
) -> Result<bool, SqlError> {
    let sql = format!(
        "INSERT INTO {} ({INSERT_COLUMNS}) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? {} WHERE NOT EXISTS \
         (SELECT 1 FROM {} WHERE pw_name = ? AND pw_domain = ?)",
        table.name(),
        S::DIALECT.from_nothing,
        other.name()
    );
    let parameters: Vec<Value> =
        key(&account.address).into_iter().chain(cells(account)).chain(key(&account.address)).collect();
    match s.execute(&sql, &parameters) {
        Ok(n) => Ok(n == 1),
        Err(SqlError::Duplicate) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Does the user id belong to another account?
pub(super) fn ids_taken<S: Sql>(s: &mut S, address: &Address, ids: UnixIds) -> Result<bool, SqlError> {
    let sql =
        format!("SELECT 1 FROM {} WHERE uid = ? AND NOT (pw_name = ? AND pw_domain = ?)", Table::Ids.name());
    let [name, domain] = key(address);
    Ok(!s.query(&sql, &[ids.uid.into(), name, domain])?.is_empty())
}

pub(super) fn write_ids<S: Sql>(s: &mut S, address: &Address, ids: Option<UnixIds>) -> Result<(), SqlError> {
    let table = Table::Ids.name();
    s.execute(&format!("DELETE FROM {table} WHERE pw_name = ? AND pw_domain = ?"), &key(address))?;
    let Some(ids) = ids else {
        return Ok(());
    };
    let [name, domain] = key(address);
    let sql = format!("INSERT INTO {table} (pw_name, pw_domain, uid, gid) VALUES (?, ?, ?, ?)");
    s.execute(&sql, &[name, domain, ids.uid.into(), ids.gid.into()]).map(|_| ())
}
