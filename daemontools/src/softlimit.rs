//! softlimit: run a program under resource limits.

use std::ffi::OsStr;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec, Variable};

use crate::chain;

/// The table of softlimit.
pub static SPEC: Spec = Spec {
    name: "softlimit",
    summary: "run a program under resource limits",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::value('a', "n", "total address space, bytes"),
        OptionSpec::value('c', "n", "core file, bytes"),
        OptionSpec::value('d', "n", "data segment, bytes"),
        OptionSpec::value('f', "n", "largest file, bytes"),
        OptionSpec::value('l', "n", "locked memory, bytes"),
        OptionSpec::value('m', "n", "the same as -d n -s n -l n -a n"),
        OptionSpec::value('o', "n", "open files"),
        OptionSpec::value('p', "n", "processes of the user"),
        OptionSpec::value('q', "n", "POSIX message queues, bytes"),
        OptionSpec::value('r', "n", "resident memory, bytes"),
        OptionSpec::value('s', "n", "stack, bytes"),
        OptionSpec::value('t', "n", "processor time, seconds"),
    ],
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    variables: &[
        Variable::new("SOFTLIMIT_ALLBYTES", "As -a."),
        Variable::new("SOFTLIMIT_COREBYTES", "As -c."),
        Variable::new("SOFTLIMIT_DATABYTES", "As -d."),
        Variable::new("SOFTLIMIT_FILEBYTES", "As -f."),
        Variable::new("SOFTLIMIT_LOCKEDBYTES", "As -l."),
        Variable::new("SOFTLIMIT_MEMBYTES", "As -m."),
        Variable::new("SOFTLIMIT_OPENFILES", "As -o."),
        Variable::new("SOFTLIMIT_PROCS", "As -p."),
        Variable::new("SOFTLIMIT_RSSBYTES", "As -r."),
        Variable::new("SOFTLIMIT_STACKBYTES", "As -s."),
        Variable::new("SOFTLIMIT_CPUSECS", "As -t."),
    ],
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "a limit cannot be set or the program cannot be run" },
    ],
    description: "\
n is a number, which may end in k, m or g (times 1024, 1024^2, 1024^3). A limit above the hard limit \
becomes the hard limit. = means the hard limit; -1 or - removes both limits, which needs privilege.

Variables that are set and not empty count first, -m before single limits; options change what they set, in their order.",
    ..Spec::EMPTY
};

/// softlimit.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// A limit as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Hard,
    Unlimited,
    At(rlim_t),
}

impl Limit {
    fn parse(text: &OsStr) -> Option<Self> {
        let text = text.to_str()?;
        match text {
            "=" => return Some(Self::Hard),
            "-" | "-1" => return Some(Self::Unlimited),
            _ => {}
        }
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor: rlim_t = match &text[digits.len()..] {
            "" => 1,
            "k" | "K" => 1 << 10,
            "m" | "M" => 1 << 20,
            "g" | "G" => 1 << 30,
            _ => return None,
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse::<rlim_t>().ok()?.checked_mul(factor).map(Self::At)
    }

    /// Soft and hard limit, from the ones in force.
    fn over(self, hard: rlim_t) -> (rlim_t, rlim_t) {
        match self {
            Self::Hard => (hard, hard),
            Self::Unlimited => (RLIM_INFINITY, RLIM_INFINITY),
            Self::At(n) => (n.min(hard), hard),
        }
    }
}

fn resources(option: &str) -> &'static [Resource] {
    match option {
        "a" => &[Resource::RLIMIT_AS],
        "c" => &[Resource::RLIMIT_CORE],
        "d" => &[Resource::RLIMIT_DATA],
        "f" => &[Resource::RLIMIT_FSIZE],
        "l" => &[Resource::RLIMIT_MEMLOCK],
        "m" => {
            &[Resource::RLIMIT_DATA, Resource::RLIMIT_STACK, Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_AS]
        }
        "o" => &[Resource::RLIMIT_NOFILE],
        "p" => &[Resource::RLIMIT_NPROC],
        "q" => &[Resource::RLIMIT_MSGQUEUE],
        "r" => &[Resource::RLIMIT_RSS],
        "s" => &[Resource::RLIMIT_STACK],
        "t" => &[Resource::RLIMIT_CPU],
        _ => &[],
    }
}

/// The option that a variable stands for.
fn option_of(variable: &str) -> &'static str {
    match variable {
        "SOFTLIMIT_ALLBYTES" => "a",
        "SOFTLIMIT_COREBYTES" => "c",
        "SOFTLIMIT_DATABYTES" => "d",
        "SOFTLIMIT_FILEBYTES" => "f",
        "SOFTLIMIT_LOCKEDBYTES" => "l",
        "SOFTLIMIT_MEMBYTES" => "m",
        "SOFTLIMIT_OPENFILES" => "o",
        "SOFTLIMIT_PROCS" => "p",
        "SOFTLIMIT_RSSBYTES" => "r",
        "SOFTLIMIT_STACKBYTES" => "s",
        "SOFTLIMIT_CPUSECS" => "t",
        _ => "",
    }
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let mut given = Vec::new();
    for variable in SPEC.variables {
        if let Some(value) = invocation.environment.get(variable.name).filter(|v| !v.is_empty()) {
            given.push((format!("variable {}", variable.name), option_of(variable.name), value));
        }
    }
    // The one that sets several must not undo the others.
    given.sort_by_key(|(_, option, _)| *option != "m");
    for (option, value) in parsed.in_order() {
        given.push((format!("option -{option}"), option, value.unwrap_or_default()));
    }
    let mut limits = Vec::new();
    for (source, option, value) in given {
        let Some(limit) = Limit::parse(value) else {
            let shown = value.as_encoded_bytes().escape_ascii();
            invocation.complain("fatal", format_args!("{source}: {shown}: expected a number, = or -"));
            return Exit::PERMANENT;
        };
        limits.extend(resources(option).iter().map(|&r| (source.clone(), r, limit)));
    }
    for (source, resource, limit) in limits {
        let set = getrlimit(resource).and_then(|(_, hard)| {
            let (soft, hard) = limit.over(hard);
            setrlimit(resource, soft, hard)
        });
        if let Err(e) = set {
            invocation.complain("fatal", format_args!("{source}: unable to set the limit: {e}"));
            return Exit::TEMPORARY;
        }
    }
    chain::become_program(invocation, &parsed.operands, &invocation.environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_stands_for_an_option() {
        for variable in SPEC.variables {
            assert!(!resources(option_of(variable.name)).is_empty(), "{}", variable.name);
        }
    }

    #[test]
    fn limits_as_given() {
        let parse = |t: &str| Limit::parse(OsStr::new(t));
        assert_eq!(parse("="), Some(Limit::Hard));
        assert_eq!(parse("-"), Some(Limit::Unlimited));
        assert_eq!(parse("-1"), Some(Limit::Unlimited));
        assert_eq!(parse("77"), Some(Limit::At(77)));
        assert_eq!(parse("3k"), Some(Limit::At(3072)));
        assert_eq!(parse("1g"), Some(Limit::At(1 << 30)));
        for bad in ["", "x", "7x", "-7", "1kk", "7 ", "99999999999999999999", "18446744073709551615k"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(Limit::At(9).over(5), (5, 5));
        assert_eq!(Limit::At(3).over(5), (3, 5));
    }
}
