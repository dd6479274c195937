//! NSS module: mail accounts as system accounts.
