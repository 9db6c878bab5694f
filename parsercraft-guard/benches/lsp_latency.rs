//! What the language server guard adds to a request's round trip, against the same server without it, in one run.
//! Closed loop, one request at a time, the two sides in turn: this measures the path of a message, not throughput.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use parsercraft_guard::lsp::{EditorStreams, LspConfig, ServerCommand, Supervisor};
use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_scripted-language-server");
const ROUNDS: usize = 4000;

struct Side {
    input: BufReader<Box<dyn Read>>,
    output: Box<dyn Write>,
    latencies: Vec<Duration>,
}

impl Side {
    fn call(&mut self, message: &str) -> Duration {
        let frame = format!("Content-Length: {}\r\n\r\n{message}", message.len());
        let start = Instant::now();
        self.output.write_all(frame.as_bytes()).expect("the pipe is open");
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line).expect("the pipe is open");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        self.input.read_exact(&mut body).expect("the pipe is open");
        start.elapsed()
    }

    fn quantile(&mut self, q: f64) -> f64 {
        self.latencies.sort_unstable();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a few thousand")]
        let index = ((self.latencies.len() - 1) as f64 * q) as usize;
        self.latencies[index].as_secs_f64() * 1e6
    }
}

fn request(id: usize, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

fn main() {
    let mut process =
        Command::new(SERVER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
    let (stdin, stdout) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
    let (from_editor, to_guard) = std::io::pipe().expect("a pipe");
    let (from_guard, to_editor) = std::io::pipe().expect("a pipe");
    #[cfg(unix)]
    let streams = EditorStreams::from_descriptors(from_editor, to_editor);
    #[cfg(not(unix))]
    let streams = EditorStreams::new(from_editor, to_editor);
    let mut config = LspConfig::default();
    config.requests.rate = 1_000_000_000;
    config.requests.burst = 1_000_000_000;
    let guard = Supervisor::start(config, ServerCommand::new(SERVER), streams).expect("the guard starts");
    let side = |input: Box<dyn Read>, output: Box<dyn Write>| Side {
        input: BufReader::new(input),
        output,
        latencies: Vec::new(),
    };
    let mut sides = [side(Box::new(stdout), Box::new(stdin)), side(Box::new(from_guard), Box::new(to_guard))];

    for side in &mut sides {
        side.call(&request(0, "initialize", &json!({"capabilities": {}})));
    }
    println!("round trip in us        bare p50   guarded p50   added p50    bare p99   guarded p99   added p99");
    for (name, size) in [("100 B", 10), ("1 KB", 1000), ("10 KB", 10_000), ("100 KB", 100_000)] {
        let payload = "x".repeat(size);
        for side in &mut sides {
            side.latencies.clear();
        }
        for round in 1..=ROUNDS {
            let message = request(round, "scripted/echo", &json!([payload]));
            for side in &mut sides {
                let latency = side.call(&message);
                side.latencies.push(latency);
            }
        }
        let [bare, guarded] = &mut sides;
        let (b50, g50, b99, g99) =
            (bare.quantile(0.5), guarded.quantile(0.5), bare.quantile(0.99), guarded.quantile(0.99));
        println!(
            "{name:>7} each way {b50:>14.1} {g50:>13.1} {:>11.1} {b99:>11.1} {g99:>13.1} {:>11.1}",
            g50 - b50,
            g99 - b99
        );
    }
    guard.stop();
    let end = guard.wait().expect("a good end");
    assert_eq!((end.stats.degraded, end.stats.restarts), (0, 0), "nothing was disturbed");
    drop(sides);
    process.wait().expect("a status");
}
