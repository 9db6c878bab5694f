//! A language server that works, until it is told to misbehave: in every way that real ones were seen to.
//! It shares no code with the guard (framing, documents and positions are its own), so that a mistake in one is not
//! confirmed by the other. It speaks on stdin and stdout of the program `scripted-language-server`.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// `crash`: the process aborts.
    Crash,
    /// `exit:CODE`: the process ends with a code.
    Exit(i32),
    /// `hang`: nothing is read or written any more.
    Hang,
    /// `mute`: everything is read, nothing is written any more.
    Mute,
    /// `skip`: the next request is never answered.
    Skip,
    /// `twice`: the next request is answered twice.
    Twice,
    /// `garbage`: bytes that are no frame.
    Garbage,
    /// `truncated`: half a frame, then the end.
    Truncated,
    /// `oversized`: the header of a frame of a terabyte.
    Oversized,
    /// `wrong-length`: the next answer says it is shorter than it is.
    WrongLength,
    /// `not-utf8`: a frame whose body is not text.
    NotUtf8,
    /// `slow:MS`: every answer takes this many milliseconds from now on.
    Slow(u64),
    /// `stderr:BYTES`: so many bytes on stderr.
    StderrFlood(usize),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let number = || value.parse::<u32>().map_err(|_| format!("{text:?} needs a number, like `{name}:3`"));
        Ok(match name {
            "crash" => Self::Crash,
            "exit" => Self::Exit(i32::try_from(number()?).unwrap_or(i32::MAX)),
            "hang" => Self::Hang,
            "mute" => Self::Mute,
            "skip" => Self::Skip,
            "twice" => Self::Twice,
            "garbage" => Self::Garbage,
            "truncated" => Self::Truncated,
            "oversized" => Self::Oversized,
            "wrong-length" => Self::WrongLength,
            "not-utf8" => Self::NotUtf8,
            "slow" => Self::Slow(number()?.into()),
            "stderr" => Self::StderrFlood(number()? as usize),
            _ => return Err(format!("{text:?} is not a fault")),
        })
    }
}

/// What the command line can set.
#[derive(Debug, Clone, Default)]
struct Options {
    /// `--fault FAULT@N`: misbehave when message N arrives (the first is 1).
    faults: Vec<(u64, Fault)>,
    /// `--full-sync`: edits carry the whole text.
    full_sync: bool,
    /// `--utf8`: columns are bytes.
    utf8: bool,
    /// `--register`: register a capability after `initialized`.
    register: bool,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--full-sync" => options.full_sync = true,
                "--utf8" => options.utf8 = true,
                "--register" => options.register = true,
                "--fault" => {
                    let value = args.next().unwrap_or_default();
                    let (fault, at) = value.split_once('@').ok_or("--fault takes FAULT@MESSAGE, like `crash@20`")?;
                    let at = at.parse().map_err(|_| format!("{at:?} is not the number of a message"))?;
                    options.faults.push((at, fault.parse()?));
                }
                _ => {
                    return Err(format!("{arg:?} is not an option; allowed: --fault, --full-sync, --utf8, --register"));
                }
            }
        }
        Ok(options)
    }
}

/// The program: serves stdin and stdout until told to exit. Exit code 0 after `shutdown` and `exit`, 1 after `exit`
/// alone or the end of stdin, 2 for bad arguments.
pub fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("scripted-language-server: {error}");
            return ExitCode::from(2);
        }
    };
    let mut server = Server {
        options,
        documents: HashMap::new(),
        messages: 0,
        shut_down: false,
        mute: false,
        skip: false,
        twice: false,
        wrong_length: false,
        slow: Duration::ZERO,
        asked: HashMap::new(),
        asks: 0,
        initialize: Value::Null,
        configuration: Value::Null,
    };
    let mut input = io::stdin().lock();
    loop {
        match read_message(&mut input) {
            Ok(Some(message)) => match server.handle(&message) {
                Ok(None) => {}
                Ok(Some(code)) => return code,
                Err(_) => return ExitCode::FAILURE,
            },
            Ok(None) => return ExitCode::FAILURE,
            Err(error) => {
                eprintln!("scripted-language-server: {error}");
                return ExitCode::from(3);
            }
        }
    }
}

fn read_message(input: &mut impl BufRead) -> io::Result<Option<Value>> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length:") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let mut body = vec![0; length.ok_or_else(|| io::Error::other("a frame without Content-Length"))?];
    input.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

struct Document {
    text: String,
    version: Value,
}

#[allow(clippy::struct_excessive_bools, reason = "each is one independent way to misbehave next")]
struct Server {
    options: Options,
    documents: HashMap<String, Document>,
    messages: u64,
    shut_down: bool,
    mute: bool,
    skip: bool,
    twice: bool,
    wrong_length: bool,
    slow: Duration,
    /// Requests to the editor, with the editor's request that wants their answer.
    asked: HashMap<u64, Value>,
    asks: u64,
    initialize: Value,
    configuration: Value,
}

impl Server {
    fn handle(&mut self, message: &Value) -> io::Result<Option<ExitCode>> {
        self.messages += 1;
        let due: Vec<Fault> =
            self.options.faults.iter().filter(|(at, _)| *at == self.messages).map(|(_, fault)| *fault).collect();
        for fault in due {
            self.misbehave(fault)?;
        }
        let params = &message["params"];
        match (message["method"].as_str(), message.get("id")) {
            (Some("exit"), _) => return Ok(Some(ExitCode::from(u8::from(!self.shut_down)))),
            (Some(method), Some(id)) => self.request(method, id, params)?,
            (Some(method), None) => self.notification(method, params)?,
            (None, Some(id)) => {
                if let Some(asker) = id.as_u64().and_then(|id| self.asked.remove(&id)) {
                    self.answer(&asker, &message["result"])?;
                }
            }
            (None, None) => {}
        }
        Ok(None)
    }

    fn request(&mut self, method: &str, id: &Value, params: &Value) -> io::Result<()> {
        let uri = params["textDocument"]["uri"].as_str().unwrap_or_default();
        match method {
            "initialize" => {
                self.initialize = params.clone();
                let encoding = if self.options.utf8 { "utf-8" } else { "utf-16" };
                let sync = if self.options.full_sync { 1 } else { 2 };
                let capabilities = json!({
                    "positionEncoding": encoding,
                    "textDocumentSync": sync,
                    "hoverProvider": true,
                    "completionProvider": {},
                });
                self.answer(id, &json!({"capabilities": capabilities, "serverInfo": {"name": "scripted"}}))
            }
            "shutdown" => {
                self.shut_down = true;
                self.answer(id, &Value::Null)
            }
            "textDocument/hover" => {
                let line = usize::try_from(params["position"]["line"].as_u64().unwrap_or(0)).unwrap_or(0);
                let text = self.documents.get(uri).and_then(|document| lines(&document.text).get(line).copied());
                self.answer(id, &text.map_or(Value::Null, |(text, _)| json!({"contents": text})))
            }
            "textDocument/completion" => {
                let text = self.documents.get(uri).map_or("", |document| &document.text);
                let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
                let items: Vec<Value> = words.take(50).map(|word| json!({"label": word})).collect();
                self.answer(id, &json!({"isIncomplete": false, "items": items}))
            }
            "scripted/document" => {
                let document = self.documents.get(uri);
                let state = document.map(|document| json!({"text": document.text, "version": document.version}));
                self.answer(id, &state.unwrap_or_default())
            }
            "scripted/state" => {
                let state = json!({
                    "pid": std::process::id(),
                    "messages": self.messages,
                    "open": self.documents.len(),
                    "initialize": self.initialize,
                    "configuration": self.configuration,
                });
                self.answer(id, &state)
            }
            "scripted/echo" => self.answer(id, params),
            "scripted/ask" => {
                self.asks += 1;
                self.asked.insert(self.asks, id.clone());
                let ask = json!({"jsonrpc": "2.0", "id": self.asks, "method": "workspace/configuration",
                    "params": {"items": [{"section": "scripted"}]}});
                self.write(&ask)
            }
            "scripted/fault" => {
                self.order(params)?;
                self.answer(id, &Value::Null)
            }
            _ => {
                let error = json!({"code": -32601, "message": format!("unknown method {method}")});
                self.write(&json!({"jsonrpc": "2.0", "id": id, "error": error}))
            }
        }
    }

    fn notification(&mut self, method: &str, params: &Value) -> io::Result<()> {
        let document = &params["textDocument"];
        let uri = document["uri"].as_str().unwrap_or_default().to_owned();
        match method {
            "initialized" if self.options.register => {
                let registration = json!({"id": format!("watch-{}", std::process::id()),
                    "method": "workspace/didChangeWatchedFiles", "registerOptions": {"watchers": []}});
                self.write(&json!({"jsonrpc": "2.0", "id": "register", "method": "client/registerCapability",
                    "params": {"registrations": [registration]}}))?;
            }
            "workspace/didChangeConfiguration" => self.configuration = params.clone(),
            "textDocument/didOpen" => {
                let text = document["text"].as_str().unwrap_or_default().to_owned();
                self.documents.insert(uri.clone(), Document { text, version: document["version"].clone() });
                self.diagnose(&uri)?;
            }
            "textDocument/didChange" => {
                let utf8 = self.options.utf8;
                if let Some(open) = self.documents.get_mut(&uri) {
                    for change in params["contentChanges"].as_array().into_iter().flatten() {
                        apply(&mut open.text, change, utf8);
                    }
                    open.version = document["version"].clone();
                    self.diagnose(&uri)?;
                }
            }
            "textDocument/didClose" => {
                self.documents.remove(&uri);
            }
            "scripted/fault" => self.order(params)?,
            _ => {}
        }
        Ok(())
    }

    fn diagnose(&mut self, uri: &str) -> io::Result<()> {
        let Some(document) = self.documents.get(uri) else { return Ok(()) };
        let params = json!({"uri": uri, "version": document.version, "diagnostics": []});
        self.write(&json!({"jsonrpc": "2.0", "method": "textDocument/publishDiagnostics", "params": params}))
    }

    /// `{"fault": "crash", "after": 3}`: misbehave after so many more messages, now by default.
    fn order(&mut self, params: &Value) -> io::Result<()> {
        let fault: Fault = match params["fault"].as_str().unwrap_or_default().parse() {
            Ok(fault) => fault,
            Err(error) => {
                eprintln!("scripted-language-server: {error}");
                return Ok(());
            }
        };
        match params["after"].as_u64().unwrap_or(0) {
            0 => self.misbehave(fault),
            after => {
                self.options.faults.push((self.messages + after, fault));
                Ok(())
            }
        }
    }

    fn misbehave(&mut self, fault: Fault) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match fault {
            Fault::Crash => std::process::abort(),
            Fault::Exit(code) => {
                eprintln!("scripted-language-server: leaving with {code}");
                std::process::exit(code)
            }
            Fault::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Fault::Mute => self.mute = true,
            Fault::Skip => self.skip = true,
            Fault::Twice => self.twice = true,
            Fault::WrongLength => self.wrong_length = true,
            Fault::Slow(millis) => self.slow = Duration::from_millis(millis),
            Fault::Garbage => out.write_all(b"Debugger listening on ws://localhost:9229\n\xff\xfe\x00")?,
            Fault::Truncated => {
                out.write_all(b"Content-Length: 100\r\n\r\n{\"jsonrpc\":")?;
                out.flush()?;
                std::process::exit(0)
            }
            Fault::Oversized => out.write_all(b"Content-Length: 1099511627776\r\n\r\n{")?,
            Fault::NotUtf8 => out.write_all(b"Content-Length: 4\r\n\r\n{\"\xff}")?,
            Fault::StderrFlood(bytes) => {
                let line = [b'e'; 1000];
                let mut stderr = io::stderr().lock();
                for start in (0..bytes).step_by(line.len()) {
                    stderr.write_all(&line[..line.len().min(bytes - start)])?;
                }
            }
        }
        out.flush()
    }

    fn answer(&mut self, id: &Value, result: &Value) -> io::Result<()> {
        if std::mem::take(&mut self.skip) {
            return Ok(());
        }
        std::thread::sleep(self.slow);
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
        if std::mem::take(&mut self.twice) {
            self.write(&answer)?;
        }
        self.write(&answer)
    }

    fn write(&mut self, message: &Value) -> io::Result<()> {
        if self.mute {
            return Ok(());
        }
        let body = message.to_string();
        let length = body.len() - if std::mem::take(&mut self.wrong_length) { 5 } else { 0 };
        let mut out = io::stdout().lock();
        out.write_all(format!("Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
        out.flush()
    }
}

/// The lines of `text` with the byte at which each starts.
fn lines(text: &str) -> Vec<(&str, usize)> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        lines.push((&rest[..at], start));
        let terminator = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        start += at + terminator;
        rest = &rest[at + terminator..];
    }
    lines.push((rest, start));
    lines
}

fn apply(text: &mut String, change: &Value, utf8: bool) {
    let new = change["text"].as_str().unwrap_or_default();
    let Some(range) = change.get("range") else {
        new.clone_into(text);
        return;
    };
    let offset = |position: &Value| {
        let number = |name: &str| usize::try_from(position[name].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
        let Some((line, start)) = lines(text).get(number("line")).copied() else { return text.len() };
        let mut column = number("character");
        let mut at = start;
        for c in line.chars() {
            let width = if utf8 { c.len_utf8() } else { c.len_utf16() };
            if column < width {
                break;
            }
            column -= width;
            at += c.len_utf8();
        }
        at
    };
    let (start, end) = (offset(&range["start"]), offset(&range["end"]));
    text.replace_range(start.min(end)..start.max(end), new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_the_command_line() {
        let parse = |args: &[&str]| Options::parse(args.iter().map(ToString::to_string));
        let options = parse(&["--fault", "exit:3@2", "--utf8"]).expect("good options");
        assert_eq!((options.faults, options.utf8), (vec![(2, Fault::Exit(3))], true));
        insta::assert_snapshot!(parse(&["--fault", "crash"]).unwrap_err(), @"--fault takes FAULT@MESSAGE, like `crash@20`");
        insta::assert_snapshot!(parse(&["--fault", "burn@1"]).unwrap_err(), @r#""burn" is not a fault"#);
        insta::assert_snapshot!(parse(&["--fault", "exit@1"]).unwrap_err(), @r#""exit" needs a number, like `exit:3`"#);
        insta::assert_snapshot!(parse(&["-x"]).unwrap_err(), @r#""-x" is not an option; allowed: --fault, --full-sync, --utf8, --register"#);
    }

    #[test]
    fn edits_are_applied_by_lines_and_columns() {
        let mut text = "a\r\né😀b\rc".to_owned();
        let change =
            json!({"range": {"start": {"line": 1, "character": 1}, "end": {"line": 2, "character": 0}}, "text": "-"});
        apply(&mut text, &change, false);
        assert_eq!(text, "a\r\né-c");
    }
}
