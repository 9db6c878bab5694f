//! An editor without a screen: sends requests and notifications, keeps every message that comes back.
//! Answers the server's own requests, counts answers by request; decides nothing about what is right.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// One end of a conversation in the language server protocol.
pub struct LspClient {
    output: Mutex<Option<Box<dyn Write + Send>>>,
    inbox: Arc<Inbox>,
    ids: AtomicI64,
}

#[derive(Default)]
struct Inbox {
    received: Mutex<Received>,
    arrived: Condvar,
}

#[derive(Default)]
struct Received {
    answers: HashMap<i64, Vec<Value>>,
    others: Vec<Value>,
    closed: bool,
}

impl std::fmt::Debug for LspClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LspClient").field("requests", &self.ids).finish_non_exhaustive()
    }
}

impl LspClient {
    /// Talks to whoever reads `output` and writes `input`; a thread reads until the end of `input`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn connect(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let client = Arc::new(Self {
            output: Mutex::new(Some(Box::new(output))),
            inbox: Arc::default(),
            ids: AtomicI64::new(0),
        });
        let reader = Arc::downgrade(&client);
        let inbox = Arc::clone(&client.inbox);
        std::thread::Builder::new().name("lsp-client".to_owned()).spawn(move || {
            let mut input = BufReader::new(input);
            while let Some(message) = read_message(&mut input) {
                let asked = message.get("method").is_some() && message.get("id").is_some();
                if asked && let Some(client) = reader.upgrade() {
                    client.answer_server(&message);
                }
                inbox.put(message);
            }
            lock(&inbox.received).closed = true;
            inbox.arrived.notify_all();
        })?;
        Ok(client)
    }

    /// A guarded `command` with this client as its editor, connected by pipes in this process.
    ///
    /// # Errors
    /// As [`Supervisor::start`](crate::lsp::Supervisor::start).
    #[cfg(feature = "lsp")]
    pub fn guarded(
        config: crate::lsp::LspConfig,
        command: crate::lsp::ServerCommand,
    ) -> Result<(crate::lsp::Supervisor, Arc<Self>), crate::lsp::LspError> {
        let (from_client, to_guard) = io::pipe()?;
        let (from_guard, to_client) = io::pipe()?;
        #[cfg(unix)]
        let streams = crate::lsp::EditorStreams::from_descriptors(from_client, to_client);
        #[cfg(not(unix))]
        let streams = crate::lsp::EditorStreams::new(from_client, to_client);
        let supervisor = crate::lsp::Supervisor::start(config, command, streams)?;
        Ok((supervisor, Self::connect(from_guard, to_guard)?))
    }

    /// Sends a request; returns its identifier.
    pub fn request(&self, method: &str, params: &Value) -> i64 {
        let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Sends a notification.
    pub fn notify(&self, method: &str, params: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Sends bytes as they are. What can't be written because the other side is gone is dropped, as an editor would.
    pub fn send_raw(&self, bytes: &[u8]) {
        if let Some(output) = &mut *lock(&self.output) {
            let _ = output.write_all(bytes).and_then(|()| output.flush());
        }
    }

    /// Sends a request and waits for its answer, the whole response; `None` when none came within `limit`.
    pub fn call(&self, method: &str, params: &Value, limit: Duration) -> Option<Value> {
        let id = self.request(method, params);
        self.answer(id, limit)
    }

    /// Waits for the answer to request `id`; `None` when none came within `limit`.
    pub fn answer(&self, id: i64, limit: Duration) -> Option<Value> {
        self.wait(limit, |received| received.answers.get(&id).and_then(|answers| answers.first()).cloned())
    }

    /// How many answers request `id` has got.
    pub fn answers(&self, id: i64) -> usize {
        lock(&self.inbox.received).answers.get(&id).map_or(0, Vec::len)
    }

    /// How many requests have been sent.
    pub fn requests(&self) -> i64 {
        self.ids.load(Ordering::Relaxed)
    }

    /// Waits until a message that is no answer satisfies `wanted`; `None` when none came within `limit`.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        self.wait(limit, |received| received.others.iter().find(|message| wanted(message)).cloned())
    }

    /// All messages so far that are no answers to this client's requests.
    pub fn others(&self) -> Vec<Value> {
        lock(&self.inbox.received).others.clone()
    }

    /// Waits for the end of the other side's stream; whether it came within `limit`.
    pub fn wait_closed(&self, limit: Duration) -> bool {
        self.wait(limit, |received| received.closed.then_some(())).is_some()
    }

    /// `initialize` and `initialized`; the answer to the former.
    pub fn initialize(&self, limit: Duration) -> Option<Value> {
        let params = json!({"processId": std::process::id(), "rootUri": null, "capabilities": {}});
        let answer = self.call("initialize", &params, limit)?;
        self.notify("initialized", &json!({}));
        Some(answer)
    }

    /// `textDocument/didOpen`.
    pub fn open(&self, uri: &str, version: i64, text: &str) {
        let document = json!({"uri": uri, "languageId": "plain", "version": version, "text": text});
        self.notify("textDocument/didOpen", &json!({"textDocument": document}));
    }

    /// `textDocument/didChange` with the changes as given.
    pub fn change(&self, uri: &str, version: i64, changes: &Value) {
        let document = json!({"uri": uri, "version": version});
        self.notify("textDocument/didChange", &json!({"textDocument": document, "contentChanges": changes}));
    }

    /// `shutdown` and `exit`, as an editor leaves; the answer to the former.
    pub fn leave(&self, limit: Duration) -> Option<Value> {
        let answer = self.call("shutdown", &Value::Null, limit);
        self.send(&json!({"jsonrpc": "2.0", "method": "exit"}));
        answer
    }

    /// Closes this side's stream, as an editor that dies.
    pub fn close(&self) {
        lock(&self.output).take();
    }

    fn send(&self, message: &Value) {
        let body = message.to_string();
        self.send_raw(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }

    fn answer_server(&self, request: &Value) {
        let result = match request["method"].as_str() {
            Some("workspace/configuration") => json!([{"answered": request["id"]}]),
            _ => Value::Null,
        };
        self.send(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }

    fn wait<T>(&self, limit: Duration, look: impl Fn(&Received) -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        let mut received = lock(&self.inbox.received);
        loop {
            if let Some(found) = look(&received) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            received = self.inbox.arrived.wait_timeout(received, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inbox {
    fn put(&self, message: Value) {
        let mut received = lock(&self.received);
        match message["id"].as_i64() {
            Some(id) if message.get("method").is_none() => received.answers.entry(id).or_default().push(message),
            _ => received.others.push(message),
        }
        self.arrived.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_message(input: &mut impl BufRead) -> Option<Value> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length:") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let mut body = vec![0; length?];
    input.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
