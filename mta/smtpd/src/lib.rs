//! qmail-smtpd: one SMTP session.
