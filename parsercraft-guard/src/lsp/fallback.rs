//! What the guard answers in the server's place: a result that keeps the editor usable, or a proper error.
//! An answer never pretends that something was done: what changes files or runs a command is an error.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;

use super::frame::Frame;
use super::message::{self, RequestId, ResponseError, code};

/// Why the server did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// It ended, hung or broke the protocol while it had the request; it is being restarted.
    #[error("the language server was lost ({0}) and is being restarted; try again")]
    Lost(String),
    /// It is down after too many restarts.
    #[error("the language server is down ({reason}); the next start is tried in {retry_in:.0?}")]
    Down {
        /// What happened to it.
        reason: String,
        /// When the next start is tried.
        retry_in: Duration,
    },
    /// It cannot be started at all.
    #[error("the language server cannot be started: {0}")]
    CannotStart(String),
    /// It did not answer in time.
    #[error("the language server did not answer within {0:?}; try again")]
    Late(Duration),
    /// A policy refused the request.
    #[error("{0}")]
    Refused(String, Option<Duration>),
    /// The session is ending.
    #[error("the language server is shutting down")]
    Stopping,
}

impl Cause {
    /// A short name for telemetry.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Down { .. } => "down",
            Self::CannotStart(_) => "cannot_start",
            Self::Late(_) => "late",
            Self::Refused(..) => "refused",
            Self::Stopping => "stopping",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Lost(_) | Self::CannotStart(_) | Self::Late(_) | Self::Stopping => None,
            Self::Down { retry_in, .. } => Some(*retry_in),
            Self::Refused(_, retry_after) => *retry_after,
        }
    }
}

/// What kind of answer a method allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `null`: nothing found.
    Nothing,
    /// `[]`, where `null` is not allowed.
    NoItems,
    /// An empty completion list that says it is incomplete, so that the editor asks again.
    NoCompletions,
    /// The item that was to be completed with details, as it came.
    Unchanged,
    /// An error by which the editor keeps what it has.
    KeepOld,
    /// The same, and the editor asks again by itself.
    AskAgain,
    /// An error.
    Failed,
}

fn kind(method: &str) -> Kind {
    let Some((area, name)) = method.split_once('/') else { return Kind::Failed };
    match (area, name) {
        ("textDocument", "completion") => Kind::NoCompletions,
        ("completionItem" | "inlayHint", "resolve") => Kind::Unchanged,
        ("textDocument", "documentColor" | "colorPresentation") => Kind::NoItems,
        ("textDocument" | "workspace", "diagnostic") => Kind::AskAgain,
        ("textDocument", _) if name.starts_with("semanticTokens/") => Kind::KeepOld,
        (
            "textDocument",
            "hover"
            | "signatureHelp"
            | "definition"
            | "declaration"
            | "typeDefinition"
            | "implementation"
            | "references"
            | "documentHighlight"
            | "documentSymbol"
            | "codeAction"
            | "codeLens"
            | "documentLink"
            | "formatting"
            | "rangeFormatting"
            | "rangesFormatting"
            | "onTypeFormatting"
            | "foldingRange"
            | "selectionRange"
            | "linkedEditingRange"
            | "moniker"
            | "inlayHint"
            | "inlineValue"
            | "inlineCompletion"
            | "prepareCallHierarchy"
            | "prepareTypeHierarchy"
            | "willSaveWaitUntil",
        )
        | ("callHierarchy", "incomingCalls" | "outgoingCalls")
        | ("typeHierarchy", "supertypes" | "subtypes")
        | ("workspace", "symbol" | "willCreateFiles" | "willRenameFiles" | "willDeleteFiles") => Kind::Nothing,
        _ => Kind::Failed,
    }
}

/// Whether `method` needs its parameters for an answer in the server's place.
pub(crate) fn needs_params(method: &str) -> bool {
    kind(method) == Kind::Unchanged
}

/// The answer to request `id` in the server's place.
pub(crate) fn answer(
    id: &RequestId,
    method: &str,
    params: Option<&RawValue>,
    last_good: Option<&RawValue>,
    cause: &Cause,
) -> Frame {
    if let Some(result) = last_good {
        return message::response(id, result);
    }
    match kind(method) {
        Kind::Nothing => message::response(id, ()),
        Kind::NoItems => message::response(id, [(); 0]),
        Kind::NoCompletions => message::response(id, json!({"isIncomplete": true, "items": []})),
        Kind::Unchanged if params.is_some() => message::response(id, params),
        Kind::KeepOld => failed(id, code::SERVER_CANCELLED, cause, json!({})),
        Kind::AskAgain => failed(id, code::SERVER_CANCELLED, cause, json!({"retriggerRequest": true})),
        Kind::Unchanged | Kind::Failed => failed(id, code::REQUEST_FAILED, cause, json!({})),
    }
}

fn failed(id: &RequestId, code: i64, cause: &Cause, mut data: serde_json::Value) -> Frame {
    data["guard"] = json!(cause.as_str());
    if let Some(delay) = cause.retry_after() {
        data["retryAfterMs"] = json!(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    }
    message::error_response(Some(id), ResponseError { code, message: cause.to_string().into(), data: Some(data) })
}

/// The last good answers of methods whose answer stays right as long as the document is not edited.
///
/// Bounded: when [`MAX_BYTES`](Self::MAX_BYTES) are exceeded, everything is forgotten.
#[derive(Debug, Default)]
pub(crate) struct LastGood {
    by_document: BTreeMap<String, Answers>,
    bytes: usize,
}

/// Results by method and parameters.
type Answers = BTreeMap<(Box<str>, Box<str>), Box<RawValue>>;

impl LastGood {
    const MAX_BYTES: usize = 16 << 20;

    /// Whether answers to `method` are worth keeping.
    pub(crate) fn keeps(method: &str) -> bool {
        matches!(
            method,
            "textDocument/hover"
                | "textDocument/documentSymbol"
                | "textDocument/foldingRange"
                | "textDocument/documentLink"
                | "textDocument/semanticTokens/full"
        )
    }

    pub(crate) fn put(&mut self, uri: &str, method: &str, params: &str, result: &RawValue) {
        let size = params.len() + result.get().len();
        self.bytes += size;
        if self.bytes > Self::MAX_BYTES {
            self.by_document.clear();
            self.bytes = size;
            if size > Self::MAX_BYTES {
                self.bytes = 0;
                return;
            }
        }
        let document = self.by_document.entry(uri.to_owned()).or_default();
        if let Some(old) = document.insert((method.into(), params.into()), result.to_owned()) {
            self.bytes -= params.len() + old.get().len();
        }
    }

    pub(crate) fn get(&self, uri: &str, method: &str, params: &str) -> Option<&RawValue> {
        self.by_document.get(uri)?.get(&(method.into(), params.into())).map(|result| &**result)
    }

    /// The document was edited or closed.
    pub(crate) fn forget(&mut self, uri: &str) {
        if let Some(document) = self.by_document.remove(uri) {
            let bytes: usize = document.iter().map(|((_, params), result)| params.len() + result.get().len()).sum();
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(method: &str, params: Option<&str>) -> String {
        let params = params.map(|json| RawValue::from_string(json.to_owned()).expect("good JSON"));
        let cause =
            Cause::Refused("rate limiter `lsp_requests` is exhausted".to_owned(), Some(Duration::from_millis(30)));
        let frame = answer(&RequestId::Number(1), method, params.as_deref(), None, &cause);
        String::from_utf8(frame.body().to_vec()).expect("utf-8")
    }

    #[test]
    fn each_kind_of_method_gets_the_answer_that_fits() {
        insta::assert_snapshot!(answered("textDocument/completion", None), @r#"{"jsonrpc":"2.0","id":1,"result":{"isIncomplete":true,"items":[]}}"#);
        insta::assert_snapshot!(answered("textDocument/hover", None), @r#"{"jsonrpc":"2.0","id":1,"result":null}"#);
        insta::assert_snapshot!(answered("textDocument/documentColor", None), @r#"{"jsonrpc":"2.0","id":1,"result":[]}"#);
        insta::assert_snapshot!(answered("completionItem/resolve", Some(r#"{"label":"x"}"#)), @r#"{"jsonrpc":"2.0","id":1,"result":{"label":"x"}}"#);
        insta::assert_snapshot!(answered("textDocument/diagnostic", None), @r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32802,"message":"rate limiter `lsp_requests` is exhausted","data":{"guard":"refused","retriggerRequest":true,"retryAfterMs":30}}}"#);
        insta::assert_snapshot!(answered("textDocument/rename", None), @r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32803,"message":"rate limiter `lsp_requests` is exhausted","data":{"guard":"refused","retryAfterMs":30}}}"#);
        insta::assert_snapshot!(answered("custom", None), @r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32803,"message":"rate limiter `lsp_requests` is exhausted","data":{"guard":"refused","retryAfterMs":30}}}"#);
    }

    #[test]
    fn last_good_answers_are_bounded_and_forgotten_with_their_document() {
        let mut last = LastGood::default();
        let result = |size: usize| RawValue::from_string(format!("\"{}\"", "x".repeat(size))).expect("good JSON");
        last.put("u", "m", "p", &result(10));
        last.put("u", "m", "p", &result(20));
        assert_eq!(last.bytes, 1 + 22);
        assert_eq!(last.get("u", "m", "p").map(|kept| kept.get().len()), Some(22));
        last.forget("u");
        assert_eq!((last.bytes, last.get("u", "m", "p").is_none()), (0, true));
        for n in 0..20 {
            last.put(&n.to_string(), "m", "p", &result(1 << 20));
            assert!(last.bytes <= LastGood::MAX_BYTES);
        }
        last.put("big", "m", "p", &result(17 << 20));
        assert_eq!((last.bytes, last.by_document.len()), (0, 0));
    }
}
