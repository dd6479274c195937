//! svps: what all services of all svscans are doing.

mod act;
mod find;
mod page;
mod table;
mod tree;

use std::io::IsTerminal;
use std::path::PathBuf;

use program::{
    Control, Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place, Program, Source, Spec,
    Variable,
};

use crate::state_path::{DISABLE_RUN, Places, SUPERVISEDIR};
use act::Order;
pub use act::{parse_stopped, stopped_text};
use find::{Kind, Scan};
use table::Style;

/// The table of svps.
pub static SPEC: Spec = Spec {
    name: "svps",
    summary: "print the status of all services",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec { short: Some('a'), long: Some("all"), value: None, help: "services and their loggers" },
        OptionSpec { short: Some('m'), long: Some("main"), value: None, help: "services (the default)" },
        OptionSpec { short: Some('l'), long: Some("logs"), value: None, help: "loggers" },
        OptionSpec {
            short: Some('d'),
            long: Some("days"),
            value: None,
            help: "times in days, hours, minutes and seconds",
        },
        OptionSpec {
            short: Some('T'),
            long: Some("tree"),
            value: None,
            help: "the processes below each svscan instead",
        },
        OptionSpec {
            short: Some('h'),
            long: Some("hup"),
            value: None,
            help: "HUP to each svscan: read the directory again",
        },
        OptionSpec { short: Some('t'), long: Some("term"), value: None, help: "TERM to each svscan" },
        OptionSpec {
            short: Some('s'),
            long: Some("stop"),
            value: None,
            help: "stop each running service and remember it",
        },
        OptionSpec {
            short: Some('r'),
            long: Some("resume"),
            value: None,
            help: "start the services that -s has stopped",
        },
        OptionSpec {
            short: Some('n'),
            long: Some("no-pager"),
            value: None,
            help: "never show it with a pager",
        },
        OptionSpec {
            short: Some('j'),
            long: Some("json"),
            value: None,
            help: "one JSON object for each svscan",
        },
        OptionSpec::long_value("servicedir", "dir", "only the svscan of this directory"),
    ],
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    variables: &[
        Variable::new(
            "PAGER",
            "What shows a report that does not fit on the terminal (default less, else more).",
        ),
        DISABLE_RUN,
        SUPERVISEDIR,
    ],
    controls: &[Control::new("servicedir.conf", "A scan directory to look at (default /service).")],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "done" },
        ExitCodeDoc { code: 1, meaning: "wrong usage, no svscan is running, or something cannot be told" },
        ExitCodeDoc { code: 111, meaning: "the report cannot be written" },
    ],
    description: "\
Each svscan(8) is found by its pid file: in /run/svscan, in the scan directory of this installation, \
and in the working directory of every process that may be looked at. For each, a line with its process id \
and how long it has been running is followed by its services: those that are down, that wait, that are up. \
Everybody may ask; the state of services is shown as ? to those who may not read it. To stop and start services takes their owner.

-s remembers what it has stopped in .svps-stopped, in /run/svscan if there is such a directory, else in the \
scan directory.",
    usage_exit: 1,
};

/// svps.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

const FAILED: Exit = Exit(1);
const SERVICES: &str = "/service";

struct Settings {
    kinds: Vec<Kind>,
    days: bool,
    tree: bool,
    order: Option<Order>,
    json: bool,
    pager: Option<String>,
    only: Option<PathBuf>,
    usual: PathBuf,
    places: Places,
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    let kinds = match (parsed.flag("a"), parsed.flag("m"), parsed.flag("l")) {
        (true, ..) | (_, true, true) => vec![Kind::Main, Kind::Log],
        (.., true) => vec![Kind::Log],
        _ => vec![Kind::Main],
    };
    let orders = [("h", Order::Hup), ("t", Order::Term), ("s", Order::Stop), ("r", Order::Resume)];
    let mut given = orders.into_iter().filter(|(letter, _)| parsed.flag(letter)).map(|(_, order)| order);
    let order = given.next();
    if given.next().is_some() {
        loader.problem("only one of -h, -t, -s and -r can be done");
    }
    let only = parsed.value("servicedir").map(PathBuf::from);
    let from = Source { control: Some("servicedir.conf"), ..Source::default() };
    let usual = loader.path("servicedir", from, SERVICES);
    let pager = match parsed.flag("n") {
        true => None,
        false => Some(env.get("PAGER").map_or_else(String::new, |p| p.to_string_lossy().into_owned())),
    };
    let source = if parsed.flag("n") { parsed.source(&["n"]) } else { loader.source(&["PAGER"], &[]) };
    loader.show("pager", pager.as_deref().unwrap_or("none"), source);
    let (days, tree, json) = (parsed.flag("d"), parsed.flag("T"), parsed.flag("j"));
    let places = Places::new(env);
    let settings = Settings { kinds, days, tree, order, json, pager, only, usual, places };
    invocation.finish(loader, settings, FAILED)
}

fn main(invocation: &Invocation) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let mut exit = Exit::OK;
    let mut complain = |what: String| {
        invocation.complain("warning", what);
        exit = FAILED;
    };
    let scans = find::scans(&settings.places, settings.only.as_deref(), &settings.usual, &mut complain);
    if scans.is_empty() {
        let where_ = settings.only.as_ref().unwrap_or(&settings.usual).display();
        invocation.complain("fatal", format_args!("no svscan is running that can be looked at ({where_})"));
        return FAILED;
    }
    if let Some(order) = settings.order {
        scans.iter().for_each(|scan| act::perform(order, scan, &settings.places, &mut complain));
        return exit;
    }
    let text = report(&settings, &scans, &mut complain);
    match page::show(&text, settings.pager.as_deref().filter(|_| !settings.json)) {
        Ok(()) => exit,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to write: {e}"));
            Exit::TEMPORARY
        }
    }
}

fn report(settings: &Settings, scans: &[Scan], complain: &mut dyn FnMut(String)) -> String {
    let stdout = std::io::stdout();
    let on_terminal = stdout.is_terminal();
    let width = unix::terminal::size(&stdout).filter(|_| on_terminal).map(|(_, columns)| columns);
    let style = Style { width, colour: on_terminal, days: settings.days };
    let now = unix::clock::since_epoch();
    let processes = if settings.tree { tree::processes() } else { Vec::new() };
    let mut out = String::new();
    for scan in scans {
        if settings.tree {
            out.push_str(&table::heading(scan, now, style));
            out.push_str(&tree::draw(&processes, scan.pid.as_raw(), style.width));
            continue;
        }
        let groups: Vec<_> = settings
            .kinds
            .iter()
            .map(|&kind| {
                let mut rows = find::services(scan, kind, &settings.places, complain);
                table::sort(&mut rows);
                (kind, rows)
            })
            .collect();
        if settings.json {
            out.push_str(&table::json(scan, &groups, now));
        } else {
            out.push_str(&table::heading(scan, now, style));
            for (kind, rows) in &groups {
                out.push_str(&table::group(*kind, rows, now, style));
            }
        }
    }
    out
}
