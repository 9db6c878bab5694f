//! The worker's side: this executable, started again, doing nothing but parsing.
//! Invariant: a worker sets its own limits before it parses anything and does not outlive its host, whatever the
//! parser is doing. It opens no file, and its standard output cannot be written to by a parser.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::error::Fault;
use super::in_process::run_caught;
use super::language::{Cancel, Languages};
use super::protocol::{self, Hello, MAX_GREETING, Ready, Request, Response, VERSION};

/// The argument that makes an executable a worker: also what `ps` shows.
pub(super) const ARGUMENT: &str = "--parsercraft-guard-ast-worker";

/// Set in every worker, so that one whose `main` forgot [`run_if_requested`] starts no workers itself.
pub(super) const MARK: &str = "PARSERCRAFT_GUARD_AST_WORKER";

/// Serves as a worker and never returns, when this process was started as one; returns at once otherwise.
///
/// Call it first in `main` of every executable that uses a [`WorkerPool`](super::WorkerPool): before arguments are
/// parsed, before threads are started.
///
/// ```no_run
/// parsercraft_guard::ast::worker::run_if_requested();
/// // … the program
/// ```
pub fn run_if_requested() {
    run_if_requested_with(Languages::builtin);
}

/// The same with languages of your own: the ones the host's [`AstGuard`](super::AstGuard) was given.
///
/// ```no_run
/// use parsercraft_guard::ast::{Languages, worker};
///
/// fn languages() -> Languages {
///     Languages::builtin() // .with(MyLanguage)
/// }
///
/// worker::run_if_requested_with(languages);
/// // … the program, which gives `languages()` to its guard
/// ```
pub fn run_if_requested_with(languages: impl FnOnce() -> Languages) {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT) {
        match serve(languages()) {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("ast worker: {error}");
                std::process::exit(2);
            }
        }
    }
}

/// Whether this process is a worker whose `main` went on regardless.
pub(super) fn is_astray() -> bool {
    std::env::var_os(MARK).is_some()
}

enum Never {}

fn serve(languages: Languages) -> io::Result<Never> {
    // The pipes move to descriptors of their own, so that a parser that prints cannot write into a frame.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;

    let host = input.try_clone()?;
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut frame = Vec::new();
    if !protocol::read(&mut input, &mut frame, MAX_GREETING)? {
        return Err(io::Error::other("this program is started by its host only; nothing came from one"));
    }
    let hello: Hello = postcard::from_bytes(&frame).map_err(io::Error::other)?;
    if hello.version != VERSION {
        return Err(io::Error::other(format!("the host speaks version {}; this is {VERSION}", hello.version)));
    }
    limit(Resource::Core, 0)?;
    limit(Resource::As, hello.memory_bytes)?;

    let ready = Ready { version: VERSION, languages: languages.names().map(str::to_owned).collect() };
    let greeting = protocol::encode(Vec::new(), &ready, MAX_GREETING)
        .map_err(|(_, bytes)| io::Error::other(format!("the names of the languages have {bytes} bytes")))?;

    thread::Builder::new().name("ast-parser".to_owned()).stack_size(hello.stack_bytes).spawn(move || {
        let served = output.write_all(&greeting).and_then(|()| calls(&languages, &hello, &mut input, &mut output));
        let code = match served {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("ast worker: {error}");
                2
            }
        };
        std::process::exit(code);
    })?;

    // Meanwhile this thread waits for the host to go away: it sees that even while the parser loops.
    loop {
        let mut pipe = [PollFd::new(&host, PollFlags::empty())];
        match poll(&mut pipe, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if pipe[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            // Not `exit`: it runs handlers that could wait for the parser's locks.
            kill_process(getpid(), Signal::KILL)?;
        }
    }
}

fn calls(languages: &Languages, hello: &Hello, input: &mut BufReader<File>, output: &mut File) -> io::Result<()> {
    let (mut frame, mut answer) = (Vec::new(), Vec::new());
    let mut budget = CpuBudget { per_call: hello.cpu, current: None };
    while protocol::read(input, &mut frame, hello.max_request_bytes)? {
        let request: Request<'_> = postcard::from_bytes(&frame).map_err(io::Error::other)?;
        budget.renew()?;
        let cancel = Cancel::at(Instant::now() + request.timeout);
        let response = run_caught(languages, request.language, request.operation, request.source, &cancel);
        answer.clear();
        answer = protocol::encode(answer, &response, hello.max_answer_bytes).or_else(|(buffer, bytes)| {
            let response: Response = Err(Fault::AnswerTooLarge { bytes, allowed: hello.max_answer_bytes });
            protocol::encode(buffer, &response, MAX_GREETING)
                .map_err(|(_, bytes)| io::Error::other(format!("an error of {bytes} bytes")))
        })?;
        output.write_all(&answer)?;
    }
    Ok(())
}

/// The system's limit counts a process's whole life in full seconds; this moves it ahead of each call.
struct CpuBudget {
    per_call: Duration,
    current: Option<u64>,
}

impl CpuBudget {
    fn renew(&mut self) -> io::Result<()> {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = Duration::new(used.tv_sec.unsigned_abs(), 0) + self.per_call;
        // The second under way and the one the budget ends in are granted whole.
        let limit = used.as_secs() + 2;
        if self.current != Some(limit) {
            let maximum = getrlimit(Resource::Cpu).maximum;
            let current = maximum.map_or(limit, |maximum| limit.min(maximum));
            setrlimit(Resource::Cpu, Rlimit { current: Some(current), maximum })?;
            self.current = Some(limit);
        }
        Ok(())
    }
}

/// Lowers a limit for good; one that is lower already stays.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let value = getrlimit(resource).maximum.map_or(value, |maximum| value.min(maximum));
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}
