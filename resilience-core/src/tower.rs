//! The tower face: a [`PipelineLayer`] puts a pipeline around any `tower` service whose requests can be cloned.
//! Always ready and holding nothing between `poll_ready` and `call`: the inner service's readiness is part of each attempt,
//! so limits, timeouts and breakers cover it. It decides nothing; the pipeline's state machine does.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::class::{Class, Classify};
use crate::outcome::Error;
use crate::pipeline::{Attempt, CallFuture, CallOptions, Operation, Pipeline, Plan};

/// Says what a service's errors mean.
pub trait ErrorClassifier<E>: Clone {
    /// What `error` means.
    fn classify(&self, error: &E) -> Class;
}

/// The errors say themselves what they mean, by [`Classify`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ByError;

impl<E: Classify> ErrorClassifier<E> for ByError {
    fn classify(&self, error: &E) -> Class {
        error.class()
    }
}

impl<E, F: Fn(&E) -> Class + Clone> ErrorClassifier<E> for F {
    fn classify(&self, error: &E) -> Class {
        self(error)
    }
}

/// Puts a [`Pipeline`] around services.
///
/// All services of one layer share the pipeline's policies, and so does everything else that calls through it. The
/// response future is a plain type: no allocation, no box. Each attempt clones the request and the service.
///
/// ```
/// use resilience_core::tower::PipelineLayer;
/// use resilience_core::{CircuitBreaker, Pipeline};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let breaker = CircuitBreaker::builder("search").build()?;
/// let pipeline = Pipeline::builder("search").circuit_breaker(breaker.clone()).build()?;
/// let service = ServiceBuilder::new()
///     .layer(PipelineLayer::new(pipeline))
///     .service(service_fn(|question: u32| async move { Ok::<_, std::io::Error>(question * 2) }));
/// assert_eq!(service.oneshot(21).await?, 42);
/// assert_eq!(breaker.statistics().successes, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PipelineLayer<C = ByError> {
    pipeline: Pipeline,
    classify: C,
}

impl PipelineLayer {
    /// A layer for services whose errors implement [`Classify`].
    pub const fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, classify: ByError }
    }

    /// The same for services whose errors do not: `classify` says what they mean.
    pub fn classified_by<C>(self, classify: C) -> PipelineLayer<C> {
        PipelineLayer { pipeline: self.pipeline, classify }
    }
}

impl<S, C: Clone> Layer<S> for PipelineLayer<C> {
    type Service = PipelineService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        PipelineService { inner, pipeline: self.pipeline.clone(), classify: self.classify.clone() }
    }
}

/// A service behind a pipeline: made by [`PipelineLayer`].
#[derive(Debug, Clone)]
pub struct PipelineService<S, C = ByError> {
    inner: S,
    pipeline: Pipeline,
    classify: C,
}

impl<S, C> PipelineService<S, C> {
    /// The service inside.
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S, C, Request> Service<Request> for PipelineService<S, C>
where
    S: Service<Request> + Clone,
    Request: Clone,
    C: ErrorClassifier<S::Error>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, Request, C>;

    /// Always ready: what waits, waits in the call, where the pipeline's limits hold.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let operation = ServiceCall { service: self.inner.clone(), request };
        let plan = self.pipeline.plan();
        ResponseFuture { call: CallFuture::new(plan, CallOptions::new(), operation, self.classify.clone()) }
    }
}

pin_project! {
    /// The response of a [`PipelineService`]. Dropping it cancels the call and gives every permit back.
    #[must_use = "futures do nothing unless awaited"]
    pub struct ResponseFuture<S, Request, C>
    where
        S: Service<Request>,
    {
        #[pin]
        call: CallFuture<Arc<Plan>, ServiceCall<S, Request>, ReadyCall<S, Request>, C>,
    }
}

impl<S: Service<Request>, Request, C> fmt::Debug for ResponseFuture<S, Request, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

impl<S, Request, C> Future for ResponseFuture<S, Request, C>
where
    S: Service<Request> + Clone,
    Request: Clone,
    C: ErrorClassifier<S::Error>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll_classified(cx, |classify, error| classify.classify(error))
    }
}

/// Starts one attempt: a clone of the service, made ready and called with a clone of the request.
struct ServiceCall<S, Request> {
    service: S,
    request: Request,
}

impl<S, Request> Operation for ServiceCall<S, Request>
where
    S: Service<Request> + Clone,
    Request: Clone,
{
    type Attempt = ReadyCall<S, Request>;

    fn start(&mut self, _: Attempt) -> Self::Attempt {
        let request = Some(self.request.clone());
        ReadyCall { state: CallState::NotReady { service: self.service.clone(), request } }
    }
}

pin_project! {
    /// Waits until the service is ready, then calls it.
    struct ReadyCall<S, Request>
    where
        S: Service<Request>,
    {
        #[pin]
        state: CallState<S, Request, S::Future>,
    }
}

pin_project! {
    #[project = CallStateProjection]
    enum CallState<S, Request, F> {
        NotReady { service: S, request: Option<Request> },
        Called { #[pin] future: F },
    }
}

impl<S: Service<Request>, Request> Future for ReadyCall<S, Request> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                CallStateProjection::Called { future } => return future.poll(cx),
                CallStateProjection::NotReady { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        unreachable!("the request is taken once, when the state changes to called")
                    };
                    let future = service.call(request);
                    this.state.set(CallState::Called { future });
                }
            }
        }
    }
}
