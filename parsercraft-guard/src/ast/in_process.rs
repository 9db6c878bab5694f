//! The second layer: parsing in this process, on threads with a big stack, panics caught.
//! Invariant: a caller gets its answer or a fault by its deadline; at most `threads + max_stuck` threads exist.
//! It does not survive a stack overflow, an abort or a memory bomb: those take processes ([`WorkerPool`](super::WorkerPool)).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use resilience_core::ConfigError;

use super::error::Fault;
use super::language::{Cancel, Languages, Refusal, cut};
use super::operation::{Operation, Output};

/// What a language made of a source.
pub type Answer = Result<Output, Refusal>;

/// Threads with a big stack that run a language in this process.
///
/// **Survives** panics and, by leaving the thread behind, endless loops. **Dies** with the parser at a stack
/// overflow, an abort or when memory runs out, so put [`Limits`](super::Limits) before it: within the default limits
/// the default stack holds `syn`.
///
/// **Costs** one hop to a waiting thread and back (2 µs when it is awake, some 15 µs when it sleeps), a copy of the
/// source, and address space for the stacks; only the part of a stack that was used occupies memory.
///
/// ```
/// # #[cfg(feature = "syn")] {
/// use parsercraft_guard::ast::{InProcess, Languages, Operation};
///
/// let threads = InProcess::builder().build(Languages::builtin()).unwrap();
/// let answer = threads.run("rust", Operation::Parse, "fn main() {}").unwrap();
/// assert_eq!(answer.unwrap().as_summary().unwrap().functions, 1);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InProcess {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

/// Settings of [`InProcess`].
#[derive(Debug, Clone, Copy)]
pub struct InProcessBuilder {
    threads: usize,
    stack_bytes: usize,
    timeout: Duration,
    max_stuck: usize,
}

impl InProcessBuilder {
    /// How many threads parse at the same time; 2 unless set.
    #[must_use]
    pub const fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The stack of each thread in bytes; 256 MiB of address space unless set.
    #[must_use]
    pub const fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// How long a call may take, the wait for a free thread included; 10 s unless set.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many threads may be left behind in calls that timed out and never ended; 4 unless set. Each gets a
    /// replacement; beyond that calls wait for a thread and fail with [`Fault::Busy`].
    #[must_use]
    pub const fn max_stuck(mut self, threads: usize) -> Self {
        self.max_stuck = threads;
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// A value out of range, or the system refused to start a thread of that stack.
    pub fn build(self, languages: Languages) -> Result<InProcess, ConfigError> {
        let ranges = [
            ("in_process.threads", self.threads, 1, 1024),
            ("in_process.stack_bytes", self.stack_bytes, 64 << 10, 16 << 30),
            ("in_process.max_stuck", self.max_stuck, 0, 1024),
        ];
        for (field, value, min, max) in ranges {
            if value < min || value > max {
                return Err(ConfigError::new(field, value, format!("{min} to {max}")));
            }
        }
        if self.timeout.is_zero() {
            return Err(ConfigError::new("in_process.timeout", "0", "more than 0"));
        }
        // No queue of its own: a job is handed to a thread that is free, so the callers are the queue.
        let (jobs, queue) = bounded(0);
        let shared = Arc::new(Shared { languages, settings: self, queue, stuck: AtomicUsize::new(0) });
        for _ in 0..self.threads {
            start(&shared).map_err(|error| {
                ConfigError::new(
                    "in_process.stack_bytes",
                    self.stack_bytes,
                    format!("what the system grants ({error})"),
                )
            })?;
        }
        Ok(InProcess { jobs, shared })
    }
}

#[derive(Debug)]
struct Shared {
    languages: Languages,
    settings: InProcessBuilder,
    queue: Receiver<Job>,
    /// Threads left behind and still running.
    stuck: AtomicUsize,
}

struct Job {
    language: String,
    operation: Operation,
    source: String,
    cancel: Cancel,
    state: Arc<AtomicU8>,
    reply: Sender<Result<Answer, Fault>>,
}

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const ABANDONED: u8 = 2;

impl InProcess {
    /// Settings to start from.
    pub const fn builder() -> InProcessBuilder {
        InProcessBuilder { threads: 2, stack_bytes: 256 << 20, timeout: Duration::from_secs(10), max_stuck: 4 }
    }

    /// Runs `operation` on a thread of its own and waits for the answer. Blocks: async callers use their runtime's
    /// way to run blocking code.
    ///
    /// # Errors
    /// [`Fault::Panicked`], [`Fault::TimedOut`], or [`Fault::Busy`] when no thread became free in time.
    ///
    /// # Panics
    /// When there is no language of that name; [`AstGuard`](super::AstGuard) checks names first.
    pub fn run(&self, language: &str, operation: Operation, source: &str) -> Result<Answer, Fault> {
        let settings = &self.shared.settings;
        let start_time = Instant::now();
        let deadline = start_time + settings.timeout;
        let (reply, answer) = bounded(1);
        let state = Arc::new(AtomicU8::new(RUNNING));
        let cancel = Cancel::at(deadline);
        let job = Job {
            language: language.to_owned(),
            operation,
            source: source.to_owned(),
            cancel: cancel.clone(),
            state: Arc::clone(&state),
            reply,
        };
        match self.jobs.send_deadline(job, deadline) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => {
                return Err(Fault::Busy { workers: settings.threads, waited: start_time.elapsed() });
            }
        }
        let timed_out = Fault::TimedOut { limit: settings.timeout };
        let result = match answer.recv_deadline(deadline) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                cancel.cancel();
                self.abandon(&state);
                return Err(timed_out);
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Fault::Panicked { message: "the thread ended without an answer".to_owned() });
            }
        };
        match result {
            Ok(Err(Refusal::Cancelled)) => Err(timed_out),
            result => result,
        }
    }

    /// The languages it knows.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.shared.languages.names()
    }

    /// How many threads were left behind and still run.
    pub fn stuck(&self) -> usize {
        self.shared.stuck.load(Ordering::Acquire)
    }

    /// Leaves the running thread behind and starts another while that is allowed.
    fn abandon(&self, state: &AtomicU8) {
        let shared = &self.shared;
        // Counted before the thread can see that it was abandoned, so that its own decrement comes after.
        if shared.stuck.fetch_add(1, Ordering::AcqRel) < shared.settings.max_stuck
            && state.compare_exchange(RUNNING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            replace(shared);
        } else {
            // It finished just now, or it stays in service and is used again once it does.
            shared.stuck.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn replace(shared: &Arc<Shared>) {
    if let Err(error) = start(shared) {
        tracing::error!(%error, "no thread for the parser could be started");
    }
}

fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    // Only the queue's receiving end goes along: when the last `InProcess` is dropped, the threads end.
    let (languages, queue, stack) = (shared.languages.clone(), shared.queue.clone(), shared.settings.stack_bytes);
    let weak = Arc::downgrade(shared);
    thread::Builder::new().name("ast-parser".to_owned()).stack_size(stack).spawn(move || {
        while let Ok(job) = queue.recv() {
            let result = run_caught(&languages, &job.language, job.operation, &job.source, &job.cancel);
            let panicked = result.is_err();
            let abandoned = job.state.swap(DONE, Ordering::AcqRel) == ABANDONED;
            if abandoned {
                if let Some(shared) = weak.upgrade() {
                    shared.stuck.fetch_sub(1, Ordering::AcqRel);
                }
                return;
            }
            if panicked && let Some(shared) = weak.upgrade() {
                // A parser's thread-local state is not trusted after a panic.
                replace(&shared);
            }
            // The caller may be gone; then nobody misses the answer.
            let _ = job.reply.send(result);
            if panicked {
                return;
            }
        }
    })?;
    Ok(())
}

/// Runs a language and turns a panic into a fault. Used on both sides of the process border.
pub(super) fn run_caught(
    languages: &Languages,
    language: &str,
    operation: Operation,
    source: &str,
    cancel: &Cancel,
) -> Result<Answer, Fault> {
    // The parser starts afresh with each source; the guard's own state is not inside the closure.
    catch_unwind(AssertUnwindSafe(|| match languages.get(language) {
        Some(found) => found.run(operation, source, cancel),
        None => panic!("no language is called `{language}`"),
    }))
    .map_err(|payload| Fault::Panicked { message: panic_message(&*payload) })
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    cut(message.to_owned(), 512)
}
