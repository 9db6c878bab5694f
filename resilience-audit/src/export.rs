//! JSON lines: one object per record, safe to print and to feed to line-based tools.
//! Characters that could move a cursor or fake a line are escaped beyond what JSON asks for.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::error::ReadError;
use crate::record::{Record, is_unprintable};

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The log could not be read on.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output could not be written.
    #[error("cannot write the export: {0}")]
    Write(#[source] io::Error),
}

/// Writes records as JSON lines and flushes; returns how many were written.
///
/// ```
/// use resilience_audit::{AuditEvent, AuditLog, Query, export_json_lines};
///
/// let log = AuditLog::default();
/// log.append(AuditEvent::new("user", "login", "ada\n").detail("password", "hunter2"))?;
/// let mut out = Vec::new();
/// export_json_lines(log.query(Query::new())?, &mut out)?;
/// let text = String::from_utf8(out)?;
/// assert!(text.contains(r#""resource":"ada\n""#) && text.contains(r#""password":"[redacted]""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the log cannot be read on, or the output cannot be written; what was written before stays.
pub fn export_json_lines(
    records: impl IntoIterator<Item = Result<Record, ReadError>>,
    mut out: impl Write,
) -> Result<u64, ExportError> {
    let mut count = 0;
    for record in records {
        let mut line = json_line(&record?);
        line.push('\n');
        out.write_all(line.as_bytes()).map_err(ExportError::Write)?;
        count += 1;
    }
    out.flush().map_err(ExportError::Write)?;
    Ok(count)
}

/// One record as a line of JSON, without the line end.
pub fn json_line(record: &Record) -> String {
    let mut bytes = Vec::with_capacity(512);
    // Neither the record nor a vector can fail; were it otherwise, the empty line would show it.
    match record.serialize(&mut Serializer::with_formatter(&mut bytes, Printable(CompactFormatter))) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// The compact form, with everything unprintable escaped.
struct Printable(CompactFormatter);

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_unprintable(*c)) {
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        self.0.write_string_fragment(writer, &fragment[plain..])
    }
}
