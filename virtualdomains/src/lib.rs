//! The admin's commands over accounts and domains.
//!
//! ```text
//! argv ─ Spec ─► Context (places, store, roles) ─► one command ─► store, domain table, directories
//!                                                              ─► daemons told, post-handle program
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`context`] | what every command starts from, and how it ends |
//! | [`settings`] | variables and control files |
//! | [`password`] | where a new password comes from and how it is stored |
//! | [`tree`] | directories made and removed without following links |
//! | [`homes`] | where the home of an account is |
//! | [`after`] | telling daemons, running the post-handle program |
//! | [`undo`] | taking back what was done when a later step fails |
//!
//! Commands never need to be set-id and refuse to be: root runs them, or the user who owns the domain.

#![forbid(unsafe_code)]

mod add_alias_domain;
mod add_domain;
mod add_user;
mod after;
mod alias;
mod context;
mod delete_domain;
mod delete_user;
mod domain_info;
mod homes;
mod modify_user;
mod passwd;
mod password;
mod settings;
mod tree;
mod undo;
mod user_info;

pub use add_alias_domain::PROGRAM as VADDALIASDOMAIN;
pub use add_domain::PROGRAM as VADDDOMAIN;
pub use add_user::PROGRAM as VADDUSER;
pub use alias::PROGRAM as VALIAS;
pub use delete_domain::PROGRAM as VDELDOMAIN;
pub use delete_user::PROGRAM as VDELUSER;
pub use domain_info::PROGRAM as VDOMINFO;
pub use modify_user::PROGRAM as VMODUSER;
pub use passwd::PROGRAM as VPASSWD;
pub use user_info::PROGRAM as VUSERINFO;
