//! What the editor has open: every document's current text and version, kept by applying its edits.
//! After each applied edit the text is the one the editor shows, whatever the position encoding and line endings.
//! Positions outside the text are clamped as the protocol says; nothing here does I/O or talks to the server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::frame::Frame;
use super::message;

/// The unit in which a position counts columns; agreed on in the server's answer to `initialize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PositionEncoding {
    /// Bytes.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16 code units, the protocol's default.
    #[default]
    #[serde(rename = "utf-16")]
    Utf16,
    /// Characters.
    #[serde(rename = "utf-32")]
    Utf32,
}

impl PositionEncoding {
    fn width(self, c: char) -> usize {
        match self {
            Self::Utf8 => c.len_utf8(),
            Self::Utf16 => c.len_utf16(),
            Self::Utf32 => 1,
        }
    }
}

/// A place in a document, both numbers counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Position {
    /// The line; `\n`, `\r\n` and `\r` end one.
    pub line: u32,
    /// The column, in units of the [`PositionEncoding`].
    pub character: u32,
}

/// What to replace, its end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Range {
    /// The first place replaced.
    pub start: Position,
    /// The place after the last one replaced.
    pub end: Position,
}

/// Why a document notification could not be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The parameters are not those of the notification.
    #[error("the parameters of {method} are not understood: {reason}")]
    BadParameters {
        /// The notification.
        method: &'static str,
        /// What the JSON parser says.
        reason: String,
    },
    /// An edit or a close of a document that is not open.
    #[error("{uri} is not open")]
    NotOpen {
        /// The document.
        uri: String,
    },
    /// Too much text is open to keep a copy of it all.
    #[error("{uri} does not fit: the open documents would take {bytes} bytes; at most {max} are kept")]
    TooLarge {
        /// The document.
        uri: String,
        /// Bytes of all open documents, this one included.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// A text with the places where its lines start.
///
/// ```
/// use parsercraft_guard::lsp::{Position, PositionEncoding, Range, Text};
///
/// let mut text = Text::new("let 🦀 = 1;\n".to_owned());
/// let at = |line, character| Position { line, character };
/// text.replace(Range { start: at(0, 4), end: at(0, 6) }, "crab", PositionEncoding::Utf16);
/// assert_eq!(text.as_str(), "let crab = 1;\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    text: String,
    line_starts: Vec<usize>,
}

impl Text {
    /// A text.
    pub fn new(text: String) -> Self {
        let mut line_starts = vec![0];
        line_starts_within(&text, 0, text.len(), &mut line_starts);
        Self { text, line_starts }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The byte at which `position` lies. A column past the end of its line means the end of that line, its
    /// terminator excluded; a line past the last means the end of the text; inside a character means before it.
    pub fn offset(&self, position: Position, encoding: PositionEncoding) -> usize {
        let line = position.line as usize;
        let Some(&start) = self.line_starts.get(line) else { return self.text.len() };
        let end = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        let content = self.text[start..end].trim_end_matches(['\r', '\n']);
        let wanted = position.character as usize;
        let mut column = 0;
        for (at, c) in content.char_indices() {
            column += encoding.width(c);
            if column > wanted {
                return start + at;
            }
        }
        start + content.len()
    }

    /// Replaces `range` by `new`. A range whose end lies before its start is read the other way round.
    pub fn replace(&mut self, range: Range, new: &str, encoding: PositionEncoding) {
        let (a, b) = (self.offset(range.start, encoding), self.offset(range.end, encoding));
        let (start, end) = (a.min(b), a.max(b));
        // The lines to look at again: from the one before the edit's, if the edit begins at a line's start (a `\n`
        // put there may join a `\r` that ended the line before), to the end of the one the edit ends in.
        let mut first = self.line_starts.partition_point(|&line| line <= start) - 1;
        if first > 0 && self.line_starts[first] == start {
            first -= 1;
        }
        let next = self.line_starts.partition_point(|&line| line <= end);
        self.text.replace_range(start..end, new);
        let shift = |line: usize| line - end + start + new.len();
        let from = self.line_starts[first];
        let until = self.line_starts.get(next).map_or(self.text.len(), |&line| shift(line));
        let mut renewed = Vec::new();
        line_starts_within(&self.text, from, until, &mut renewed);
        if next < self.line_starts.len() {
            renewed.pop(); // the start of the line after, which stays where it is in the list
        }
        for line in &mut self.line_starts[next..] {
            *line = shift(*line);
        }
        self.line_starts.splice(first + 1..next, renewed);
    }
}

/// Appends the line starts in `from < start <= until`.
fn line_starts_within(text: &str, from: usize, until: usize, line_starts: &mut Vec<usize>) {
    let bytes = text.as_bytes();
    for (at, &byte) in bytes[from..until].iter().enumerate() {
        let next = from + at + 1;
        if byte == b'\n' || (byte == b'\r' && bytes.get(next) != Some(&b'\n')) {
            line_starts.push(next);
        }
    }
}

/// An open document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    language_id: Box<str>,
    version: i64,
    text: Text,
}

impl Document {
    /// The version the editor gave it last.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The text the editor shows.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }
}

#[derive(Deserialize)]
struct DidOpen<'a> {
    #[serde(borrow, rename = "textDocument")]
    document: Opened<'a>,
}

#[derive(Deserialize, Serialize)]
struct Opened<'a> {
    #[serde(borrow)]
    uri: Cow<'a, str>,
    #[serde(borrow, rename = "languageId", default)]
    language_id: Cow<'a, str>,
    #[serde(default)]
    version: i64,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct DidChange<'a> {
    #[serde(borrow, rename = "textDocument")]
    document: Changed<'a>,
    #[serde(borrow, rename = "contentChanges")]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Changed<'a> {
    #[serde(borrow)]
    uri: Cow<'a, str>,
    version: Option<i64>,
}

#[derive(Deserialize)]
struct Change<'a> {
    range: Option<Range>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct OfDocument<'a> {
    #[serde(borrow, rename = "textDocument")]
    document: Named<'a>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    uri: Cow<'a, str>,
}

/// All open documents, by URI.
#[derive(Debug)]
pub struct Documents {
    open: BTreeMap<String, Document>,
    bytes: usize,
    max_bytes: usize,
    encoding: PositionEncoding,
}

impl Documents {
    /// None open; all texts together may take `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { open: BTreeMap::new(), bytes: 0, max_bytes, encoding: PositionEncoding::default() }
    }

    /// Sets the unit of columns in the edits to come.
    pub fn set_encoding(&mut self, encoding: PositionEncoding) {
        self.encoding = encoding;
    }

    /// The document at `uri`, if it is open and kept.
    pub fn get(&self, uri: &str) -> Option<&Document> {
        self.open.get(uri)
    }

    /// How many are open and kept.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Follows `textDocument/didOpen`, `didChange` and `didClose`; whether `method` was one of them.
    ///
    /// # Errors
    /// [`DocumentError`] when the notification makes no sense. A document whose edit is not understood is no longer
    /// kept, because its text is no longer known.
    pub fn follow(&mut self, method: &str, params: Option<&RawValue>) -> Result<bool, DocumentError> {
        match method {
            "textDocument/didOpen" => self.did_open(parse("textDocument/didOpen", params)?)?,
            "textDocument/didChange" => {
                let change = parse("textDocument/didChange", params).inspect_err(|_| {
                    if let Ok(OfDocument { document }) = parse("textDocument/didChange", params) {
                        self.forget(&document.uri);
                    }
                })?;
                self.did_change(change)?;
            }
            "textDocument/didClose" => {
                let OfDocument { document } = parse("textDocument/didClose", params)?;
                if !self.forget(&document.uri) {
                    return Err(DocumentError::NotOpen { uri: document.uri.into_owned() });
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A `textDocument/didOpen` for each open document at its current version.
    pub fn replay(&self) -> impl Iterator<Item = Frame> + '_ {
        self.open.iter().map(|(uri, document)| {
            let opened = Opened {
                uri: Cow::Borrowed(uri),
                language_id: Cow::Borrowed(&document.language_id),
                version: document.version,
                text: Cow::Borrowed(document.text()),
            };
            message::notification("textDocument/didOpen", BTreeMap::from([("textDocument", opened)]))
        })
    }

    fn did_open(&mut self, DidOpen { document }: DidOpen<'_>) -> Result<(), DocumentError> {
        self.forget(&document.uri);
        self.fits(&document.uri, document.text.len())?;
        self.bytes += document.text.len();
        let opened = Document {
            language_id: document.language_id.into(),
            version: document.version,
            text: Text::new(document.text.into_owned()),
        };
        self.open.insert(document.uri.into_owned(), opened);
        Ok(())
    }

    fn did_change(&mut self, change: DidChange<'_>) -> Result<(), DocumentError> {
        let uri = change.document.uri;
        let Some(document) = self.open.get_mut(&*uri) else {
            return Err(DocumentError::NotOpen { uri: uri.into_owned() });
        };
        self.bytes -= document.text().len();
        for Change { range, text } in change.changes {
            match range {
                Some(range) => document.text.replace(range, &text, self.encoding),
                None => document.text = Text::new(text.into_owned()),
            }
        }
        document.version = change.document.version.unwrap_or(document.version);
        let now = document.text().len();
        self.bytes += now;
        self.fits(&uri, 0).inspect_err(|_| {
            self.forget(&uri);
        })
    }

    fn fits(&self, uri: &str, more: usize) -> Result<(), DocumentError> {
        let bytes = self.bytes + more;
        if bytes > self.max_bytes {
            return Err(DocumentError::TooLarge { uri: uri.to_owned(), bytes, max: self.max_bytes });
        }
        Ok(())
    }

    fn forget(&mut self, uri: &str) -> bool {
        let closed = self.open.remove(uri);
        self.bytes -= closed.as_ref().map_or(0, |document| document.text().len());
        closed.is_some()
    }
}

fn parse<'a, T: Deserialize<'a>>(method: &'static str, params: Option<&'a RawValue>) -> Result<T, DocumentError> {
    let text = params.map_or("null", RawValue::get);
    serde_json::from_str(text).map_err(|error| DocumentError::BadParameters { method, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(line: u32, character: u32) -> Position {
        Position { line, character }
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("good JSON")
    }

    fn follow(documents: &mut Documents, method: &str, params: &str) -> Result<bool, DocumentError> {
        documents.follow(method, Some(&raw(params)))
    }

    #[test]
    fn columns_count_in_the_agreed_unit() {
        let text = Text::new("a😀é\nb".to_owned());
        for (encoding, column, offset) in [
            (PositionEncoding::Utf8, 5, 5),
            (PositionEncoding::Utf16, 3, 5),
            (PositionEncoding::Utf32, 2, 5),
            (PositionEncoding::Utf16, 2, 1), // inside the pair: before it
            (PositionEncoding::Utf16, 99, 7),
        ] {
            assert_eq!(text.offset(at(0, column), encoding), offset, "{encoding:?} {column}");
        }
        assert_eq!(text.offset(at(9, 0), PositionEncoding::Utf16), 9);
    }

    #[test]
    fn a_line_feed_put_after_a_carriage_return_makes_one_terminator() {
        let mut text = Text::new("a\rb".to_owned());
        assert_eq!(text.line_starts, [0, 2]);
        text.replace(Range { start: at(1, 0), end: at(1, 0) }, "\n", PositionEncoding::Utf16);
        assert_eq!(text, Text::new("a\r\nb".to_owned()));
    }

    #[test]
    fn opening_editing_and_closing_is_followed_and_can_be_replayed() {
        let mut documents = Documents::new(1 << 20);
        let open = r#"{"textDocument":{"uri":"file:///a.py","languageId":"python","version":1,"text":"x = 1\n"}}"#;
        assert_eq!(follow(&mut documents, "textDocument/didOpen", open), Ok(true));
        let change = r#"{"textDocument":{"uri":"file:///a.py","version":2},"contentChanges":[
            {"range":{"start":{"line":0,"character":4},"end":{"line":0,"character":5}},"text":"\"é\""},
            {"range":{"start":{"line":1,"character":0},"end":{"line":1,"character":0}},"text":"y = 2"}]}"#;
        assert_eq!(follow(&mut documents, "textDocument/didChange", change), Ok(true));
        assert_eq!(documents.bytes, documents.get("file:///a.py").expect("open").text().len());
        let replayed: Vec<Frame> = documents.replay().collect();
        insta::assert_snapshot!(String::from_utf8_lossy(replayed[0].body()), @r#"{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"uri":"file:///a.py","languageId":"python","version":2,"text":"x = \"é\"\ny = 2"}}}"#);
        let close = r#"{"textDocument":{"uri":"file:///a.py"}}"#;
        assert_eq!(follow(&mut documents, "textDocument/didClose", close), Ok(true));
        assert_eq!((documents.len(), documents.bytes), (0, 0));
        assert_eq!(follow(&mut documents, "textDocument/didSave", close), Ok(false));
    }

    #[test]
    fn notifications_that_make_no_sense_are_typed_errors() {
        let mut documents = Documents::new(10);
        let open = |text: &str| format!(r#"{{"textDocument":{{"uri":"u","text":"{text}"}}}}"#);
        let change = r#"{"textDocument":{"uri":"u","version":1},"contentChanges":[{"text":"12345678901"}]}"#;
        insta::assert_snapshot!(follow(&mut documents, "textDocument/didChange", change).unwrap_err(), @"u is not open");
        insta::assert_snapshot!(follow(&mut documents, "textDocument/didOpen", &open("12345678901")).unwrap_err(), @"u does not fit: the open documents would take 11 bytes; at most 10 are kept");
        follow(&mut documents, "textDocument/didOpen", &open("1")).expect("it fits");
        insta::assert_snapshot!(follow(&mut documents, "textDocument/didChange", change).unwrap_err(), @"u does not fit: the open documents would take 11 bytes; at most 10 are kept");
        assert!(documents.is_empty());
        follow(&mut documents, "textDocument/didOpen", &open("1")).expect("it fits");
        let bad = r#"{"textDocument":{"uri":"u","version":1},"contentChanges":7}"#;
        insta::assert_snapshot!(follow(&mut documents, "textDocument/didChange", bad).unwrap_err(), @"the parameters of textDocument/didChange are not understood: invalid type: integer `7`, expected a sequence at line 1 column 58");
        assert!(documents.is_empty(), "its text is unknown now");
    }

    prop_compose! {
        fn piece()(chars in prop::collection::vec(prop_oneof![
            Just('\n'), Just('\r'), Just('a'), Just('é'), Just('😀'), any::<char>()
        ], 0..12)) -> String {
            chars.into_iter().collect()
        }
    }

    /// The reference: the text as UTF-16 units, split into lines anew each time.
    fn naive_replace(text: &str, range: Range, new: &str) -> String {
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut lines: Vec<(usize, usize)> = Vec::new();
        let (mut start, mut i) = (0, 0);
        while i < units.len() {
            let terminator = match (units[i], units.get(i + 1)) {
                (13, Some(10)) => 2,
                (10 | 13, _) => 1,
                _ => 0,
            };
            if terminator > 0 {
                lines.push((start, i));
                start = i + terminator;
            }
            i += terminator.max(1);
        }
        lines.push((start, units.len()));
        let offset = |position: Position| match lines.get(position.line as usize) {
            None => units.len(),
            Some(&(start, end)) => {
                let unit = (start + position.character as usize).min(end);
                let inside_pair = unit < units.len() && (0xDC00..0xE000).contains(&units[unit]);
                unit - usize::from(inside_pair)
            }
        };
        let (a, b) = (offset(range.start), offset(range.end));
        let mut result = units[..a.min(b)].to_vec();
        result.extend(new.encode_utf16());
        result.extend(&units[a.max(b)..]);
        String::from_utf16(&result).expect("no pair is split")
    }

    proptest! {
        #[test]
        fn any_series_of_edits_gives_the_text_of_the_reference(
            first in piece(),
            edits in prop::collection::vec(((0_u32..6, 0_u32..9), (0_u32..6, 0_u32..9), piece()), 0..12),
        ) {
            let mut text = Text::new(first.clone());
            let mut expected = first;
            for ((line, character), (end_line, end_character), new) in edits {
                let range = Range { start: at(line, character), end: at(end_line, end_character) };
                text.replace(range, &new, PositionEncoding::Utf16);
                expected = naive_replace(&expected, range, &new);
                prop_assert_eq!(&text, &Text::new(expected.clone()));
            }
        }
    }
}
