//! Coalescing as a `tower` layer: requests with the same key share one call of the service and clones of its response.
//! Always ready, and nothing is held between `poll_ready` and `call`: only who leads asks the service for readiness.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::Coalesce;
use super::future::{CoalesceFuture, Joining};
use crate::outcome::Error;
use crate::ready_call::ReadyCall;

/// Puts a [`Coalesce`] around services: `key` says which requests ask for the same.
///
/// ```
/// use resilience_core::Coalesce;
/// use resilience_core::coalesce::CoalesceLayer;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let flights = Coalesce::<u32, u32, std::io::ErrorKind>::builder("answers").build()?;
/// let service = ServiceBuilder::new()
///     .layer(CoalesceLayer::new(flights.clone(), |question: &u32| *question))
///     .service(service_fn(|question: u32| async move {
///         tokio::task::yield_now().await;
///         Ok(question * 2)
///     }));
/// let (one, two) = tokio::join!(service.clone().oneshot(21), service.oneshot(21));
/// assert_eq!((one, two), (Ok(42), Ok(42)));
/// assert_eq!((flights.statistics().led, flights.statistics().shared), (1, 1));
/// # Ok::<(), resilience_core::ConfigError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CoalesceLayer<K, T, E, F> {
    flights: Coalesce<K, T, E>,
    key: F,
}

impl<K, T, E, F> CoalesceLayer<K, T, E, F> {
    /// A layer by which requests of the same `key` share one call.
    ///
    /// ```
    /// use resilience_core::Coalesce;
    /// use resilience_core::coalesce::CoalesceLayer;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let flights = Coalesce::<usize, usize, std::io::ErrorKind>::builder("lengths").build()?;
    /// let layer = CoalesceLayer::new(flights.clone(), |word: &&str| word.len());
    /// let service = layer.layer(service_fn(|word: &'static str| async move {
    ///     tokio::task::yield_now().await;
    ///     Ok(word.len())
    /// }));
    /// let lengths = tokio::join!(service.clone().oneshot("one"), service.oneshot("two")); // both have key 3
    /// assert_eq!((lengths, flights.statistics().led), ((Ok(3), Ok(3)), 1));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn new<Request>(flights: Coalesce<K, T, E>, key: F) -> Self
    where
        F: Fn(&Request) -> K,
    {
        Self { flights, key }
    }
}

impl<K, T, E, F: Clone> Clone for CoalesceLayer<K, T, E, F> {
    fn clone(&self) -> Self {
        Self { flights: self.flights.clone(), key: self.key.clone() }
    }
}

impl<K, T, E, F> fmt::Debug for CoalesceLayer<K, T, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceLayer").field("flights", &self.flights).finish_non_exhaustive()
    }
}

impl<S, K, T, E, F: Clone> Layer<S> for CoalesceLayer<K, T, E, F> {
    type Service = CoalesceService<S, K, T, E, F>;

    fn layer(&self, inner: S) -> Self::Service {
        CoalesceService { inner, flights: self.flights.clone(), key: self.key.clone() }
    }
}

/// A service whose requests are coalesced: made by [`CoalesceLayer`].
///
/// ```
/// use resilience_core::Coalesce;
/// use resilience_core::coalesce::{CoalesceLayer, CoalesceService};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let flights = Coalesce::<u32, u32, std::io::ErrorKind>::builder("answers").build()?;
/// let layer = CoalesceLayer::new(flights, |question: &u32| *question);
/// let service: CoalesceService<_, u32, u32, _, _> =
///     layer.layer(service_fn(|question: u32| async move { Ok(question * 2) }));
/// assert_eq!(service.oneshot(21).await, Ok(42));
/// # Ok::<(), resilience_core::ConfigError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CoalesceService<S, K, T, E, F> {
    inner: S,
    flights: Coalesce<K, T, E>,
    key: F,
}

impl<S: Clone, K, T, E, F: Clone> Clone for CoalesceService<S, K, T, E, F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), flights: self.flights.clone(), key: self.key.clone() }
    }
}

impl<S: fmt::Debug, K, T, E, F> fmt::Debug for CoalesceService<S, K, T, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceService")
            .field("inner", &self.inner)
            .field("flights", &self.flights)
            .finish_non_exhaustive()
    }
}

impl<S, Request, K, T, E, F> Service<Request> for CoalesceService<S, K, T, E, F>
where
    S: Service<Request, Response = T, Error = E> + Clone,
    K: Eq + Hash,
    T: Clone,
    E: Clone,
    F: Fn(&Request) -> K,
{
    type Response = T;
    type Error = Error<E>;
    type Future = CoalesceResponse<S, Request, K, T, E>;

    /// Always ready: what waits, waits in the call, and only for who leads.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let joining = Joining::new(Arc::clone(&self.flights.0), (self.key)(&request));
        CoalesceResponse { call: CoalesceFuture::new(joining, ReadyCall::new(self.inner.clone(), request)) }
    }
}

pin_project! {
    /// The response of a [`CoalesceService`]. Dropping it hands the lead to a follower, if it leads.
    ///
    /// ```
    /// use resilience_core::Coalesce;
    /// use resilience_core::coalesce::{CoalesceLayer, CoalesceResponse};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # runtime.block_on(async {
    /// let flights = Coalesce::<u32, u32, std::io::ErrorKind>::builder("answers").build()?;
    /// let layer = CoalesceLayer::new(flights.clone(), |question: &u32| *question);
    /// let mut service = layer.layer(service_fn(|question: u32| async move { Ok(question * 2) }));
    /// let response: CoalesceResponse<_, u32, u32, _, _> = service.call(21);
    /// assert_eq!(flights.statistics().led, 0); // nothing happens before it is awaited
    /// assert_eq!(response.await, Ok(42));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "futures do nothing unless awaited"]
    pub struct CoalesceResponse<S, Request, K, T, E>
    where
        S: Service<Request>,
        K: Eq,
        K: Hash,
    {
        #[pin]
        call: CoalesceFuture<K, T, E, ReadyCall<S, Request>>,
    }
}

impl<S: Service<Request>, Request, K: Eq + Hash, T, E> fmt::Debug for CoalesceResponse<S, Request, K, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CoalesceResponse")
    }
}

impl<S, Request, K, T, E> Future for CoalesceResponse<S, Request, K, T, E>
where
    S: Service<Request, Response = T, Error = E>,
    K: Eq + Hash,
    T: Clone,
    E: Clone,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}
