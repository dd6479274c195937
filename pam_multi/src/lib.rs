//! PAM module: login with the mail password.
