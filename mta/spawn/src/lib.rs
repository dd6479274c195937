//! qmail-start, qmail-lspawn, qmail-rspawn.
