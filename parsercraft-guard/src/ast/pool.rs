//! The third layer: a bounded pool of worker processes that may die at any time.
//! Invariant: a worker's death costs exactly the call it was working on, which gets a typed [`Fault`]; at most
//! `workers` processes exist; every one is killed and reaped when it is no longer wanted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use resilience_core::ConfigError;

use super::error::Fault;
use super::in_process::Answer;
use super::operation::Operation;
use super::process::{Broken, Next, Program, WorkerProcess};
use super::protocol::{self, Hello, Request, Response, VERSION};
use super::worker;

/// One call of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The language's name.
    pub language: &'a str,
    /// What to do.
    pub operation: Operation,
    /// With what.
    pub source: &'a str,
}

/// Worker processes: this executable started again, one call at a time each.
///
/// **Survives** whatever a parser does: panic, stack overflow, abort, endless loop, memory bomb. **Costs** two pipe
/// crossings and two context switches a call (8 µs, and 0.6 ms per MB of source); a death costs a process start at the
/// next call (1 ms). The host's `main` must
/// call [`worker::run_if_requested`](super::worker::run_if_requested) first.
///
/// Clones share the workers. Blocks: async callers use their runtime's way to run blocking code.
///
/// ```no_run
/// use std::time::Duration;
/// use parsercraft_guard::ast::{Operation, WorkerPool, worker};
///
/// worker::run_if_requested();
/// let pool = WorkerPool::builder().workers(2).timeout(Duration::from_secs(1)).build().unwrap();
/// let answer = pool.run("rust", Operation::Parse, "fn main() {}").unwrap();
/// assert_eq!(answer.unwrap().as_summary().unwrap().functions, 1);
/// ```
#[derive(Debug, Clone)]
pub struct WorkerPool(Arc<Shared>);

/// Settings of a [`WorkerPool`].
#[derive(Debug, Clone)]
pub struct WorkerPoolBuilder {
    program: Option<PathBuf>,
    workers: usize,
    timeout: Duration,
    max_wait: Duration,
    max_waiting: usize,
    start_timeout: Duration,
    memory_bytes: u64,
    cpu: Duration,
    stack_bytes: usize,
    max_answer_bytes: usize,
    calls_per_worker: u32,
}

impl WorkerPoolBuilder {
    /// Starts `path` instead of this executable: for hosts that cannot call
    /// [`run_if_requested`](super::worker::run_if_requested), such as tests under the standard harness. It must be a
    /// program of the same version that does.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// How many processes parse at the same time; the number of processors, at most 8, unless set.
    #[must_use]
    pub const fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How long a worker may take for one call before it is killed; 10 s unless set.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a call waits for a free worker before it fails with [`Fault::Busy`]; 10 s unless set.
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// How many calls may wait at the same time; 1024 unless set. Further ones fail with [`Fault::Busy`] at once.
    #[must_use]
    pub const fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// How long a worker may take to start; 10 s unless set.
    #[must_use]
    pub const fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Address space of a worker in bytes (`RLIMIT_AS`), its stack included; 2 GiB unless set.
    #[must_use]
    pub const fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Processor time a worker may use for one call (`RLIMIT_CPU`, so up to 2 s more); 20 s unless set. The backstop
    /// for a worker whose host is stopped.
    #[must_use]
    pub const fn cpu(mut self, time: Duration) -> Self {
        self.cpu = time;
        self
    }

    /// Stack of a worker's parsing thread in bytes; 256 MiB of address space unless set.
    #[must_use]
    pub const fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// How large an answer may be in bytes; 64 MiB unless set.
    #[must_use]
    pub const fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// How many calls a worker answers before a fresh one takes its place, against slow leaks; 10 000 unless set.
    #[must_use]
    pub const fn calls_per_worker(mut self, calls: u32) -> Self {
        self.calls_per_worker = calls;
        self
    }

    /// Starts the workers and waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError::Config`] for a value out of range, [`PoolError::Start`] when no worker answers, most often because
    /// `main` does not call [`run_if_requested`](super::worker::run_if_requested) first.
    pub fn build(self) -> Result<WorkerPool, PoolError> {
        self.validate()?;
        if worker::is_astray() {
            let why = "this process is itself a worker: its `main` must call `ast::worker::run_if_requested()` first";
            return Err(PoolError::Start(Fault::Spawn { why: why.to_owned() }));
        }
        let program = match &self.program {
            Some(path) => Program::other(path)
                .map_err(|error| PoolError::Start(Fault::Spawn { why: format!("{}: {error}", path.display()) }))?,
            None => Program::this().map_err(|error| PoolError::Start(Fault::Spawn { why: error.to_string() }))?,
        };
        let hello = Hello {
            version: VERSION,
            memory_bytes: self.memory_bytes,
            cpu: self.cpu,
            stack_bytes: self.stack_bytes,
            // Names and lengths come on top of a source of at most 4 GiB.
            max_request_bytes: u32::MAX as usize,
            max_answer_bytes: self.max_answer_bytes,
        };
        let mut languages = BTreeSet::new();
        let mut idle = Vec::with_capacity(self.workers);
        for _ in 0..self.workers {
            let (worker, ready) =
                WorkerProcess::start(&program, &hello, self.start_timeout).map_err(PoolError::Start)?;
            languages = ready.languages.into_iter().collect();
            idle.push(worker);
        }
        let counts = Counts { started: AtomicU64::new(idle.len() as u64), ..Counts::default() };
        let state = State { live: idle.len(), idle, waiting: 0 };
        Ok(WorkerPool(Arc::new(Shared {
            settings: self,
            program,
            hello,
            languages,
            state: Mutex::new(state),
            freed: Condvar::new(),
            counts,
        })))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let error = |field: &str, value: String, allowed: String| {
            Err(ConfigError::new(format!("worker_pool.{field}"), value, allowed))
        };
        if self.workers == 0 || self.workers > 1024 {
            return error("workers", self.workers.to_string(), "1 to 1024".into());
        }
        for (field, value) in [("timeout", self.timeout), ("start_timeout", self.start_timeout), ("cpu", self.cpu)] {
            if value.is_zero() || value > LONGEST {
                return error(field, format!("{value:?}"), format!("more than 0, at most {LONGEST:?}"));
            }
        }
        if self.max_wait > LONGEST {
            return error("max_wait", format!("{:?}", self.max_wait), format!("at most {LONGEST:?}"));
        }
        if !(64 << 10..=16 << 30).contains(&self.stack_bytes) {
            return error("stack_bytes", self.stack_bytes.to_string(), format!("{} to {}", 64 << 10, 16_u64 << 30));
        }
        let least = self.stack_bytes as u64 + (256 << 20);
        if self.memory_bytes < least {
            return error(
                "memory_bytes",
                self.memory_bytes.to_string(),
                format!("at least {least} (the stack and 256 MiB)"),
            );
        }
        if !(4 << 10..=1 << 30).contains(&self.max_answer_bytes) {
            return error("max_answer_bytes", self.max_answer_bytes.to_string(), format!("{} to {}", 4 << 10, 1 << 30));
        }
        if self.calls_per_worker == 0 {
            return error("calls_per_worker", "0".into(), format!("1 to {}", u32::MAX));
        }
        Ok(())
    }
}

/// One day: a longer deadline is none.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Why there is no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A worker did not start.
    #[error(transparent)]
    Start(Fault),
}

#[derive(Debug)]
struct Shared {
    settings: WorkerPoolBuilder,
    program: Program,
    hello: Hello,
    languages: BTreeSet<String>,
    state: Mutex<State>,
    freed: Condvar,
    counts: Counts,
}

#[derive(Debug)]
struct State {
    /// Ready for a call; the one used last is used first, its caches are warm.
    idle: Vec<WorkerProcess>,
    /// Idle ones, busy ones and those being started.
    live: usize,
    /// Calls waiting for one.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Counts {
    started: AtomicU64,
    lost: AtomicU64,
    retired: AtomicU64,
    calls: AtomicU64,
}

/// What a pool has done so far. The counts are read one by one, so they may differ by calls under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// How many workers there may be.
    pub workers: usize,
    /// How many exist now.
    pub live: usize,
    /// How many of them wait for a call.
    pub idle: usize,
    /// How many were started.
    pub started: u64,
    /// How many were lost to a fault.
    pub lost: u64,
    /// How many were replaced after their share of calls.
    pub retired: u64,
    /// How many calls ended, well or not.
    pub calls: u64,
}

/// How much of a batch is sent ahead of the answers.
const AHEAD_BYTES: usize = 1 << 20;
const AHEAD_JOBS: usize = 64;

impl WorkerPool {
    /// Settings to start from.
    pub fn builder() -> WorkerPoolBuilder {
        WorkerPoolBuilder {
            program: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from).min(8),
            timeout: Duration::from_secs(10),
            max_wait: Duration::from_secs(10),
            max_waiting: 1024,
            start_timeout: Duration::from_secs(10),
            memory_bytes: 2 << 30,
            cpu: Duration::from_secs(20),
            stack_bytes: 256 << 20,
            max_answer_bytes: 64 << 20,
            calls_per_worker: 10_000,
        }
    }

    /// Runs `operation` in a worker and waits for the answer.
    ///
    /// # Errors
    /// A [`Fault`] when there is no answer, whatever happened to the worker. The next call gets another worker.
    pub fn run(&self, language: &str, operation: Operation, source: &str) -> Result<Answer, Fault> {
        let mut results = self.run_batch(&[Job { language, operation, source }]);
        results.pop().unwrap_or_else(|| Err(Fault::Protocol { what: "a call got no answer".to_owned() }))
    }

    /// Runs several calls in one worker, sending ahead instead of waiting for each answer: for many small sources.
    ///
    /// The results come in the order of `jobs`, one each. A fault concerns its own job; the jobs after it go to
    /// another worker. Each job has the whole timeout.
    pub fn run_batch(&self, jobs: &[Job<'_>]) -> Vec<Result<Answer, Fault>> {
        let mut results = Vec::with_capacity(jobs.len());
        while results.len() < jobs.len() {
            let mut lease = match self.0.lease() {
                Ok(lease) => lease,
                Err(fault) => {
                    results.resize_with(jobs.len(), || Err(fault.clone()));
                    break;
                }
            };
            lease.calls(ahead(&jobs[results.len()..]), &mut results);
        }
        self.0.counts.calls.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        results
    }

    /// The languages the workers know.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.0.languages.iter().map(String::as_str)
    }

    /// What the pool has done so far.
    pub fn statistics(&self) -> PoolStatistics {
        let (live, idle) = {
            let state = self.0.state();
            (state.live, state.idle.len())
        };
        let counts = &self.0.counts;
        PoolStatistics {
            workers: self.0.settings.workers,
            live,
            idle,
            started: counts.started.load(Ordering::Relaxed),
            lost: counts.lost.load(Ordering::Relaxed),
            retired: counts.retired.load(Ordering::Relaxed),
            calls: counts.calls.load(Ordering::Relaxed),
        }
    }

    /// The process ids of the workers that wait for a call.
    pub fn idle_ids(&self) -> Vec<u32> {
        self.0.state().idle.iter().map(WorkerProcess::id).collect()
    }
}

/// The first jobs that may be sent together: at least one.
fn ahead<'s, 'j>(jobs: &'s [Job<'j>]) -> &'s [Job<'j>] {
    let mut bytes = 0;
    let fitting = jobs.iter().take(AHEAD_JOBS).take_while(|job| {
        bytes += job.source.len();
        bytes <= AHEAD_BYTES
    });
    let count = fitting.count().max(1);
    &jobs[..count.min(jobs.len())]
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free worker, starts one, or waits for one.
    fn lease(&self) -> Result<Lease<'_>, Fault> {
        let asked = Instant::now();
        let busy = |waited| Fault::Busy { workers: self.settings.workers, waited };
        let mut state = self.state();
        loop {
            while let Some(mut worker) = state.idle.pop() {
                // It may have been killed while it waited; no call is to blame for that.
                if worker.is_alive() {
                    return Ok(Lease { shared: self, worker: Some(worker) });
                }
                state.live -= 1;
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
            }
            if state.live < self.settings.workers {
                state.live += 1;
                drop(state);
                // From here on the lease gives the place back, whatever happens.
                let mut lease = Lease { shared: self, worker: None };
                let (worker, _) = WorkerProcess::start(&self.program, &self.hello, self.settings.start_timeout)?;
                self.counts.started.fetch_add(1, Ordering::Relaxed);
                lease.worker = Some(worker);
                return Ok(lease);
            }
            let waited = asked.elapsed();
            let Some(remaining) = self.settings.max_wait.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(busy(waited));
            };
            if state.waiting >= self.settings.max_waiting {
                return Err(busy(waited));
            }
            state.waiting += 1;
            state = self.freed.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }
}

/// A worker in use, or the right to start one. Dropping it frees the place.
struct Lease<'a> {
    shared: &'a Shared,
    worker: Option<WorkerProcess>,
}

impl Lease<'_> {
    /// Runs `jobs` until all are answered or the worker is lost; pushes one result per job that was touched.
    fn calls(&mut self, jobs: &[Job<'_>], results: &mut Vec<Result<Answer, Fault>>) {
        let Shared { settings, hello, counts, .. } = self.shared;
        let Some(worker) = &mut self.worker else { return };
        let mut outgoing = Vec::new();
        let mut sent = 0;
        for job in jobs {
            let request = Request {
                language: job.language,
                operation: job.operation,
                source: job.source,
                timeout: settings.timeout,
            };
            match protocol::encode(std::mem::take(&mut outgoing), &request, hello.max_request_bytes) {
                Ok(longer) => outgoing = longer,
                Err((_, bytes)) if sent == 0 => {
                    let what = format!("a request of {bytes} bytes; allowed: {}", hello.max_request_bytes);
                    results.push(Err(Fault::Protocol { what }));
                    return;
                }
                Err((same, _)) => {
                    // Those before it are answered first.
                    outgoing = same;
                    break;
                }
            }
            sent += 1;
        }
        let expected = results.len() + sent;
        let mut suspicious = false;
        let exchanged =
            worker.exchange(&outgoing, Instant::now() + settings.timeout, hello.max_answer_bytes, &mut |frame| {
                let response: Response = postcard::from_bytes(frame).map_err(|error| error.to_string())?;
                let response = match response {
                    // The parser gave up because its time was over: the same as being stopped.
                    Ok(Err(super::Refusal::Cancelled)) => Err(Fault::TimedOut { limit: settings.timeout }),
                    response => response,
                };
                suspicious = matches!(response, Err(Fault::Panicked { .. }));
                results.push(response);
                Ok(if suspicious || results.len() == expected {
                    Next::Done
                } else {
                    Next::Frame(Instant::now() + settings.timeout)
                })
            });
        let answered = sent - (expected - results.len());
        worker.calls = worker.calls.saturating_add(u32::try_from(answered).unwrap_or(u32::MAX));
        if let Err(broken) = exchanged {
            if let Some(worker) = self.worker.take() {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                let id = worker.id();
                let closed = matches!(broken, Broken::Closed);
                let fault = worker.autopsy(broken, settings.timeout, hello);
                tracing::warn!(worker = id, %fault, closed, "an ast worker was lost");
                results.push(Err(fault));
            }
        } else if suspicious {
            // A parser's state in memory is not trusted after a panic.
            counts.lost.fetch_add(1, Ordering::Relaxed);
            self.worker = None;
        } else if worker.calls >= settings.calls_per_worker {
            counts.retired.fetch_add(1, Ordering::Relaxed);
            self.worker = None;
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            match self.worker.take() {
                Some(worker) => state.idle.push(worker),
                None => state.live -= 1,
            }
        }
        self.shared.freed.notify_one();
    }
}
