//! vaddaliasdomain: another name for a domain.

use std::ffi::OsStr;
use std::io;

use accounts::{Domain, DomainName};
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::after;
use crate::context::{Context, EXITS, Failure, run};
use crate::settings::{controls, variables};
use crate::tree::Dir;
use crate::undo::Undo;

static SPEC: Spec = Spec {
    name: "vaddaliasdomain",
    summary: "add another name for a virtual mail domain",
    section: 8,
    place: Place::Bin,
    options: &[OptionSpec::flag('v', "tell what is done")],
    operands: Operands { synopsis: "alias domain", min: 2, max: Some(2) },
    variables: variables!(POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET, QMAIL_SEND_SERVICE),
    controls: controls!(LOCALS, VIRTUALDOMAINS, RCPTHOSTS, MORERCPTHOSTS),
    exits: EXITS,
    description: "vaddaliasdomain makes every account and alias of the domain reachable under the other name too. The \
name is removed again with vdeldomain, or together with the domain. When a step fails, everything before it is taken \
back.

When all is done, the program LIBEXECDIR/vaddaliasdomain (or POST_HANDLE) runs with both names as arguments.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let alias = context.new_domain(context.operand(0))?;
    let real = context.domain(context.operand(1))?;
    if real.is_alias() {
        return Err(Failure::refused(
            &real.name,
            format!("is itself another name of {}; use that", real.real),
        ));
    }
    let mut undo = Undo::default();
    let result = make(context, &alias, &real, &mut undo);
    undo.finish(context, result)?;
    after::domain_changed(context, &alias);
    after::handle(context, real.ids, &[after::argument(&alias), after::argument(&real.name)])
}

fn make<'a>(
    context: &mut Context<'_>,
    alias: &'a DomainName,
    real: &'a Domain,
    undo: &mut Undo<'a>,
) -> Result<(), Failure> {
    let link = real.dir.with_file_name(alias.as_str());
    let fail = |e: io::Error| Failure::step(link.display(), e);
    let parent = real.dir.parent().ok_or_else(|| Failure::refused(&real.name, "its directory is /"))?;
    let open = move || Dir::open_entry(parent);
    // Relative, so that a domain directory that is moved takes its aliases along.
    open().and_then(|d| d.link(OsStr::new(alias.as_str()), OsStr::new(real.name.as_str()))).map_err(fail)?;
    undo.note("link to the domain directory", move |_| {
        let fail = |e: io::Error| Failure::step(alias, e);
        open().and_then(|d| d.remove(OsStr::new(alias.as_str()))).map(|_| ()).map_err(fail)
    });
    undo.note("users/assign and control files", move |c| Ok(c.editor().remove(alias)?));
    Ok(context.editor().add(alias, real.ids, &link)?)
}
