//! From the process to the program.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::spec::Spec;
use crate::{Environment, Exit, Layout, Loader, Parsed, Problems, man};

/// A program: its table and what it does.
#[derive(Debug)]
pub struct Program {
    /// The table.
    pub spec: &'static Spec,
    /// Settings, then run. Errors are printed by the program itself.
    pub main: fn(&Invocation) -> Exit,
}

/// How a program was started.
#[derive(Debug)]
pub struct Invocation {
    /// The program's table.
    pub spec: &'static Spec,
    /// The name it was called by (differs from `spec.name` for an alias).
    pub called_as: String,
    /// Arguments after the name.
    pub arguments: Vec<OsString>,
    /// Variables.
    pub environment: Environment,
    /// Where the other programs of this installation are.
    pub layout: Layout,
    show_settings: bool,
}

impl Invocation {
    /// Reads the command line by the table, for a program that goes on to load settings and to
    /// [`Invocation::finish`]. Wrong usage is printed and becomes the exit code.
    ///
    /// # Errors
    /// The exit code to end with.
    pub fn parse(&self) -> Result<Parsed, Exit> {
        let mut arguments = self.arguments.clone();
        let written = arguments.len();
        if self.show_settings {
            // Nothing will be done with them: whoever only asks need not name a real one.
            let given = Parsed::operands_in(self.spec, &arguments);
            arguments.extend(self.spec.operands.examples().skip(given).map(OsString::from));
        }
        let stand_ins = arguments.len() - written;
        let parsed = Parsed::read(self.spec, &arguments).map_err(|e| {
            self.complain("fatal", &e);
            complain_raw(&format!("{}: usage: {}", self.spec.name, man::synopsis(self.spec)));
            Exit(self.spec.usage_exit)
        });
        parsed.map(|parsed| parsed.with_stand_ins(stand_ins))
    }

    /// Are only the settings asked for? Then what a question or a delivery needs may be missing.
    #[must_use]
    pub fn shows_settings(&self) -> bool {
        self.show_settings
    }

    /// As [`Invocation::parse`], for a program that the command line tells everything but a
    /// variable or two: `--show-settings` prints these and ends with 0, and nothing is done.
    ///
    /// # Errors
    /// The exit code to end with.
    pub fn parse_all(&self) -> Result<Parsed, Exit> {
        let parsed = self.parse()?;
        if !self.show_settings {
            return Ok(parsed);
        }
        let mut loader = Loader::new(&self.environment);
        for (name, value) in parsed.in_order() {
            let dashes = if name.chars().count() == 1 { "-" } else { "--" };
            let value = value.map_or("given".into(), |v| v.as_encoded_bytes().escape_ascii().to_string());
            loader.show(&format!("{dashes}{name}"), value, "option");
        }
        for variable in self.spec.variables {
            match self.environment.bytes(variable.name) {
                Some(value) => loader.show(variable.name, value.escape_ascii(), "variable"),
                None => loader.show(variable.name, "not set", "default"),
            }
        }
        self.finish(loader, parsed, Exit::OK)
    }

    /// Finishes loading: `--show-settings` prints the table and ends with 0, problems are printed,
    /// one a line, and end with `on_error`.
    ///
    /// # Errors
    /// The exit code to end with.
    pub fn finish<T>(&self, loader: Loader<'_>, settings: T, on_error: Exit) -> Result<T, Exit> {
        self.finish_telling(loader, settings, on_error, |p| self.complain("fatal", p))
    }

    /// As [`Invocation::finish`], for programs whose stderr is not for people: `tell` gets the problems.
    ///
    /// # Errors
    /// The exit code to end with.
    pub fn finish_telling<T>(
        &self,
        loader: Loader<'_>,
        settings: T,
        on_error: Exit,
        tell: impl FnMut(&str),
    ) -> Result<T, Exit> {
        let table = self.show_settings.then(|| loader.table());
        let settings = loader.finish(settings).map_err(|Problems(all)| {
            all.iter().map(String::as_str).for_each(tell);
            on_error
        })?;
        match table {
            Some(table) => {
                print(if table.is_empty() { "no settings\n" } else { &table });
                Err(Exit::OK)
            }
            None => Ok(settings),
        }
    }

    /// Prints `program: level: message` on stderr.
    pub fn complain(&self, level: &str, message: impl std::fmt::Display) {
        complain_raw(&format!("{}: {level}: {message}", self.spec.name));
    }

    /// An invocation for tests and for programs that run another one in-process.
    #[must_use]
    pub fn new(
        spec: &'static Spec,
        arguments: Vec<OsString>,
        environment: Environment,
        layout: Layout,
    ) -> Self {
        Self { spec, called_as: spec.name.to_owned(), arguments, environment, layout, show_settings: false }
    }
}

/// A closed stderr must not kill a daemon, so failures to write there are dropped.
fn complain_raw(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Finds the program that was started and runs it; the body of `main`.
#[must_use]
pub fn start(executable: &str, programs: &'static [Program]) -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let names = unix::host::exec_path()
        .into_iter()
        .map(|p| (base_name(p.as_os_str()), 1))
        .chain(argv.first().map(|a| (base_name(a), 1)))
        .chain(argv.get(1).map(|a| (base_name(a), 2)));
    // An executable that is named like one of its programs is asked under that name.
    if argv.get(1).is_some_and(|a| a == "--list-programs") {
        return list(programs);
    }
    let find = |name: &str| programs.iter().find(|p| p.spec.name == name);
    let Some((program, called_as, skip)) =
        names.into_iter().find_map(|(name, skip)| Some((find(&name)?, name, skip)))
    else {
        return no_program(executable, programs);
    };
    let mut invocation = Invocation {
        spec: program.spec,
        called_as,
        arguments: argv.into_iter().skip(skip).collect(),
        environment: Environment::of_this_process(),
        layout: Layout::of_this_process(),
        show_settings: false,
    };
    if let Some(text) = about(&invocation) {
        print(&text);
        return ExitCode::SUCCESS;
    }
    if invocation.arguments.first().is_some_and(|a| a == "--show-settings") {
        invocation.show_settings = true;
        invocation.arguments.remove(0);
    }
    ExitCode::from((program.main)(&invocation).0)
}

fn about(invocation: &Invocation) -> Option<String> {
    let spec = invocation.spec;
    match invocation.arguments.first()?.to_str()? {
        "--help" => Some(man::help(spec)),
        "--version" => Some(format!("{} (indimail) {}\n", spec.name, env!("CARGO_PKG_VERSION"))),
        "--man" => Some(man::page(spec)),
        "--completions" => Some(man::bash_completion(spec)),
        _ => None,
    }
}

fn list(programs: &[Program]) -> ExitCode {
    let row = |p: &Program| format!("{}\t{}\t{}\n", p.spec.name, p.spec.place.directory(), p.spec.section);
    print(&programs.iter().map(row).collect::<String>());
    ExitCode::SUCCESS
}

fn no_program(executable: &str, programs: &[Program]) -> ExitCode {
    let known: Vec<_> = programs.iter().map(|p| p.spec.name).collect();
    complain_raw(&format!(
        "{executable}: fatal: started under an unknown name; it is one of: {}",
        known.join(" ")
    ));
    ExitCode::from(100)
}

fn base_name(path: &std::ffi::OsStr) -> String {
    Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
