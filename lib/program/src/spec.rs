//! The table that describes a program.

/// Everything a program's command line, variables, control files and manual page say.
#[derive(Debug)]
pub struct Spec {
    /// The program's name.
    pub name: &'static str,
    /// One line: what it does.
    pub summary: &'static str,
    /// Section of the manual: 1 commands, 8 administration.
    pub section: u8,
    /// Where its link is installed.
    pub place: Place,
    /// Options, in the order of the help text.
    pub options: &'static [OptionSpec],
    /// What may follow the options.
    pub operands: Operands,
    /// Environment variables it reads.
    pub variables: &'static [Variable],
    /// Control files it reads.
    pub controls: &'static [Control],
    /// Exit codes it ends with.
    pub exits: &'static [ExitCodeDoc],
    /// Paragraphs of the manual page, separated by empty lines.
    pub description: &'static str,
    /// Exit code for wrong usage (100 in qmail and daemontools).
    pub usage_exit: u8,
}

impl Spec {
    /// A spec with nothing in it, to be completed with `..Spec::EMPTY`.
    pub const EMPTY: Self = Self {
        name: "",
        summary: "",
        section: 1,
        place: Place::Bin,
        options: &[],
        operands: Operands { synopsis: "", min: 0, max: None },
        variables: &[],
        controls: &[],
        exits: &[],
        description: "",
        usage_exit: 100,
    };
}

/// Where the link to a program is installed, below PREFIX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `bin`
    Bin,
    /// `sbin`
    Sbin,
    /// `libexec/indimail`
    Libexec,
}

impl Place {
    /// The directory below PREFIX.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::Bin => "bin",
            Self::Sbin => "sbin",
            Self::Libexec => "libexec/indimail",
        }
    }
}

/// One option.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its letter.
    pub short: Option<char>,
    /// Its long name.
    pub long: Option<&'static str>,
    /// What its value is called in the help text; `None` for a flag.
    pub value: Option<&'static str>,
    /// What it does, with unit and default.
    pub help: &'static str,
}

impl OptionSpec {
    /// A flag with a letter.
    #[must_use]
    pub const fn flag(short: char, help: &'static str) -> Self {
        Self { short: Some(short), long: None, value: None, help }
    }

    /// An option with a letter and a value.
    #[must_use]
    pub const fn value(short: char, value: &'static str, help: &'static str) -> Self {
        Self { short: Some(short), long: None, value: Some(value), help }
    }

    /// A flag with a long name only.
    #[must_use]
    pub const fn long_flag(long: &'static str, help: &'static str) -> Self {
        Self { short: None, long: Some(long), value: None, help }
    }

    /// An option with a long name only and a value.
    #[must_use]
    pub const fn long_value(long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { short: None, long: Some(long), value: Some(value), help }
    }
}

/// What may follow the options.
#[derive(Debug)]
pub struct Operands {
    /// As the synopsis shows it: `host port program [arg ...]`.
    pub synopsis: &'static str,
    /// At least this many.
    pub min: usize,
    /// At most this many; `None`: any number.
    pub max: Option<usize>,
}

impl Operands {
    /// Words that can stand for operands where nothing is done with them: those of the synopsis, up
    /// to what is optional or another form.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &'static str> {
        let needed = |word: &&str| !matches!(*word, "|" | "...") && !word.starts_with('[');
        let whole = self.synopsis.split(", or ").next().unwrap_or_default();
        let shown = whole.split_ascii_whitespace().take_while(needed);
        let max = self.max.unwrap_or(usize::MAX);
        let count = if self.min == 0 { 0 } else { shown.clone().count().clamp(self.min, max.max(self.min)) };
        // A synopsis in prose may have fewer words than there are operands.
        shown.chain(std::iter::repeat("word")).take(count)
    }
}

/// An environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Meaning, unit and default.
    pub help: &'static str,
}

impl Variable {
    /// A row of the table.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help }
    }
}

/// A control file.
#[derive(Debug)]
pub struct Control {
    /// Its name below the control directory.
    pub name: &'static str,
    /// Meaning, unit and default.
    pub help: &'static str,
}

impl Control {
    /// A row of the table.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help }
    }
}

/// One exit code.
#[derive(Debug)]
pub struct ExitCodeDoc {
    /// The code.
    pub code: u8,
    /// What it says.
    pub meaning: &'static str,
}
