//! Help text, manual page and completion, all from the table.

use std::fmt::Write as _;

use crate::spec::{OptionSpec, Spec};

/// `name [options] operands`
pub(crate) fn synopsis(spec: &Spec) -> String {
    let mut out = spec.name.to_owned();
    for option in spec.options {
        let _ = write!(out, " [{}]", spelled(option));
    }
    if !spec.operands.synopsis.is_empty() {
        let _ = write!(out, " {}", spec.operands.synopsis);
    }
    out
}

fn spelled(option: &OptionSpec) -> String {
    let name = match (option.short, option.long) {
        (Some(c), _) => format!("-{c}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => String::new(),
    };
    option.value.map_or_else(|| name.clone(), |v| format!("{name} {v}"))
}

fn spelled_fully(option: &OptionSpec) -> String {
    match (option.short, option.long) {
        (Some(_), Some(long)) => format!("{}, --{long}", spelled(option)),
        _ => spelled(option),
    }
}

/// The text of `--help`.
pub(crate) fn help(spec: &Spec) -> String {
    let mut out = format!("{}: {}\n\nusage: {}\n", spec.name, spec.summary, synopsis(spec));
    let mut section = |title: &str, rows: Vec<(String, &str)>| {
        if rows.is_empty() {
            return;
        }
        let width = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0).min(28);
        let _ = writeln!(out, "\n{title}:");
        for (name, text) in rows {
            let _ = writeln!(out, "  {name:width$}  {text}");
        }
    };
    section("options", spec.options.iter().map(|o| (spelled_fully(o), o.help)).collect());
    section("variables", spec.variables.iter().map(|v| (v.name.to_owned(), v.help)).collect());
    section("control files", spec.controls.iter().map(|c| (c.name.to_owned(), c.help)).collect());
    section("exit codes", spec.exits.iter().map(|e| (e.code.to_string(), e.meaning)).collect());
    out.push_str("\nAs first argument: --help, --version, --man, --completions, --show-settings\n");
    out
}

/// The manual page as roff.
pub(crate) fn page(spec: &Spec) -> String {
    let mut out = format!(
        ".TH {} {} \"\" \"indimail {}\" \"indimail\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B {}\n",
        roff(&spec.name.to_uppercase()),
        spec.section,
        env!("CARGO_PKG_VERSION"),
        roff(spec.name),
        roff(spec.summary),
        roff(&synopsis(spec)),
    );
    out.push_str(".SH DESCRIPTION\n");
    for paragraph in spec.description.split("\n\n") {
        let _ = writeln!(out, ".PP\n{}", roff(paragraph.trim()));
    }
    let mut section = |title: &str, rows: Vec<(String, &str)>| {
        if rows.is_empty() {
            return;
        }
        let _ = writeln!(out, ".SH {title}");
        for (name, text) in rows {
            let _ = writeln!(out, ".TP\n.B {}\n{}", roff(&name), roff(text));
        }
    };
    section("OPTIONS", spec.options.iter().map(|o| (spelled_fully(o), o.help)).collect());
    section("ENVIRONMENT", spec.variables.iter().map(|v| (v.name.to_owned(), v.help)).collect());
    section("CONTROL FILES", spec.controls.iter().map(|c| (c.name.to_owned(), c.help)).collect());
    section("EXIT STATUS", spec.exits.iter().map(|e| (e.code.to_string(), e.meaning)).collect());
    out
}

/// A backslash, a leading dot and a leading quote have meaning in roff; a hyphen must stay one.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = escaped
        .lines()
        .map(|l| if l.starts_with(['.', '\'']) { format!("\\&{l}") } else { l.to_owned() })
        .collect();
    lines.join("\n")
}

/// A completion for bash.
pub(crate) fn bash_completion(spec: &Spec) -> String {
    let mut words: Vec<String> = spec.options.iter().flat_map(both_spellings).collect();
    words.extend(["--help".to_owned(), "--version".to_owned()]);
    format!("complete -o default -W '{}' {}\n", words.join(" "), spec.name)
}

fn both_spellings(option: &OptionSpec) -> Vec<String> {
    let short = option.short.map(|c| format!("-{c}"));
    let long = option.long.map(|l| format!("--{l}"));
    short.into_iter().chain(long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roff_keeps_hyphens_and_leading_dots() {
        assert_eq!(roff(".qmail-x\n'a\\b"), "\\&.qmail\\-x\n\\&'a\\eb");
    }

    #[test]
    fn every_option_is_in_help_page_and_completion() {
        static SPEC: Spec = Spec {
            name: "t",
            options: &[
                OptionSpec::value('q', "seconds", "how long"),
                OptionSpec::long_flag("json", "as JSON"),
            ],
            ..Spec::EMPTY
        };
        for text in [help(&SPEC), page(&SPEC).replace('\\', ""), bash_completion(&SPEC)] {
            assert!(text.contains("-q") && text.contains("--json"), "{text}");
        }
    }
}
