//! One command to configure, check and try the system.
//!
//! ```text
//! svctool try      a complete private system below one directory
//!     session      the steps, from an empty directory to mail in a mailbox
//!       instance   where everything is, what is remembered between runs
//!       users, tree, configuration, services     what is written there, nothing else
//!       keeper     the process that holds the private view and everything that runs in it
//!       view       the mount namespace: /etc, the library directory, reachable parents
//!       proof      a real message, a real lookup, a real login
//!       live       what is going on, until Ctrl-C
//!       leftovers  stopping, and making sure that nothing is left
//! svctool doctor   what is wrong with a system and how to mend it
//! svctool config   what installation sets up outside the installed tree (users)
//! ```
//!
//! Invariants: the machine's own /etc is never written by `try`; every process of a private system
//! is found again by what the kernel says about it, not by what it called itself; no password is
//! ever on a command line.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod doctor;
pub mod instance;
