//! Options as getopt reads them: letters may be joined, and the first operand ends them.

use std::ffi::{OsStr, OsString};

use crate::spec::{Operands, Spec};

/// The command line cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Options and operands of one command line.
#[derive(Debug, Default)]
pub struct Parsed {
    given: Vec<(String, Option<OsString>)>,
    /// What follows the options.
    pub operands: Vec<OsString>,
    /// So many of them, the last ones, are only there because nothing will be done.
    stand_ins: usize,
}

impl Parsed {
    /// Reads `args` (without the program's name) by the table.
    ///
    /// # Errors
    /// An option that is not in the table, a missing value, too few or too many operands.
    pub fn read(spec: &Spec, args: &[OsString]) -> Result<Self, UsageError> {
        let mut parser = lexopt::Parser::from_args(args);
        let mut parsed = Self::default();
        let error = |e: lexopt::Error| UsageError(e.to_string());
        loop {
            // "--" and the first operand both leave the rest to the program.
            if let Some(mut raw) = parser.try_raw_args() {
                let next = raw.peek().map(OsStr::to_owned);
                match next.as_deref().map(OsStr::as_encoded_bytes) {
                    None => break,
                    Some(b"--") => {
                        raw.next();
                        parsed.operands.extend(raw);
                        break;
                    }
                    Some([b'-', _, ..]) => {}
                    Some(_) => {
                        parsed.operands.extend(raw);
                        break;
                    }
                }
            }
            let Some(argument) = parser.next().map_err(error)? else {
                break;
            };
            let (found, name) = match &argument {
                lexopt::Arg::Short(c) => (spec.options.iter().find(|o| o.short == Some(*c)), c.to_string()),
                lexopt::Arg::Long(l) => (spec.options.iter().find(|o| o.long == Some(*l)), (*l).to_owned()),
                lexopt::Arg::Value(_) => unreachable!("operands are taken raw above"),
            };
            let Some(option) = found else {
                let dashes = if name.chars().count() == 1 { "-" } else { "--" };
                return Err(UsageError(format!("unknown option {dashes}{name}")));
            };
            let value = if option.value.is_some() { Some(parser.value().map_err(error)?) } else { None };
            parsed.given.push((key(option.short, option.long), value));
        }
        let count = parsed.operands.len();
        if count < spec.operands.min {
            return Err(UsageError(format!("missing operand: {}", spec.operands.synopsis)));
        }
        if spec.operands.max.is_some_and(|max| count > max) {
            let extra = parsed.operands[spec.operands.max.unwrap_or(0)].display();
            return Err(UsageError(format!("unexpected operand: {extra}")));
        }
        Ok(parsed)
    }

    pub(crate) fn with_stand_ins(self, stand_ins: usize) -> Self {
        Self { stand_ins, ..self }
    }

    /// How many operands are in `args`? 0 when they cannot be understood.
    pub(crate) fn operands_in(spec: &Spec, args: &[OsString]) -> usize {
        let any_number = Spec { operands: Operands { min: 0, max: None, ..spec.operands }, ..*spec };
        Self::read(&any_number, args).map_or(0, |parsed| parsed.operands.len())
    }

    /// How often was this flag given? `name` is the letter or, without one, the long name.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.given.iter().filter(|(n, _)| n == name).count()
    }

    /// Was this flag given?
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.count(name) > 0
    }

    /// The value of this option; the last one counts.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.given.iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| v.as_deref())
    }

    /// Where a value comes from that any of these options decides, for [`crate::Loader::show`]: those that
    /// were given, else `default`.
    #[must_use]
    pub fn source(&self, names: &[&str]) -> String {
        let dashes = |name: &str| if name.chars().count() == 1 { "-" } else { "--" };
        let given: Vec<String> = names
            .iter()
            .filter(|name| self.flag(name))
            .map(|name| format!("option {}{name}", dashes(name)))
            .collect();
        if given.is_empty() { "default".to_owned() } else { given.join(", ") }
    }

    /// The same for the operand with this number, from 0: with `--show-settings` it need not be given.
    #[must_use]
    pub fn operand_source(&self, number: usize) -> &'static str {
        match self.operands.len() {
            all if number >= all => "default",
            all if number >= all - self.stand_ins.min(all) => "not given",
            _ => "operand",
        }
    }

    /// All given options in order: the name (letter, else long name) and the value.
    pub fn in_order(&self) -> impl Iterator<Item = (&str, Option<&OsStr>)> {
        self.given.iter().map(|(n, v)| (n.as_str(), v.as_deref()))
    }
}

fn key(short: Option<char>, long: Option<&str>) -> String {
    short.map_or_else(|| long.unwrap_or_default().to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Operands, OptionSpec};

    static SPEC: Spec = Spec {
        name: "t",
        options: &[
            OptionSpec::flag('v', ""),
            OptionSpec::value('c', "n", ""),
            OptionSpec::long_value("password-fd", "n", ""),
        ],
        operands: Operands { synopsis: "prog [arg ...]", min: 1, max: None },
        ..Spec::EMPTY
    };

    fn read(args: &[&str]) -> Result<Parsed, UsageError> {
        Parsed::read(&SPEC, &args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn letters_join_and_the_first_operand_ends_options() {
        let p = read(&["-vvc5", "--password-fd=3", "prog", "-v", "--x"]).unwrap();
        assert_eq!(p.count("v"), 2);
        assert_eq!(p.value("c").unwrap(), "5");
        assert_eq!(p.value("password-fd").unwrap(), "3");
        assert_eq!(p.operands, ["prog", "-v", "--x"]);
    }

    #[test]
    fn double_dash_ends_options_and_a_lone_dash_is_an_operand() {
        assert_eq!(read(&["-v", "--", "-c"]).unwrap().operands, ["-c"]);
        assert_eq!(read(&["-", "-v"]).unwrap().operands, ["-", "-v"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(read(&["-x", "p"]).unwrap_err().0, "unknown option -x");
        assert_eq!(read(&["--xy", "p"]).unwrap_err().0, "unknown option --xy");
        assert!(read(&["-c"]).unwrap_err().0.contains("'-c'"));
        assert_eq!(read(&[]).unwrap_err().0, "missing operand: prog [arg ...]");
    }
}
