//! valias: addresses that lead elsewhere.

use accounts::{Address, Invalid};
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};
use serde_json::{Value, json};

use crate::after;
use crate::context::{Context, EXITS, Failure, print, run};
use crate::settings::{controls, variables};

static SPEC: Spec = Spec {
    name: "valias",
    summary: "show and change mail aliases",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('s', "show the lines of an alias, or all aliases of @domain"),
        OptionSpec::value('S', "line", "show the aliases of @domain that have this line"),
        OptionSpec::value('i', "line", "add a line to the alias; with -u, what the line becomes"),
        OptionSpec::value('d', "line", "remove a line of the alias"),
        OptionSpec::value('u', "line", "replace this line of the alias by that of -i"),
        OptionSpec::long_flag("json", "with -s and -S: as a JSON array of objects"),
        OptionSpec::flag('v', "tell what is done"),
    ],
    operands: Operands { synopsis: "alias@domain | @domain", min: 1, max: Some(1) },
    variables: variables!(POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET),
    controls: controls!(),
    exits: EXITS,
    description: "A line is &address or address (forward), /path/Maildir/ (deliver there) or |command (run as the \
domain's user). An alias has any number of lines; mail to it goes to all of them.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let given = ["s", "S", "i", "d", "u"].map(|o| context.parsed.flag(o));
    match given {
        [true, false, false, false, false] => show(context, None),
        [false, true, false, false, false] => {
            let line = context.option("S").map(<[u8]>::to_vec);
            show(context, line)
        }
        [false, false, true, false, false] => change(context, Change::Add),
        [false, false, false, true, false] => change(context, Change::Remove),
        [false, false, true, false, true] => change(context, Change::Replace),
        _ => Err(Failure::refused(
            "options",
            "expected one of -s, -S line, -i line, -d line, or -u line -i line",
        )),
    }
}

fn show(context: &mut Context<'_>, wanted: Option<Vec<u8>>) -> Result<Exit, Failure> {
    let operand = context.operand(0).to_vec();
    let rows = if let Some(domain) = operand.strip_prefix(b"@") {
        let domain = context.domain(domain)?;
        let mut rows: Vec<(Address, Vec<u8>)> = Vec::new();
        loop {
            let after = rows.last().map(|(a, l)| (a.clone(), l.clone()));
            let after = after.as_ref().map(|(a, l)| (a, l.as_slice()));
            let page = context.accounts.store().list_aliases(&domain.real, after, 500)?;
            let last = page.len() < 500;
            rows.extend(page);
            if last {
                break rows;
            }
        }
    } else {
        let address = context.address(&operand)?;
        let (_, address) = context.resolve(&address)?;
        let lines = context.accounts.store().aliases(&address)?;
        lines.into_iter().map(|l| (address.clone(), l)).collect()
    };
    let rows: Vec<_> = rows.into_iter().filter(|(_, l)| wanted.as_ref().is_none_or(|w| l == w)).collect();
    if context.parsed.flag("json") {
        let objects: Vec<Value> = rows
            .iter()
            .map(|(a, l)| json!({"alias": a.to_string(), "line": String::from_utf8_lossy(l)}))
            .collect();
        print(&format!("{}\n", Value::Array(objects)));
    } else {
        rows.iter().for_each(|(a, l)| print(&format!("{a} -> {}\n", String::from_utf8_lossy(l))));
    }
    if rows.is_empty() && !operand.starts_with(b"@") {
        return Err(Failure::Absent(format!("{}: no such alias", operand.escape_ascii())));
    }
    Ok(Exit::OK)
}

enum Change {
    Add,
    Remove,
    Replace,
}

fn change(context: &mut Context<'_>, what: Change) -> Result<Exit, Failure> {
    let given = context.address(context.operand(0))?;
    let (domain, address) = context.resolve(&given)?;
    let option = |name| context.option(name).unwrap_or_default().to_vec();
    let (new, old) = (option("i"), if matches!(what, Change::Remove) { option("d") } else { option("u") });
    let absent = || Failure::Absent(format!("{address}: {}: no such line", old.escape_ascii()));
    let store = context.accounts.store();
    match what {
        Change::Add => {
            check(&new)?;
            if !store.add_alias(&address, &new)? {
                return Err(Failure::refused(&address, "the line is there already"));
            }
        }
        Change::Remove => {
            if store.remove_alias(&address, Some(&old))? == 0 {
                return Err(absent());
            }
        }
        Change::Replace => {
            check(&new)?;
            if !store.aliases(&address)?.contains(&old) {
                return Err(absent());
            }
            // The new line first: at no time does the alias lead nowhere.
            store.add_alias(&address, &new)?;
            if new != old {
                store.remove_alias(&address, Some(&old))?;
            }
        }
    }
    after::account_changed(context, &address);
    after::handle(context, domain.ids, &[after::argument(&address)])
}

/// A line that delivery understands.
fn check(line: &[u8]) -> Result<(), Failure> {
    let bad = |why| Err(Failure::from(Invalid::new("alias line", line, why)));
    if line.is_empty() || line.len() > 156 {
        return bad("expected 1 to 156 bytes");
    }
    if std::str::from_utf8(line).is_err() || line.iter().any(u8::is_ascii_control) {
        return bad("expected UTF-8 without control characters");
    }
    match line[0] {
        b'|' if line[1..].trim_ascii().is_empty() => bad("a command is missing after |"),
        b'|' => Ok(()),
        b'/' if line.ends_with(b"/") => Ok(()),
        b'/' => bad("a Maildir ends with a slash"),
        _ => {
            // A forward may lead to any mail address, not only to names this host could have.
            let address = line.strip_prefix(b"&").unwrap_or(line);
            let at = address.iter().rposition(|&b| b == b'@').unwrap_or(0);
            if at == 0 || at + 1 == address.len() || address.contains(&b' ') {
                return bad("expected &user@domain, user@domain, /path/Maildir/ or |command");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_four_forms() {
        for good in ["&a@b.c", "a/b@c.d", "/home/x/Maildir/", "|/bin/prog 'a b'"] {
            assert!(check(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "a", "&@b", "&a@", "a b@c", "/x/mbox", "|", "| ", "&a@b\n|x", &"x".repeat(157)] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
