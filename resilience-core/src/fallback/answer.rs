//! What a fallback answers with. An answer is made of the error alone; whether one is wanted is not its business.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::FallbackError;

/// Makes an answer of type `T` of an error `E`. The kinds there are come from the constructors of
/// [`Fallback`](super::Fallback); implement it for a cache or a second source of your own.
///
/// ```
/// use std::collections::HashMap;
/// use std::future::{Ready, ready};
/// use resilience_core::{Error, Fallback, fallback::{Answer, FallbackError}};
///
/// struct NoSuchKey(u32);
/// struct LastGood(HashMap<u32, String>);
///
/// impl Answer<String, NoSuchKey> for LastGood {
///     type Second = &'static str;
///     type Error = FallbackError<NoSuchKey, &'static str>;
///     type Answering = Ready<Result<String, &'static str>>;
///     fn answer(&self, error: &NoSuchKey) -> Self::Answering {
///         ready(self.0.get(&error.0).cloned().ok_or("never seen"))
///     }
///     fn unanswered(first: NoSuchKey, second: Option<&'static str>) -> Self::Error {
///         FallbackError { first, second }
///     }
/// }
/// # use resilience_core::{Category, Class, Classify};
/// # impl Classify for NoSuchKey { fn class(&self) -> Class { Class::of(Category::Validation) } }
/// let last_good = Fallback::new(LastGood([(1, "one".to_owned())].into()));
/// assert!(matches!(last_good.call(|| Err(NoSuchKey(1))).as_deref(), Ok("one")));
/// assert!(matches!(last_good.call(|| Err(NoSuchKey(2))), Err(error) if error.second == Some("never seen")));
/// ```
pub trait Answer<T, E> {
    /// What goes wrong when there is no answer: [`Infallible`] where there is always one.
    type Second;
    /// What a call fails with.
    type Error;
    /// The answer under way: a [`Ready`] one can be used by blocking calls, too.
    type Answering: Future<Output = Result<T, Self::Second>>;

    /// Begins an answer to `error`.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use std::future::{Ready, ready};
    /// use resilience_core::fallback::Answer;
    ///
    /// # struct Zero;
    /// # impl<E> Answer<u32, E> for Zero {
    /// #     type Second = Infallible;
    /// #     type Error = E;
    /// #     type Answering = Ready<Result<u32, Infallible>>;
    /// fn answer(&self, _: &E) -> Self::Answering {
    ///     ready(Ok(0))
    /// }
    /// #     fn unanswered(first: E, _: Option<Infallible>) -> E { first }
    /// # }
    /// assert_eq!(Zero.answer(&"connection refused").into_inner(), Ok(0));
    /// ```
    fn answer(&self, error: &E) -> Self::Answering;

    /// The error of a call that was not answered: by intent, or because the answer failed (`second`).
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use std::future::{Ready, ready};
    /// use resilience_core::fallback::Answer;
    ///
    /// # struct Zero;
    /// # impl<E> Answer<u32, E> for Zero {
    /// #     type Second = Infallible;
    /// #     type Error = E;
    /// #     type Answering = Ready<Result<u32, Infallible>>;
    /// #     fn answer(&self, _: &E) -> Self::Answering { ready(Ok(0)) }
    /// // There is always an answer, so what was not answered was not to be.
    /// fn unanswered(first: E, _: Option<Infallible>) -> E {
    ///     first
    /// }
    /// # }
    /// assert_eq!(<Zero as Answer<u32, &str>>::unanswered("no such user", None), "no such user");
    /// ```
    fn unanswered(first: E, second: Option<Self::Second>) -> Self::Error;
}

/// The first error, where there cannot be a second one.
fn only_first<E>(first: E, second: Option<Infallible>) -> E {
    match second {
        None => first,
        Some(never) => match never {},
    }
}

/// Answers with a clone of a value: made by [`Fallback::value`](super::Fallback::value).
///
/// ```
/// use resilience_core::Fallback;
/// use resilience_core::fallback::Value;
///
/// struct Search {
///     no_hits: Fallback<Value<Vec<String>>>,
/// }
/// let search = Search { no_hits: Fallback::value(Vec::new()) };
/// let hits = search.no_hits.call(|| Err(std::io::Error::other("down")))?;
/// assert!(hits.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Value<T>(pub(super) T);

impl<T: Clone, E> Answer<T, E> for Value<T> {
    type Second = Infallible;
    type Error = E;
    type Answering = Ready<Result<T, Infallible>>;

    fn answer(&self, _: &E) -> Self::Answering {
        ready(Ok(self.0.clone()))
    }

    fn unanswered(first: E, second: Option<Infallible>) -> E {
        only_first(first, second)
    }
}

/// Answers by a function: made by [`Fallback::from_fn`](super::Fallback::from_fn).
///
/// ```
/// use std::io;
/// use resilience_core::Fallback;
/// use resilience_core::fallback::FromFn;
///
/// struct Pages {
///     apology: Fallback<FromFn<fn(&io::Error) -> String>>,
/// }
/// let pages = Pages { apology: Fallback::from_fn(|error| format!("not now: {error}")) };
/// assert_eq!(pages.apology.call(|| Err(io::Error::other("maintenance")))?, "not now: maintenance");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct FromFn<F>(pub(super) F);

impl<T, E, F: Fn(&E) -> T> Answer<T, E> for FromFn<F> {
    type Second = Infallible;
    type Error = E;
    type Answering = Ready<Result<T, Infallible>>;

    fn answer(&self, error: &E) -> Self::Answering {
        ready(Ok((self.0)(error)))
    }

    fn unanswered(first: E, second: Option<Infallible>) -> E {
        only_first(first, second)
    }
}

/// Answers by a function that may fail: made by [`Fallback::try_from_fn`](super::Fallback::try_from_fn).
///
/// ```
/// use std::io;
/// use resilience_core::Fallback;
/// use resilience_core::fallback::TryFromFn;
///
/// struct Users {
///     cached: Fallback<TryFromFn<fn(&io::Error) -> Result<u32, &'static str>>>,
/// }
/// let users = Users { cached: Fallback::try_from_fn(|_| Err("the cache is cold")) };
/// let error = users.cached.call(|| Err(io::Error::other("down"))).unwrap_err();
/// assert_eq!(error.second, Some("the cache is cold"));
/// ```
#[derive(Clone, Copy)]
pub struct TryFromFn<F>(pub(super) F);

impl<T, E, E2, F: Fn(&E) -> Result<T, E2>> Answer<T, E> for TryFromFn<F> {
    type Second = E2;
    type Error = FallbackError<E, E2>;
    type Answering = Ready<Result<T, E2>>;

    fn answer(&self, error: &E) -> Self::Answering {
        ready((self.0)(error))
    }

    fn unanswered(first: E, second: Option<E2>) -> Self::Error {
        FallbackError { first, second }
    }
}

/// Answers by an async function: made by [`Fallback::from_async_fn`](super::Fallback::from_async_fn).
///
/// ```
/// use std::future::{Ready, ready};
/// use std::io;
/// use resilience_core::Fallback;
/// use resilience_core::fallback::FromAsyncFn;
///
/// struct Users {
///     mirror: Fallback<FromAsyncFn<fn(&io::Error) -> Ready<u32>>>,
/// }
/// let users = Users { mirror: Fallback::from_async_fn(|_| ready(7)) };
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let answer = runtime.block_on(users.mirror.call_async(|| async { Err(io::Error::other("down")) }))?;
/// assert_eq!(answer, 7);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct FromAsyncFn<F>(pub(super) F);

impl<T, E, F: Fn(&E) -> Fut, Fut: Future<Output = T>> Answer<T, E> for FromAsyncFn<F> {
    type Second = Infallible;
    type Error = E;
    type Answering = Infallibly<Fut>;

    fn answer(&self, error: &E) -> Self::Answering {
        Infallibly { future: (self.0)(error) }
    }

    fn unanswered(first: E, second: Option<Infallible>) -> E {
        only_first(first, second)
    }
}

/// Answers by an async function that may fail: made by
/// [`Fallback::try_from_async_fn`](super::Fallback::try_from_async_fn).
///
/// ```
/// use std::future::{Ready, ready};
/// use std::io;
/// use resilience_core::Fallback;
/// use resilience_core::fallback::TryFromAsyncFn;
///
/// type Mirrored = Ready<Result<u32, &'static str>>;
/// struct Users {
///     mirror: Fallback<TryFromAsyncFn<fn(&io::Error) -> Mirrored>>,
/// }
/// let users = Users { mirror: Fallback::try_from_async_fn(|_| ready(Err("the mirror is down"))) };
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let error = runtime.block_on(users.mirror.call_async(|| async { Err(io::Error::other("down")) })).unwrap_err();
/// assert_eq!(error.second, Some("the mirror is down"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct TryFromAsyncFn<F>(pub(super) F);

impl<T, E, E2, F: Fn(&E) -> Fut, Fut: Future<Output = Result<T, E2>>> Answer<T, E> for TryFromAsyncFn<F> {
    type Second = E2;
    type Error = FallbackError<E, E2>;
    type Answering = Fut;

    fn answer(&self, error: &E) -> Self::Answering {
        (self.0)(error)
    }

    fn unanswered(first: E, second: Option<E2>) -> Self::Error {
        FallbackError { first, second }
    }
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl<F> fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque_debug!(FromFn, TryFromFn, FromAsyncFn, TryFromAsyncFn);

pin_project! {
    /// A future whose output cannot be an error, as one whose output could be.
    ///
    /// ```
    /// use std::future::{Ready, ready};
    /// use std::io;
    /// use resilience_core::Fallback;
    /// use resilience_core::fallback::{Answer, FromAsyncFn, Infallibly};
    ///
    /// type Cached = fn(&io::Error) -> Ready<u32>;
    /// /// What an answer from an async function is while it is under way.
    /// type Answering = <FromAsyncFn<Cached> as Answer<u32, io::Error>>::Answering;
    /// let same: Option<Infallibly<Ready<u32>>> = None::<Answering>;
    /// # assert!(same.is_none());
    ///
    /// let cached: Fallback<FromAsyncFn<Cached>> = Fallback::from_async_fn(|_| ready(7));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// assert_eq!(runtime.block_on(cached.call_async(|| async { Err(io::Error::other("down")) }))?, 7);
    /// # Ok::<(), io::Error>(())
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Infallibly<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Infallibly<F> {
    type Output = Result<F::Output, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map(Ok)
    }
}
