//! Values with their sources: the environment, control files, defaults.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::{Display, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use control::Directory;

/// The variables a program was started with, as one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process; called once, by the dispatcher.
    pub(crate) fn of_this_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The value, also when empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The value's bytes.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(OsStrExt::as_bytes)
    }

    /// Is it set at all? (Many switches of the qmail world are tested for presence only.)
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets a variable in this value (never in the process).
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    /// Removes a variable from this value.
    pub fn remove(&mut self, name: impl AsRef<OsStr>) {
        self.0.remove(name.as_ref());
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(n, v)| (n.as_os_str(), v.as_os_str()))
    }

    /// All of them, to start another program with.
    #[must_use]
    pub fn to_vec(&self) -> Vec<(OsString, OsString)> {
        self.0.iter().map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// All of them, to start another program with, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<(OsString, OsString)> {
        self.0.into_iter().collect()
    }

    /// The control directory that CONTROLDIR and SYSCONFDIR name.
    #[must_use]
    pub fn control_directory(&self) -> Directory {
        let path = |name| self.get(name).filter(|v| !v.is_empty()).map(std::path::Path::new);
        Directory::from_environment(path("CONTROLDIR"), path("SYSCONFDIR"))
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(vars: I) -> Self {
        Self(vars.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}

/// Where a value may come from; the first that is there counts, in the order option,
/// variable, control file, default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Source<'a> {
    /// The option's letter or long name, and its value.
    pub option: Option<(&'a str, &'a OsStr)>,
    /// The variable's name.
    pub variable: Option<&'a str>,
    /// The control file's name.
    pub control: Option<&'a str>,
}

/// Everything that is wrong with a program's settings, found in one go.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(pub Vec<String>);

/// Collects settings: values, where each came from, and what is wrong with them.
#[derive(Debug)]
pub struct Loader<'a> {
    environment: &'a Environment,
    control: Directory,
    problems: Vec<String>,
    shown: Vec<(String, String, String)>,
}

impl<'a> Loader<'a> {
    /// Starts from an environment; control files are those of its CONTROLDIR.
    #[must_use]
    pub fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            control: environment.control_directory(),
            problems: Vec::new(),
            shown: Vec::new(),
        }
    }

    /// The control directory in use.
    #[must_use]
    pub fn control(&self) -> &Directory {
        &self.control
    }

    /// The environment in use.
    #[must_use]
    pub fn environment(&self) -> &'a Environment {
        self.environment
    }

    /// Notes a problem; [`Loader::finish`] will fail.
    pub fn problem(&mut self, text: impl Display) {
        self.problems.push(text.to_string());
    }

    /// Notes a value for `--show-settings`.
    pub fn show(&mut self, name: &str, value: impl Display, source: impl Display) {
        self.shown.push((name.to_owned(), value.to_string(), source.to_string()));
    }

    /// Where a value comes from that any of these variables and control files decides, for [`Loader::show`]:
    /// those that are set or there, else `default`.
    #[must_use]
    pub fn source(&self, variables: &[&str], controls: &[&str]) -> String {
        let variables = variables.iter().filter(|name| self.environment.is_set(name));
        let files = controls.iter().map(|name| self.control.file(name)).filter(|path| path.exists());
        let found: Vec<String> = variables
            .map(|name| format!("variable {name}"))
            .chain(files.map(|path| path.display().to_string()))
            .collect();
        if found.is_empty() { "default".to_owned() } else { found.join(", ") }
    }

    /// The raw bytes of a value and the name of its source, for a value that is given somewhere.
    pub fn bytes(&mut self, name: &str, from: Source<'_>) -> Option<Vec<u8>> {
        let (value, source) = self.raw(from)?;
        self.show(name, value.escape_ascii(), &source);
        Some(value)
    }

    /// A path.
    pub fn path(&mut self, name: &str, from: Source<'_>, default: &str) -> PathBuf {
        match self.bytes(name, from) {
            Some(bytes) => PathBuf::from(OsString::from_vec(bytes)),
            None => {
                self.show(name, default, "default");
                PathBuf::from(default)
            }
        }
    }

    /// A value of any type that can be read from text. A value that cannot be read is a problem
    /// that names its source, and the default stands in for it until [`Loader::finish`].
    pub fn parsed<T: FromStr + Display>(
        &mut self,
        name: &str,
        from: Source<'_>,
        default: T,
        expected: &str,
    ) -> T {
        let Some((raw, source)) = self.raw(from) else {
            self.show(name, &default, "default");
            return default;
        };
        match std::str::from_utf8(&raw).ok().and_then(|t| t.trim().parse::<T>().ok()) {
            Some(value) => {
                self.show(name, &value, source);
                value
            }
            None => {
                self.problem(format!("{source}: {}: expected {expected}", raw.escape_ascii()));
                default
            }
        }
    }

    /// A number that must lie in `range`.
    pub fn number(
        &mut self,
        name: &str,
        from: Source<'_>,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let value = self.parsed(name, from, default, &expected);
        if range.contains(&value) {
            return value;
        }
        let source = self.raw(from).map_or_else(|| "default".to_owned(), |(_, s)| s);
        self.problem(format!("{source}: {value}: expected {expected}"));
        default
    }

    /// Unwraps the answer of a control directory; an error becomes a problem.
    pub fn take<T>(&mut self, answer: Result<Option<T>, control::Error>) -> Option<T> {
        answer.unwrap_or_else(|e| {
            self.problem(e);
            None
        })
    }

    fn raw(&mut self, from: Source<'_>) -> Option<(Vec<u8>, String)> {
        if let Some((name, value)) = from.option {
            let dashes = if name.chars().count() == 1 { "-" } else { "--" };
            return Some((value.as_bytes().to_vec(), format!("option {dashes}{name}")));
        }
        if let Some((name, value)) = from.variable.and_then(|n| Some((n, self.environment.bytes(n)?)))
            && !value.is_empty()
        {
            return Some((value.to_vec(), format!("variable {name}")));
        }
        let file = from.control?;
        let path = self.control.file(file);
        let answer = self.control.line(file);
        self.take(answer).filter(|l| !l.is_empty()).map(|line| (line, path.display().to_string()))
    }

    /// The table of `--show-settings`: name, value, source.
    #[must_use]
    pub fn table(&self) -> String {
        let width = |f: fn(&(String, String, String)) -> &String| {
            self.shown.iter().map(|r| f(r).chars().count()).max().unwrap_or(0)
        };
        let (names, values) = (width(|r| &r.0), width(|r| &r.1).min(40));
        self.shown.iter().fold(String::new(), |mut out, (name, value, source)| {
            let _ = writeln!(out, "{name:names$}  {value:values$}  {source}");
            out
        })
    }

    /// Hands the finished settings out, or all problems.
    ///
    /// # Errors
    /// At least one problem was noted.
    pub fn finish<T>(self, settings: T) -> Result<T, Problems> {
        if self.problems.is_empty() { Ok(settings) } else { Err(Problems(self.problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_tried_in_order_and_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("timeoutremote"), "77\n").unwrap();
        let mut env = Environment::from_iter([("CONTROLDIR", dir.path().to_str().unwrap())]);
        let from = Source { variable: Some("TIMEOUTREMOTE"), control: Some("timeoutremote"), option: None };
        let mut loader = Loader::new(&env);
        assert_eq!(loader.number("timeout", from, 1200, 1..=9999), 77);
        assert!(loader.table().contains("/timeoutremote"));
        env.set("TIMEOUTREMOTE", "5");
        assert_eq!(Loader::new(&env).number("timeout", from, 1200, 1..=9999), 5);
    }

    #[test]
    fn a_source_is_named_only_when_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut env = Environment::from_iter([("CONTROLDIR", dir.path().to_str().unwrap())]);
        assert_eq!(Loader::new(&env).source(&["NOFSYNC", "B"], &["me"]), "default");
        let me = dir.path().join("me");
        std::fs::write(&me, "x\n").unwrap();
        assert_eq!(Loader::new(&env).source(&["NOFSYNC", "B"], &["me"]), me.display().to_string());
        env.set("B", "");
        let both = format!("variable B, {}", me.display());
        assert_eq!(Loader::new(&env).source(&["NOFSYNC", "B"], &["me"]), both);
    }

    #[test]
    fn all_problems_are_reported_together() {
        let env = Environment::from_iter([("A", "x"), ("B", "70000"), ("CONTROLDIR", "/nonexistent")]);
        let mut loader = Loader::new(&env);
        let variable = |n| Source { variable: Some(n), ..Source::default() };
        loader.number("a", variable("A"), 1, 0..=9);
        loader.number("b", variable("B"), 1, 0..=9);
        let problems = loader.finish(()).unwrap_err();
        assert_eq!(
            problems.0,
            [
                "variable A: x: expected a number from 0 to 9",
                "variable B: 70000: expected a number from 0 to 9"
            ]
        );
    }
}
