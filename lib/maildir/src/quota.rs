//! Maildir++ quotas: limits, the `maildirsize` file, the verdict on one more message.
//!
//! `maildirsize` begins with the limits in force (`1000000S,1000C`); every other line is a number of
//! bytes and a number of messages to be added up, negative for removals. A delivery appends one
//! line. The sums are recalculated from the tree when the file is missing, old, long, damaged or
//! negative, or was written under other limits; then the file is rewritten in place under a lock.

mod limits;
mod size_file;
mod walk;

pub use limits::{Quota, QuotaError};
pub use size_file::{Contents, Policy, Usage, Verdict, add, check, recalculate};
pub use walk::{size_in_name, usage_of_tree};
