//! One line on stderr for what happens, down to the level that was asked for.

use std::io::Write;
use std::str::FromStr;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The daemon ends.
    Fatal,
    /// Something does not work.
    Warning,
    /// The daemon starts, stops, reloads.
    Notice,
    /// Each question.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Debug => "debug",
        }
    }
}

/// The names that syslog has for levels.
impl FromStr for Level {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "emerg" | "alert" | "crit" | "err" | "error" => Ok(Self::Fatal),
            "warning" | "warn" => Ok(Self::Warning),
            "notice" | "info" => Ok(Self::Notice),
            "debug" => Ok(Self::Debug),
            _ => Err(()),
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where lines go.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// Lines below this level are dropped.
    pub level: Level,
}

impl Log {
    /// Would a line of this level be written?
    #[must_use]
    pub fn wants(self, level: Level) -> bool {
        level <= self.level
    }

    /// Writes `nssd: level: text`. A closed stderr must not stop the daemon, so failures are dropped.
    pub fn line(self, level: Level, text: impl std::fmt::Display) {
        if self.wants(level) {
            let _ = writeln!(std::io::stderr(), "nssd: {}: {text}", level.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_syslog_s_names_and_order() {
        for name in "emerg alert crit err error warning warn notice info debug".split(' ') {
            assert!(name.parse::<Level>().is_ok(), "{name}");
        }
        assert!("loud".parse::<Level>().is_err());
        let log = Log { level: Level::Warning };
        assert!(log.wants(Level::Fatal) && log.wants(Level::Warning) && !log.wants(Level::Notice));
    }
}
