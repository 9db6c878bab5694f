//! The wire format of the language server protocol: `Content-Length` framing, both directions.
//! Whatever arrives, memory stays within [`FrameLimits`] plus what was fed at once, and every defect is a typed error.
//! Knows nothing of JSON: a frame's body is bytes until [`Message::parse`](super::message::Message::parse) looks at it.

use std::fmt;
use std::io::{self, Read};

/// How large a frame may be before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrameLimits {
    /// Bytes of the header block, its empty line included. Default 4096.
    pub max_header_bytes: usize,
    /// Bytes of the body. Default 64 MiB.
    pub max_body_bytes: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { max_header_bytes: 4096, max_body_bytes: 64 << 20 }
    }
}

/// Why a byte stream is not a sequence of frames. After any of these the stream has lost its frame boundaries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The header block does not end within the limit.
    #[error("the frame header is longer than {max} bytes")]
    HeaderTooLong {
        /// The limit.
        max: usize,
    },
    /// Not a header line: garbage where a frame should start.
    #[error("{line:?} is not a header line; a frame starts with `Content-Length: <bytes>`")]
    BadHeader {
        /// The beginning of the offending line, at most 80 characters.
        line: String,
    },
    /// A complete header block without a length.
    #[error("the frame header has no `Content-Length`")]
    MissingLength,
    /// More than one length.
    #[error("the frame header has more than one `Content-Length`")]
    RepeatedLength,
    /// A length that is not a decimal number.
    #[error("`Content-Length` is {value:?}; allowed: a decimal number of bytes")]
    BadLength {
        /// The value as given, at most 80 characters.
        value: String,
    },
    /// A length beyond the limit.
    #[error("the frame has {length} bytes; at most {max} are allowed")]
    TooLarge {
        /// The length announced.
        length: u64,
        /// The limit.
        max: usize,
    },
    /// An encoding other than UTF-8.
    #[error("`Content-Type` is {value:?}; the only encoding allowed is utf-8")]
    Charset {
        /// The value as given, at most 80 characters.
        value: String,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended after {have} bytes of an unfinished frame")]
    Truncated {
        /// Bytes that had arrived, header included.
        have: usize,
    },
}

/// One message on the wire, header and body, as it was received or as it will be sent.
///
/// ```
/// use parsercraft_guard::lsp::Frame;
///
/// let frame = Frame::new(r#"{"jsonrpc":"2.0","method":"exit"}"#);
/// assert!(frame.as_bytes().starts_with(b"Content-Length: 33\r\n\r\n{"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
    body: usize,
}

impl Frame {
    /// A frame around `body`.
    pub fn new(body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        let start = bytes.len();
        bytes.extend_from_slice(body);
        Self { bytes, body: start }
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body..]
    }

    /// Header and body.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Header and body, taken out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
        write!(f, "Frame({} bytes: {shown})", self.bytes.len())
    }
}

/// Cuts a byte stream into frames. Push bytes in, take frames out; a chunk may hold a part of a frame or many.
///
/// Its memory is bounded as long as [`next_frame`](Self::next_frame) is called until it returns `None` after each
/// [`feed`](Self::feed): one unfinished frame plus one chunk.
///
/// ```
/// use parsercraft_guard::lsp::{Frame, FrameDecoder, FrameLimits};
///
/// let mut decoder = FrameDecoder::new(FrameLimits::default());
/// decoder.feed(b"Content-Length: 2\r\n\r");
/// assert_eq!(decoder.next_frame(), Ok(None));
/// decoder.feed(b"\n{}");
/// assert_eq!(decoder.next_frame(), Ok(Some(Frame::new("{}"))));
/// assert_eq!(decoder.finish(), Ok(()));
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    limits: FrameLimits,
    /// Storage; the bytes of the stream that are not taken out yet are `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Header(HeaderScan),
    /// Header bytes and all bytes of the current frame.
    Body {
        header: usize,
        total: usize,
    },
    Failed(FrameError),
}

/// Progress in the header block, relative to the frame's start, so that no byte is looked at twice.
#[derive(Debug, Clone, Default)]
struct HeaderScan {
    line_start: usize,
    scanned: usize,
    length: Option<usize>,
}

/// Bytes asked of the reader at once, and the storage kept between frames.
const READ_CHUNK: usize = 16 << 10;
/// The same inside a large frame: what a pipe holds.
const LARGE_CHUNK: usize = 64 << 10;

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits, buffer: Vec::new(), start: 0, end: 0, state: State::Header(HeaderScan::default()) }
    }

    /// Adds bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Failed(_)) {
            return; // nothing will ever be taken out again, so nothing is kept
        }
        self.make_room(bytes.len());
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Reads once from `reader` and adds what came; 0 means the end of the stream.
    ///
    /// # Errors
    /// The reader's own, except that an interrupted read is repeated.
    pub fn read_from(&mut self, reader: &mut dyn Read) -> io::Result<usize> {
        let large = matches!(self.state, State::Body { total, .. } if total > LARGE_CHUNK);
        self.make_room(if large { LARGE_CHUNK } else { READ_CHUNK });
        let read = loop {
            match reader.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if !matches!(self.state, State::Failed(_)) {
            self.end += read;
        }
        Ok(read)
    }

    /// The next complete frame; `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are not frames. The decoder stays failed: frame boundaries are lost for good.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let step = match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Body { header, total } => Ok(Some((*header, *total))),
            State::Header(_) => self.scan_header(),
        };
        match step {
            Ok(None) => Ok(None),
            Ok(Some((header, total))) => Ok(self.take(header, total)),
            Err(error) => {
                self.state = State::Failed(error.clone());
                self.buffer = Vec::new();
                (self.start, self.end) = (0, 0);
                Err(error)
            }
        }
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] inside a frame; the error that occurred before, if one did.
    pub fn finish(&self) -> Result<(), FrameError> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ if self.end == self.start => Ok(()),
            _ => Err(FrameError::Truncated { have: self.end - self.start }),
        }
    }

    /// Makes place for `more` bytes after `end`.
    fn make_room(&mut self, more: usize) {
        if self.start > 0 && self.end + more > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end + more > self.buffer.len() {
            self.buffer.resize(self.end + more, 0);
        }
    }

    fn take(&mut self, header: usize, total: usize) -> Option<Frame> {
        let available = self.end - self.start;
        if available < total {
            return None;
        }
        self.state = State::Header(HeaderScan::default());
        if self.start == 0 && available == total && total > READ_CHUNK {
            // A large frame is not copied: the storage itself becomes the frame.
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.truncate(total);
            bytes.shrink_to_fit();
            self.end = 0;
            return Some(Frame { bytes, body: header });
        }
        // A small one is, so that a frame that waits somewhere takes no more memory than it has bytes.
        let bytes = self.buffer[self.start..self.start + total].to_vec();
        self.start += total;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > LARGE_CHUNK {
                self.buffer = Vec::new();
            }
        }
        Some(Frame { bytes, body: header })
    }

    /// Goes on with the header block; its size and the frame's once it is complete.
    fn scan_header(&mut self) -> Result<Option<(usize, usize)>, FrameError> {
        let State::Header(scan) = &mut self.state else { return Ok(None) };
        let bytes = &self.buffer[self.start..self.end];
        while scan.scanned < bytes.len() {
            if scan.scanned >= self.limits.max_header_bytes {
                return Err(FrameError::HeaderTooLong { max: self.limits.max_header_bytes });
            }
            let byte = bytes[scan.scanned];
            scan.scanned += 1;
            let so_far = &bytes[scan.line_start..scan.scanned];
            match byte {
                b'\n' => {
                    let Some(line) = so_far.strip_suffix(b"\r\n") else { return Err(bad_header(so_far)) };
                    if line.is_empty() {
                        let header = scan.scanned;
                        let total = header + scan.length.ok_or(FrameError::MissingLength)?;
                        self.state = State::Body { header, total };
                        return Ok(Some((header, total)));
                    }
                    header_line(line, &mut scan.length, &self.limits)?;
                    scan.line_start = scan.scanned;
                }
                b'\r' | b'\t' | b' '..=b'~' => {}
                // Garbage is noticed at its first byte, not after a header's worth of it.
                _ => return Err(bad_header(so_far)),
            }
        }
        Ok(None)
    }
}

fn header_line(line: &[u8], length: &mut Option<usize>, limits: &FrameLimits) -> Result<(), FrameError> {
    let text = std::str::from_utf8(line).map_err(|_| bad_header(line))?;
    let (name, value) = text.split_once(':').ok_or_else(|| bad_header(line))?;
    let value = value.trim();
    if name.is_empty() || name.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(bad_header(line));
    }
    if name.eq_ignore_ascii_case("content-length") {
        if length.is_some() {
            return Err(FrameError::RepeatedLength);
        }
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FrameError::BadLength { value: clipped(value) });
        }
        let announced = value.parse::<u64>().unwrap_or(u64::MAX);
        match usize::try_from(announced) {
            Ok(bytes) if bytes <= limits.max_body_bytes => *length = Some(bytes),
            _ => return Err(FrameError::TooLarge { length: announced, max: limits.max_body_bytes }),
        }
    } else if name.eq_ignore_ascii_case("content-type") {
        let lower = value.to_ascii_lowercase();
        // `utf8` is what the protocol's first version said and must still be accepted.
        if let Some((_, charset)) = lower.split_once("charset=")
            && !matches!(charset.trim().trim_matches('"'), "utf-8" | "utf8")
        {
            return Err(FrameError::Charset { value: clipped(value) });
        }
    }
    Ok(())
}

fn bad_header(line: &[u8]) -> FrameError {
    FrameError::BadHeader { line: clipped(&String::from_utf8_lossy(&line[..line.len().min(320)])) }
}

fn clipped(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(bytes: &[u8], limits: FrameLimits) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = FrameDecoder::new(limits);
        decoder.feed(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
        decoder.finish()?;
        Ok(frames)
    }

    fn error(bytes: &[u8]) -> String {
        let limits = FrameLimits { max_header_bytes: 128, max_body_bytes: 1000 };
        decode_all(bytes, limits).expect_err("these are not frames").to_string()
    }

    #[test]
    fn each_defect_has_its_own_message() {
        insta::assert_snapshot!(error(b"Listening on port 6008\n"), @r#""Listening on port 6008\n" is not a header line; a frame starts with `Content-Length: <bytes>`"#);
        insta::assert_snapshot!(error(b"\xff\xfe"), @r#""�" is not a header line; a frame starts with `Content-Length: <bytes>`"#);
        insta::assert_snapshot!(error(b"Content-Length: 2\n\n{}"), @r#""Content-Length: 2\n" is not a header line; a frame starts with `Content-Length: <bytes>`"#);
        insta::assert_snapshot!(error(b"Accept: x\r\n\r\n"), @"the frame header has no `Content-Length`");
        insta::assert_snapshot!(error(b"Content-Length: -1\r\n\r\n"), @r#"`Content-Length` is "-1"; allowed: a decimal number of bytes"#);
        insta::assert_snapshot!(error(b"Content-Length: 99999999999999999999999\r\n\r\n"), @"the frame has 18446744073709551615 bytes; at most 1000 are allowed");
        insta::assert_snapshot!(error(b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n"), @"the frame header has more than one `Content-Length`");
        insta::assert_snapshot!(error(b"Content-Length: 5\r\n\r\n{}"), @"the stream ended after 23 bytes of an unfinished frame");
        insta::assert_snapshot!(error(b"Content-Type: a; charset=latin1\r\n"), @r#"`Content-Type` is "a; charset=latin1"; the only encoding allowed is utf-8"#);
        insta::assert_snapshot!(error(&[b'a'; 200]), @"the frame header is longer than 128 bytes");
    }

    #[test]
    fn a_failed_decoder_stays_failed_and_keeps_nothing() {
        let mut decoder = FrameDecoder::new(FrameLimits::default());
        decoder.feed(b"garbage\n");
        let first = decoder.next_frame();
        assert!(matches!(first, Err(FrameError::BadHeader { .. })), "{first:?}");
        decoder.feed(Frame::new("{}").as_bytes());
        assert_eq!(decoder.next_frame(), first);
        assert_eq!(decoder.buffer.capacity(), 0);
    }

    #[test]
    fn the_header_of_a_received_frame_is_kept_as_it_came() {
        let wire = b"content-type: application/vscode-jsonrpc; charset=utf8\r\nCONTENT-LENGTH:2\r\n\r\n{}";
        let frames = decode_all(wire, FrameLimits::default()).expect("a good frame");
        assert_eq!(frames[0].as_bytes(), wire);
        assert_eq!(frames[0].body(), b"{}");
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in prop::collection::vec(1_usize..400, 1..40),
        ) {
            let wire: Vec<u8> = bodies.iter().flat_map(|body| Frame::new(body).into_bytes()).collect();
            let mut decoder = FrameDecoder::new(FrameLimits::default());
            let (mut rest, mut got, mut turn) = (wire.as_slice(), Vec::new(), 0);
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(cuts[turn % cuts.len()].min(rest.len()));
                (rest, turn) = (after, turn + 1);
                decoder.feed(chunk);
                while let Some(frame) = decoder.next_frame().expect("good frames") {
                    got.push(frame.body().to_vec());
                }
            }
            prop_assert_eq!(got, bodies);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn no_input_gets_past_the_limits_or_depends_on_its_chunking(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b':'), Just(b'1'), any::<u8>()
            ], 0..400),
            prefix in prop_oneof![Just(""), Just("Content-Length: 7\r\n\r\n"), Just("Content-Length: ")],
        ) {
            let limits = FrameLimits { max_header_bytes: 64, max_body_bytes: 50 };
            let wire = [prefix.as_bytes(), &bytes].concat();
            let whole = decode_all(&wire, limits);
            let mut decoder = FrameDecoder::new(limits);
            let mut frames = Vec::new();
            let mut failure = None;
            for byte in wire {
                decoder.feed(&[byte]);
                prop_assert!(decoder.end - decoder.start <= 64 + 50);
                prop_assert!(decoder.buffer.len() <= 2 * (64 + 50));
                match decoder.next_frame() {
                    Ok(frame) => frames.extend(frame),
                    Err(error) => { failure = Some(error); break; }
                }
            }
            let bytewise = match failure.map_or_else(|| decoder.finish(), Err) {
                Ok(()) => Ok(frames),
                Err(error) => Err(error),
            };
            prop_assert_eq!(whole, bytewise);
        }
    }
}
