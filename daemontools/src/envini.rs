//! envini: variables from a file with sections.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::chain;

/// The table of envini.
pub static SPEC: Spec = Spec {
    name: "envini",
    summary: "run a program with variables from a file with sections",
    section: 8,
    place: Place::Bin,
    options: &[OptionSpec::value('p', "prefix", "put prefix before the name of each variable")],
    operands: Operands { synopsis: "file program [arg ...]", min: 2, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "file cannot be read or the program cannot be run" },
    ],
    description: "\
A line name=value sets a variable; blanks and tabs around name and value do not count. After a line [section] the names of \
variables begin with section and an underscore. Lines that start with ; and all others are passed over.",
    ..Spec::EMPTY
};

/// envini.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let prefix = parsed.value("p").unwrap_or_default();
    if prefix.as_bytes().contains(&b'=') {
        invocation.complain("fatal", "option -p: a variable's name cannot hold =");
        return Exit::PERMANENT;
    }
    let path = Path::new(&parsed.operands[0]);
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) => {
            let why = chain::phrase(&e);
            invocation.complain("fatal", format_args!("unable to read {}: {why}", path.display()));
            return Exit::TEMPORARY;
        }
    };
    let assignments = match parse(&text) {
        Ok(assignments) => assignments,
        Err(line) => {
            let path = path.display();
            invocation.complain("fatal", format_args!("{path}:{line}: a variable cannot hold a NUL byte"));
            return Exit::TEMPORARY;
        }
    };
    let mut environment = invocation.environment.clone();
    for (name, value) in assignments {
        environment.set(OsString::from_iter([prefix, OsStr::from_bytes(&name)]), OsString::from_vec(value));
    }
    chain::become_program(invocation, &parsed.operands[1..], &environment)
}

/// A variable: name and value.
pub type Assignment = (Vec<u8>, Vec<u8>);

/// Names, with their sections, and values, in the order of the file.
///
/// # Errors
/// The number of a line that sets a variable and holds a NUL byte.
pub fn parse(text: &[u8]) -> Result<Vec<Assignment>, usize> {
    let mut section: Vec<u8> = Vec::new();
    let mut all = Vec::new();
    for (number, line) in text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).enumerate() {
        if line.starts_with(b";") {
            continue;
        }
        if let Some(name) = line.strip_prefix(b"[").and_then(|l| l.strip_suffix(b"]")) {
            let name = name.trim_ascii();
            // Names of variables hold no =, and no section is no prefix.
            section =
                if name.contains(&b'=') || name.is_empty() { Vec::new() } else { [name, b"_"].concat() };
            continue;
        }
        let Some(at) = line.iter().position(|&b| b == b'=') else { continue };
        let (name, value) = (line[..at].trim_ascii_end(), line[at + 1..].trim_ascii_start());
        if name.is_empty() {
            continue;
        }
        if line.contains(&0) || section.contains(&0) {
            return Err(number + 1);
        }
        all.push(([&section, name].concat(), value.to_vec()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<String> {
        let text_of = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        parse(text.as_bytes())
            .unwrap()
            .iter()
            .map(|(n, v)| format!("{}={}", text_of(n), text_of(v)))
            .collect()
    }

    #[test]
    fn sections_comments_and_blanks() {
        let text = "a=1\n b\t=  two words \t\r\n;c=3\n; [x]\nnothing\n=x\n[ s ]\na=2=3\nempty=\n[t]\nq=\"x\"\n[]\nlast=1";
        let want = ["a=1", "b=two words", "s_a=2=3", "s_empty=", "t_q=\"x\"", "last=1"];
        assert_eq!(shown(text), want);
        assert_eq!(parse(b"a=1\nb\0=2\n"), Err(2));
        assert_eq!(parse(b"b\0\n;\0\n"), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn every_result_can_be_a_variable(text in "[a=;\\[\\] \n\0]{0,60}") {
            for (name, value) in parse(text.as_bytes()).unwrap_or_default() {
                prop_assert!(!name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0));
            }
        }
    }
}
