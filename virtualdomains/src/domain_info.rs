//! vdominfo: what is known about a domain, or about all of them.

use accounts::Domain;
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};
use serde_json::{Map, Value, json};

use crate::context::{Context, EXITS, Failure, print, run};
use crate::homes;
use crate::settings::{controls, variables};
use crate::user_info::line;

static SPEC: Spec = Spec {
    name: "vdominfo",
    summary: "show mail domains",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('a', "everything (default)"),
        OptionSpec::flag('n', "the name"),
        OptionSpec::flag('u', "the Unix user id"),
        OptionSpec::flag('g', "the Unix group id"),
        OptionSpec::flag('d', "the domain directory"),
        OptionSpec::flag('b', "the base of the homes"),
        OptionSpec::flag('t', "how many accounts it has"),
        OptionSpec::flag('l', "its alias domains"),
        OptionSpec::long_flag("json", "as JSON: an object, or without operand an array of objects"),
        OptionSpec::flag('v', "tell what is done"),
    ],
    operands: Operands { synopsis: "[domain]", min: 0, max: Some(1) },
    variables: variables!(BASE_PATH),
    controls: controls!(),
    exits: EXITS,
    description: "vdominfo prints a domain, one value a line, or all real domains of this host, separated by empty lines.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let all = context.accounts.domains().all()?;
    let json = context.parsed.flag("json");
    let one = !context.parsed.operands.is_empty();
    let domains = if one {
        vec![context.domain(context.operand(0))?]
    } else {
        all.iter().filter(|d| !d.is_alias()).cloned().collect()
    };
    let mut shown = Vec::new();
    for domain in &domains {
        // Without an operand, those the caller may not administer are left out.
        if one || context.permit(domain).is_ok() {
            shown.push(describe(context, domain, &all)?);
        }
    }
    if json {
        let objects: Vec<Value> = shown.into_iter().map(Value::Object).collect();
        let value = match <[Value; 1]>::try_from(objects) {
            Ok([single]) if one => single,
            Ok([single]) => Value::Array(vec![single]),
            Err(many) => Value::Array(many),
        };
        print(&format!("{value}\n"));
    } else {
        let texts: Vec<String> =
            shown.iter().map(|members| members.iter().map(|(n, v)| line(n, v)).collect()).collect();
        print(&texts.join("\n"));
    }
    Ok(Exit::OK)
}

fn describe(
    context: &mut Context<'_>,
    domain: &Domain,
    all: &[Domain],
) -> Result<Map<String, Value>, Failure> {
    let everything = context.parsed.flag("a")
        || !["n", "u", "g", "d", "b", "t", "l"].iter().any(|f| context.parsed.flag(f));
    let mut shown = Map::new();
    let mut put = |letter: &str, name: &str, value: Value| {
        if everything || context.parsed.flag(letter) {
            shown.insert(name.to_owned(), value);
        }
    };
    put("n", "domain", json!(domain.name.as_str()));
    put("n", "real", json!(domain.real.as_str()));
    put("u", "uid", json!(domain.ids.uid));
    put("g", "gid", json!(domain.ids.gid));
    put("d", "directory", json!(domain.dir.to_string_lossy()));
    put("b", "base", json!(homes::base(context, domain, None)?.path().to_string_lossy()));
    let aliases: Vec<&str> =
        all.iter().filter(|d| d.is_alias() && d.real == domain.real).map(|d| d.name.as_str()).collect();
    put("l", "aliases", json!(aliases));
    if everything || context.parsed.flag("t") {
        let (active, inactive) = context.accounts.store().count(&domain.real)?;
        shown.insert("accounts".to_owned(), json!({"active": active, "inactive": inactive}));
    }
    Ok(shown)
}
