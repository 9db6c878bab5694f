//! Records on a terminal or for a machine: as lines, as a table, as JSON lines. Colour only where a person looks.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use resilience_audit::{Record, Status, json_line};

/// Rows whose widths are taken before the first is printed; later ones may be wider and then stand out.
const SCREEN: usize = 200;
/// Wider columns are left ragged: the table is for eyes, and `--json` has everything.
const WIDEST: usize = 40;

/// One record, in one line.
pub(super) fn line(out: &mut impl Write, record: &Record, json: bool) -> io::Result<()> {
    if json {
        writeln!(out, "{}", json_line(record).trim_end())
    } else {
        let style = style(record.status());
        writeln!(out, "{style}{record}{style:#}")
    }
}

/// How a status looks.
pub(super) fn style(status: Status) -> Style {
    match status {
        Status::Failure | Status::TimedOut | Status::Panicked => AnsiColor::Red.on_default(),
        Status::Rejected | Status::Cancelled => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

/// Records as a table that is printed while they come: widths are those of the first screenful.
pub(super) struct Table<W> {
    out: W,
    held: Vec<(Style, [String; COLUMNS])>,
    widths: Option<[usize; COLUMNS]>,
}

const COLUMNS: usize = 7;
const HEADS: [&str; COLUMNS] = ["#", "time", "type", "action", "resource", "status", "more"];

impl<W: Write> Table<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, held: Vec::new(), widths: None }
    }

    pub(super) fn row(&mut self, record: &Record) -> io::Result<()> {
        let row = (style(record.status()), cells(record));
        if let Some(widths) = &self.widths {
            return print(&mut self.out, &row, widths);
        }
        self.held.push(row);
        if self.held.len() == SCREEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let head = (Style::new().bold(), HEADS.map(str::to_owned));
        let width = |column: usize| {
            let cells = self.held.iter().map(|(_, cells)| cells[column].chars().count());
            cells.filter(|width| *width <= WIDEST).max().unwrap_or(0).max(HEADS[column].len())
        };
        let widths = std::array::from_fn(width);
        for row in std::iter::once(&head).chain(&self.held) {
            print(&mut self.out, row, &widths)?;
        }
        self.held.clear();
        self.widths = Some(widths);
        Ok(())
    }

    /// Prints what is held back; nothing at all when there was no row.
    pub(super) fn end(mut self) -> io::Result<()> {
        if self.widths.is_none() && !self.held.is_empty() {
            self.flush()?;
        }
        self.out.flush()
    }
}

fn print(
    out: &mut impl Write,
    (style, cells): &(Style, [String; COLUMNS]),
    widths: &[usize; COLUMNS],
) -> io::Result<()> {
    // The last column is never padded, so that no line ends with blanks.
    let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
    write!(out, "{style}")?;
    for (cell, width) in cells.iter().zip(widths).take(last) {
        write!(out, "{cell:<width$}  ")?;
    }
    writeln!(out, "{}{style:#}", cells[last])
}

/// What a record says beyond type, action, resource and status goes into the last column, as its line has it.
fn cells(record: &Record) -> [String; COLUMNS] {
    let line = record.to_string();
    // `time #sequence type action resource status …`: every word is escaped, so a blank only stands between words.
    let mut words = line.splitn(COLUMNS, ' ');
    let mut next = || words.next().unwrap_or_default().to_owned();
    let (time, number, kind, action, resource, status, more) = (next(), next(), next(), next(), next(), next(), next());
    // Milliseconds are enough to read; the nanoseconds are in --json.
    let time = time.get(..23).map_or(time.clone(), |short| format!("{short}Z"));
    [number.trim_start_matches('#').to_owned(), time, kind, action, resource, status, more]
}
