//! The tower face: a [`PipelineLayer`] puts a pipeline around any `tower` service whose requests can be cloned.
//! Always ready and holding nothing between `poll_ready` and `call`: the inner service's readiness is part of each attempt,
//! so limits, timeouts and breakers cover it. It decides nothing; the pipeline's state machine does.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::class::Class;
use crate::outcome::Error;
use crate::pipeline::{Attempt, ByClass, ByError, ByResult, CallFuture, CallOptions, Judge, Operation, Pipeline, Plan};
use crate::ready_call::ReadyCall;

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
pub struct PipelineLayer<J = ByClass, O = Plain> {
    pipeline: Pipeline,
    judge: J,
    options: O,
}

/// What a request brings with it, beside itself: closures from `&Request` to [`CallOptions`], and [`Plain`].
pub trait RequestOptions<Request> {
    /// The options of the call that `request` is.
    fn options(&self, request: &Request) -> CallOptions<'static>;
}

/// Requests bring nothing special.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl<Request> RequestOptions<Request> for Plain {
    #[inline]
    fn options(&self, _: &Request) -> CallOptions<'static> {
        CallOptions::new()
    }
}

impl<Request, F: Fn(&Request) -> CallOptions<'static>> RequestOptions<Request> for F {
    fn options(&self, request: &Request) -> CallOptions<'static> {
        self(request)
    }
}

impl PipelineLayer {
    /// A layer for services whose errors implement [`Classify`](crate::Classify).
    pub const fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, judge: ByClass, options: Plain }
    }
}

impl<J, O> PipelineLayer<J, O> {
    /// The same with what each request brings with it: a key, a deadline, its permits, whether it may run twice.
    ///
    /// ```
    /// use resilience_core::tower::PipelineLayer;
    /// use resilience_core::{CallOptions, Pipeline, Retry};
    ///
    /// #[derive(Clone)]
    /// struct Request { method: &'static str }
    ///
    /// let pipeline = Pipeline::builder("web").retry(Retry::default()).build()?;
    /// let layer = PipelineLayer::new(pipeline).options(|request: &Request| match request.method {
    ///     "POST" | "PATCH" => CallOptions::new().not_idempotent(),
    ///     _ => CallOptions::new(),
    /// });
    /// # drop(layer);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn options<Request, F: Fn(&Request) -> CallOptions<'static>>(self, options: F) -> PipelineLayer<J, F> {
        PipelineLayer { pipeline: self.pipeline, judge: self.judge, options }
    }

    /// The same for services whose errors do not: `classify` says what they mean.
    pub fn classified_by<C>(self, classify: C) -> PipelineLayer<ByError<C>, O> {
        PipelineLayer { pipeline: self.pipeline, judge: ByError(classify), options: self.options }
    }

    /// The same for services whose responses can be failures as well, as a status 503 is: `judge` says what a result
    /// means, `None` that all is well. The caller gets the last response or error as it is.
    ///
    /// ```
    /// use resilience_core::tower::PipelineLayer;
    /// use resilience_core::{Category, Class, Pipeline, Retry};
    ///
    /// let pipeline = Pipeline::builder("web").retry(Retry::default()).build()?;
    /// let layer = PipelineLayer::new(pipeline).judged_by(|answer: &std::io::Result<u16>| match answer {
    ///     Ok(..500) => None,
    ///     _ => Some(Class::of(Category::Network)),
    /// });
    /// # drop(layer);
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn judged_by<T, E, F>(self, judge: F) -> PipelineLayer<ByResult<F>, O>
    where
        F: Fn(&Result<T, E>) -> Option<Class>,
    {
        PipelineLayer { pipeline: self.pipeline, judge: ByResult(judge), options: self.options }
    }
}

impl<S, J: Clone, O: Clone> Layer<S> for PipelineLayer<J, O> {
    type Service = PipelineService<S, J, O>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { pipeline, judge, options } = self.clone();
        PipelineService { inner, pipeline, judge, options }
    }
}

/// A service behind a pipeline: made by [`PipelineLayer`].
#[derive(Debug, Clone)]
pub struct PipelineService<S, J = ByClass, O = Plain> {
    inner: S,
    pipeline: Pipeline,
    judge: J,
    options: O,
}

impl<S, J, O> PipelineService<S, J, O> {
    /// The service inside.
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S, J, O, Request> Service<Request> for PipelineService<S, J, O>
where
    S: Service<Request> + Clone,
    Request: Clone,
    O: RequestOptions<Request>,
    J: Judge<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, Request, J>;

    /// Always ready: what waits, waits in the call, where the pipeline's limits hold.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let options = self.options.options(&request);
        let operation = ServiceCall { service: self.inner.clone(), request };
        ResponseFuture { call: CallFuture::new(self.pipeline.plan(), options, operation, self.judge.clone()) }
    }
}

pin_project! {
    /// The response of a [`PipelineService`]. Dropping it cancels the call and gives every permit back.
    #[must_use = "futures do nothing unless awaited"]
    pub struct ResponseFuture<S, Request, J>
    where
        S: Service<Request>,
    {
        #[pin]
        call: CallFuture<'static, Arc<Plan>, ServiceCall<S, Request>, ReadyCall<S, Request>, J>,
    }
}

impl<S: Service<Request>, Request, J> fmt::Debug for ResponseFuture<S, Request, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

impl<S, Request, J> Future for ResponseFuture<S, Request, J>
where
    S: Service<Request> + Clone,
    Request: Clone,
    J: Judge<S::Response, S::Error>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
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
        ReadyCall::new(self.service.clone(), self.request.clone())
    }
}
