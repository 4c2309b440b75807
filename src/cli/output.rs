//! How results and errors look: tables and words for a person, JSON for a program.
//!
//! Nothing here fails because nobody reads it: a pipe that was closed (`| head`, or whoever started a node and has gone) is the
//! reader's wish, and would be the end of a node and all its sessions.

use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

/// Where a command's words go.
#[derive(Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// A result: as JSON, or in the words that `text` makes.
    pub fn result<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<ExitCode> {
        let shown = if self.json { serde_json::to_string_pretty(value)? } else { text(value) };
        say(shown.trim_end());
        Ok(ExitCode::SUCCESS)
    }

    /// Something that a person wants to hear while the command works.
    pub fn note(self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// How far a long command is; one line that overwrites itself on a terminal, silence elsewhere.
    pub fn progress(self, done: u64, total: u64, what: &str) {
        if self.json || !std::io::stderr().is_terminal() {
            return;
        }
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
        let filled = usize::try_from(percent / 4).unwrap_or(25).min(25);
        let (bar, rest) = ("#".repeat(filled), " ".repeat(25 - filled));
        let end = if done >= total { "\n" } else { "" };
        let _ = write!(std::io::stderr(), "\r\x1b[K[{bar}{rest}] {percent:3} %  {what}{end}");
    }

    /// An error with its causes.
    pub fn fail(self, error: &anyhow::Error) -> ExitCode {
        if self.json {
            say(&json!({ "error": format!("{error:#}") }).to_string());
        } else {
            self.note(&format!("posthouse: {error:#}"));
        }
        ExitCode::FAILURE
    }
}

/// A line on standard output, at once.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Columns of text, as wide as they need to be.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let line = |out: &mut String, cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    };
    line(&mut out, &mut head.iter().copied());
    for row in rows {
        line(&mut out, &mut row.iter().map(String::as_str));
    }
    out
}

/// A size for a person: `1.4 MiB`.
pub fn size(octets: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = octets;
    let mut rest = 0;
    let mut unit = 0;
    while value >= 1024 && unit + 1 < units.len() {
        rest = value % 1024;
        value /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{value}.{} {}", rest * 10 / 1024, units[unit]) }
}

/// A stretch of time for a person: `2h 05m`.
pub fn stretch(seconds: u64) -> String {
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_do_not_trail() {
        let rows = [vec!["alice@demo.test".to_owned(), "1".to_owned()], vec!["b@x".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["address", "n"], &rows), "address          n\nalice@demo.test  1\nb@x              22\n");
    }

    #[test]
    fn sizes_and_stretches_read_well() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1_500_000), "1.4 MiB");
        assert_eq!(stretch(7500), "2h 05m");
    }
}
