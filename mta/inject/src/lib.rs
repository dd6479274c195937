//! qmail-inject and sendmail.
