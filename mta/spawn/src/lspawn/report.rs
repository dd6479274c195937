//! What the end of a local delivery means to qmail-send.

use mta_queue::spawn_protocol::Verdict;
use unix::child::Ending;

use crate::request::{Answer, defer};

/// An exit code with a meaning of its own between qmail-lspawn and its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

macro_rules! codes {
    ($($name:ident = $number:literal, $verdict:ident, $text:literal;)+) => {
        impl Code {
            $(#[doc = $text] pub const $name: Self = Self($number);)+
        }
        static TABLE: &[(Code, Verdict, &str)] = &[$((Code($number), Verdict::$verdict, $text)),+];
    };
}

codes! {
    USAGE = 112, Deferral, "qmail-lspawn started a program in a way that it does not understand (#4.3.5)";
    ROOT = 113, Deferral, "not allowed to deliver mail as root (#4.3.0)";
    NFS = 115, Deferral, "the home directory cannot be looked at (#4.3.0)";
    ALIAS = 116, Deferral, "the user alias does not exist (#4.3.0)";
    CDB = 117, Deferral, "trouble reading the compiled assignments (#4.3.0)";
    SYSTEM = 118, Deferral, "system error while looking for the recipient (#4.3.0)";
    MEMORY = 119, Deferral, "out of memory (#4.3.0)";
    EXEC_SOFT = 120, Deferral, "cannot run qmail-local now (#4.3.0)";
    EXEC_GETPW = 121, Deferral, "cannot run qmail-getpw (#4.3.0)";
    DIRECTORY = 122, Deferral, "cannot change the directory (#4.3.0)";
    EXEC_HARD = 126, Failure, "cannot run qmail-local (#5.3.0)";
    USER = 127, Deferral, "cannot become the recipient's user (#4.3.0)";
}

impl Code {
    fn row(self) -> Option<&'static (Code, Verdict, &'static str)> {
        TABLE.iter().find(|row| row.0 == self)
    }

    /// The report for this code.
    #[must_use]
    pub fn answer(self) -> Answer {
        match self.row() {
            Some((_, verdict, text)) => (*verdict, format!("{text}\n").into_bytes()),
            None => defer("unknown trouble in qmail-lspawn (#4.3.0)\n"),
        }
    }

    /// The report for this code, with the reason.
    #[must_use]
    pub fn answer_because(self, why: impl std::fmt::Display) -> Answer {
        let (verdict, text) = self.answer();
        (verdict, [text.trim_ascii_end(), format!(": {why}\n").as_bytes()].concat())
    }
}

/// The report for a delivery that ended like this and printed `output`.
#[must_use]
pub fn report(ending: Ending, output: &[u8]) -> Answer {
    let code = match ending {
        Ending::Killed(signal) => {
            return defer(format!("qmail-local was killed by signal {signal} (#4.3.0)\n"));
        }
        Ending::Exited(code) => code,
    };
    let special = u8::try_from(code).ok().map(Code).filter(|c| c.row().is_some());
    if let Some(special) = special {
        return special.answer();
    }
    let verdict = match code {
        0 => Verdict::Success,
        111 | 71 | 74 | 75 => Verdict::Deferral,
        _ => Verdict::Failure,
    };
    (verdict, output.to_vec())
}

/// The report when qmail-getpw failed: always a deferral.
#[must_use]
pub(super) fn while_finding(ending: Ending) -> Answer {
    match ending {
        Ending::Exited(code) => {
            let code = u8::try_from(code)
                .ok()
                .map(Code)
                .filter(|c| c.row().is_some_and(|r| r.1 == Verdict::Deferral));
            code.unwrap_or(Code::SYSTEM).answer()
        }
        Ending::Killed(signal) => {
            Code::SYSTEM.answer_because(format!("qmail-getpw was killed by signal {signal}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_exit_codes() {
        let letter = |n: i32| char::from(report(Ending::Exited(n), b"text").0.letter());
        assert_eq!(letter(0), 'K');
        for n in [111, 71, 74, 75, 112, 113, 115, 116, 117, 118, 119, 120, 121, 122, 127] {
            assert_eq!(letter(n), 'Z', "{n}");
        }
        for n in [1, 2, 64, 65, 70, 76, 77, 78, 99, 100, 114, 123, 126, 255] {
            assert_eq!(letter(n), 'D', "{n}");
        }
        assert_eq!(report(Ending::Killed(9), b"").0, Verdict::Deferral);
        assert_eq!(report(Ending::Exited(100), b"no such user\n").1, b"no such user\n");
    }

    #[test]
    fn trouble_while_finding_never_bounces() {
        for n in 1..=255 {
            assert_eq!(while_finding(Ending::Exited(n)).0, Verdict::Deferral, "{n}");
        }
        assert_eq!(while_finding(Ending::Killed(11)).0, Verdict::Deferral);
    }
}
