//! Showing a text: as it is, or with a pager when it does not fit the terminal.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

/// `pager` is a command for the shell, empty for the usual ones, `None` for no pager at all.
pub(super) fn show(text: &str, pager: Option<&str>) -> io::Result<()> {
    let stdout = io::stdout();
    let rows = unix::terminal::size(&stdout).filter(|_| stdout.is_terminal()).map(|(rows, _)| rows);
    let fits = rows.is_none_or(|rows| text.lines().count() < rows);
    match pager {
        Some(pager) if !fits => {
            // less shows colours only when told to; what the user has said himself comes first.
            let command = if pager.is_empty() {
                "command -v less > /dev/null && exec less -R; exec more"
            } else {
                pager
            };
            through(command, text)
        }
        _ => stdout.lock().write_all(text.as_bytes()),
    }
}

fn through(command: &str, text: &str) -> io::Result<()> {
    let mut child = Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text.as_bytes()) {
            // Who leaves the pager has read enough.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
            _ => {}
        }
    }
    child.wait().map(|_| ())
}
