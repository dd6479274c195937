//! Which queue a command uses that nobody told: variables from directories.

use std::path::{Path, PathBuf};

use program::Environment;
use program::env_directory::{OnUnreadable, read};

/// The environment completed by `$HOME/.defaultqueue`, then, when QUEUE_BASE and QUEUEDIR are still
/// unset, by `CONTROLDIR/defaultqueue`. Trouble with the first is a warning, it is the user's own.
///
/// # Errors
/// `CONTROLDIR/defaultqueue` is there but cannot be read.
pub(crate) fn complete(
    environment: &Environment,
    warn: impl Fn(&dyn std::fmt::Display),
) -> Result<Environment, program::env_directory::Error> {
    let mut complete = environment.clone();
    if !environment.is_set("SKIP_LOCAL_ENVIRONMENT")
        && let Some(home) = environment.get("HOME").filter(|h| !h.is_empty())
    {
        let own = Path::new(home).join(".defaultqueue");
        if own.is_dir() {
            match read(&own, OnUnreadable::Fail) {
                Ok(changes) => changes.apply(&mut complete),
                Err(e) => warn(&e),
            }
        }
    }
    if !complete.is_set("QUEUE_BASE") && !complete.is_set("QUEUEDIR") {
        let site: PathBuf = complete.control_directory().file("defaultqueue");
        if site.is_dir() {
            read(&site, OnUnreadable::Fail)?.apply(&mut complete);
        }
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_comes_first_and_the_site_fills_in() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        std::fs::create_dir_all(at("home/.defaultqueue")).unwrap();
        std::fs::create_dir_all(at("control/defaultqueue")).unwrap();
        std::fs::write(at("home/.defaultqueue/QMAILUSER"), "me\n").unwrap();
        std::fs::write(at("control/defaultqueue/QUEUEDIR"), "/site\n").unwrap();
        let env = Environment::from_iter([("HOME", at("home")), ("CONTROLDIR", at("control"))]);
        let none = |_: &dyn std::fmt::Display| panic!("nothing to warn about");
        let got = complete(&env, none).unwrap();
        assert_eq!((got.bytes("QMAILUSER"), got.bytes("QUEUEDIR")), (Some(&b"me"[..]), Some(&b"/site"[..])));
        let mut mine = env.clone();
        mine.set("QUEUEDIR", "/mine");
        mine.set("SKIP_LOCAL_ENVIRONMENT", "");
        let got = complete(&mine, none).unwrap();
        assert_eq!((got.bytes("QMAILUSER"), got.bytes("QUEUEDIR")), (None, Some(&b"/mine"[..])));
    }
}
