//! The tower face: a [`PipelineLayer`] puts a pipeline around any `tower` service.
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
/// response future is a plain type: no allocation, no box. Each attempt clones the service and, unless told otherwise
/// ([`once`](Self::once), [`copied_by`](Self::copied_by)), the request.
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
pub struct PipelineLayer<J = ByClass, O = Plain, C = Cloned> {
    pipeline: Pipeline,
    judge: J,
    options: O,
    copies: C,
}

/// How the requests of further attempts are made: [`Cloned`], [`Once`], and closures from `&Request` to a copy or `None`.
///
/// ```
/// use resilience_core::tower::{Cloned, CopyRequest, Once};
///
/// assert_eq!(Cloned.copy(&"search"), Some("search"));
/// assert_eq!(Once.copy(&"search"), None);
/// let small = |body: &Vec<u8>| (body.len() <= 1024).then(|| body.clone());
/// assert!(small.can_copy(&vec![0; 10]) && !small.can_copy(&vec![0; 10_000]));
/// ```
pub trait CopyRequest<Request> {
    /// Whether `request` can be sent more than once.
    fn can_copy(&self, request: &Request) -> bool;

    /// A copy of `request`, if there can be one.
    fn copy(&self, request: &Request) -> Option<Request>;
}

/// Each attempt sends a clone of the request.
///
/// ```
/// use resilience_core::tower::{Cloned, CopyRequest};
///
/// assert!(Cloned.can_copy(&7));
/// assert_eq!(Cloned.copy(&7), Some(7));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Cloned;

impl<Request: Clone> CopyRequest<Request> for Cloned {
    #[inline]
    fn can_copy(&self, _: &Request) -> bool {
        true
    }

    #[inline]
    fn copy(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

/// Each request is sent at most once.
///
/// ```
/// use resilience_core::tower::{CopyRequest, Once};
///
/// struct Upload(Box<dyn std::io::Read>); // no clone
///
/// let upload = Upload(Box::new(&b"text"[..]));
/// assert!(!Once.can_copy(&upload) && Once.copy(&upload).is_none());
/// # drop(upload.0);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Once;

impl<Request> CopyRequest<Request> for Once {
    fn can_copy(&self, _: &Request) -> bool {
        false
    }

    fn copy(&self, _: &Request) -> Option<Request> {
        None
    }
}

impl<Request, F: Fn(&Request) -> Option<Request>> CopyRequest<Request> for F {
    fn can_copy(&self, request: &Request) -> bool {
        self(request).is_some()
    }

    fn copy(&self, request: &Request) -> Option<Request> {
        self(request)
    }
}

/// What a request brings with it, beside itself: closures from `&Request` to [`CallOptions`], and [`Plain`].
///
/// ```
/// use resilience_core::tower::{Plain, RequestOptions};
/// use resilience_core::{CallOptions, Idempotency};
///
/// let by_method = |method: &&str| match *method {
///     "POST" => CallOptions::new().not_idempotent(),
///     _ => CallOptions::new(),
/// };
/// assert_eq!(by_method.options(&"POST").idempotency, Idempotency::NotIdempotent);
/// assert_eq!(Plain.options(&"POST").idempotency, Idempotency::Idempotent);
/// ```
pub trait RequestOptions<Request> {
    /// The options of the call that `request` is.
    fn options(&self, request: &Request) -> CallOptions<'static>;
}

/// Requests bring nothing special.
///
/// ```
/// use resilience_core::tower::{Plain, RequestOptions};
///
/// assert_eq!(Plain.options(&"any request").permits, 1);
/// ```
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
    ///
    /// ```
    /// use resilience_core::tower::PipelineLayer;
    /// use resilience_core::{Pipeline, Retry};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let pipeline = Pipeline::builder("search").retry(Retry::default()).build()?;
    /// let length = service_fn(|text: String| async move { Ok::<_, std::io::Error>(text.len()) });
    /// let service = PipelineLayer::new(pipeline).layer(length);
    /// assert_eq!(service.oneshot("four".to_owned()).await?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, judge: ByClass, options: Plain, copies: Cloned }
    }
}

impl<J, O, C> PipelineLayer<J, O, C> {
    /// The same for requests that cannot be cloned, as those with a body that streams: each is sent at most once. What a
    /// policy refused before may be tried again; the rest is as with
    /// [`not_idempotent`](CallOptions::not_idempotent).
    ///
    /// ```
    /// use std::time::Duration;
    /// use resilience_core::tower::PipelineLayer;
    /// use resilience_core::Pipeline;
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// struct Upload(Box<dyn std::io::Read>); // no clone
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let pipeline = Pipeline::builder("uploads").timeout(Duration::from_secs(60)).build()?;
    /// let service = ServiceBuilder::new()
    ///     .layer(PipelineLayer::new(pipeline).once())
    ///     .service(service_fn(|upload: Upload| async move { std::io::read_to_string(upload.0) }));
    /// assert_eq!(service.oneshot(Upload(Box::new(&b"text"[..]))).await?, "text");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn once(self) -> PipelineLayer<J, O, Once> {
        let Self { pipeline, judge, options, copies: _ } = self;
        PipelineLayer { pipeline, judge, options, copies: Once }
    }

    /// The same with `copy` making the requests of further attempts; a request of which it makes none is sent at most
    /// once, as all are with [`once`](Self::once).
    ///
    /// ```
    /// use resilience_core::tower::PipelineLayer;
    /// use resilience_core::{Pipeline, Retry};
    ///
    /// enum Body { Empty, Stream }
    ///
    /// let pipeline = Pipeline::builder("web").retry(Retry::default()).build()?;
    /// let layer = PipelineLayer::new(pipeline).copied_by(|body: &Body| match body {
    ///     Body::Empty => Some(Body::Empty),
    ///     Body::Stream => None,
    /// });
    /// # drop((layer, Body::Stream));
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub fn copied_by<Request, F: Fn(&Request) -> Option<Request>>(self, copy: F) -> PipelineLayer<J, O, F> {
        let Self { pipeline, judge, options, copies: _ } = self;
        PipelineLayer { pipeline, judge, options, copies: copy }
    }

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
    pub fn options<Request, F: Fn(&Request) -> CallOptions<'static>>(self, options: F) -> PipelineLayer<J, F, C> {
        let Self { pipeline, judge, options: _, copies } = self;
        PipelineLayer { pipeline, judge, options, copies }
    }

    /// The same for services whose errors do not: `classify` says what they mean.
    ///
    /// ```
    /// use std::num::ParseIntError;
    /// use resilience_core::tower::PipelineLayer;
    /// use resilience_core::{Category, CircuitBreaker, Class, Pipeline};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let breaker = CircuitBreaker::builder("parser").consecutive_failures(1).build()?;
    /// let pipeline = Pipeline::builder("parser").circuit_breaker(breaker.clone()).build()?;
    /// let layer = PipelineLayer::new(pipeline).classified_by(|_: &ParseIntError| Class::of(Category::Validation));
    /// let service = layer.layer(service_fn(|text: &'static str| async move { text.parse::<u32>() }));
    /// assert!(service.oneshot("no number").await.is_err());
    /// assert_eq!(breaker.statistics().ignored, 1); // the caller's mistake says nothing of the parser
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn classified_by<F>(self, classify: F) -> PipelineLayer<ByError<F>, O, C> {
        let Self { pipeline, judge: _, options, copies } = self;
        PipelineLayer { pipeline, judge: ByError(classify), options, copies }
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
    pub fn judged_by<T, E, F>(self, judge: F) -> PipelineLayer<ByResult<F>, O, C>
    where
        F: Fn(&Result<T, E>) -> Option<Class>,
    {
        let Self { pipeline, judge: _, options, copies } = self;
        PipelineLayer { pipeline, judge: ByResult(judge), options, copies }
    }
}

impl<S, J: Clone, O: Clone, C: Clone> Layer<S> for PipelineLayer<J, O, C> {
    type Service = PipelineService<S, J, O, C>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { pipeline, judge, options, copies } = self.clone();
        PipelineService { inner, pipeline, judge, options, copies }
    }
}

/// A service behind a pipeline: made by [`PipelineLayer`].
///
/// ```
/// use std::future::{Ready, ready};
/// use std::io;
/// use resilience_core::Pipeline;
/// use resilience_core::tower::{PipelineLayer, PipelineService};
/// use tower::util::{ServiceFn, service_fn};
/// use tower::{Layer, ServiceExt};
///
/// type Double = ServiceFn<fn(u32) -> Ready<io::Result<u32>>>;
///
/// struct Backend {
///     double: PipelineService<Double>,
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let layer = PipelineLayer::new(Pipeline::builder("double").build()?);
/// let backend = Backend { double: layer.layer(service_fn(|n| ready(Ok(n * 2)))) };
/// assert_eq!(backend.double.oneshot(21).await?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PipelineService<S, J = ByClass, O = Plain, C = Cloned> {
    inner: S,
    pipeline: Pipeline,
    judge: J,
    options: O,
    copies: C,
}

impl<S, J, O, C> PipelineService<S, J, O, C> {
    /// The service inside.
    ///
    /// ```
    /// use resilience_core::Pipeline;
    /// use resilience_core::tower::PipelineLayer;
    /// use tower::Layer;
    ///
    /// let layer = PipelineLayer::new(Pipeline::builder("search").build()?);
    /// assert_eq!(layer.layer("any service").inner(), &"any service");
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S, J, O, C, Request> Service<Request> for PipelineService<S, J, O, C>
where
    S: Service<Request> + Clone,
    O: RequestOptions<Request>,
    C: CopyRequest<Request> + Clone,
    J: Judge<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, Request, J, C>;

    /// Always ready: what waits, waits in the call, where the pipeline's limits hold.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut options = self.options.options(&request);
        if !self.copies.can_copy(&request) {
            options = options.not_idempotent();
        }
        let operation =
            ServiceCall { service: self.inner.clone(), request: Some(request), copies: self.copies.clone() };
        ResponseFuture { call: CallFuture::new(self.pipeline.plan(), options, operation, self.judge.clone()) }
    }
}

pin_project! {
    /// The response of a [`PipelineService`]. Dropping it cancels the call and gives every permit back.
    ///
    /// ```
    /// use std::pin::pin;
    /// use std::task::{Context, Waker};
    /// use resilience_core::tower::PipelineLayer;
    /// use resilience_core::{Bulkhead, Pipeline};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// let bulkhead = Bulkhead::builder("search").max_concurrent(1).build()?;
    /// let layer = PipelineLayer::new(Pipeline::builder("search").bulkhead(bulkhead.clone()).build()?);
    /// let mut service = layer.layer(service_fn(|()| std::future::pending::<std::io::Result<()>>()));
    /// {
    ///     let mut response = pin!(service.call(()));
    ///     assert!(response.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    ///     assert!(bulkhead.try_acquire().is_err());
    /// }
    /// assert!(bulkhead.try_acquire().is_ok()); // it was dropped, and what it held is free
    /// # Ok::<(), resilience_core::ConfigError>(())
    /// ```
    #[must_use = "futures do nothing unless awaited"]
    pub struct ResponseFuture<S, Request, J, C = Cloned>
    where
        S: Service<Request>,
    {
        #[pin]
        call: CallFuture<'static, Arc<Plan>, ServiceCall<S, Request, C>, ReadyCall<S, Request>, J>,
    }
}

impl<S: Service<Request>, Request, J, C> fmt::Debug for ResponseFuture<S, Request, J, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

impl<S, Request, J, C> Future for ResponseFuture<S, Request, J, C>
where
    S: Service<Request> + Clone,
    C: CopyRequest<Request>,
    J: Judge<S::Response, S::Error>,
{
    type Output = Result<S::Response, Error<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}

/// Starts one attempt: a clone of the service, made ready and called with a copy of the request, or with the request itself
/// when there can be no copy: then there is only one.
struct ServiceCall<S, Request, C> {
    service: S,
    request: Option<Request>,
    copies: C,
}

impl<S, Request, C> Operation for ServiceCall<S, Request, C>
where
    S: Service<Request> + Clone,
    C: CopyRequest<Request>,
{
    type Attempt = ReadyCall<S, Request>;

    fn start(&mut self, _: Attempt) -> Self::Attempt {
        let copy = self.request.as_ref().and_then(|request| self.copies.copy(request));
        let Some(request) = copy.or_else(|| self.request.take()) else {
            unreachable!("what cannot be copied is not idempotent, and so starts once")
        };
        ReadyCall::new(self.service.clone(), request)
    }
}
