//! qmail-local, vdelivermail and the programs of dot-qmail files.
