//! vuserinfo: what is known about an account.

use accounts::Entry;
use nix::unistd::{Gid, Uid};
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};
use serde_json::{Map, Value, json};
use unix::privilege::with_files_of;

use crate::context::{Context, EXITS, Failure, print, run};
use crate::settings::{controls, variables};

static SPEC: Spec = Spec {
    name: "vuserinfo",
    summary: "show a mail account",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('a', "everything but the password hash (default)"),
        OptionSpec::flag('n', "the address"),
        OptionSpec::flag('p', "the password hash; for root only"),
        OptionSpec::flag('u', "the Unix user id"),
        OptionSpec::flag('g', "the Unix group id and what the account may not do"),
        OptionSpec::flag('c', "the full name"),
        OptionSpec::flag('d', "home and Maildir"),
        OptionSpec::flag('q', "the quota and what is used"),
        OptionSpec::flag('l', "when it was created, changed and last used"),
        OptionSpec::long_flag("json", "as one JSON object"),
        OptionSpec::flag('v', "tell what is done"),
    ],
    operands: Operands { synopsis: "user@domain", min: 1, max: Some(1) },
    variables: variables!(),
    controls: controls!(),
    exits: EXITS,
    description: "vuserinfo prints an account, one value a line, or one JSON object with --json. The password hash is \
printed only with -p, and only for root.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let given = context.address(context.operand(0))?;
    let (_, address) = context.resolve(&given)?;
    let Some(entry) = context.accounts.account(&address)? else {
        return Err(Failure::Absent(format!("{address}: no such account")));
    };
    if context.parsed.flag("p") && !nix::unistd::getuid().is_root() {
        return Err(Failure::refused("option -p", "only root may see the password hash"));
    }
    let shown = sections(context, &entry)?;
    if context.parsed.flag("json") {
        print(&format!("{}\n", Value::Object(shown)));
    } else {
        shown.iter().for_each(|(name, value)| print(&line(name, value)));
    }
    Ok(Exit::OK)
}

/// The values asked for, by option letter.
fn sections(context: &mut Context<'_>, entry: &Entry) -> Result<Map<String, Value>, Failure> {
    let all = context.parsed.flag("a")
        || !["n", "p", "u", "g", "c", "d", "q", "l"].iter().any(|f| context.parsed.flag(f));
    let wanted = |letter: &str| (all && letter != "p") || context.parsed.flag(letter);
    let account = &entry.account;
    let maildir = account.home.join("Maildir");
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| {
        shown.insert(name.to_owned(), value);
    };
    if wanted("n") {
        put("address", json!(account.address.to_string()));
        put("active", json!(account.active));
    }
    if wanted("p") {
        put("password", json!(String::from_utf8_lossy(account.combined_password().expose())));
    }
    if wanted("u") {
        put("uid", json!(entry.ids.uid));
        put("own_ids", json!(account.own_ids.is_some()));
    }
    if wanted("g") {
        put("gid", json!(entry.ids.gid));
        put("flags", json!(account.flags.names().collect::<Vec<_>>()));
    }
    if wanted("c") {
        put("gecos", json!(account.gecos));
    }
    if wanted("d") {
        put("home", json!(account.home.to_string_lossy()));
        put("maildir", json!(maildir.to_string_lossy()));
    }
    if wanted("q") {
        put("quota", json!(account.quota.to_string()));
        // The tree is the account's, and so are the rights to look at it.
        let (uid, gid) = (Uid::from_raw(entry.ids.uid), Gid::from_raw(entry.ids.gid));
        let counted = with_files_of(uid, gid, || maildir::quota::usage_of_tree(&maildir, true));
        let usage = match counted.and_then(|usage| usage) {
            Ok(usage) => json!({"bytes": usage.bytes, "messages": usage.messages}),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({"bytes": 0, "messages": 0}),
            // Another user's mail: what is used is not for everybody who may see the account.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Value::Null,
            Err(e) => return Err(Failure::step(maildir.display(), e)),
        };
        put("used", usage);
    }
    if wanted("l") {
        let address = account.address.clone();
        let mut events = Map::new();
        for event in context.accounts.store().events(&address)? {
            let value = json!({"at": event.at, "from": event.remote_ip});
            events.insert(event.service.as_str().to_owned(), value);
        }
        shown.insert("events".to_owned(), Value::Object(events));
    }
    if all {
        let aliases = context.accounts.store().aliases(&account.address)?;
        let lines: Vec<_> = aliases.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        shown.insert("aliases".to_owned(), json!(lines));
    }
    Ok(shown)
}

/// `name: value`; lists are separated by blanks, objects have a line for each member.
pub(crate) fn line(name: &str, value: &Value) -> String {
    match value {
        Value::Object(members) => members.iter().map(|(n, v)| line(&format!("{name} {n}"), v)).collect(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("{name}: {}\n", items.join(" "))
        }
        other => format!("{name}: {}\n", text(other)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    }
}
