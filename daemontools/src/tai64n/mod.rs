//! Time labels of log lines: tai64n puts them there; tai64nlocal, tai64nunix, tai64n2tai and tai2tai64n
//! rewrite them.
//!
//! ```text
//! fd 0 ──► buffered::filter ──► Stamper                 (tai64n)       ──► fd 1
//!                               LineStarts<a conversion> (the others)
//! ```

pub mod convert;
pub mod line_starts;
pub mod local;
pub mod stamp;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};
use unix::buffered::{Failure, Input, Output, filter, filter_to_end};

use convert::{FromTai, ToTai, ToUnix};
use line_starts::{Conversion, LineStarts};
use local::{Local, Style};
use stamp::Stamper;

const NO_OPERANDS: Operands = Operands { synopsis: "", min: 0, max: Some(0) };
const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 0, meaning: "the whole input was copied" },
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ExitCodeDoc { code: 111, meaning: "the input cannot be read or the output not be written" },
];
const CONVERTER_EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 0, meaning: "the whole input was copied" },
    ExitCodeDoc { code: 1, meaning: "the input cannot be read" },
    ExitCodeDoc { code: 2, meaning: "the output cannot be written" },
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
];

/// The table of tai64n.
pub static TAI64N: Spec = Spec {
    name: "tai64n",
    summary: "put a time label in front of each line",
    section: 8,
    place: Place::Bin,
    operands: NO_OPERANDS,
    exits: EXITS,
    description: "Copies its input to its output with a TAI64N label and a blank in front of each line, taken when the first byte of the line is seen.",
    ..Spec::EMPTY
};

/// The table of tai64nlocal.
pub static TAI64NLOCAL: Spec = Spec {
    name: "tai64nlocal",
    summary: "make time labels readable",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('u', "UTC instead of local time"),
        OptionSpec::flag('i', "ISO 8601, with the offset from UTC"),
    ],
    operands: NO_OPERANDS,
    exits: EXITS,
    description: "Copies its input to its output; a TAI64N label at the start of a line becomes date and time. Other lines stay as they are.",
    ..Spec::EMPTY
};

/// The table of tai64nunix.
pub static TAI64NUNIX: Spec = Spec {
    name: "tai64nunix",
    summary: "turn time labels into seconds since 1970",
    section: 8,
    place: Place::Bin,
    operands: NO_OPERANDS,
    exits: EXITS,
    description: "Copies its input to its output; a TAI64N label at the start of a line becomes seconds since 1970, a point and nine digits of nanoseconds. Other lines stay as they are.",
    ..Spec::EMPTY
};

/// The table of tai64n2tai.
pub static TAI64N2TAI: Spec = Spec {
    name: "tai64n2tai",
    summary: "turn time labels into decimal TAI seconds",
    section: 8,
    place: Place::Bin,
    operands: NO_OPERANDS,
    exits: CONVERTER_EXITS,
    description: "Copies its input to its output; a TAI64N label of the years 1970 to 2106 at the start of a line becomes ten digits of TAI seconds, a point and nine digits of nanoseconds. Other lines stay as they are. tai2tai64n(8) is the reverse.",
    ..Spec::EMPTY
};

/// The table of tai2tai64n.
pub static TAI2TAI64N: Spec = Spec {
    name: "tai2tai64n",
    summary: "turn decimal TAI seconds into time labels",
    section: 8,
    place: Place::Bin,
    operands: NO_OPERANDS,
    exits: CONVERTER_EXITS,
    description: "Copies its input to its output; decimal TAI seconds with a fraction at the start of a line become a TAI64N label. Other lines stay as they are. tai64n2tai(8) is the reverse.",
    ..Spec::EMPTY
};

/// tai64n.
pub const PROGRAM: Program = Program { spec: &TAI64N, main };
/// tai64nlocal.
pub const TAI64NLOCAL_PROGRAM: Program = Program { spec: &TAI64NLOCAL, main: tai64nlocal };
/// tai64nunix.
pub const TAI64NUNIX_PROGRAM: Program =
    Program { spec: &TAI64NUNIX, main: |invocation| rewriting(invocation, ToUnix::default, quiet) };
/// tai64n2tai.
pub const TAI64N2TAI_PROGRAM: Program =
    Program { spec: &TAI64N2TAI, main: |invocation| rewriting(invocation, ToTai::default, converter) };
/// tai2tai64n.
pub const TAI2TAI64N_PROGRAM: Program =
    Program { spec: &TAI2TAI64N, main: |invocation| rewriting(invocation, FromTai::default, converter) };

fn main(invocation: &Invocation) -> Exit {
    if let Err(exit) = invocation.parse_all() {
        return exit;
    }
    let mut labels = tai::Ascending::default();
    let mut stamper = Stamper::default();
    let copied = filter(Input::stdin(), Output::stdout(), |bytes, out| {
        let now = labels.label(unix::clock::since_epoch());
        stamper.feed(bytes, now, out)
    });
    quiet(copied)
}

fn tai64nlocal(invocation: &Invocation) -> Exit {
    let style = match invocation.parse_all() {
        Ok(parsed) => Style { utc: parsed.flag("u"), iso: parsed.flag("i") },
        Err(exit) => return exit,
    };
    let calendar = move |seconds| unix::clock::calendar_time(seconds, style.utc);
    quiet(rewrite(Local::new(style, calendar)))
}

fn rewriting<C: Conversion>(
    invocation: &Invocation,
    conversion: fn() -> C,
    exit: fn(Result<(), Failure>) -> Exit,
) -> Exit {
    match invocation.parse_all() {
        Ok(_) => exit(rewrite(conversion())),
        Err(exit) => exit,
    }
}

fn rewrite(conversion: impl Conversion) -> Result<(), Failure> {
    let mut lines = LineStarts::new(conversion);
    filter_to_end(Input::stdin(), Output::stdout(), |bytes, out| match bytes {
        Some(bytes) => lines.feed(bytes, out),
        None => lines.finish(out),
    })
}

/// These stand in the middle of pipelines, whose ends say what went wrong.
fn quiet(result: Result<(), Failure>) -> Exit {
    if result.is_ok() { Exit::OK } else { Exit::TEMPORARY }
}

fn converter(result: Result<(), Failure>) -> Exit {
    match result {
        Ok(()) => Exit::OK,
        Err(Failure::Read(_)) => Exit(1),
        Err(Failure::Write(_)) => Exit(2),
    }
}
