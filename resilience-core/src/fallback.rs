//! The fallback: what to answer when a call fails: a value, a function of the error, or another operation.
//! Neither of two errors is ever lost: a fallback that fails itself hands on both. It holds nothing between calls and
//! does not call again; trying the same thing once more is a [`Retry`](crate::Retry)'s.

mod answer;
mod error;
mod select;
#[cfg(feature = "tower")]
mod tower;

pub use answer::{Answer, FromAsyncFn, FromFn, Infallibly, TryFromAsyncFn, TryFromFn, Value};
pub use error::FallbackError;
pub use select::{EveryError, JudgedBy, Only, Select};
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub use tower::{FallbackFuture, FallbackLayer, FallbackService};

use std::fmt;
use std::future::{Future, Ready};
use std::sync::Arc;

use crate::class::Class;
use crate::config::{self, ConfigError};
use crate::event::{Event, Observers};

/// Answers in the place of calls that fail. Cheap to clone, and usable for any number of calls.
///
/// It goes around whatever gives a `Result`: a [`Pipeline`](crate::Pipeline)'s call, so that refusals and timeouts are
/// answered as well, or any function. Every error is answered unless [`only`](Self::only) says otherwise.
///
/// | made by | answers with | a call fails with |
/// |---|---|---|
/// | [`value`](Self::value) | a clone of a value | its own error, when that is not to be answered |
/// | [`from_fn`](Self::from_fn), [`from_async_fn`](Self::from_async_fn) | what a function makes of the error | the same |
/// | [`try_from_fn`](Self::try_from_fn), [`try_from_async_fn`](Self::try_from_async_fn) | the same, and it may fail | a [`FallbackError`] with both errors |
///
/// ```
/// use resilience_core::{Error, Fallback, Pipeline, Reason, Retry};
///
/// # fn search() -> std::io::Result<Vec<String>> { Err(std::io::ErrorKind::ConnectionRefused.into()) }
/// let pipeline = Pipeline::builder("search").build()?;
/// let nothing = Fallback::value(Vec::new());
/// let hits = nothing.call(|| pipeline.call(search))?;
/// assert!(hits.is_empty());
///
/// let open = |error: &Error<_>| error.as_rejection().is_some_and(|refused| refused.reason == Reason::CircuitOpen);
/// let when_open = Fallback::value(Vec::new()).only(open);
/// assert!(when_open.call(|| pipeline.call(search)).is_err(), "it was refused by the other side, not by a breaker");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An answer is a success to whatever is further out: a breaker or a retry around a fallback does not see the failure.
/// Put the fallback outermost.
#[doc(alias = "recover")]
#[doc(alias = "or_else")]
pub struct Fallback<A, S = EveryError> {
    name: Arc<str>,
    observers: Observers,
    answer: Arc<A>,
    select: S,
}

impl<A, S: Clone> Clone for Fallback<A, S> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            observers: self.observers.clone(),
            answer: Arc::clone(&self.answer),
            select: self.select.clone(),
        }
    }
}

impl<A: fmt::Debug, S: fmt::Debug> fmt::Debug for Fallback<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("name", &self.name)
            .field("answer", &self.answer)
            .field("select", &self.select)
            .finish_non_exhaustive()
    }
}

impl<T> Fallback<Value<T>> {
    /// Answers with a clone of `value`.
    ///
    /// ```
    /// use resilience_core::Fallback;
    ///
    /// let port = Fallback::value(8080).call(|| std::fs::read_to_string("/no/such/file").map(|text| text.len()))?;
    /// assert_eq!(port, 8080);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn value(value: T) -> Self {
        Self::new(Value(value))
    }
}

impl<F> Fallback<FromFn<F>> {
    /// Answers with what `answer` makes of the error.
    ///
    /// ```
    /// use resilience_core::Fallback;
    ///
    /// let explain = Fallback::from_fn(|error: &std::io::Error| format!("not now: {error}"));
    /// let page = explain.call(|| Err(std::io::Error::other("maintenance")))?;
    /// assert_eq!(page, "not now: maintenance");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fn<T, E>(answer: F) -> Self
    where
        F: Fn(&E) -> T,
    {
        Self::new(FromFn(answer))
    }
}

impl<F> Fallback<TryFromFn<F>> {
    /// Answers with what `answer` makes of the error; it may fail itself, and then both errors are kept.
    ///
    /// ```
    /// use std::io;
    /// use resilience_core::{Fallback, FallbackError};
    ///
    /// let cached = Fallback::try_from_fn(|_: &io::Error| Err::<String, _>(io::Error::other("the cache is cold")));
    /// let error = cached.call(|| Err(io::Error::other("connection refused"))).unwrap_err();
    /// assert_eq!(error.to_string(), "connection refused; the fallback failed as well: the cache is cold");
    /// assert_eq!(error.first.to_string(), "connection refused");
    /// ```
    pub fn try_from_fn<T, E, E2>(answer: F) -> Self
    where
        F: Fn(&E) -> Result<T, E2>,
    {
        Self::new(TryFromFn(answer))
    }
}

impl<F> Fallback<FromAsyncFn<F>> {
    /// Answers with what the future made of the error gives. The future must not borrow the error: take what it needs
    /// out of the error first. Dropping the call drops it.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use resilience_core::Fallback;
    ///
    /// # async fn from_mirror() -> u32 { 7 }
    /// let mirror = Fallback::from_async_fn(|_: &std::io::Error| from_mirror());
    /// let answer = mirror.call_async(|| async { Err(std::io::Error::other("connection refused")) });
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(answer)?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_async_fn<E, Fut>(answer: F) -> Self
    where
        F: Fn(&E) -> Fut,
        Fut: Future,
    {
        Self::new(FromAsyncFn(answer))
    }
}

impl<F> Fallback<TryFromAsyncFn<F>> {
    /// As [`from_async_fn`](Fallback::from_async_fn), and it may fail itself; then both errors are kept.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::io;
    /// use resilience_core::{Fallback, Pipeline};
    ///
    /// # async fn fetch(from: &str) -> io::Result<String> { Err(io::Error::other(from.to_owned() + " is down")) }
    /// let pipeline = Pipeline::builder("fetch").build()?;
    /// let mirror = Fallback::try_from_async_fn(|_| fetch("the mirror"));
    /// let answer = mirror.call_async(|| pipeline.call_async(|| fetch("the origin")));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let error = runtime.block_on(answer).unwrap_err();
    /// assert_eq!(error.to_string(), "the origin is down; the fallback failed as well: the mirror is down");
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_from_async_fn<T, E, E2, Fut>(answer: F) -> Self
    where
        F: Fn(&E) -> Fut,
        Fut: Future<Output = Result<T, E2>>,
    {
        Self::new(TryFromAsyncFn(answer))
    }
}

impl<A> Fallback<A> {
    /// Answers by an [`Answer`] of your own: a cache, a second source.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::future::{Ready, ready};
    /// use resilience_core::{Fallback, fallback::Answer};
    ///
    /// struct Zero;
    ///
    /// impl<E> Answer<usize, E> for Zero {
    ///     type Second = Infallible;
    ///     type Error = E;
    ///     type Answering = Ready<Result<usize, Infallible>>;
    ///     fn answer(&self, _: &E) -> Self::Answering {
    ///         ready(Ok(0))
    ///     }
    ///     fn unanswered(first: E, _: Option<Infallible>) -> E {
    ///         first
    ///     }
    /// }
    ///
    /// let length = Fallback::new(Zero).call(|| std::fs::read("/no/such/file").map(|bytes| bytes.len()))?;
    /// assert_eq!(length, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(answer: A) -> Self {
        let (name, observers) = ("fallback".into(), Observers::new());
        Self { name, observers, answer: Arc::new(answer), select: EveryError }
    }

    /// Answers only the errors for which `select` says yes; the others are handed on. Default: every error.
    ///
    /// ```
    /// use resilience_core::{Classify, Error, Fallback, class::Fault};
    ///
    /// // Whoever asked for something wrong shall hear of it.
    /// let fallback = Fallback::value(0).only(|error: &Error<std::io::Error>| error.class().fault != Fault::Caller);
    /// let missing = || Err(Error::operation(std::io::ErrorKind::NotFound.into(), 1));
    /// let refused = || Err(Error::operation(std::io::ErrorKind::ConnectionRefused.into(), 1));
    /// assert!(fallback.call(missing).is_err());
    /// assert_eq!(fallback.call(refused).unwrap(), 0);
    /// ```
    pub fn only<E, F: Fn(&E) -> bool>(self, select: F) -> Fallback<A, Only<F>> {
        self.with(Only(select))
    }

    /// The same for errors that do not implement [`Classify`](crate::Classify): `judge` says what an error means, `None`
    /// that it is not to be answered.
    ///
    /// ```
    /// use resilience_core::{Category, Class, Fallback};
    ///
    /// let fallback =
    ///     Fallback::value(0).judged_by(|_: &std::num::ParseIntError| Some(Class::of(Category::Validation)));
    /// assert_eq!(fallback.call(|| "many".parse::<u32>()), Ok(0));
    /// ```
    pub fn judged_by<E, F: Fn(&E) -> Option<Class>>(self, judge: F) -> Fallback<A, JudgedBy<F>> {
        self.with(JudgedBy(judge))
    }

    fn with<S>(self, select: S) -> Fallback<A, S> {
        Fallback { name: self.name, observers: self.observers, answer: self.answer, select }
    }
}

impl<A, S> Fallback<A, S> {
    /// The same under a name, which observers are told. Default: `fallback`.
    ///
    /// # Errors
    /// A [`ConfigError`] when the name cannot stand in metrics and logs.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use resilience_core::event::TracingObserver;
    /// use resilience_core::{Fallback, Observers};
    ///
    /// let observers = Observers::new().with(Arc::new(TracingObserver));
    /// let no_hits = Fallback::value(Vec::<String>::new()).named("no_hits")?.observers(observers);
    /// assert_eq!(no_hits.name(), "no_hits");
    /// assert!(Fallback::value(0).named("no hits").is_err());
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Result<Self, ConfigError> {
        self.name = name.into();
        config::name(&self.name)?;
        Ok(self)
    }

    /// The same, and these hear of every answer ([`Event::FallbackUsed`]). Default: nobody.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    /// use resilience_core::{Event, Fallback, Observers};
    ///
    /// let (tell, told) = mpsc::channel();
    /// let listen = move |event: &Event<'_>| {
    ///     if let Event::FallbackUsed { fallback, answered, .. } = event {
    ///         tell.send((fallback.to_string(), *answered)).unwrap();
    ///     }
    /// };
    /// let no_hits = Fallback::value(0).named("no_hits")?.observers(Observers::new().with(Arc::new(listen)));
    /// assert_eq!(no_hits.call(|| Err(std::io::Error::other("down"))).unwrap(), 0);
    /// assert_eq!(told.try_recv(), Ok(("no_hits".to_owned(), true)));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use]
    pub fn observers(mut self, observers: Observers) -> Self {
        self.observers = observers;
        self
    }

    /// Its name.
    ///
    /// ```
    /// use resilience_core::Fallback;
    ///
    /// assert_eq!(Fallback::value(0).name(), "fallback");
    /// assert_eq!(Fallback::value(0).named("no_hits")?.name(), "no_hits");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a blocking call, and answers when it fails.
    ///
    /// # Errors
    /// The call's own error when that is not to be answered; with a fallback that can fail, a [`FallbackError`].
    ///
    /// ```
    /// use resilience_core::Fallback;
    ///
    /// let unknown = Fallback::value("unknown".to_owned());
    /// assert_eq!(unknown.call(|| Ok::<_, std::io::Error>("Ada".to_owned())).unwrap(), "Ada");
    /// assert_eq!(unknown.call(|| Err(std::io::Error::other("down"))).unwrap(), "unknown");
    /// ```
    pub fn call<T, E, E2>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, A::Error>
    where
        A: Answer<T, E, Second = E2, Answering = Ready<Result<T, E2>>>,
        S: Select<E>,
    {
        self.apply(operation())
    }

    /// As [`call`](Self::call), for a result that is there already.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// ```
    /// use resilience_core::Fallback;
    ///
    /// let text = Fallback::value(String::new()).apply(std::fs::read_to_string("/no/such/file"))?;
    /// assert_eq!(text, "");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn apply<T, E, E2>(&self, result: Result<T, E>) -> Result<T, A::Error>
    where
        A: Answer<T, E, Second = E2, Answering = Ready<Result<T, E2>>>,
        S: Select<E>,
    {
        match self.begin(result)? {
            Begun::Fine(value) => Ok(value),
            Begun::Answering { first, class, answering } => self.end(first, class, answering.into_inner()),
        }
    }

    /// Makes an async call, on any executor, and answers when it fails. Dropping the future cancels both.
    ///
    /// # Errors
    /// The call's own error when that is not to be answered; with a fallback that can fail, a [`FallbackError`].
    ///
    /// ```
    /// use resilience_core::Fallback;
    ///
    /// let unknown = Fallback::value("unknown");
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// assert_eq!(unknown.call_async(|| async { Ok::<_, std::io::Error>("Ada") }).await?, "Ada");
    /// assert_eq!(unknown.call_async(|| async { Err(std::io::Error::other("down")) }).await?, "unknown");
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn call_async<T, E, F>(&self, operation: impl FnOnce() -> F) -> Result<T, A::Error>
    where
        F: Future<Output = Result<T, E>>,
        A: Answer<T, E>,
        S: Select<E>,
    {
        // The operation is over, and gone, when the answer begins.
        let result = operation().await;
        match self.begin(result)? {
            Begun::Fine(value) => Ok(value),
            Begun::Answering { first, class, answering } => self.end(first, class, answering.await),
        }
    }

    fn begin<T, E>(&self, result: Result<T, E>) -> Result<Begun<T, E, A::Answering>, A::Error>
    where
        A: Answer<T, E>,
        S: Select<E>,
    {
        let first = match result {
            Ok(value) => return Ok(Begun::Fine(value)),
            Err(first) => first,
        };
        match self.select.select(&first) {
            None => Err(A::unanswered(first, None)),
            Some(class) => {
                let answering = self.answer.answer(&first);
                Ok(Begun::Answering { first, class, answering })
            }
        }
    }

    fn end<T, E>(&self, first: E, class: Class, answer: Result<T, A::Second>) -> Result<T, A::Error>
    where
        A: Answer<T, E>,
    {
        let answered = answer.is_ok();
        self.observers.emit(&Event::FallbackUsed { fallback: &self.name, class, answered });
        answer.map_err(|second| A::unanswered(first, Some(second)))
    }
}

/// What a result becomes before the answer is there.
enum Begun<T, E, F> {
    Fine(T),
    Answering { first: E, class: Class, answering: F },
}
