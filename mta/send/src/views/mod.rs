//! qmail-qread and qmail-qstat: what is in the queue.

pub mod contents;

use std::io::{self, BufWriter, Write};

use mta_queue::received::date;
use program::{
    Control, Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Parsed, Place as Where, Program,
    Spec, Variable,
};

use crate::place::CONTROLDIR;
use contents::{Counts, Message, View, places, queues, shown};

const VARIABLES: &[Variable] = &[
    Variable { name: "QUEUEDIR", help: "look at this queue only" },
    Variable {
        name: "QUEUE_BASE",
        help: "look at all queues in this directory (control file queue_base, /var/indimail/queue)",
    },
    CONTROLDIR,
];
const CONTROLS: &[Control] = &[Control { name: "queue_base", help: "as QUEUE_BASE" }];
const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 0, meaning: "shown" },
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ExitCodeDoc { code: 111, meaning: "a queue cannot be read" },
];
const NOTHING: Operands = Operands { synopsis: "", min: 0, max: Some(0) };

static QREAD: Spec = Spec {
    name: "qmail-qread",
    summary: "list the messages of the queue",
    section: 8,
    place: Where::Bin,
    options: &[
        OptionSpec::flag('a', "all recipients (this is the default)"),
        OptionSpec::flag('l', "messages with local recipients, and those only"),
        OptionSpec::flag('r', "messages with remote recipients, and those only"),
        OptionSpec::flag('t', "messages that are not sorted yet"),
        OptionSpec::flag('c', "counts only"),
        OptionSpec::long_flag("json", "one JSON array with an object for each message"),
    ],
    operands: NOTHING,
    variables: VARIABLES,
    controls: CONTROLS,
    exits: EXITS,
    description: "For each message one line with its date, subdirectory, number, size in bytes, sender and \
        whether some recipients have failed; then one line for each recipient, marked done when it has been \
        served. The last lines count the messages of each queue. Needs to be root, or to read the queue in \
        another way.",
    ..Spec::EMPTY
};

static QSTAT: Spec = Spec {
    name: "qmail-qstat",
    summary: "count the messages of the queue",
    section: 8,
    place: Where::Bin,
    options: &[OptionSpec::long_flag("json", "one JSON array with an object for each queue")],
    operands: NOTHING,
    variables: VARIABLES,
    controls: CONTROLS,
    exits: EXITS,
    description: "Prints how many messages there are in all queues, and how many of them todo-proc has not \
        sorted yet.",
    ..Spec::EMPTY
};

/// qmail-qread.
pub const QREAD_PROGRAM: Program = Program { spec: &QREAD, main: qread };
/// qmail-qstat.
pub const QSTAT_PROGRAM: Program = Program { spec: &QSTAT, main: qstat };

fn qread(invocation: &Invocation) -> Exit {
    with_views(invocation, |parsed, views, out| {
        let wanted = Wanted::from(parsed);
        if parsed.flag("c") {
            return counts(views)?.iter().try_for_each(|c| print_counts(c, out));
        }
        if !parsed.flag("json") {
            for view in views {
                view.each(|m| wanted.pick(m).map_or(Ok(()), |m| print_message(&m, out)))?;
            }
            return counts(views)?.iter().try_for_each(|c| print_counts(c, out));
        }
        let mut separator = "[";
        for view in views {
            view.each(|m| {
                let Some(m) = wanted.pick(m) else { return Ok(()) };
                out.write_all(separator.as_bytes())?;
                separator = ",\n";
                Ok(serde_json::to_writer(&mut *out, &m)?)
            })?;
        }
        writeln!(out, "{}]", if separator == "[" { "[" } else { "" })
    })
}

fn qstat(invocation: &Invocation) -> Exit {
    with_views(invocation, |parsed, views, out| {
        let counts = counts(views)?;
        if parsed.flag("json") {
            serde_json::to_writer(&mut *out, &counts)?;
            return writeln!(out);
        }
        let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
        writeln!(out, "messages in queue: {}", sum(|c| c.messages))?;
        writeln!(out, "messages in queue but not yet preprocessed: {}", sum(|c| c.todo))
    })
}

fn with_views(
    invocation: &Invocation,
    show: impl FnOnce(&Parsed, &[View], &mut dyn Write) -> io::Result<()>,
) -> Exit {
    let parsed = match invocation.parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let mut loader = Loader::new(&invocation.environment);
    let place = places(&mut loader);
    let place = match invocation.finish(loader, place, Exit::TEMPORARY) {
        Ok(place) => place,
        Err(exit) => return exit,
    };
    let queues = match queues(place) {
        Ok(queues) => queues,
        Err(why) => {
            invocation.complain("fatal", why);
            return Exit::TEMPORARY;
        }
    };
    let mut views = Vec::new();
    for directory in queues {
        match View::of(&directory) {
            Ok(view) => views.push(view),
            Err(e) => {
                invocation.complain("fatal", format_args!("{}: {e}", shown(&directory)));
                return Exit::TEMPORARY;
            }
        }
    }
    let mut out = BufWriter::new(io::stdout().lock());
    match show(&parsed, &views, &mut out).and_then(|()| out.flush()) {
        Ok(()) => Exit::OK,
        // The reader of a pipe has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

fn counts(views: &[View]) -> io::Result<Vec<Counts>> {
    views.iter().map(View::counts).collect()
}

/// Which recipients are shown.
struct Wanted(Vec<&'static str>);

impl Wanted {
    fn from(parsed: &Parsed) -> Self {
        let pairs = [("l", "local"), ("r", "remote"), ("t", "todo")];
        let chosen: Vec<_> =
            pairs.iter().filter(|(flag, _)| parsed.flag(flag)).map(|(_, name)| *name).collect();
        Self(if parsed.flag("a") { Vec::new() } else { chosen })
    }

    fn pick(&self, mut message: Message) -> Option<Message> {
        if self.0.is_empty() {
            return Some(message);
        }
        message.recipients.retain(|r| self.0.contains(&r.channel));
        (!message.recipients.is_empty()).then_some(message)
    }
}

fn print_message(m: &Message, out: &mut dyn Write) -> io::Result<()> {
    // `Wed, 25 Nov 2026 08:34:33 +0000` without weekday and zone.
    let date = date(m.date, 0);
    let date = date.get(5..25).unwrap_or(&date);
    let bouncing = if m.bouncing { "  bouncing" } else { "" };
    writeln!(out, "{date} GMT  {}/#{}  {}  <{}>{bouncing}", m.subdirectory, m.id, m.size, m.sender)?;
    for r in &m.recipients {
        let done = if r.done { "  done" } else { "" };
        writeln!(out, "{done}\t{}\t{}", r.channel, r.address)?;
    }
    Ok(())
}

fn print_counts(c: &Counts, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{}: messages {} local {} remote {} todo {} bouncing {}",
        c.queue, c.messages, c.local, c.remote, c.todo, c.bouncing
    )
}
