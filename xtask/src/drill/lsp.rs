//! The LSP stage: an editor's session over a real server process that crashes, hangs and talks nonsense on command.
//! Every request is answered exactly once, and the server ends up with the text that the editor shows.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parsercraft_guard::lsp::{EditorStreams, LspConfig, ServerCommand, Supervisor};
use parsercraft_guard::testkit::lsp_client::LspClient;
use serde_json::{Value, json};

use super::guarded::{Bench, PATIENCE, Trouble, wait_until};
use super::line::{Findings, Stage};
use super::{Guard, ROLE, SERVER};

const STAGE: Stage = Stage::Lsp;
const URI: &str = "file:///drill/main.craft";
/// Requests in the session, an edit before each.
const REQUESTS: usize = 300;

/// The ways in which the server goes wrong, at moments drawn from the seed.
const FAULTS: [(&str, &str); 8] = [
    ("crash", "the server aborts"),
    ("mute", "the server hangs"),
    ("garbage", "the server writes bytes that are no frame"),
    ("truncated", "the server ends in the middle of a frame"),
    ("oversized", "the server announces a frame of a terabyte"),
    ("twice", "the server answers twice"),
    ("skip", "the server never answers one request"),
    ("kill -9", "the server is killed"),
];

pub(super) fn run(bench: &Bench) -> Result<Findings, Trouble> {
    let mut findings = Findings::default();
    let mut session = Session::start(bench)?;
    let initialized = session.client.initialize(PATIENCE).is_some();
    findings.check(initialized, "the session begins", initialized);
    let mut text = "one line\n".to_owned();
    session.client.open(URI, 0, &text);

    let mut random = fastrand::Rng::with_seed(bench.orders.seed);
    let mut moments: Vec<usize> = (1..=FAULTS.len()).map(|n| n * REQUESTS / (FAULTS.len() + 1)).collect();
    for moment in &mut moments {
        *moment += random.usize(..REQUESTS / (FAULTS.len() + 1) / 2);
    }
    let mut order: Vec<usize> = (0..FAULTS.len()).collect();
    random.shuffle(&mut order);

    let (mut latencies, mut pending, begun) = (Vec::new(), Vec::new(), Instant::now());
    for number in 1..=REQUESTS {
        if let Some(index) = moments.iter().position(|moment| *moment == number) {
            let (fault, what) = FAULTS[order[index]];
            bench.fault(STAGE, what)?;
            session.misbehave(fault);
            pending.push((what, number));
        }
        let line = format!("line {number} {}\n", random.u32(..));
        let end = text.lines().count();
        text.push_str(&line);
        let place = json!({"line": end, "character": 0});
        let range = json!({"start": place, "end": place});
        session.client.change(URI, i64::try_from(number)?, &json!([{"range": range, "text": line}]));
        let method = ["textDocument/hover", "textDocument/completion"][number % 2];
        let params = json!({"textDocument": {"uri": URI}, "position": {"line": 0, "character": 1}});
        let by_server = session.answered_by_server();
        let sent = Instant::now();
        let limit = if bench.is_broken(Guard::Lsp) { Duration::from_millis(100) } else { PATIENCE };
        let answered = session.client.call(method, &params, limit).is_some();
        latencies.push((number as f64, sent.elapsed().as_secs_f64() * 1e3));
        // An answer that the guard had to give shows no recovery.
        let recovered = answered && session.answered_by_server() > by_server;
        if recovered && let Some((what, _)) = pending.pop_if(|(_, at)| *at + 3 <= number) {
            bench.recovered(STAGE, what)?;
        }
        if number % 10 == 0 {
            bench.progress(STAGE, number, REQUESTS);
        }
    }
    let client = &session.client;
    let requests = client.requests();
    let unanswered = (1..=requests).filter(|id| client.answers(*id) == 0).count();
    let repeated = (1..=requests).filter(|id| client.answers(*id) > 1).count();
    findings.check(
        unanswered == 0,
        "every request is answered",
        format!("{unanswered} of {requests} without an answer"),
    );
    findings.check(repeated == 0, "no request is answered twice", format!("{repeated} answered twice"));
    let mut on_server = Value::Null;
    wait_until(|| {
        let limit = if bench.is_broken(Guard::Lsp) { Duration::from_millis(100) } else { Duration::from_secs(5) };
        let answer =
            client.call("scripted/document", &json!({"textDocument": {"uri": URI}}), limit).unwrap_or_default();
        on_server = answer["result"]["text"].clone();
        on_server.is_string() || bench.is_broken(Guard::Lsp)
    });
    let same = on_server.as_str() == Some(text.as_str());
    findings.check(same, "the server has the editor's text after all of it", difference(&text, &on_server));
    for (what, _) in pending.into_iter().filter(|_| same) {
        bench.recovered(STAGE, what)?;
    }
    if let Some(supervisor) = &session.supervisor {
        let stats = supervisor.stats();
        findings.check(
            stats.restarts >= 5 && stats.crashes >= 2 && stats.hangs >= 1 && stats.protocol_errors >= 1,
            "the server was lost in every way and restarted after each loss",
            format!(
                "{} restarts: {} crashes, {} hangs, {} protocol errors",
                stats.restarts, stats.crashes, stats.hangs, stats.protocol_errors
            ),
        );
        findings.figure("answered by the server / by the guard", format!("{} / {}", stats.answered, stats.degraded));
    }
    findings
        .figure("requests and edits", format!("{REQUESTS} and {REQUESTS} in {:.1} s", begun.elapsed().as_secs_f64()));
    let mut sorted: Vec<f64> = latencies.iter().map(|(_, ms)| *ms).collect();
    sorted.sort_by(f64::total_cmp);
    findings.figure(
        "latency p50 / max",
        format!("{:.2} ms / {:.0} ms", sorted[sorted.len() / 2], sorted[sorted.len() - 1]),
    );
    findings.series.insert("request_ms".into(), super::ast::thin(latencies));
    session.leave();
    Ok(findings)
}

struct Session {
    client: Arc<LspClient>,
    supervisor: Option<Supervisor>,
    bare: Option<Child>,
}

impl Session {
    fn start(bench: &Bench) -> Result<Self, Trouble> {
        let program = std::env::current_exe()?;
        if bench.is_broken(Guard::Lsp) {
            // Broken on purpose: the editor talks to the server directly.
            let mut server =
                Command::new(program).env(ROLE, SERVER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (output, input) = (server.stdout.take().ok_or("no output")?, server.stdin.take().ok_or("no input")?);
            let client = LspClient::connect(output, input)?;
            return Ok(Self { client, supervisor: None, bare: Some(server) });
        }
        let mut config = LspConfig::default();
        config.forward_stderr = false;
        config.hang_after = Duration::from_secs(1);
        config.deadlines.interactive = Duration::from_millis(700);
        config.deadlines.others = Duration::from_secs(2);
        config.restart.max_restarts = 50;
        let command = ServerCommand::new(program).env(ROLE, SERVER);
        let (from_client, to_guard) = std::io::pipe()?;
        let (from_guard, to_client) = std::io::pipe()?;
        let streams = EditorStreams::from_descriptors(from_client, to_client);
        let supervisor = bench.toolchain.guard_server(config, command, streams)?;
        Ok(Self { client: LspClient::connect(from_guard, to_guard)?, supervisor: Some(supervisor), bare: None })
    }

    /// How many requests the server itself has answered; without a guard nobody counts, and nothing recovers.
    fn answered_by_server(&self) -> u64 {
        self.supervisor.as_ref().map_or(0, |supervisor| supervisor.stats().answered)
    }

    fn misbehave(&mut self, fault: &str) {
        match (&self.supervisor, fault) {
            (Some(supervisor), "kill -9") => drop(supervisor.kill_server()),
            (None, "kill -9") => {
                let _ = self.bare.as_mut().map(Child::kill);
            }
            _ => self.client.notify("scripted/fault", &json!({"fault": fault})),
        }
    }

    fn leave(mut self) {
        self.client.leave(Duration::from_secs(2));
        self.client.close();
        if let Some(server) = &mut self.bare {
            let _ = server.kill().and_then(|()| server.wait());
        }
    }
}

/// Where the two texts part, for whoever has to find out why.
fn difference(expected: &str, found: &Value) -> String {
    let Some(found) = found.as_str() else { return "no text".to_owned() };
    if expected == found {
        return format!("identical, {} lines", expected.lines().count());
    }
    let place = expected.lines().zip(found.lines()).position(|(one, other)| one != other);
    let (ours, theirs) = (expected.lines().count(), found.lines().count());
    format!(
        "{theirs} lines instead of {ours}, first difference in line {}",
        place.map_or(ours.min(theirs), |at| at + 1)
    )
}
