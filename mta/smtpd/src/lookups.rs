//! Questions to the lookup daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lookup::Unavailable;
use lookup::mail::Client;
use serve::Breaker;

use crate::settings::Settings;

/// One connection to the daemon, opened by the first question and kept.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    open: Option<(PathBuf, Duration, Client)>,
    breaker: Option<Arc<Breaker>>,
}

impl Lookups {
    /// For one of several workers: while the daemon hangs, they do not all wait for it.
    pub(crate) fn sharing(breaker: Arc<Breaker>) -> Self {
        Self { open: None, breaker: Some(breaker) }
    }

    /// Asks the daemon that these settings name.
    ///
    /// # Errors
    /// There is no answer; the text says why.
    pub(crate) fn ask<T>(
        &mut self,
        settings: &Settings,
        question: impl FnOnce(&mut Client) -> Result<T, Unavailable>,
    ) -> Result<T, String> {
        let (socket, patience) = (&settings.inlookup, settings.lookup_patience);
        if self.open.as_ref().is_some_and(|(s, p, _)| s != socket || *p != patience) {
            self.open = None;
        }
        let open = || (socket.clone(), patience, Client::new(socket, patience));
        let (_, _, client) = self.open.get_or_insert_with(open);
        let answer = match &self.breaker {
            Some(breaker) => breaker.ask(|| Unavailable::TimedOut, || question(client)),
            None => question(client),
        };
        answer.map_err(|e| format!("{}: {e}", socket.display()))
    }
}
