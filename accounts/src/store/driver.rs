//! A driver: what the store contract needs of a database connection.

use super::table::Dialect;
use crate::{Answer, Unavailable};

/// What a driver can say instead of an answer.
#[derive(Debug)]
pub(crate) enum SqlError {
    /// A key exists already.
    Duplicate,
    /// A table does not exist.
    MissingTable,
    /// The server chose this transaction to give way to another; it may be tried again.
    Conflict(Unavailable),
    /// The connection was lost before the statement was answered.
    Lost(Unavailable),
    /// Anything else.
    Unavailable(Unavailable),
}

impl From<Unavailable> for SqlError {
    fn from(u: Unavailable) -> Self {
        Self::Unavailable(u)
    }
}

/// A value of a parameter or a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Number(i64),
    Bytes(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Number(n)
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Self::Number(i64::from(n))
    }
}

/// One row, taken cell by cell from the left.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(crate) fn new(cells: Vec<Value>) -> Self {
        Self(cells.into_iter())
    }

    /// The first two cells.
    pub(super) fn start(&self) -> [Value; 2] {
        let cell = |n| self.0.as_slice().get(n).cloned().unwrap_or(Value::Null);
        [cell(0), cell(1)]
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::Null => None,
            Value::Number(n) => Some(n.to_string().into_bytes()),
            Value::Bytes(b) => Some(b),
        }
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes().unwrap_or_default()).into_owned()
    }

    pub(super) fn number(&mut self) -> Option<i64> {
        match self.0.next()? {
            Value::Null => None,
            Value::Number(n) => Some(n),
            Value::Bytes(b) => std::str::from_utf8(&b).ok()?.trim().parse().ok(),
        }
    }
}

/// A driver: runs statements with bound parameters on one connection that it makes when needed.
pub(crate) trait Sql: Send {
    /// Its language.
    const DIALECT: &'static Dialect;
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError>;
    /// Rows that matched (not only those that changed).
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError>;
    fn begin(&mut self) -> Result<(), SqlError>;
    fn commit(&mut self) -> Result<(), SqlError>;
    /// Gives up the transaction, if need be with the connection.
    fn rollback(&mut self);
    /// Creates missing tables. For reading, the table of accounts itself must be there: a database
    /// without it is not one that can say "no such account".
    fn create_missing(&mut self, for_writing: bool) -> Answer<()>;
    /// Names the store in messages.
    fn name(&self) -> String;
}
