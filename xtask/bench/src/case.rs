//! A case: one way to do the work of one row. It counts the calls that ended as the row says, so that a peer which
//! refuses where it should grant is found out rather than praised for its speed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Makes so many calls and tells how many ended as they should.
pub(crate) type Run = Box<dyn Fn(u64) -> u64 + Send + Sync>;

/// One way to do the work of one row.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The row's id.
    pub row: &'static str,
    /// Whose it is, as shown. Ours begin with `resilience-core`.
    pub who: &'static str,
    /// The package it comes from; none for what the language itself gives.
    pub package: Option<&'static str>,
    /// Sets the object up; all calls of all threads then go to the one object.
    pub make: fn() -> Run,
}

impl Case {
    /// Row and owner: unique.
    pub fn id(&self) -> String {
        format!("{}: {}", self.row, self.who)
    }
}

/// A case that is set up and was seen to work.
pub struct Prepared {
    /// What it is.
    pub case: Case,
    run: Run,
    calls: AtomicU64,
    wrong: AtomicU64,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Prepared").field(&self.case).finish()
    }
}

impl Prepared {
    /// Makes `calls` calls, and remembers those that didn't end as they should.
    pub fn run(&self, calls: u64) {
        let good = (self.run)(calls);
        // Relaxed: counters, read when all threads are done.
        self.calls.fetch_add(calls, Ordering::Relaxed);
        self.wrong.fetch_add(calls.saturating_sub(good), Ordering::Relaxed);
    }

    /// What it did wrong since it was set up: its figures are of something else then, at least in part.
    pub fn wrong(&self) -> Option<Failed> {
        let (wrong, calls) = (self.wrong.load(Ordering::Relaxed), self.calls.load(Ordering::Relaxed));
        let reason = format!("{wrong} of {calls} calls didn't end as they should");
        (wrong > 0).then(|| Failed { id: self.case.id(), reason })
    }

    /// As [`run`](Self::run), in a function whose entry a profiler can be told to notice.
    #[inline(never)]
    pub fn counted_run(&self, calls: u64) {
        std::hint::black_box((self.run)(calls));
    }
}

/// Why a case can't be measured.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Failed {
    /// The case's id.
    pub id: String,
    /// In one line.
    pub reason: String,
}

/// Sets a case up and tries it.
///
/// # Errors
/// Says what it did wrong.
pub fn prepare(case: Case) -> Result<Prepared, Failed> {
    const TRIED: u64 = 1_000;
    let failed = |reason: String| Failed { id: case.id(), reason };
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let run = (case.make)();
        let good = run(TRIED);
        (run, good)
    }));
    match tried {
        Ok((run, TRIED)) => Ok(Prepared { case, run, calls: AtomicU64::new(0), wrong: AtomicU64::new(0) }),
        Ok((_, good)) => Err(failed(format!("only {good} of {TRIED} calls ended as they should"))),
        Err(panic) => Err(failed(format!("panicked: {}", words(&*panic)))),
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a word").lines().next().unwrap_or_default().to_owned()
}

/// Calls `one` so many times; the loop is the same for every case.
#[inline]
pub(crate) fn repeat(calls: u64, mut one: impl FnMut() -> bool) -> u64 {
    (0..calls).map(|_| u64::from(one())).sum()
}

/// The output of a future that is ready at once, without an executor, whose costs are nobody's here. One that isn't, as
/// when threads meet at an async lock, is waited for.
#[inline]
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => wait(future),
    }
}

#[cold]
fn wait<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
