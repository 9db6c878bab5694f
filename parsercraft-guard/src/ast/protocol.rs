//! What host and worker say to each other: length-prefixed frames of `postcard`.
//! Invariant: a frame's length is checked before memory is set aside for it. Both sides are the same executable, so
//! the encoding carries no schema; the version only catches a worker that is another program.

use std::io::{self, Read};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Fault;
use super::in_process::Answer;
use super::operation::Operation;

/// Changes with every change of the messages below.
pub(super) const VERSION: u32 = 1;

/// The first frame to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u32,
    /// `RLIMIT_AS` in bytes.
    pub(super) memory_bytes: u64,
    /// Processor time of one call.
    pub(super) cpu: Duration,
    pub(super) stack_bytes: usize,
    pub(super) max_request_bytes: usize,
    pub(super) max_answer_bytes: usize,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) version: u32,
    pub(super) languages: Vec<String>,
}

/// The first frame is small whatever the configuration.
pub(super) const MAX_GREETING: usize = 64 << 10;

/// One call. Text is borrowed on both sides: it is copied by the pipe only.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<'a> {
    pub(super) language: &'a str,
    pub(super) operation: Operation,
    pub(super) source: &'a str,
    pub(super) timeout: Duration,
}

/// What comes back for a [`Request`].
pub(super) type Response = Result<Answer, Fault>;

/// Bytes before a frame's content.
pub(super) const HEADER: usize = 4;

/// Appends a frame holding `message` to `buffer`; leaves it as it was when the frame would exceed `max` bytes.
pub(super) fn encode(buffer: Vec<u8>, message: &impl Serialize, max: usize) -> Result<Vec<u8>, (Vec<u8>, usize)> {
    let start = buffer.len();
    let mut buffer = buffer;
    buffer.extend_from_slice(&[0; HEADER]);
    // Appending to a vector cannot fail, and every message type is one that `postcard` can write.
    let mut buffer = postcard::to_extend(message, buffer).expect("messages hold only what postcard can encode");
    let length = buffer.len() - start - HEADER;
    match u32::try_from(length) {
        Ok(header) if length <= max => {
            buffer[start..start + HEADER].copy_from_slice(&header.to_le_bytes());
            Ok(buffer)
        }
        _ => {
            buffer.truncate(start);
            Err((buffer, length))
        }
    }
}

/// The length in a frame's header, or the length that is not allowed.
pub(super) fn length(header: [u8; HEADER], max: usize) -> Result<usize, usize> {
    let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
    if length <= max { Ok(length) } else { Err(length) }
}

/// Reads one frame into `buffer`; `false` at the end of the stream.
pub(super) fn read(from: &mut impl Read, buffer: &mut Vec<u8>, max: usize) -> io::Result<bool> {
    let mut header = [0; HEADER];
    match from.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let length = length(header, max).map_err(|length| {
        io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes; allowed: {max}"))
    })?;
    buffer.clear();
    let read = from.take(length as u64).read_to_end(buffer)?;
    if read == length { Ok(true) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::{Diagnostic, Output, Refusal, Summary};

    #[test]
    fn frames_come_back_as_they_went_in_one_after_the_other() {
        let answers: [Response; 3] = [
            Ok(Ok(Output::Summary(Summary { bytes: 3, names: vec!["é".into()], ..Summary::default() }))),
            Ok(Err(Refusal::Syntax(Diagnostic::new(1, 2, "x")))),
            Err(Fault::TimedOut { limit: Duration::from_millis(1500) }),
        ];
        let stream = answers.iter().fold(Vec::new(), |stream, one| encode(stream, one, 1000).unwrap());
        let mut reader = stream.as_slice();
        let mut frame = Vec::new();
        for expected in &answers {
            assert!(read(&mut reader, &mut frame, 1000).unwrap());
            assert_eq!(&postcard::from_bytes::<Response>(&frame).unwrap(), expected);
        }
        assert!(!read(&mut reader, &mut frame, 1000).unwrap());
    }

    #[test]
    fn a_frame_past_the_limit_is_refused_on_both_sides_and_leaves_the_buffer_alone() {
        let (buffer, length) = encode(vec![7], &"12345", 5).unwrap_err();
        assert_eq!((buffer, length), (vec![7], 6));
        let mut huge = u32::MAX.to_le_bytes().to_vec();
        huge.extend([0; 16]);
        let error = read(&mut huge.as_slice(), &mut Vec::new(), 1000).unwrap_err();
        assert_eq!(error.to_string(), "a frame of 4294967295 bytes; allowed: 1000");
    }

    #[test]
    fn a_frame_cut_short_is_an_error_not_an_end() {
        let whole = encode(Vec::new(), &"hello", 100).unwrap();
        let error = read(&mut &whole[..whole.len() - 1], &mut Vec::new(), 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
