//! The session as a state machine: time and events by hand, no process, no stream.
#![cfg(feature = "lsp")]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parsercraft_guard::lsp::{Action, Frame, LspConfig, LspState, Session};
use proptest::prelude::*;
use resilience_core::{Clock, ManualClock};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

/// A session with a hand-made editor and a hand-made server.
struct Rig {
    session: Session,
    time: ManualClock,
    /// The running server's number.
    generation: Option<u32>,
    /// What the running server was sent.
    server: Vec<Value>,
    /// What the editor was sent.
    editor: Vec<Value>,
    notices: Vec<&'static str>,
    ended: Option<i32>,
    next_start_fails: bool,
}

impl Rig {
    fn new(config: LspConfig) -> Self {
        let (clock, time) = Clock::manual();
        let session = Session::new("server", config, &clock).expect("a good configuration");
        let mut rig = Self {
            session,
            time,
            generation: None,
            server: Vec::new(),
            editor: Vec::new(),
            notices: Vec::new(),
            ended: None,
            next_start_fails: false,
        };
        rig.perform();
        rig
    }

    /// Past `initialize`.
    fn ready(config: LspConfig) -> Self {
        let mut rig = Self::new(config);
        rig.ask(0, "initialize", &json!({"capabilities": {}}));
        rig.server_answers(&json!(0), &json!({"capabilities": {}}));
        rig.notify("initialized", &json!({}));
        rig.editor.clear();
        rig.server.clear();
        rig
    }

    fn perform(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::ToEditor(frame) => self.editor.push(parsed(&frame)),
                Action::ToServer(frame) => self.server.push(parsed(&frame)),
                Action::Start { generation } => {
                    assert_eq!(self.generation, None, "one server at a time");
                    if std::mem::take(&mut self.next_start_fails) {
                        self.session.server_not_started(self.time.now(), generation, "no memory", false);
                    } else {
                        self.generation = Some(generation);
                        self.server.clear();
                        self.session.server_started(self.time.now(), generation);
                    }
                }
                Action::Kill { generation } => {
                    self.generation = self.generation.filter(|running| *running != generation);
                }
                Action::Notice(notice) => self.notices.push(notice.action),
                Action::End { code } => {
                    assert_eq!(self.ended.replace(code), None, "a session ends once");
                }
                _ => {}
            }
        }
    }

    fn sends(&mut self, message: &Value) {
        self.session.editor_sent(self.time.now(), frame(message));
        self.perform();
    }

    fn ask(&mut self, id: i64, method: &str, params: &Value) {
        self.sends(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }

    fn notify(&mut self, method: &str, params: &Value) {
        self.sends(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    fn server_says(&mut self, message: &Value) {
        if let Some(generation) = self.generation {
            self.session.server_sent(self.time.now(), generation, frame(message));
            self.perform();
        }
    }

    fn server_answers(&mut self, id: &Value, result: &Value) {
        self.server_says(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn server_crashes(&mut self) {
        if let Some(generation) = self.generation.take() {
            self.session.server_ended(self.time.now(), generation, "signal 9", None);
            self.perform();
        }
    }

    /// The new server answers the replayed `initialize`.
    fn server_recovers(&mut self) {
        let replay = self.server.iter().find(|message| message["method"] == "initialize").expect("a replay");
        let id = replay["id"].clone();
        self.server_answers(&id, &json!({"capabilities": {}}));
    }

    fn advance(&mut self, time: Duration) {
        self.time.advance(time);
        while self.session.next_deadline().is_some_and(|deadline| deadline <= self.time.now()) {
            self.session.tick(self.time.now());
            self.perform();
        }
    }

    fn answers(&self, id: i64) -> Vec<&Value> {
        self.editor.iter().filter(|message| message.get("method").is_none() && message["id"] == id).collect()
    }

    fn answer(&self, id: i64) -> &Value {
        let answers = self.answers(id);
        assert_eq!(answers.len(), 1, "request {id}: {answers:?}");
        answers[0]
    }

    fn sent_to_server(&self) -> Vec<String> {
        self.server.iter().map(|message| message["method"].as_str().unwrap_or("an answer").to_owned()).collect()
    }
}

fn frame(message: &Value) -> Frame {
    Frame::new(message.to_string())
}

fn parsed(frame: &Frame) -> Value {
    serde_json::from_slice(frame.body()).expect("the guard sends JSON")
}

fn place() -> Value {
    json!({"textDocument": {"uri": "u"}, "position": {"line": 0, "character": 0}})
}

fn opened(text: &str) -> Value {
    json!({"textDocument": {"uri": "u", "languageId": "l", "version": 1, "text": text}})
}

#[test]
fn a_late_answer_is_dropped_and_the_server_told_to_stop_working_on_it() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.ask(1, "textDocument/completion", &place());
    rig.advance(9 * SECOND);
    assert!(rig.answers(1).is_empty());
    rig.advance(SECOND);
    assert_eq!(rig.answer(1)["result"], json!({"isIncomplete": true, "items": []}));
    assert_eq!(rig.server.last().expect("a message")["params"], json!({"id": 1}));
    assert_eq!(rig.sent_to_server(), ["textDocument/completion", "$/cancelRequest"]);
    rig.server_answers(&json!(1), &json!([]));
    assert_eq!(rig.answers(1).len(), 1);
    assert_eq!(rig.session.stats().dropped_answers, 1);
}

#[test]
fn a_silent_server_is_replaced_and_what_waits_reaches_the_next_one() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.notify("textDocument/didOpen", &opened("old"));
    rig.ask(1, "textDocument/hover", &place());
    rig.advance(29 * SECOND);
    assert_eq!((rig.generation, rig.answer(1)["result"].clone()), (Some(1), Value::Null));
    rig.advance(SECOND);
    assert_eq!((rig.generation, rig.session.state()), (Some(2), LspState::Restarting));
    rig.ask(2, "textDocument/hover", &place());
    rig.notify("textDocument/didSave", &json!({}));
    rig.notify(
        "textDocument/didChange",
        &json!({"textDocument": {"uri": "u", "version": 2}, "contentChanges": [{"text": "new"}]}),
    );
    assert_eq!(rig.sent_to_server(), ["initialize"]);
    rig.server_recovers();
    assert_eq!(
        rig.sent_to_server(),
        ["initialize", "initialized", "textDocument/didOpen", "textDocument/hover", "textDocument/didSave"]
    );
    assert_eq!(
        rig.server[2]["params"]["textDocument"],
        json!({"uri": "u", "languageId": "l", "version": 2, "text": "new"})
    );
    rig.server_answers(&json!(2), &json!("fresh"));
    assert_eq!(rig.answer(2)["result"], "fresh");
    assert_eq!(rig.notices.iter().filter(|notice| **notice == "server_recovered").count(), 1);
}

#[test]
fn a_server_that_runs_a_long_command_is_not_taken_for_dead() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.ask(1, "workspace/executeCommand", &json!({"command": "test"}));
    rig.ask(2, "textDocument/hover", &place());
    rig.advance(590 * SECOND);
    assert_eq!((rig.generation, rig.answers(1).len(), rig.answers(2).len()), (Some(1), 0, 1));
    rig.server_answers(&json!(1), &json!("done"));
    assert_eq!(rig.answer(1)["result"], "done");
    rig.advance(3600 * SECOND);
    assert_eq!(rig.generation, Some(1), "an idle server is healthy");
}

#[test]
fn a_server_that_was_given_up_is_not_heard_any_more() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.server_crashes();
    rig.server_recovers();
    rig.ask(1, "textDocument/hover", &place());
    rig.session.server_sent(rig.time.now(), 1, frame(&json!({"jsonrpc": "2.0", "id": 1, "result": "of the dead"})));
    let error = parsercraft_guard::lsp::FrameError::MissingLength;
    rig.session.server_broke(rig.time.now(), 1, &error);
    rig.session.server_deaf(rig.time.now(), 1);
    rig.session.server_ended(rig.time.now(), 1, "late", None);
    rig.perform();
    assert_eq!((rig.generation, rig.answers(1).len()), (Some(2), 0));
    rig.server_answers(&json!(1), &json!("of the living"));
    assert_eq!(rig.answer(1)["result"], "of the living");
}

#[test]
fn an_answer_that_is_still_right_is_given_again_while_the_server_is_gone() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.notify("textDocument/didOpen", &opened("x"));
    rig.ask(1, "textDocument/hover", &place());
    rig.server_answers(&json!(1), &json!({"contents": "docs of x"}));
    rig.ask(2, "textDocument/hover", &place());
    rig.server_crashes();
    assert_eq!(rig.answer(2)["result"], json!({"contents": "docs of x"}));
    rig.server_recovers();
    rig.ask(3, "textDocument/hover", &place());
    rig.notify(
        "textDocument/didChange",
        &json!({"textDocument": {"uri": "u", "version": 2}, "contentChanges": [{"text": "y"}]}),
    );
    rig.server_crashes();
    assert_eq!(rig.answer(3)["result"], Value::Null, "after an edit it is not right any more");
}

#[test]
fn the_life_cycle_of_the_protocol_is_kept() {
    let mut rig = Rig::new(LspConfig::default());
    rig.ask(1, "textDocument/hover", &place());
    assert_eq!(rig.answer(1)["error"]["code"], -32002);
    rig.notify("initialized", &json!({}));
    assert!(rig.server.is_empty(), "nothing reaches the server before initialize");
    rig.ask(2, "initialize", &json!({}));
    rig.ask(3, "initialize", &json!({}));
    assert_eq!(rig.answer(3)["error"]["code"], -32600);
    rig.server_answers(&json!(2), &json!({"capabilities": {}}));
    rig.ask(4, "x", &json!({}));
    rig.ask(4, "x", &json!({}));
    assert_eq!(rig.answer(4)["error"]["message"], "the request id 4 is already in use");
    rig.ask(5, "shutdown", &Value::Null);
    rig.ask(6, "textDocument/hover", &place());
    assert_eq!(rig.answer(6)["error"]["code"], -32600);
    rig.server_answers(&json!(4), &Value::Null);
    rig.server_answers(&json!(5), &Value::Null);
    rig.notify("exit", &Value::Null);
    assert_eq!((rig.session.state(), rig.ended), (LspState::Stopping, None));
    rig.session.server_ended(rig.time.now(), 1, "exit status: 0", Some(0));
    rig.perform();
    assert_eq!((rig.session.state(), rig.ended), (LspState::Stopped, Some(0)));
}

#[test]
fn a_server_that_dies_during_initialize_costs_the_editor_nothing() {
    let mut rig = Rig::new(LspConfig::default());
    rig.ask(1, "initialize", &json!({"capabilities": {"a": 1}}));
    rig.server_crashes();
    assert_eq!(
        rig.server,
        [json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {"a": 1}}})]
    );
    rig.server_answers(&json!(1), &json!({"capabilities": {}}));
    assert_eq!(rig.answer(1)["result"], json!({"capabilities": {}}));
    assert_eq!(rig.session.state(), LspState::Ready);
}

#[test]
fn shutdown_is_answered_without_a_server_and_none_is_started_for_it() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.server_crashes();
    assert_eq!(rig.session.state(), LspState::Restarting);
    rig.ask(1, "shutdown", &Value::Null);
    assert_eq!(rig.answer(1)["result"], Value::Null);
    rig.advance(600 * SECOND);
    assert_eq!(rig.generation, None);
    rig.notify("exit", &Value::Null);
    assert_eq!(rig.ended, Some(0));
}

#[test]
fn a_server_that_ignores_exit_is_killed_after_the_grace() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.session.editor_closed(rig.time.now());
    rig.perform();
    rig.advance(SECOND);
    assert_eq!((rig.generation, rig.ended), (Some(1), None));
    rig.advance(SECOND);
    assert_eq!((rig.generation, rig.ended), (None, Some(1)));
}

#[test]
fn an_answer_of_the_editor_reaches_only_the_server_that_asked() {
    let mut rig = Rig::ready(LspConfig::default());
    let asks = json!({"jsonrpc": "2.0", "id": 7, "method": "workspace/configuration", "params": {"items": []}});
    rig.server_says(&asks);
    assert_eq!(rig.editor, std::slice::from_ref(&asks));
    rig.server_crashes();
    rig.server_recovers();
    rig.editor.clear();
    rig.server_says(&asks);
    let second = rig.editor.last().expect("a request").clone();
    assert_eq!(second["params"], asks["params"]);
    assert_ne!(second["id"], 7, "the editor still owes an answer under that name");
    rig.server.clear();
    rig.sends(&json!({"jsonrpc": "2.0", "id": 7, "result": "for the dead one"}));
    assert!(rig.server.is_empty());
    rig.sends(&json!({"jsonrpc": "2.0", "id": second["id"], "result": "for the living one"}));
    assert_eq!(rig.server, [json!({"jsonrpc": "2.0", "id": 7, "result": "for the living one"})]);
}

#[test]
fn progress_bars_of_a_dead_server_are_ended() {
    let mut rig = Rig::ready(LspConfig::default());
    for (token, kind) in [("a", "begin"), ("b", "begin"), ("a", "end")] {
        rig.server_says(
            &json!({"jsonrpc": "2.0", "method": "$/progress", "params": {"token": token, "value": {"kind": kind}}}),
        );
    }
    rig.editor.clear();
    rig.server_crashes();
    let ended: Vec<&Value> = rig.editor.iter().filter(|message| message["method"] == "$/progress").collect();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["params"], json!({"token": "b", "value": {"kind": "end"}}));
}

#[test]
fn requests_are_not_left_to_wait_for_a_server_that_answers_nothing_in_time() {
    let mut config = LspConfig::default();
    config.hang_after = 3600 * SECOND;
    let mut rig = Rig::ready(config);
    for id in 1..=5 {
        rig.ask(id, "textDocument/hover", &place());
        rig.advance(10 * SECOND);
    }
    rig.ask(6, "textDocument/hover", &place());
    assert_eq!(rig.answer(6)["result"], Value::Null, "at once: the breaker is open");
    assert_eq!(rig.session.stats().refused, 1);
    rig.advance(10 * SECOND);
    for id in [7, 8] {
        rig.ask(id, "textDocument/hover", &place());
        rig.server_answers(&json!(id), &json!("there again"));
        assert_eq!(rig.answer(id)["result"], "there again");
    }
}

#[test]
fn a_request_cancelled_while_it_waits_is_answered_and_never_sent() {
    let mut rig = Rig::ready(LspConfig::default());
    rig.server_crashes();
    rig.ask(1, "textDocument/references", &place());
    rig.notify("$/cancelRequest", &json!({"id": 1}));
    assert_eq!(rig.answer(1)["error"]["code"], -32800);
    rig.server_recovers();
    assert_eq!(rig.sent_to_server(), ["initialize", "initialized"]);
}

#[test]
fn what_waits_is_bounded_and_no_request_is_lost_by_that() {
    let mut config = LspConfig::default();
    config.requests.max_pending = 3;
    let mut rig = Rig::ready(config);
    rig.server_crashes();
    for n in 0..5 {
        rig.notify("custom/note", &json!(n));
    }
    for id in 1..=5 {
        rig.ask(id, "textDocument/references", &place());
    }
    let stats = rig.session.stats();
    assert_eq!((stats.waiting, stats.dropped_notifications, stats.refused), (3, 5, 2));
    rig.server_recovers();
    assert_eq!(rig.sent_to_server()[2..], ["textDocument/references"; 3]);
}

#[derive(Debug, Clone)]
enum Step {
    Ask(usize),
    Cancel(usize),
    Open(usize),
    Edit(usize),
    Close(usize),
    Note,
    Answer(usize),
    AnswerAgain,
    ServerAsks,
    EditorAnswers,
    BadBody,
    BadFrame,
    Crash,
    FailNextStart,
    Wait(u64),
    StaleServerSpeaks,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..6).prop_map(Step::Ask),
        1 => (0_usize..9).prop_map(Step::Cancel),
        2 => (0_usize..3).prop_map(Step::Open),
        4 => (0_usize..3).prop_map(Step::Edit),
        1 => (0_usize..3).prop_map(Step::Close),
        1 => Just(Step::Note),
        9 => (0_usize..9).prop_map(Step::Answer),
        1 => Just(Step::AnswerAgain),
        1 => Just(Step::ServerAsks),
        1 => Just(Step::EditorAnswers),
        1 => Just(Step::BadBody),
        1 => Just(Step::BadFrame),
        2 => Just(Step::Crash),
        1 => Just(Step::FailNextStart),
        2 => (0_u64..40_000).prop_map(Step::Wait),
        1 => Just(Step::StaleServerSpeaks),
    ]
}

/// What the running server knows, worked out from what it was sent.
fn texts_of_server(messages: &[Value]) -> BTreeMap<String, (i64, String)> {
    let mut texts = BTreeMap::new();
    for message in messages {
        let params = &message["params"];
        let document = &params["textDocument"];
        let uri = document["uri"].as_str().unwrap_or_default().to_owned();
        let version = document["version"].as_i64().unwrap_or(0);
        match message["method"].as_str() {
            Some("textDocument/didOpen") => {
                texts.insert(uri, (version, document["text"].as_str().unwrap_or_default().to_owned()));
            }
            Some("textDocument/didChange") => {
                let text = params["contentChanges"][0]["text"].as_str().unwrap_or_default().to_owned();
                let known = texts.insert(uri.clone(), (version, text));
                assert!(known.is_some(), "{uri} was edited before it was opened");
            }
            Some("textDocument/didClose") => {
                assert!(texts.remove(&uri).is_some(), "{uri} was closed before it was opened");
            }
            _ => {}
        }
    }
    texts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_happens_each_request_is_answered_once_and_a_ready_server_knows_every_text(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        const METHODS: [&str; 6] = [
            "textDocument/completion", "textDocument/hover", "textDocument/rename",
            "workspace/executeCommand", "custom/anything", "textDocument/semanticTokens/full",
        ];
        let mut rig = Rig::ready(LspConfig::default());
        let (mut next_id, mut version) = (0_i64, 0_i64);
        let mut texts: BTreeMap<String, (i64, String)> = BTreeMap::new();
        let mut asks = 0;
        for step in steps {
            match step {
                Step::Ask(method) => {
                    next_id += 1;
                    rig.ask(next_id, METHODS[method], &place());
                }
                Step::Cancel(back) => {
                    let id = next_id - i64::try_from(back).expect("small");
                    rig.notify("$/cancelRequest", &json!({"id": id}));
                }
                Step::Open(uri) => {
                    let uri = format!("u{uri}");
                    if let Entry::Vacant(closed) = texts.entry(uri.clone()) {
                        version += 1;
                        let text = format!("text {version}");
                        rig.notify("textDocument/didOpen", &json!({"textDocument": {"uri": uri, "version": version, "text": text}}));
                        closed.insert((version, text));
                    }
                }
                Step::Edit(uri) => {
                    if let Some(state) = texts.get_mut(&format!("u{uri}")) {
                        version += 1;
                        *state = (version, format!("text {version}"));
                        rig.notify("textDocument/didChange", &json!({
                            "textDocument": {"uri": format!("u{uri}"), "version": version}, "contentChanges": [{"text": state.1}]}));
                    }
                }
                Step::Close(uri) => {
                    if texts.remove(&format!("u{uri}")).is_some() {
                        rig.notify("textDocument/didClose", &json!({"textDocument": {"uri": format!("u{uri}")}}));
                    }
                }
                Step::Note => rig.notify("custom/note", &json!({})),
                Step::Answer(nth) => {
                    let open: Vec<Value> =
                        rig.server.iter().filter(|message| message.get("method").is_some() && message.get("id").is_some())
                            .map(|message| message["id"].clone()).collect();
                    if !open.is_empty() {
                        let id = open[nth % open.len()].clone();
                        rig.server_answers(&id, &json!({"capabilities": {}}));
                    }
                }
                Step::AnswerAgain => rig.server_answers(&json!(next_id), &Value::Null),
                Step::ServerAsks => {
                    asks += 1;
                    rig.server_says(&json!({"jsonrpc": "2.0", "id": asks % 3, "method": "workspace/configuration"}));
                }
                Step::EditorAnswers => {
                    rig.sends(&json!({"jsonrpc": "2.0", "id": asks % 3, "result": []}));
                }
                Step::BadBody => {
                    if let Some(generation) = rig.generation {
                        rig.session.server_sent(rig.time.now(), generation, Frame::new("{nonsense"));
                        rig.perform();
                    }
                }
                Step::BadFrame => {
                    if let Some(generation) = rig.generation {
                        let error = parsercraft_guard::lsp::FrameError::MissingLength;
                        rig.session.server_broke(rig.time.now(), generation, &error);
                        rig.perform();
                    }
                }
                Step::Crash => rig.server_crashes(),
                Step::FailNextStart => rig.next_start_fails = true,
                Step::Wait(millis) => rig.advance(Duration::from_millis(millis)),
                Step::StaleServerSpeaks => {
                    let old = rig.session.stats().generation - 1;
                    rig.session.server_sent(rig.time.now(), old, frame(&json!({"id": next_id, "result": "stale"})));
                    rig.session.server_ended(rig.time.now(), old, "late", None);
                    rig.perform();
                }
            }
            if rig.session.state() == LspState::Ready {
                prop_assert_eq!(texts_of_server(&rig.server), texts.clone());
            }
            for (uri, (version, text)) in &texts {
                let kept = rig.session.documents().get(uri).expect("every open document is kept");
                prop_assert_eq!((kept.version(), kept.text()), (*version, text.as_str()));
            }
        }
        rig.session.editor_closed(rig.time.now());
        rig.perform();
        rig.advance(10 * SECOND);
        prop_assert!(rig.ended.is_some());
        prop_assert_eq!(rig.generation, None, "no server is left behind");
        let mut answers: HashMap<i64, u32> = HashMap::new();
        for message in rig.editor.iter().filter(|message| message.get("method").is_none()) {
            *answers.entry(message["id"].as_i64().expect("the editor's own identifiers")).or_default() += 1;
        }
        for id in 1..=next_id {
            prop_assert_eq!(answers.get(&id), Some(&1), "request {}", id);
        }
        prop_assert_eq!(answers.len(), usize::try_from(next_id).expect("positive"));
    }
}
