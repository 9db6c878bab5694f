//! The fourth layer: policy around the other three. Rate limit, limits, poison list, cache, breaker, then the parser.
//! Invariant: only a parser's own faults move the breaker; a source that made a parser fail does not reach it again
//! while it is remembered; all memories are bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilience_core::circuit_breaker::Permit;
use resilience_core::{
    CircuitBreaker, Classify, Clock, ConfigError, Event, Instant, Observers, Outcome, RateLimiter, Severity,
};

use super::error::{AstError, Fault};
use super::in_process::{Answer, InProcess};
use super::language::{Language, Languages, Refusal, cut};
use super::limits::Limits;
use super::operation::{Operation, Output};
use super::pool::{Job, WorkerPool};
use super::recent::{Key, Recent};

/// Where parsers run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Isolation {
    /// In this process, on big stacks, panics caught. A stack overflow ends the program.
    Threads(InProcess),
    /// In worker processes. Nothing a parser does ends the program.
    Processes(WorkerPool),
}

impl From<InProcess> for Isolation {
    fn from(threads: InProcess) -> Self {
        Self::Threads(threads)
    }
}

impl From<WorkerPool> for Isolation {
    fn from(pool: WorkerPool) -> Self {
        Self::Processes(pool)
    }
}

impl Isolation {
    fn run(&self, job: &Job<'_>) -> Result<Answer, Fault> {
        match self {
            Self::Threads(threads) => threads.run(job.language, job.operation, job.source),
            Self::Processes(pool) => pool.run(job.language, job.operation, job.source),
        }
    }

    fn run_batch(&self, jobs: &[Job<'_>]) -> Vec<Result<Answer, Fault>> {
        match self {
            Self::Threads(_) => jobs.iter().map(|job| self.run(job)).collect(),
            Self::Processes(pool) => pool.run_batch(jobs),
        }
    }

    fn knows(&self, language: &str) -> bool {
        match self {
            Self::Threads(threads) => threads.languages().any(|name| name == language),
            Self::Processes(pool) => pool.languages().any(|name| name == language),
        }
    }
}

/// Guards parsers against sources, and the program against parsers.
///
/// Cheap to clone; clones share everything. A tenant gets a rate of its own with
/// [`with_limiter`](Self::with_limiter). Calls block; async callers use their runtime's way to run blocking code.
///
/// ```
/// # #[cfg(feature = "syn")] {
/// use parsercraft_guard::ast::{AstError, AstGuard, InProcess, Languages, Operation};
///
/// let languages = Languages::builtin();
/// let guard = AstGuard::builder(languages.clone(), InProcess::builder().build(languages).unwrap()).build().unwrap();
///
/// let summary = guard.run(Operation::Parse, "rust", "fn main() {}").unwrap();
/// assert_eq!(summary.as_summary().unwrap().functions, 1);
///
/// // A 10 KB file that overflows the stack of an unguarded parser:
/// let bomb = format!("fn f() {{ let x = {}1{}; }}", "(".repeat(5000), ")".repeat(5000));
/// let error = guard.run(Operation::Parse, "rust", &bomb).unwrap_err();
/// assert_eq!(error.to_string(), "brackets are nested 257 deep at line 1, column 273; allowed: 256");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AstGuard {
    inner: Arc<Inner>,
    limiter: RateLimiter,
}

/// Settings of an [`AstGuard`].
#[derive(Debug)]
pub struct AstGuardBuilder {
    languages: Languages,
    isolation: Isolation,
    limits: Limits,
    limiter: Option<RateLimiter>,
    breaker: Option<CircuitBreaker>,
    clock: Clock,
    observers: Observers,
    poison_entries: usize,
    poison_for: Duration,
    cache_entries: usize,
    cache_bytes: usize,
}

impl AstGuardBuilder {
    /// The limits a source must keep; [`Limits::default`] unless set.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The rate of calls; `ast_analysis`, 1000 per 60 s, all of them at once if need be, unless set.
    #[must_use]
    pub fn limiter(mut self, limiter: RateLimiter) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// The breaker that faults of parsers move; `ast_codegen`, 10 faults in a row, unless set.
    #[must_use]
    pub fn breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// The clock of the poison list, and of limiter and breaker unless those are set.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Who hears of faults; of limiter and breaker too unless those are set.
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// How many sources that made a parser fail are remembered, and for how long; 4096 for one hour unless set. With 0
    /// none is.
    #[must_use]
    pub const fn poison(mut self, entries: usize, remembered: Duration) -> Self {
        self.poison_entries = entries;
        self.poison_for = remembered;
        self
    }

    /// How many results are kept, and how many bytes they may occupy; 1024 in 16 MiB unless set. With 0 none is.
    #[must_use]
    pub const fn cache(mut self, entries: usize, bytes: usize) -> Self {
        self.cache_entries = entries;
        self.cache_bytes = bytes;
        self
    }

    /// Puts the guard together.
    ///
    /// # Errors
    /// A value out of range, or a language that the isolation does not know.
    pub fn build(self) -> Result<AstGuard, ConfigError> {
        self.limits.validate()?;
        if let Some(stranger) = self.languages.names().find(|name| !self.isolation.knows(name)) {
            return Err(ConfigError::new(
                "ast.languages",
                stranger,
                "languages that the workers know: give `worker::run_if_requested_with` the same ones",
            ));
        }
        let limiter = match self.limiter {
            Some(limiter) => limiter,
            None => RateLimiter::builder("ast_analysis")
                .rate(1000, Duration::from_secs(60))
                .burst(1000)
                .clock(self.clock.clone())
                .observers(self.observers.clone())
                .build()?,
        };
        let breaker = match self.breaker {
            Some(breaker) => breaker,
            None => CircuitBreaker::builder("ast_codegen")
                .consecutive_failures(10)
                .clock(self.clock.clone())
                .observers(self.observers.clone())
                .build()?,
        };
        Ok(AstGuard {
            inner: Arc::new(Inner {
                languages: self.languages,
                isolation: self.isolation,
                limits: self.limits,
                breaker,
                clock: self.clock,
                observers: self.observers,
                poison: Mutex::new(Recent::new(self.poison_entries, usize::MAX)),
                poison_for: self.poison_for,
                cache: Mutex::new(Recent::new(self.cache_entries, self.cache_bytes)),
                remembers: self.poison_entries > 0 || self.cache_entries > 0,
                counts: Counts::default(),
            }),
            limiter,
        })
    }
}

#[derive(Debug)]
struct Inner {
    languages: Languages,
    isolation: Isolation,
    limits: Limits,
    breaker: CircuitBreaker,
    clock: Clock,
    observers: Observers,
    poison: Mutex<Recent<(Fault, Instant)>>,
    poison_for: Duration,
    cache: Mutex<Recent<Result<Arc<Output>, Refusal>>>,
    /// Whether there is anything to look a hash up in.
    remembers: bool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    succeeded: AtomicU64,
    refused: AtomicU64,
    over_limit: AtomicU64,
    rejected: AtomicU64,
    poisoned: AtomicU64,
    faults: AtomicU64,
    cache_hits: AtomicU64,
}

/// What a guard has done so far, over all clones and tenants. Read one by one, so they may differ by calls under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct AstStatistics {
    /// Calls that ended.
    pub calls: u64,
    /// Calls that gave a result.
    pub succeeded: u64,
    /// Calls whose source was not valid, or that asked for what there is not.
    pub refused: u64,
    /// Calls whose source exceeded a limit.
    pub over_limit: u64,
    /// Calls refused by limiter or breaker.
    pub rejected: u64,
    /// Calls whose source was known to make a parser fail.
    pub poisoned: u64,
    /// Calls in which a parser failed.
    pub faults: u64,
    /// Calls answered from the cache; also counted as succeeded or refused.
    pub cache_hits: u64,
    /// Sources on the poison list now.
    pub poison_entries: usize,
    /// Results in the cache now.
    pub cache_entries: usize,
}

/// A call that passed everything before the breaker.
struct Ready<'a> {
    job: Job<'a>,
    key: Option<Key>,
}

impl AstGuard {
    /// Settings to start from: these languages, run there.
    pub fn builder(languages: Languages, isolation: impl Into<Isolation>) -> AstGuardBuilder {
        AstGuardBuilder {
            languages,
            isolation: isolation.into(),
            limits: Limits::default(),
            limiter: None,
            breaker: None,
            clock: Clock::default(),
            observers: Observers::new(),
            poison_entries: 4096,
            poison_for: Duration::from_secs(3600),
            cache_entries: 1024,
            cache_bytes: 16 << 20,
        }
    }

    /// Does `operation` with `source`, guarded.
    ///
    /// # Errors
    /// [`AstError`]: its [`class`](Classify::class) says whose fault it is.
    pub fn run(&self, operation: Operation, language: &str, source: impl AsRef<[u8]>) -> Result<Arc<Output>, AstError> {
        let result = self.run_uncounted(operation, language, source.as_ref());
        self.inner.count(&result);
        result
    }

    fn run_uncounted(&self, operation: Operation, language: &str, source: &[u8]) -> Result<Arc<Output>, AstError> {
        let ready = match self.admit(operation, language, source)? {
            Admitted::Known(result) => return result,
            Admitted::Ready(ready) => ready,
        };
        let permit = self.inner.breaker.try_acquire()?;
        let result = self.inner.isolation.run(&ready.job);
        self.inner.conclude(&ready, permit, result)
    }

    /// The same for several sources, sent to one worker ahead of its answers: quicker for many small ones.
    ///
    /// The results come in the order of `sources`, one each.
    pub fn run_batch<S: AsRef<[u8]>>(
        &self,
        operation: Operation,
        language: &str,
        sources: &[S],
    ) -> Vec<Result<Arc<Output>, AstError>> {
        let mut results: Vec<Option<Result<Arc<Output>, AstError>>> = Vec::with_capacity(sources.len());
        let mut waiting = Vec::new();
        let mut first = HashMap::new();
        let mut repeated = Vec::new();
        for source in sources {
            let index = results.len();
            results.push(None);
            let ready = match self.admit(operation, language, source.as_ref()) {
                Ok(Admitted::Ready(ready)) => ready,
                Ok(Admitted::Known(known)) => {
                    results[index] = Some(known);
                    continue;
                }
                Err(error) => {
                    results[index] = Some(Err(error));
                    continue;
                }
            };
            // The same source again is answered by the first one; a bomb must not kill twice in one batch.
            if let Some(&earlier) = ready.key.as_ref().and_then(|key| first.get(key)) {
                repeated.push((index, earlier));
                continue;
            }
            match self.inner.breaker.try_acquire() {
                Ok(permit) => {
                    first.extend(ready.key.map(|key| (key, index)));
                    waiting.push((index, ready, permit));
                }
                Err(rejection) => results[index] = Some(Err(rejection.into())),
            }
        }
        let jobs: Vec<Job<'_>> = waiting.iter().map(|(_, ready, _)| ready.job).collect();
        let answers = self.inner.isolation.run_batch(&jobs);
        for ((index, ready, permit), answer) in waiting.into_iter().zip(answers) {
            results[index] = Some(self.inner.conclude(&ready, permit, answer));
        }
        for (index, earlier) in repeated {
            results[index] = match results[earlier].clone() {
                Some(Err(AstError::Fault(fault))) if fault.is_poison() => Some(Err(AstError::Poisoned { fault })),
                same => same,
            };
        }
        let results: Vec<_> = results.into_iter().flatten().collect();
        for result in &results {
            self.inner.count(result);
        }
        results
    }

    /// Runs a source through limits and isolation only, past limiter, breaker, poison list and cache: what a health
    /// check calls to see whether parsing works.
    ///
    /// # Errors
    /// As [`run`](Self::run), without [`AstError::Rejected`] and [`AstError::Poisoned`].
    pub fn probe(&self, operation: Operation, language: &str, source: impl AsRef<[u8]>) -> Result<Output, AstError> {
        let found = self.inner.language(language, operation)?;
        let source = self.inner.limits.check(source.as_ref(), &found.lexis())?;
        self.inner.isolation.run(&Job { language, operation, source })?.map_err(AstError::Refused)
    }

    /// The same guard with a rate of its own: one per tenant.
    #[must_use]
    pub fn with_limiter(&self, limiter: RateLimiter) -> Self {
        Self { inner: Arc::clone(&self.inner), limiter }
    }

    /// The limiter of this clone.
    pub const fn limiter(&self) -> &RateLimiter {
        &self.limiter
    }

    /// The breaker, shared by all clones.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.inner.breaker
    }

    /// Where parsers run.
    pub fn isolation(&self) -> &Isolation {
        &self.inner.isolation
    }

    /// The languages it guards.
    pub fn languages(&self) -> &Languages {
        &self.inner.languages
    }

    /// What it has done so far.
    pub fn statistics(&self) -> AstStatistics {
        let counts = &self.inner.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AstStatistics {
            calls: read(&counts.calls),
            succeeded: read(&counts.succeeded),
            refused: read(&counts.refused),
            over_limit: read(&counts.over_limit),
            rejected: read(&counts.rejected),
            poisoned: read(&counts.poisoned),
            faults: read(&counts.faults),
            cache_hits: read(&counts.cache_hits),
            poison_entries: lock(&self.inner.poison).len(),
            cache_entries: lock(&self.inner.cache).len(),
        }
    }

    /// Everything before the breaker, cheapest first.
    fn admit<'a>(&self, operation: Operation, language: &'a str, source: &'a [u8]) -> Result<Admitted<'a>, AstError> {
        let inner = &self.inner;
        self.limiter.try_acquire(1)?;
        let found = inner.language(language, operation)?;
        let source = inner.limits.check(source, &found.lexis())?;
        let job = Job { language, operation, source };
        if !inner.remembers {
            return Ok(Admitted::Ready(Ready { job, key: None }));
        }
        let key = Key::of(language, operation, source);
        let poison = lock(&inner.poison).get(&key);
        if let Some((fault, since)) = poison {
            if inner.clock.now().saturating_duration_since(since) < inner.poison_for {
                return Err(AstError::Poisoned { fault });
            }
            lock(&inner.poison).remove(&key);
        }
        if let Some(known) = lock(&inner.cache).get(&key) {
            inner.counts.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Admitted::Known(known.map_err(AstError::Refused)));
        }
        Ok(Admitted::Ready(Ready { job, key: Some(key) }))
    }
}

enum Admitted<'a> {
    /// The cache knows the answer.
    Known(Result<Arc<Output>, AstError>),
    /// A parser must be asked.
    Ready(Ready<'a>),
}

impl Inner {
    fn language(&self, name: &str, operation: Operation) -> Result<&dyn Language, AstError> {
        let Some(language) = self.languages.get(name) else {
            let known = self.languages.names().collect::<Vec<_>>().join(", ");
            return Err(AstError::UnknownLanguage { name: cut(name.to_owned(), 64), known });
        };
        if !language.operations().contains(&operation) {
            let offered: Vec<_> = language.operations().iter().map(|operation| operation.as_str()).collect();
            return Err(AstError::Unsupported { language: name.to_owned(), operation, offered: offered.join(", ") });
        }
        Ok(language)
    }

    /// Settles the permit, remembers what is worth it, tells the observers of a fault.
    fn conclude(
        &self,
        ready: &Ready<'_>,
        permit: Permit<'_>,
        result: Result<Answer, Fault>,
    ) -> Result<Arc<Output>, AstError> {
        match result {
            Ok(answer) => {
                // A parser that refuses a source works.
                permit.settle(&Outcome::Success);
                let answer = answer.map(Arc::new);
                if let Some(key) = ready.key {
                    let weight = answer.as_ref().map_or(size_of::<Refusal>(), |output| output.weight());
                    lock(&self.cache).insert(key, answer.clone(), weight);
                }
                answer.map_err(AstError::Refused)
            }
            Err(fault) => {
                permit.settle(&Outcome::Failure(fault.class()));
                if let Some(key) = ready.key.filter(|_| fault.is_poison()) {
                    lock(&self.poison).insert(key, (fault.clone(), self.clock.now()), 0);
                }
                let resource = format!("{}:{}", ready.job.language, ready.job.operation);
                let severity: Severity = fault.class().severity;
                self.observers.emit(&Event::notice("ast", "parser_failed", &resource, severity, &fault.to_string()));
                Err(AstError::Fault(fault))
            }
        }
    }

    fn count(&self, result: &Result<Arc<Output>, AstError>) {
        let counts = &self.counts;
        let count = match result {
            Ok(_) => &counts.succeeded,
            Err(AstError::Refused(_) | AstError::UnknownLanguage { .. } | AstError::Unsupported { .. }) => {
                &counts.refused
            }
            Err(AstError::Limit(_)) => &counts.over_limit,
            Err(AstError::Rejected(_)) => &counts.rejected,
            Err(AstError::Poisoned { .. }) => &counts.poisoned,
            Err(AstError::Fault(_)) => &counts.faults,
        };
        count.fetch_add(1, Ordering::Relaxed);
        counts.calls.fetch_add(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
