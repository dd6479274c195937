//! Maildir and Maildir++ delivery and quota.
