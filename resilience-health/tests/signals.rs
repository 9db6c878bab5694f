//! Real signals to a real process: this program starts itself as the process that is told to stop.
//! Each step waits for the process to say where it is, so nothing depends on timing.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use resilience_health::shutdown::{Budgets, Handler, Shutdown, ShutdownEvent, Signals};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--serve-until-stopped") => serve(false),
        Some("--with-a-request-that-never-ends") => serve(true),
        // The test runner's own arguments (`--list`, filters) have nothing to select here.
        Some("--list") => {}
        _ => {
            one_signal_shuts_down_in_order();
            a_second_signal_cuts_it_short_and_a_third_ends_it();
            println!("test result: ok. 2 passed");
        }
    }
}

/// The process under test.
fn serve(request_never_ends: bool) {
    let hour = Duration::from_secs(3600);
    let shutdown = Shutdown::builder()
        .budgets(Budgets::default().drain(hour).close(hour).escalated_close(hour))
        .handler(Handler::flush("audit", || ()))
        .handler(Handler::close("database", move || {
            if request_never_ends {
                loop {
                    std::thread::park();
                }
            }
        }))
        .on_event(|event| match event {
            ShutdownEvent::PhaseEntered { phase, .. } => say(&format!("phase {phase}")),
            ShutdownEvent::HandlerFinished(report) => say(&format!("handler {} {}", report.name, report.outcome)),
            _ => {}
        })
        .build()
        .unwrap();
    let _signals = Signals::install(&shutdown).unwrap();
    let request = request_never_ends.then(|| shutdown.track());
    say("serving");
    let report = shutdown.run();
    say(&format!("escalated {}", report.escalated));
    drop(request);
    std::process::exit(report.exit_code().into());
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(mode: &str) -> Self {
        let mut child =
            Command::new(std::env::current_exe().unwrap()).arg(mode).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { child, lines };
        process.wait_for("serving");
        process
    }

    /// Reads lines up to this one; the process ending before is a failure.
    fn wait_for(&mut self, line: &str) {
        for said in self.lines.by_ref() {
            if said.unwrap() == line {
                return;
            }
        }
        panic!("the process ended without saying {line:?}");
    }

    fn signal(&self, name: &str) {
        // The shell's own `kill`: there is a shell everywhere, a program of that name is not.
        let kill = format!("kill -s {name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After a failed assertion it may still run; after a passed one this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn one_signal_shuts_down_in_order() {
    let mut process = Process::start("--serve-until-stopped");
    process.signal("TERM");
    for line in ["phase not_ready", "phase drain", "phase cancel", "phase close", "handler database completed"] {
        process.wait_for(line);
    }
    for line in ["phase flush", "handler audit completed", "phase exit", "escalated false"] {
        process.wait_for(line);
    }
    assert_eq!(process.exit_code(), Some(0));
}

fn a_second_signal_cuts_it_short_and_a_third_ends_it() {
    let mut process = Process::start("--with-a-request-that-never-ends");
    process.signal("INT");
    process.wait_for("phase drain"); // for an hour, were it not for
    process.signal("INT");
    process.wait_for("phase close"); // where a handler hangs
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(128 + 15));
}
