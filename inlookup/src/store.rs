//! The store of accounts as the control files name it now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use accounts::{Accounts, AccountsPool, Unavailable};

use crate::settings::Places;

/// Opens the accounts for every thread that needs them.
#[derive(Debug)]
pub struct Store {
    places: Places,
    pool: RwLock<AccountsPool>,
    /// Counts reloads; what was opened in an older generation is to be opened anew.
    generation: AtomicU64,
}

/// The accounts of one thread.
#[derive(Debug)]
pub struct Opened<T> {
    generation: u64,
    /// What the thread made of its accounts.
    pub value: T,
}

impl Store {
    /// The store of these settings, which were read from `places`.
    #[must_use]
    pub fn new(places: Places, settings: &accounts::Settings) -> Self {
        Self { places, pool: RwLock::new(AccountsPool::new(settings)), generation: AtomicU64::new(0) }
    }

    /// Opens the accounts.
    pub fn open<T>(&self, make: impl FnOnce(Accounts) -> T) -> Opened<T> {
        let generation = self.generation.load(Ordering::Acquire);
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        Opened { generation, value: make(pool.open()) }
    }

    /// Was it opened before the last reload?
    pub fn is_old<T>(&self, opened: &Opened<T>) -> bool {
        opened.generation != self.generation.load(Ordering::Acquire)
    }

    /// Reads the control files again; what the store is now.
    ///
    /// # Errors
    /// They make no sense; the old settings stay.
    pub fn reload(&self) -> Result<String, Unavailable> {
        let settings = self.places.accounts()?;
        let name = settings.store.describe();
        let pool = AccountsPool::new(&settings);
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = pool;
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(name)
    }
}
