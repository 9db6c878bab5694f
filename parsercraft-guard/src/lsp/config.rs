//! What can be set about the guard of a language server, with defaults that suit an editor.
//! Every value is checked once, by [`LspConfig::validate`]; nothing is clamped silently. Holds no state.

use std::collections::BTreeMap;
use std::time::Duration;

use resilience_core::{CircuitBreaker, ConfigError, Observers, RateLimiter};

use super::frame::FrameLimits;
use crate::defaults::{LSP_REQUESTS_PER, LSP_REQUESTS_PERMITS};

/// Settings of one guarded language server.
///
/// ```
/// use std::time::Duration;
/// use parsercraft_guard::lsp::LspConfig;
///
/// let mut config = LspConfig::default();
/// config.deadlines.methods.insert("textDocument/rename".into(), Duration::from_secs(60));
/// assert_eq!(config.deadlines.of("textDocument/rename"), Duration::from_secs(60));
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LspConfig {
    /// How large a frame may be, from either side.
    pub frames: FrameLimits,
    /// How long a request may take before the guard answers it itself.
    pub deadlines: Deadlines,
    /// How long the server may owe answers without any sign of life before it is restarted; longer while it has a
    /// request whose deadline is longer. Default 30 s.
    pub hang_after: Duration,
    /// When and how often the server is started again.
    pub restart: RestartPolicy,
    /// How many requests are let through.
    pub requests: RequestLimits,
    /// Bytes of open documents kept for a restart. Default 256 MiB.
    pub max_document_bytes: usize,
    /// Bytes waiting to be written to a side that does not read; beyond that the other side waits. Default 8 MiB.
    pub max_unwritten_bytes: usize,
    /// How long the server may take to end before it is killed. Default 2 s.
    pub shutdown_grace: Duration,
    /// Whether the editor is told by `window/showMessage` when the server is lost and when it is back. Default true.
    pub show_messages: bool,
    /// Whether the server's stderr is passed on to the guard's own. Default true.
    pub forward_stderr: bool,
    /// Who is told of starts, crashes, restarts, degradation and recovery, as [`Event::Notice`]s of the component
    /// `lsp`. Default nobody.
    ///
    /// [`Event::Notice`]: resilience_core::Event::Notice
    pub observers: Observers,
}

impl Default for LspConfig {
    fn default() -> Self {
        Self {
            frames: FrameLimits::default(),
            deadlines: Deadlines::default(),
            hang_after: Duration::from_secs(30),
            restart: RestartPolicy::default(),
            requests: RequestLimits::default(),
            max_document_bytes: 256 << 20,
            max_unwritten_bytes: 8 << 20,
            shutdown_grace: Duration::from_secs(2),
            show_messages: true,
            forward_stderr: true,
            observers: Observers::new(),
        }
    }
}

/// How long each method may take.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Deadlines {
    /// Methods that are waited for while typing (completion, hover, signature help, highlights, semantic tokens, code
    /// actions, inlay hints). Default 10 s.
    pub interactive: Duration,
    /// `workspace/executeCommand`, which may run a build or tests. Default 10 min.
    pub command: Duration,
    /// `initialize`, also when it is replayed. Default 60 s.
    pub initialize: Duration,
    /// All others. Default 30 s.
    pub others: Duration,
    /// Exceptions by method name; they win over all of the above.
    pub methods: BTreeMap<String, Duration>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            interactive: Duration::from_secs(10),
            command: Duration::from_secs(600),
            initialize: Duration::from_secs(60),
            others: Duration::from_secs(30),
            methods: BTreeMap::new(),
        }
    }
}

impl Deadlines {
    /// The deadline of `method`.
    pub fn of(&self, method: &str) -> Duration {
        if let Some(deadline) = self.methods.get(method) {
            return *deadline;
        }
        match method {
            "initialize" => self.initialize,
            "workspace/executeCommand" => self.command,
            "textDocument/completion"
            | "completionItem/resolve"
            | "textDocument/hover"
            | "textDocument/signatureHelp"
            | "textDocument/documentHighlight"
            | "textDocument/codeAction"
            | "textDocument/inlayHint" => self.interactive,
            _ if method.starts_with("textDocument/semanticTokens/") => self.interactive,
            _ => self.others,
        }
    }
}

/// When the server is started again after it crashed, hung or broke the protocol.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// Restarts allowed within [`window`](Self::window). Default 5; 0 never restarts at once.
    pub max_restarts: u32,
    /// Default 60 s.
    pub window: Duration,
    /// The pause before the second restart in a row; the first comes at once. Doubles each time. Default 100 ms.
    pub first_delay: Duration,
    /// The longest pause. Default 10 s.
    pub max_delay: Duration,
    /// A server that lived this long is not "in a row" any more. Default 30 s.
    pub stable_after: Duration,
    /// After too many restarts: the pause before trying again, during which the guard answers everything itself.
    /// Default 30 s.
    pub retry_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            max_restarts: 5,
            window: Duration::from_secs(60),
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            stable_after: Duration::from_secs(30),
            retry_after: Duration::from_secs(30),
        }
    }
}

/// How many requests reach the server. Notifications are never limited: dropping one would lose an edit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequestLimits {
    /// Requests per [`per`](Self::per), the limiter `lsp_requests`. Default 2000.
    pub rate: u32,
    /// Default 60 s.
    pub per: Duration,
    /// Requests at once after a pause: an editor that opens many files asks a lot in one moment. Default 2000.
    pub burst: u32,
    /// Requests in flight or waiting for a restart at the same time. Default 1000.
    pub max_pending: usize,
    /// Bytes of messages that wait for a restart. Default 16 MiB.
    pub max_waiting_bytes: usize,
    /// Requests in a row past their deadline that open the breaker `lsp_server`, after which the guard answers
    /// requests at once instead of letting the editor wait. Default 5.
    pub breaker_failures: u32,
    /// How long the breaker stays open before one request probes the server. Default 10 s.
    pub breaker_open_for: Duration,
    /// A limiter to count requests against, which other servers may share; `rate`, `per` and `burst` have no effect
    /// then. Default none: one of the server's own.
    pub limiter: Option<RateLimiter>,
    /// The breaker to use; `breaker_failures` and `breaker_open_for` have no effect then. It is reset when a new process
    /// takes the server's place, so it should be this server's alone. Default none: one that only the guard knows.
    pub breaker: Option<CircuitBreaker>,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            rate: LSP_REQUESTS_PERMITS,
            per: LSP_REQUESTS_PER,
            burst: LSP_REQUESTS_PERMITS,
            max_pending: 1000,
            max_waiting_bytes: 16 << 20,
            breaker_failures: 5,
            breaker_open_for: Duration::from_secs(10),
            limiter: None,
            breaker: None,
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

impl LspConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError`] names the first bad field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let durations = [
            ("deadlines.interactive", self.deadlines.interactive),
            ("deadlines.command", self.deadlines.command),
            ("deadlines.initialize", self.deadlines.initialize),
            ("deadlines.others", self.deadlines.others),
            ("hang_after", self.hang_after),
            ("restart.window", self.restart.window),
            ("restart.stable_after", self.restart.stable_after),
            ("restart.retry_after", self.restart.retry_after),
            ("shutdown_grace", self.shutdown_grace),
        ];
        let methods = self.deadlines.methods.iter().map(|(method, deadline)| (method.as_str(), *deadline));
        for (field, value) in durations.into_iter().chain(methods) {
            if value.is_zero() || value > DAY {
                return Err(ConfigError::new(field, format!("{value:?}"), "more than 0, at most 24 h"));
            }
        }
        if self.restart.first_delay > self.restart.max_delay || self.restart.max_delay > DAY {
            let value = format!("{:?}", self.restart.max_delay);
            let allowed = format!("{:?} (restart.first_delay) to 24 h", self.restart.first_delay);
            return Err(ConfigError::new("restart.max_delay", value, allowed));
        }
        let sizes = [
            ("frames.max_header_bytes", self.frames.max_header_bytes, 64, 1 << 20),
            ("frames.max_body_bytes", self.frames.max_body_bytes, 1024, 1 << 30),
            ("max_document_bytes", self.max_document_bytes, 0, 1 << 40),
            ("max_unwritten_bytes", self.max_unwritten_bytes, 4096, 1 << 30),
            ("requests.max_pending", self.requests.max_pending, 1, 1 << 20),
            ("requests.max_waiting_bytes", self.requests.max_waiting_bytes, 0, 1 << 30),
        ];
        for (field, value, min, max) in sizes {
            if value < min || value > max {
                return Err(ConfigError::new(field, value, format!("{min} to {max}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named_with_what_is_allowed() {
        let mut config = LspConfig::default();
        assert_eq!(config.validate(), Ok(()));
        config.hang_after = Duration::ZERO;
        insta::assert_snapshot!(config.validate().unwrap_err(), @"`hang_after` is 0ns; allowed: more than 0, at most 24 h");
        config = LspConfig::default();
        config.deadlines.methods.insert("x/y".to_owned(), Duration::MAX);
        insta::assert_snapshot!(config.validate().unwrap_err(), @"`x/y` is 18446744073709551615.999999999s; allowed: more than 0, at most 24 h");
        config = LspConfig::default();
        config.restart.first_delay = Duration::from_secs(20);
        insta::assert_snapshot!(config.validate().unwrap_err(), @"`restart.max_delay` is 10s; allowed: 20s (restart.first_delay) to 24 h");
        config = LspConfig::default();
        config.frames.max_body_bytes = 1;
        insta::assert_snapshot!(config.validate().unwrap_err(), @"`frames.max_body_bytes` is 1; allowed: 1024 to 1073741824");
    }
}
