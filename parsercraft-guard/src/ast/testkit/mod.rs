//! Languages for tests and drills: one that misbehaves on command, and a small one that offers every operation.
//! Invariant: each word does exactly one kind of harm, and no test outside a worker process speaks a deadly one.

mod formula;

pub use formula::Formula;

use std::time::Duration;

use super::language::{Cancel, Diagnostic, Language, Languages, Refusal};
use super::lexis::Lexis;
use super::operation::{Operation, Output, Summary};

/// The built-in languages, [`Formula`] and [`Misbehaving`]: for worker and host of a test or a drill.
pub fn languages() -> Languages {
    Languages::builtin().with(Formula).with(Misbehaving)
}

/// The language `misbehaving`. A source is one word and, after a space, anything to make it differ from others:
///
/// | word | what happens |
/// |---|---|
/// | `ok` | a summary |
/// | `refuse` | a syntax error at 1:1 |
/// | `panic` | a panic |
/// | `loop` | an endless loop |
/// | `cooperate` | an endless loop that ends when cancelled |
/// | `recurse` | a stack overflow |
/// | `abort` | the process aborts |
/// | `exit` | the process exits with code 7 |
/// | `hog` | memory is allocated and touched without end |
/// | `shout` | a megabyte on standard output and on standard error, then a summary |
/// | `flood` | an answer of 200 MiB |
/// | `kill` | the process is killed as if by an operator |
/// | `sleep` | nothing for an hour, without using the processor |
#[derive(Debug, Clone, Copy, Default)]
pub struct Misbehaving;

impl Language for Misbehaving {
    fn name(&self) -> &'static str {
        "misbehaving"
    }

    fn lexis(&self) -> Lexis {
        Lexis::PLAIN
    }

    fn operations(&self) -> &'static [Operation] {
        &[Operation::Parse, Operation::GenerateC]
    }

    fn run(&self, _: Operation, source: &str, cancel: &Cancel) -> Result<Output, Refusal> {
        let summary = Summary { bytes: source.len(), lines: 1, ..Summary::default() };
        match source.split(' ').next().unwrap_or_default() {
            "ok" => Ok(Output::Summary(summary)),
            "panic" => panic!("told to panic"),
            "loop" => loop {
                std::hint::spin_loop();
            },
            "cooperate" => {
                while !cancel.is_cancelled() {
                    std::hint::spin_loop();
                }
                Err(Refusal::Cancelled)
            }
            "recurse" => Ok(Output::Summary(Summary { bytes: recurse(source.len()), ..summary })),
            "abort" => std::process::abort(),
            "exit" => std::process::exit(7),
            "hog" => Ok(Output::Summary(Summary { bytes: hog(), ..summary })),
            "shout" => {
                for _ in 0..1 << 10 {
                    println!("{:1023}", "out");
                    eprintln!("{:1023}", "err");
                }
                Ok(Output::Summary(summary))
            }
            "flood" => Ok(Output::Summary(Summary { names: vec!["x".repeat(200 << 20)], ..summary })),
            "kill" => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                Ok(Output::Summary(summary))
            }
            "sleep" => {
                std::thread::sleep(Duration::from_secs(3600));
                Ok(Output::Summary(summary))
            }
            other => Err(Refusal::Syntax(Diagnostic::new(1, 1, format!("`{other}` is no word of this language")))),
        }
    }
}

/// Never returns: the optimiser cannot turn it into a loop, for each frame's buffer is looked at afterwards.
fn recurse(depth: usize) -> usize {
    let buffer = std::hint::black_box([depth; 64]);
    let below = if std::hint::black_box(true) { recurse(depth + 1) } else { 0 };
    below + buffer[depth % 64]
}

fn hog() -> usize {
    let mut all: Vec<Vec<u8>> = Vec::new();
    while std::hint::black_box(true) {
        all.push(vec![1; 16 << 20]);
    }
    all.len()
}
