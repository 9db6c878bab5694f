//! JSON-RPC messages as far as a guard must understand them: the envelope, never the payload.
//! Parsing borrows from the frame and checks that the whole body is one well-formed JSON object in UTF-8.
//! Builds the few messages the guard sends itself; decides nothing.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::frame::Frame;

/// The identifier of a request: a whole number or a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(Box<str>),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Why a frame's body is not a message. The stream itself is still in step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not UTF-8.
    #[error("the message is not utf-8 after byte {valid}")]
    NotUtf8 {
        /// Bytes before the first bad one.
        valid: usize,
    },
    /// Not a JSON object with the members of JSON-RPC 2.0.
    #[error("the message is not a json-rpc object: {reason}")]
    NotAnObject {
        /// What the JSON parser says.
        reason: String,
    },
    /// Neither a method nor an identifier.
    #[error("the message has neither `method` nor `id`")]
    NoMethodNoId,
    /// An identifier that is not a whole number or a text.
    #[error("the message id is {id}; allowed: a whole number or a string")]
    BadId {
        /// The identifier's JSON, at most 80 characters.
        id: String,
    },
}

/// What kind of message it is, with what identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Wants exactly one answer.
    Request(RequestId, Cow<'a, str>),
    /// Wants none.
    Notification(Cow<'a, str>),
    /// Answers a request; without an identifier when the request could not be read.
    Response(Option<RequestId>),
}

/// A message with its payload still unparsed.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Request, notification or response.
    pub kind: Kind<'a>,
    /// The parameters of a request or notification, as JSON text.
    pub params: Option<&'a RawValue>,
    /// The result of a response, as JSON text; `None` for `null` too.
    pub result: Option<&'a RawValue>,
    /// The error of a response, as JSON text.
    pub error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Reads the envelope of `body`.
    ///
    /// ```
    /// use parsercraft_guard::lsp::{Kind, Message, RequestId};
    ///
    /// let message = Message::parse(br#"{"jsonrpc":"2.0","id":7,"method":"shutdown"}"#)?;
    /// assert_eq!(message.kind, Kind::Request(RequestId::Number(7), "shutdown".into()));
    /// # Ok::<(), parsercraft_guard::lsp::MessageError>(())
    /// ```
    ///
    /// # Errors
    /// [`MessageError`] when the body is not UTF-8, not one JSON object, or not a JSON-RPC message.
    pub fn parse(body: &'a [u8]) -> Result<Self, MessageError> {
        let text = std::str::from_utf8(body).map_err(|error| MessageError::NotUtf8 { valid: error.valid_up_to() })?;
        // A sequence would deserialize into the struct field by field; a batch is no LSP message.
        if !text.trim_start().starts_with('{') {
            return Err(MessageError::NotAnObject { reason: "it does not start with `{`".to_owned() });
        }
        let envelope: Envelope<'a> =
            serde_json::from_str(text).map_err(|error| MessageError::NotAnObject { reason: error.to_string() })?;
        let id = match envelope.id {
            None => None,
            Some(raw) => Some(
                serde_json::from_str::<RequestId>(raw.get())
                    .map_err(|_| MessageError::BadId { id: raw.get().chars().take(80).collect() })?,
            ),
        };
        let kind = match (id, envelope.method) {
            (Some(id), Some(method)) => Kind::Request(id, method),
            (None, Some(method)) => Kind::Notification(method),
            (Some(id), None) => Kind::Response(Some(id)),
            (None, None) if envelope.error.is_some() => Kind::Response(None),
            (None, None) => return Err(MessageError::NoMethodNoId),
        };
        Ok(Self { kind, params: envelope.params, result: envelope.result, error: envelope.error })
    }
}

/// The error codes of JSON-RPC and of the protocol that the guard itself answers with.
pub mod code {
    /// The body is not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// Not a valid request, e.g. its identifier is in use.
    pub const INVALID_REQUEST: i64 = -32600;
    /// The server failed inside.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// The server failed and does not say how.
    pub const UNKNOWN_ERROR: i64 = -32001;
    /// A request came before `initialize`.
    pub const SERVER_NOT_INITIALIZED: i64 = -32002;
    /// Syntactically right, but it failed.
    pub const REQUEST_FAILED: i64 = -32803;
    /// The server gave up on the request; the editor may ask again.
    pub const SERVER_CANCELLED: i64 = -32802;
    /// The client cancelled the request.
    pub const REQUEST_CANCELLED: i64 = -32800;
}

/// The identifier of an outgoing message: none, `null`, or one.
#[derive(Serialize)]
#[serde(untagged)]
enum Id<'a> {
    Absent,
    Null,
    Of(&'a RequestId),
}

impl Id<'_> {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

#[derive(Serialize)]
struct Outgoing<'a, P: Serialize, R: Serialize> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Id::is_absent")]
    id: Id<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ResponseError<'a>>,
}

/// The error member of a response.
#[derive(Debug, Serialize)]
pub(crate) struct ResponseError<'a> {
    pub(crate) code: i64,
    pub(crate) message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<serde_json::Value>,
}

fn frame(message: &Outgoing<'_, impl Serialize, impl Serialize>) -> Frame {
    let body = serde_json::to_vec(message).expect("texts, numbers and JSON values always serialize");
    Frame::new(body)
}

pub(crate) fn notification(method: &str, params: impl Serialize) -> Frame {
    frame(&Outgoing::<_, ()> {
        jsonrpc: "2.0",
        id: Id::Absent,
        method: Some(method),
        params: Some(params),
        result: None,
        error: None,
    })
}

pub(crate) fn request(id: &RequestId, method: &str, params: Option<impl Serialize>) -> Frame {
    frame(&Outgoing::<_, ()> {
        jsonrpc: "2.0",
        id: Id::Of(id),
        method: Some(method),
        params,
        result: None,
        error: None,
    })
}

pub(crate) fn response(id: &RequestId, result: impl Serialize) -> Frame {
    frame(&Outgoing::<(), _> {
        jsonrpc: "2.0",
        id: Id::Of(id),
        method: None,
        params: None,
        result: Some(result),
        error: None,
    })
}

/// An error response; without an identifier it answers a message that could not be read.
pub(crate) fn error_response(id: Option<&RequestId>, error: ResponseError<'_>) -> Frame {
    frame(&Outgoing::<(), ()> {
        jsonrpc: "2.0",
        id: id.map_or(Id::Null, Id::Of),
        method: None,
        params: None,
        result: None,
        error: Some(error),
    })
}

/// The same response under another identifier.
pub(crate) fn response_with_id(id: &RequestId, message: &Message<'_>) -> Frame {
    #[derive(Serialize)]
    struct Renamed<'a> {
        jsonrpc: &'static str,
        id: &'a RequestId,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a RawValue>,
    }
    match (message.result, message.error) {
        (None, None) => response(id, ()),
        (result, error) => Frame::new(
            serde_json::to_vec(&Renamed { jsonrpc: "2.0", id, error, result })
                .expect("texts, numbers and JSON values always serialize"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> String {
        Message::parse(body).expect_err("not a message").to_string()
    }

    fn text(frame: &Frame) -> &str {
        std::str::from_utf8(frame.body()).expect("utf-8")
    }

    #[test]
    fn bodies_that_are_no_messages_are_refused_with_the_reason() {
        insta::assert_snapshot!(refused(b"\"\xff\""), @"the message is not utf-8 after byte 1");
        insta::assert_snapshot!(refused(b"[]"), @"the message is not a json-rpc object: it does not start with `{`");
        insta::assert_snapshot!(refused(b"{}"), @"the message has neither `method` nor `id`");
        insta::assert_snapshot!(refused(br#"{"id":1.5,"method":"x"}"#), @"the message id is 1.5; allowed: a whole number or a string");
        insta::assert_snapshot!(refused(br#"{"id":1,"id":2}"#), @"the message is not a json-rpc object: duplicate field `id` at line 1 column 12");
        insta::assert_snapshot!(refused(br#"{"id":1} {"#), @"the message is not a json-rpc object: trailing characters at line 1 column 10");
        insta::assert_snapshot!(refused(br#"{"id":1,"result":{"a":}}"#), @"the message is not a json-rpc object: expected value at line 1 column 23");
    }

    #[test]
    fn an_escaped_text_id_equals_the_plain_one() {
        let escaped = Message::parse(br#"{"id":"\u0061/b","result":null}"#).expect("a message");
        assert_eq!(escaped.kind, Kind::Response(Some(RequestId::Text("a/b".into()))));
    }

    #[test]
    fn a_deeply_nested_payload_is_refused_and_not_a_stack_overflow() {
        let body = format!(r#"{{"id":1,"result":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        // Skipping a value is iterative, so depth alone is no defect; what matters is that it returns.
        assert!(Message::parse(body.as_bytes()).is_ok());
    }

    #[test]
    fn the_guards_own_messages_have_the_shape_of_the_protocol() {
        let id = RequestId::Text("guard/1".into());
        insta::assert_snapshot!(text(&notification("$/cancelRequest", [1])), @r#"{"jsonrpc":"2.0","method":"$/cancelRequest","params":[1]}"#);
        insta::assert_snapshot!(text(&request(&id, "shutdown", None::<()>)), @r#"{"jsonrpc":"2.0","id":"guard/1","method":"shutdown"}"#);
        insta::assert_snapshot!(text(&response(&id, ())), @r#"{"jsonrpc":"2.0","id":"guard/1","result":null}"#);
        let error = ResponseError { code: code::PARSE_ERROR, message: "no".into(), data: None };
        insta::assert_snapshot!(text(&error_response(None, error)), @r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}"#);
    }

    #[test]
    fn a_renamed_response_keeps_its_payload_byte_for_byte() {
        let message = Message::parse(br#"{"id":1,"result":{"a": 1.0e3,"b":"\u00e9"}}"#).expect("a message");
        insta::assert_snapshot!(text(&response_with_id(&RequestId::Number(9), &message)), @r#"{"jsonrpc":"2.0","id":9,"result":{"a": 1.0e3,"b":"\u00e9"}}"#);
        let null = Message::parse(br#"{"id":1,"result":null}"#).expect("a message");
        insta::assert_snapshot!(text(&response_with_id(&RequestId::Number(9), &null)), @r#"{"jsonrpc":"2.0","id":9,"result":null}"#);
    }
}
