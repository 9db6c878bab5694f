//! What people see: one line per step with progress, then a table. Colour only where a terminal wants it
//! (`NO_COLOR`, `CLICOLOR` and pipes are respected by `anstream`). Knows nothing of what the steps do.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const NOTE: Style = AnsiColor::Yellow.on_default();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

/// Between two "still running" lines where there is no terminal to redraw.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Between two redraws of the running line on a terminal.
const REDRAW: Duration = Duration::from_millis(500);
/// Columns of the redrawn line: the narrowest terminal people use, so that it never wraps.
const WIDTH: usize = 79;

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn elapsed(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// `text` cut to at most `width` characters.
fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The line of the step that is running, on standard error.
#[derive(Debug)]
pub(crate) struct Running {
    label: String,
    live: bool,
    last: Duration,
}

impl Running {
    /// Step `number` of `total` begins.
    pub(crate) fn begin(number: usize, total: usize, name: &str) -> Self {
        let width = total.to_string().len();
        let running = Self {
            label: format!("[{number:>width$}/{total}] {name}"),
            live: std::io::stderr().is_terminal(),
            last: Duration::ZERO,
        };
        if running.live {
            running.redraw(&format!("{} …", running.label));
        }
        running
    }

    /// Shows that the step goes on; `doing` is asked only when there is something to draw.
    pub(crate) fn tick(&mut self, time: Duration, doing: impl FnOnce() -> Option<String>) {
        let every = if self.live { REDRAW } else { HEARTBEAT };
        if time.saturating_sub(self.last) < every {
            return;
        }
        self.last = time;
        let doing = doing().unwrap_or_default();
        let line = clip(&format!("{} … {}  {doing}", self.label, elapsed(time)), WIDTH);
        if self.live {
            self.redraw(&line);
        } else {
            anstream::eprintln!("{}", line.trim_end());
        }
    }

    /// The step is over: `mark` (coloured), time and note replace the running line.
    pub(crate) fn end(self, mark: &str, style: Style, time: Duration, note: &str) {
        if self.live {
            self.redraw("");
        }
        let note = if note.is_empty() { String::new() } else { format!("  {}", paint(DIM, note)) };
        anstream::eprintln!("{}  {}  {}{note}", self.label, paint(style, mark), elapsed(time));
    }

    #[allow(clippy::unused_self, reason = "only a step on a terminal may redraw")]
    fn redraw(&self, line: &str) {
        let mut terminal = std::io::stderr().lock();
        // A terminal that went away is no reason to stop working.
        let _ = write!(terminal, "\r\x1b[2K{line}").and_then(|()| terminal.flush());
    }
}

impl Drop for Running {
    /// A step that is given up leaves no half line behind.
    fn drop(&mut self) {
        if self.live {
            self.redraw("");
        }
    }
}

/// A table with aligned columns; the first row is the head. Cells are plain text.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well_at_every_size() {
        let shown = [40, 9_900, 10_000, 59_999, 60_000, 185_000].map(|ms| elapsed(Duration::from_millis(ms)));
        assert_eq!(shown, ["0.0 s", "9.9 s", "10 s", "59 s", "1 min 00 s", "3 min 05 s"]);
    }

    #[test]
    fn a_table_is_aligned_and_leaves_no_trailing_blanks() {
        let rows = [vec!["step", "result"], vec!["fmt", "ok"], vec!["clippy core", "failed"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        insta::assert_snapshot!(table(&rows), @r"
        step         result
        fmt          ok
        clippy core  failed
        ");
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark() {
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("äöüß", 4), "äöüß");
    }
}
