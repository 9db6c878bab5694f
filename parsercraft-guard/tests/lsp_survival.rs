//! A real server process behind the guard, broken in every way the scripted server knows: every request is answered
//! exactly once, and afterwards the server's text is the editor's.
#![cfg(all(feature = "lsp", feature = "testkit"))]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parsercraft_guard::lsp::{LspConfig, LspError, LspState, ServerCommand, Supervisor};
use parsercraft_guard::testkit::lsp_client::LspClient;
use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_scripted-language-server");
/// For waits that end much earlier unless something is broken.
const LONG: Duration = Duration::from_secs(30);
const URI: &str = "file:///a.txt";

fn config() -> LspConfig {
    let mut config = LspConfig::default();
    config.forward_stderr = false;
    config.restart.max_restarts = 10_000;
    config.restart.first_delay = Duration::ZERO;
    config.restart.max_delay = Duration::ZERO;
    config
}

fn guarded(config: LspConfig, args: &[&str]) -> (Supervisor, Arc<LspClient>) {
    let command = ServerCommand::new(SERVER).args(args.iter().copied());
    LspClient::guarded(config, command).expect("the guard starts")
}

fn started(config: LspConfig, args: &[&str]) -> (Supervisor, Arc<LspClient>) {
    let (guard, client) = guarded(config, args);
    let answer = client.initialize(LONG).expect("initialize is answered");
    assert_eq!(answer["result"]["serverInfo"]["name"], "scripted", "{answer}");
    (guard, client)
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn document(client: &LspClient) -> Value {
    let params = json!({"textDocument": {"uri": URI}});
    client.call("scripted/document", &params, LONG).expect("an answer")["result"].clone()
}

fn hover(client: &LspClient) -> i64 {
    client
        .request("textDocument/hover", &json!({"textDocument": {"uri": URI}, "position": {"line": 0, "character": 0}}))
}

fn every_request_was_answered_once(client: &LspClient) {
    for id in 1..=client.requests() {
        assert!(client.answer(id, LONG).is_some(), "request {id} was never answered");
    }
    for id in 1..=client.requests() {
        assert_eq!(client.answers(id), 1, "request {id}");
    }
}

fn leaves_in_order(guard: &Supervisor, client: &LspClient) {
    assert_eq!(client.leave(LONG).expect("shutdown is answered")["result"], Value::Null);
    let end = guard.wait().expect("a good end");
    assert_eq!(end.code, 0);
    assert!(client.wait_closed(LONG), "the guard closes its side");
    every_request_was_answered_once(client);
}

/// The text as the editor has it, with edits made up at random.
struct Editor {
    random: fastrand::Rng,
    text: String,
    version: i64,
    utf8: bool,
    full_sync: bool,
}

impl Editor {
    fn new(seed: u64, utf8: bool, full_sync: bool) -> Self {
        let text = "first line\nzweite Zeile äöü\r\n第三行 🦀🦀\n".to_owned();
        Self { random: fastrand::Rng::with_seed(seed), text, version: 1, utf8, full_sync }
    }

    fn place(&mut self) -> usize {
        let places: Vec<usize> = self.text.char_indices().map(|(at, _)| at).chain([self.text.len()]).collect();
        let at = places[self.random.usize(..places.len())];
        // No editor puts its cursor between the two characters of a line's end.
        if self.text[..at].ends_with('\r') && self.text[at..].starts_with('\n') { at + 1 } else { at }
    }

    fn position(&self, at: usize) -> Value {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = &before[line_start..];
        let character = if self.utf8 { column.len() } else { column.encode_utf16().count() };
        json!({"line": before.matches('\n').count(), "character": character})
    }

    fn edit(&mut self, client: &LspClient) {
        let mut changes = Vec::new();
        for _ in 0..self.random.usize(1..4) {
            let (a, b) = (self.place(), self.place());
            let (start, mut end) = (a.min(b), a.max(b));
            if end - start > 8 {
                end = start;
            }
            let new = ["x", "", "\n", "é🦀", "two\r\nlines", "word "][self.random.usize(..6)];
            let change = json!({"range": {"start": self.position(start), "end": self.position(end)}, "text": new});
            self.text.replace_range(start..end, new);
            changes.push(if self.full_sync { json!({"text": self.text}) } else { change });
        }
        self.version += 1;
        client.change(URI, self.version, &json!(changes));
    }

    fn state(&self) -> Value {
        json!({"text": self.text, "version": self.version})
    }
}

#[test]
fn an_undisturbed_session_gets_the_servers_own_answers() {
    let mut process =
        Command::new(SERVER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
    let (stdin, stdout) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
    let bare = LspClient::connect(stdout, stdin).expect("a client");
    bare.initialize(LONG).expect("initialize is answered");
    let (guard, client) = started(config(), &[]);
    for side in [&bare, &client] {
        let mut editor = Editor::new(1, false, false);
        side.open(URI, 1, &editor.text);
        for _ in 0..100 {
            editor.edit(side);
            hover(side);
            side.request("textDocument/completion", &json!({"textDocument": {"uri": URI}}));
            side.request("scripted/document", &json!({"textDocument": {"uri": URI}}));
            side.request("unknown/method", &json!({"anything": [1.50, "\u{1f980}"]}));
        }
    }
    for id in 2..=client.requests() {
        assert_eq!(client.answer(id, LONG), bare.answer(id, LONG), "request {id}");
    }
    assert_eq!(guard.stats().degraded, 0);
    assert_eq!(client.others(), bare.others(), "notifications pass too");
    leaves_in_order(&guard, &client);
    bare.leave(LONG).expect("shutdown is answered");
    assert!(process.wait().expect("a status").success());
}

fn killed_at_random_points(seed: u64, utf8: bool, full_sync: bool, kills: u32) {
    let args: &[&str] = match (utf8, full_sync) {
        (false, false) => &[],
        (true, false) => &["--utf8"],
        (false, true) => &["--full-sync"],
        (true, true) => &["--utf8", "--full-sync"],
    };
    let (guard, client) = started(config(), args);
    let mut editor = Editor::new(seed, utf8, full_sync);
    client.open(URI, 1, &editor.text);
    client.notify("workspace/didChangeConfiguration", &json!({"settings": {"seed": seed}}));
    let mut killed = 0;
    while killed < kills {
        for _ in 0..editor.random.usize(..8) {
            editor.edit(&client);
            match editor.random.usize(..4) {
                0 => hover(&client),
                1 => client.request("textDocument/completion", &json!({"textDocument": {"uri": URI}})),
                2 => client.request("textDocument/rename", &json!({"textDocument": {"uri": URI}})),
                _ => client.request("scripted/document", &json!({"textDocument": {"uri": URI}})),
            };
        }
        killed += u32::from(guard.kill_server());
        if editor.random.bool() {
            // Sometimes at once, sometimes when the next one is there.
            let before = guard.stats().generation;
            wait_until("the next server", || {
                guard.stats().generation > before || guard.stats().state == LspState::Ready
            });
        }
    }
    wait_until("recovery", || guard.stats().state == LspState::Ready);
    // What the last kill hit may still be found out; a server that answers this is the one that stays.
    let settled = (0..100).find_map(|_| Some(document(&client)).filter(Value::is_object)).expect("an answer");
    assert_eq!(settled, editor.state(), "seed {seed}");
    assert_eq!(guard.document(URI), Some((editor.text.clone(), editor.version)), "seed {seed}");
    let state = client.call("scripted/state", &Value::Null, LONG).expect("an answer");
    assert_eq!(state["result"]["configuration"], json!({"settings": {"seed": seed}}));
    assert_eq!(state["result"]["initialize"]["processId"], std::process::id(), "the same initialize as the first");
    assert!(guard.stats().restarts > 0);
    leaves_in_order(&guard, &client);
}

#[test]
fn a_server_killed_again_and_again_costs_no_answer_and_no_edit() {
    for seed in 0..4 {
        killed_at_random_points(seed, seed % 2 == 1, seed >= 2, 25);
    }
}

#[test]
fn whatever_the_server_does_every_request_is_answered_and_the_text_is_right_afterwards() {
    for (fault, loses_server) in [
        ("crash", true),
        ("exit:7", true),
        ("hang", true),
        ("mute", true),
        ("garbage", true),
        ("truncated", true),
        ("oversized", true),
        ("wrong-length", true),
        ("skip", false),
        ("twice", false),
        ("not-utf8", false),
        ("slow:20", false),
        ("stderr:3000000", false),
    ] {
        let mut config = config();
        if loses_server {
            config.hang_after = Duration::from_millis(400);
        }
        if loses_server || fault == "skip" {
            config.deadlines.interactive = Duration::from_millis(200);
        }
        let (guard, client) = started(config, &[]);
        let mut editor = Editor::new(3, false, false);
        client.open(URI, 1, &editor.text);
        client.notify("scripted/fault", &json!({"fault": fault}));
        for _ in 0..5 {
            editor.edit(&client);
            hover(&client);
        }
        every_request_was_answered_once(&client);
        wait_until("the loss", || !loses_server || guard.stats().generation > 1);
        wait_until("recovery", || guard.stats().state == LspState::Ready);
        assert_eq!(document(&client), editor.state(), "{fault}");
        let stats = guard.stats();
        assert_eq!(stats.generation > 1, loses_server, "{fault}: {stats:?}");
        match fault {
            "hang" | "mute" | "skip" => assert!(stats.degraded > 0, "{fault}: {stats:?}"),
            // Where the loss is found out at once, the next server may be there before the first request.
            _ if loses_server => {}
            _ => assert_eq!(stats.degraded, 0, "{fault}: {stats:?}"),
        }
        assert_eq!(stats.dropped_answers, u64::from(fault == "twice"), "{fault}: {stats:?}");
        leaves_in_order(&guard, &client);
    }
}

#[test]
fn the_editor_is_told_when_the_server_is_lost_and_when_it_is_back() {
    let (guard, client) = started(config(), &[]);
    client.open(URI, 1, "text");
    assert_eq!(document(&client)["version"], 1);
    client.notify("scripted/fault", &json!({"fault": "exit:7"}));
    let shown = |kind: u64| {
        let message = client
            .wait_for(LONG, |message| message["method"] == "window/showMessage" && message["params"]["type"] == kind);
        message.expect("a message")["params"]["message"].as_str().map(ToOwned::to_owned).expect("a text")
    };
    let lost = shown(2);
    assert!(lost.starts_with("parsercraft-guard: scripted-language-server was lost (exit status: 7"), "{lost}");
    assert_eq!(shown(3), "parsercraft-guard: scripted-language-server is back; 1 open documents restored");
    leaves_in_order(&guard, &client);
}

#[test]
fn a_capability_registered_by_a_dead_server_is_taken_back() {
    let (guard, client) = started(config(), &["--register"]);
    let registered = |message: &Value| message["method"] == "client/registerCapability";
    let first = client.wait_for(LONG, registered).expect("a registration");
    guard.kill_server();
    let second = client.wait_for(LONG, |message| registered(message) && message["params"] != first["params"]);
    assert!(second.is_some(), "the new server registers too");
    let taken_back = client.wait_for(LONG, |message| message["method"] == "client/unregisterCapability").expect("one");
    let old = &first["params"]["registrations"][0];
    assert_eq!(taken_back["params"]["unregisterations"], json!([{"id": old["id"], "method": old["method"]}]));
    leaves_in_order(&guard, &client);
}

#[test]
fn requests_of_the_server_are_answered_by_the_editor_before_and_after_a_restart() {
    let (guard, client) = started(config(), &[]);
    for _ in 0..3 {
        let answer = client.call("scripted/ask", &Value::Null, LONG).expect("an answer");
        assert!(answer["result"][0]["answered"].is_number(), "{answer}");
        let before = guard.stats().generation;
        guard.kill_server();
        wait_until("recovery", || guard.stats().generation > before && guard.stats().state == LspState::Ready);
    }
    leaves_in_order(&guard, &client);
}

#[test]
fn a_server_that_keeps_crashing_is_given_up_for_a_while_and_the_guard_answers_itself() {
    let mut config = config();
    config.restart.max_restarts = 3;
    // Every server leaves at its second message, so a replay never gets further than `initialize`.
    let (guard, client) = started(config, &["--fault", "exit:3@2"]);
    wait_until("giving up", || guard.stats().state == LspState::Degraded);
    assert_eq!(guard.stats().restarts, 3);
    let completion = client.call("textDocument/completion", &json!({"textDocument": {"uri": URI}}), LONG);
    assert_eq!(completion.expect("an answer")["result"], json!({"isIncomplete": true, "items": []}));
    let rename = client.call("textDocument/rename", &json!({}), LONG).expect("an answer");
    assert_eq!(rename["error"]["code"], -32803, "{rename}");
    assert!(rename["error"]["data"]["retryAfterMs"].is_number(), "{rename}");
    let told = client.wait_for(LONG, |message| message["params"]["type"] == 1).expect("a message");
    assert!(told["params"]["message"].as_str().is_some_and(|text| text.contains("is down")), "{told}");
    leaves_in_order(&guard, &client);
}

#[test]
fn a_degraded_guard_recovers_by_itself() {
    let mut config = config();
    config.restart.max_restarts = 0;
    config.restart.retry_after = Duration::from_millis(50);
    let (guard, client) = started(config, &[]);
    client.open(URI, 1, "text");
    client.notify("scripted/fault", &json!({"fault": "crash"}));
    wait_until("the second server", || guard.stats().generation == 2 && guard.stats().state == LspState::Ready);
    assert_eq!(document(&client), json!({"text": "text", "version": 1}));
    leaves_in_order(&guard, &client);
}

#[test]
fn a_program_that_does_not_exist_is_told_to_the_editor_and_returned_as_an_error() {
    let command = ServerCommand::new("no-such-language-server");
    let (guard, client) = LspClient::guarded(config(), command).expect("the guard starts");
    let answer = client.initialize(LONG).expect("an answer");
    assert_eq!(answer["error"]["code"], -32803, "{answer}");
    let told = client.wait_for(LONG, |message| message["method"] == "window/showMessage").expect("a message");
    assert!(told["params"]["message"].as_str().is_some_and(|text| text.contains("no-such-language-server")), "{told}");
    client.notify("exit", &Value::Null);
    let error = guard.wait().expect_err("there was no server");
    assert!(matches!(error, LspError::CannotStart { .. }), "{error:?}");
    assert!(error.to_string().starts_with("cannot start the language server `no-such-language-server`"), "{error}");
    every_request_was_answered_once(&client);
}

#[test]
fn an_editor_that_dies_takes_the_server_along_even_one_that_hangs() {
    for fault in [None, Some("hang")] {
        let mut config = config();
        config.shutdown_grace = Duration::from_millis(100);
        let (guard, client) = started(config, &[]);
        if let Some(fault) = fault {
            client.notify("scripted/fault", &json!({"fault": fault}));
        }
        client.close();
        let end = guard.wait().expect("an end");
        assert_eq!(end.code, 1, "{fault:?}: without shutdown");
        assert!(guard.server_pid().is_none());
        assert!(client.wait_closed(LONG));
    }
}

#[test]
fn nonsense_from_the_editor_is_a_typed_error_and_ends_the_session_only_when_frames_are_lost() {
    let (guard, client) = started(config(), &[]);
    client.send_raw(b"Content-Length: 3\r\n\r\n[1]");
    client.send_raw(b"Content-Length: 2\r\n\r\n\xff\xff");
    let refused = client.wait_for(LONG, |message| message["error"]["code"] == -32700).expect("an error");
    assert_eq!(refused["id"], Value::Null);
    assert_eq!(client.call("scripted/echo", &json!([1]), LONG).expect("still there")["result"], json!([1]));
    client.send_raw(b"GET / HTTP/1.1\r\n\r\n");
    let error = guard.wait().expect_err("the stream is no protocol");
    assert!(matches!(error, LspError::Editor(_)), "{error:?}");
    every_request_was_answered_once(&client);
}

#[test]
fn more_requests_than_allowed_are_answered_by_the_guard_and_edits_still_pass() {
    let mut config = config();
    config.requests.rate = 1;
    config.requests.per = Duration::from_secs(3600);
    config.requests.burst = 3;
    let (guard, client) = started(config, &[]);
    client.open(URI, 1, "a");
    for version in 2..20 {
        client.change(URI, version, &json!([{"text": version.to_string()}]));
        hover(&client);
    }
    every_request_was_answered_once(&client);
    assert_eq!(guard.stats().refused, 15);
    client.wait_for(LONG, |message| message["params"]["version"] == 19).expect("diagnostics of the last edit");
    leaves_in_order(&guard, &client);
}

#[test]
fn an_editor_that_writes_faster_than_the_server_reads_loses_nothing() {
    let mut config = config();
    config.max_unwritten_bytes = 4096;
    let (guard, client) = started(config, &[]);
    let filler = "x".repeat(30_000);
    client.notify("scripted/fault", &json!({"fault": "slow:5"}));
    for n in 0..100 {
        client.request("scripted/echo", &json!([n, filler]));
    }
    for id in 2..=client.requests() {
        assert_eq!(client.answer(id, LONG).expect("an answer")["result"], json!([id - 2, filler]));
    }
    leaves_in_order(&guard, &client);
}
