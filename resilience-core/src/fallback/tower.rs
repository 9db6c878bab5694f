//! The fallback as a `tower` layer. Always ready: the inner service's readiness is part of the call, so that a service
//! that fails to become ready is answered for as one that fails its call. Decides nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Answer, Begun, EveryError, Fallback, Select};
use crate::class::Class;
use crate::ready_call::ReadyCall;

/// Puts a [`Fallback`] around services. Put it outside a [`PipelineLayer`](crate::tower::PipelineLayer), so that
/// refusals and timeouts are answered as well.
///
/// ```
/// use resilience_core::fallback::FallbackLayer;
/// use resilience_core::Fallback;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(FallbackLayer::new(Fallback::value(0)))
///     .service(service_fn(|_question: u32| async { Err::<u32, _>(std::io::Error::other("down")) }));
/// assert_eq!(service.oneshot(21).await?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FallbackLayer<A, S = EveryError> {
    fallback: Fallback<A, S>,
}

impl<A, S> FallbackLayer<A, S> {
    /// A layer that answers by `fallback`.
    ///
    /// ```
    /// use resilience_core::Fallback;
    /// use resilience_core::fallback::FallbackLayer;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let layer = FallbackLayer::new(Fallback::from_fn(|error: &std::io::Error| error.to_string()));
    /// let service = layer.layer(service_fn(|_: u32| async { Err::<String, _>(std::io::Error::other("down")) }));
    /// assert_eq!(service.oneshot(21).await?, "down");
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub const fn new(fallback: Fallback<A, S>) -> Self {
        Self { fallback }
    }
}

impl<A, S: Clone> Clone for FallbackLayer<A, S> {
    fn clone(&self) -> Self {
        Self { fallback: self.fallback.clone() }
    }
}

impl<A: fmt::Debug, S: fmt::Debug> fmt::Debug for FallbackLayer<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer").field("fallback", &self.fallback).finish()
    }
}

impl<I, A, S: Clone> Layer<I> for FallbackLayer<A, S> {
    type Service = FallbackService<I, A, S>;

    fn layer(&self, inner: I) -> Self::Service {
        FallbackService { inner, fallback: self.fallback.clone() }
    }
}

/// A service behind a fallback: made by [`FallbackLayer`].
///
/// ```
/// use resilience_core::Fallback;
/// use resilience_core::fallback::{FallbackLayer, FallbackService, Value};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let inner = service_fn(|question: u32| async move { Ok::<_, std::io::Error>(question * 2) });
/// let service: FallbackService<_, Value<u32>> = FallbackLayer::new(Fallback::value(0)).layer(inner);
/// assert_eq!(service.oneshot(21).await?, 42); // nothing to answer for
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct FallbackService<I, A, S = EveryError> {
    inner: I,
    fallback: Fallback<A, S>,
}

impl<I: Clone, A, S: Clone> Clone for FallbackService<I, A, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), fallback: self.fallback.clone() }
    }
}

impl<I: fmt::Debug, A: fmt::Debug, S: fmt::Debug> fmt::Debug for FallbackService<I, A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackService").field("inner", &self.inner).field("fallback", &self.fallback).finish()
    }
}

impl<I, A, S, Request> Service<Request> for FallbackService<I, A, S>
where
    I: Service<Request> + Clone,
    A: Answer<I::Response, I::Error>,
    S: Select<I::Error> + Clone,
{
    type Response = I::Response;
    type Error = A::Error;
    type Future = FallbackFuture<I, Request, A, S>;

    /// Always ready: what waits, waits in the call, where it can be answered for.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let call = ReadyCall::new(self.inner.clone(), request);
        FallbackFuture { state: State::Calling { call }, fallback: self.fallback.clone() }
    }
}

pin_project! {
    /// The response of a [`FallbackService`]. Dropping it cancels the call or its answer.
    ///
    /// ```
    /// use resilience_core::Fallback;
    /// use resilience_core::fallback::{EveryError, FallbackFuture, FallbackLayer, Value};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let inner = service_fn(|_: u32| async { Err::<u32, _>(std::io::Error::other("down")) });
    /// let mut service = FallbackLayer::new(Fallback::value(0)).layer(inner);
    /// let response: FallbackFuture<_, u32, Value<u32>, EveryError> = service.call(21);
    /// assert_eq!(response.await?, 0);
    /// # Ok::<(), std::io::Error>(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use = "futures do nothing unless awaited"]
    pub struct FallbackFuture<I, Request, A, S>
    where
        I: Service<Request>,
        A: Answer<I::Response, I::Error>,
    {
        #[pin]
        state: State<ReadyCall<I, Request>, A::Answering, I::Error>,
        fallback: Fallback<A, S>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<C, F, E> {
        Calling { #[pin] call: C },
        Answering { #[pin] answering: F, first: Option<(E, Class)> },
    }
}

impl<I, Request, A, S> fmt::Debug for FallbackFuture<I, Request, A, S>
where
    I: Service<Request>,
    A: Answer<I::Response, I::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FallbackFuture")
    }
}

impl<I, Request, A, S> Future for FallbackFuture<I, Request, A, S>
where
    I: Service<Request>,
    A: Answer<I::Response, I::Error>,
    S: Select<I::Error>,
{
    type Output = Result<I::Response, A::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Calling { call } => match this.fallback.begin(ready!(call.poll(cx)))? {
                    Begun::Fine(response) => return Poll::Ready(Ok(response)),
                    Begun::Answering { first, class, answering } => {
                        this.state.set(State::Answering { answering, first: Some((first, class)) });
                    }
                },
                StateProjection::Answering { answering, first } => {
                    let answer = ready!(answering.poll(cx));
                    let (first, class) = first.take().expect("a future is not polled after its end");
                    return Poll::Ready(this.fallback.end(first, class, answer));
                }
            }
        }
    }
}
