//! The admin's commands over accounts.
